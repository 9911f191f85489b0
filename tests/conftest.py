"""Shape and type checks on every call in the package, in the test run only; one thread a worker."""

import os
from pathlib import Path

import pytest

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")

from jaxtyping import install_import_hook  # noqa: E402

# Modules are checked as they are loaded, so this has to stand before any test module is read.
install_import_hook("mirror_analysis", "checking.check")


@pytest.fixture(scope="session")
def shared():
    """The folder of real third-party files that lies beside some checkouts."""
    folder = Path(os.environ.get("MIRROR_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "weights").is_dir():
        pytest.skip(f"the real third-party files are not at {folder}")
    return folder
