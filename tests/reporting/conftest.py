from pathlib import Path

import pytest
import synthetic_result

from mirror_analysis.reporting import render_report
from mirror_analysis.results import Result


@pytest.fixture(scope="session")
def result() -> Result:
    return synthetic_result.full_result()


@pytest.fixture(scope="session")
def report(result: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a full report; drawn once because drawing is slow."""
    return render_report(result, out=tmp_path_factory.mktemp("report")).parent
