from __future__ import annotations

from collections.abc import Callable

import pytest
import tiny_world as world
from small_study import material, run

from mirror_analysis import parallel
from mirror_analysis.results import Result
from mirror_analysis.study import parts


@pytest.fixture(autouse=True)
def in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting processes takes longer than all that is computed here."""
    if "sim" not in request.keywords:
        monkeypatch.setattr(parts, "processes", lambda workers: parallel.serial())


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[type], Result]:
    """The result of a study of a planted world."""

    def study(kind: type) -> Result:
        definition = world.definition(
            alignment={"width": 32, "steps": 40, "patience": 5},
            measures={"names": ["linear_cka"], "recall": [1], "folds": 8},
            episodes={"test_failures": 0},
        )
        chosen = world.episodes(fit=20, test=12, fit_failures=0, test_failures=0)
        out = tmp_path_factory.mktemp("planted")
        made = material(chosen, out / "features", kind=kind)
        return run(definition, made, out, conditions=["nuisance"])

    return study
