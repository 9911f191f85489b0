from __future__ import annotations

import pytest

from mirror_analysis import parallel
from mirror_analysis.study.training_effects import measuring, runs


@pytest.fixture(autouse=True, scope="package")
def in_this_process():
    """Starting processes takes longer than all that is computed here."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (measuring, runs):
            patch.setattr(module, "processes", lambda workers: parallel.serial())
        yield
