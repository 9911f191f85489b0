from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import tiny_world as world
import torch

from mirror_analysis import parallel
from mirror_analysis.cli import main
from mirror_analysis.models.reference.family import save
from mirror_analysis.study import comparing, parts, running


class Shown(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def fault(self) -> str:
        """The one line that says what is wrong."""
        assert self.code == 1, (self.code, self.out, self.err)
        lines = self.err.splitlines()
        assert [line for line in lines if line.startswith("error: ")] == lines[-1:], self.err
        assert "Traceback" not in self.err
        return lines[-1].removeprefix("error: ")


@pytest.fixture
def mirror(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Shown]:
    """Runs `mirror` in this process."""
    monkeypatch.setenv("TERMINAL_WIDTH", "200")

    def run(*words: object) -> Shown:
        monkeypatch.setattr(sys, "argv", ["mirror", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        shown = capsys.readouterr()
        return Shown(code, shown.out, shown.err)

    return run


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Episodes, checkpoints, and definitions in include/; only read by tests."""
    folder = tmp_path_factory.mktemp("place")
    small = world.definition(
        measures={"names": ["linear_cka"], "recall": [1]}, episodes={"test_failures": 0}
    )
    world.include(folder / "include", small)
    world.written(folder / "episodes", world.episodes(fit=6, test=6, test_failures=0))
    for made in (world.observation(0, "watcher"), world.execution(0, "actor")):
        save(made, folder / f"{made.name}.safetensors", provenance={})
    broken = world.observation(0, "broken")
    with torch.no_grad():
        broken.module.trunk["conv2"][0].bias[3] = float("nan")
    save(broken, folder / "broken.safetensors", provenance={})
    (folder / "file").write_text("no folder")
    return folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny settings, no processes, no simulator, no drawing."""
    settings = world.definition(measures={"names": ["linear_cka"], "recall": [1]})
    monkeypatch.setattr(comparing.catalog, "quick", lambda study: settings)
    monkeypatch.setattr(parts, "processes", lambda workers: parallel.serial())
    monkeypatch.setattr(
        running,
        "collect_episodes",
        lambda section, folder, told: world.episodes(fit=6, test=6, test_failures=0),
    )
    monkeypatch.setattr("mirror_analysis.cli.making.render_report", _page)


def _page(result: object, *, out: Path) -> Path:
    (out / "report.html").write_text("<html>")
    return out / "report.html"
