"""Curves are means over seeds of what the records of the runs hold."""

import json

import pytest
import small_training as small

from mirror_analysis.results import select
from mirror_analysis.study.training_effects.curves import curves
from mirror_analysis.study.training_effects.runs import RECORD, runs

DEFINITION = small.two()


@pytest.fixture
def out(tmp_path):
    small.trained(DEFINITION, tmp_path)
    return tmp_path


def kept(out, name):
    return json.loads((out / "runs" / name / RECORD).read_text())["curve"]


def test_means_and_ends_over_seeds(out):
    scores = curves(runs(DEFINITION), out, DEFINITION, episodes=16)
    assert len(scores) == 3 * 3 * 50
    found = select(scores, comparison="shuffled", measure="alignment_loss")
    assert [s.parameters["update"] for s in found] == list(range(10, 501, 10))
    first, second = (kept(out, f"shuffled-s{seed}")["alignment"] for seed in (0, 1))
    for s, a, b in zip(found, first, second, strict=True):
        assert s.value == pytest.approx((a + b) / 2)
        assert (s.parameters["least"], s.parameters["largest"]) == (min(a, b), max(a, b))
        assert (s.role, s.n, s.split, s.stage, s.seed) == ("control", 16, "fit", "training", None)


def test_a_loss_that_was_not_kept_has_no_curve(out):
    for run in runs(DEFINITION):
        file = run.folder(out) / RECORD
        table = json.loads(file.read_text())
        del table["curve"]["execution"]
        table["curve"]["observation"] = table["curve"]["observation"][: 40 + run.seed]
        file.write_text(json.dumps(table))
    scores = curves(runs(DEFINITION), out, DEFINITION, episodes=16)
    assert {s.measure for s in scores} == {"observation_loss", "alignment_loss"}
    assert len(select(scores, comparison="shuffled", measure="observation_loss")) == 40
