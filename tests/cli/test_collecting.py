from pathlib import Path

import pytest

from mirror_analysis.cli.collecting import collected
from mirror_analysis.episodes import Episodes
from mirror_analysis.episodes.variants import VARIANTS
from mirror_analysis.errors import DefinitionError, UnknownNameError

GIVEN = {
    "tasks": ("drawer-open",), "per_task": 2, "failures": 1, "seed": 0, "split": "test",
    "frames": 4, "size": None, "policies": (), "camera": "", "horizon": None, "trust": (),
    "workers": 1, "report": lambda *_: None,
}  # fmt: skip


def test_a_variant_is_passed_on_by_its_name(tmp_path: Path, monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(
        "mirror_analysis.episodes.metaworld.collect",
        lambda out, **settings: calls.append((out, settings)) or Episodes([]),
    )
    collected("metaworld", tmp_path, **GIVEN)
    collected("metaworld", tmp_path, **GIVEN, variant="camera-side")
    assert [settings["variant"] for _, settings in calls] == [None, VARIANTS["camera-side"]]
    assert calls[0][0] == tmp_path
    assert {k: v for k, v in calls[1][1].items() if k not in ("variant", "progress")} == {
        "tasks": ("drawer-open",), "successes": 2, "failures": 1, "seed": 0, "split": "test",
        "frames": 4, "size": 64, "workers": 1,
    }  # fmt: skip


def test_variants_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown variant 'table-drak'; did you mean 'table"):
        collected("metaworld", tmp_path, **GIVEN, variant="table-drak")
    words = "--variant table-dark belongs to metaworld, not to gym:HalfCheetah-v5; leave it out"
    with pytest.raises(DefinitionError, match=words):
        collected("gym:HalfCheetah-v5", tmp_path, **GIVEN, variant="table-dark")
