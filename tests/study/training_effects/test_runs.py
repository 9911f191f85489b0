"""Runs are trained once, each with what its condition says, and never mistaken for another."""

import msgspec
import pytest
import small_training as small

from mirror_analysis.errors import MissingFileError, StoreError
from mirror_analysis.study.training_effects.runs import (
    FILES,
    RECORD,
    Record,
    Run,
    curve_of,
    runs,
    train_all,
)

DEFINITION = small.two()
DEMONSTRATIONS = small.given().demonstrations


def train(definition, out, how=small.train_randomly, told=None):
    told = [] if told is None else told
    return train_all(
        definition, DEMONSTRATIONS, out, train=how, workers=1, device="cpu",
        progress=lambda *steps: told.append(steps),
    )  # fmt: skip


def refuse(job):
    pytest.fail(f"trained again: {job!r}")


@pytest.fixture
def done(tmp_path):
    train(DEFINITION, tmp_path)
    return tmp_path


def test_every_condition_of_a_seed_stands_together():
    assert [run.name for run in runs(DEFINITION)] == [
        "independent-s0", "instruction-s0", "shuffled-s0",
        "independent-s1", "instruction-s1", "shuffled-s1",
    ]  # fmt: skip


def test_each_is_trained_as_its_condition_says(tmp_path):
    seen = {}

    def note(job):
        seen[job.run.name] = job
        return small.train_randomly(job)

    told = []
    assert train(DEFINITION, tmp_path, note, told) == runs(DEFINITION)
    assert told[0] == (0, 6) and told[-1] == (6, 6)
    assert {j.settings.seed for j in seen.values()} == {0, 1}
    job = seen["shuffled-s1"]
    assert repr(job) == "training shuffled-s1" and job.folder == tmp_path / "runs" / "shuffled-s1"
    assert (job.settings.training.target, job.settings.training.align_weight) == ("shuffled", 0.5)
    assert seen["independent-s0"].settings.training.align_weight == 0
    assert {j.settings.episodes for j in seen.values()} == {DEMONSTRATIONS.fingerprint}
    kept = msgspec.json.decode((job.folder / RECORD).read_bytes(), type=Record)
    assert kept.settings == job.settings
    assert curve_of(Run("shuffled", 1), tmp_path)["alignment"] == [2.0, 1.0]


def test_what_is_there_is_not_trained_again(done):
    before = {f: f.stat().st_mtime_ns for f in done.rglob("*") if f.is_file()}
    told = []
    train(DEFINITION, done, refuse, told)
    assert told == [(6, 6)]
    assert {f: f.stat().st_mtime_ns for f in done.rglob("*") if f.is_file()} == before


@pytest.mark.parametrize("gone", [*FILES, RECORD, "cut"])
def test_what_is_not_whole_is_trained_again(done, gone):
    folder = done / "runs" / "instruction-s1"
    if gone == "cut":
        (folder / RECORD).write_bytes((folder / RECORD).read_bytes()[:50])
    else:
        (folder / gone).unlink()
    again = []

    def note(job):
        again.append(job.run.name)
        return small.train_randomly(job)

    train(DEFINITION, done, note)
    assert again == ["instruction-s1"] and all(
        (folder / name).is_file() for name in (*FILES, RECORD)
    )


def test_an_interrupted_study_goes_on(tmp_path):
    def stop(job):
        if job.run.name == "independent-s1":
            raise KeyboardInterrupt
        return small.train_randomly(job)

    with pytest.raises(KeyboardInterrupt):
        train(DEFINITION, tmp_path, stop)
    told = []
    train(DEFINITION, tmp_path, told=told)
    assert told[0] == (3, 6) and told[-1] == (6, 6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {"epochs": 3}}, r"was trained with epochs 2 instead of 3; needed as the stu"),
        ({"models": {"x_camera": "C"}}, r"x_camera A instead of C; .*another --out or remove"),
        ({"training": {"temperature": 0.2, "width": 8}}, r"temperature 0.1 instead of 0.2, width"),
    ],
)
def test_a_run_of_other_settings_is_never_taken(done, changes, message):
    with pytest.raises(StoreError, match=message):
        train(small.two(**changes), done, refuse)


def test_training_that_leaves_no_model_is_told(tmp_path):
    with pytest.raises(MissingFileError, match=r"independent-s0 left no observation\.safetensors"):
        train(DEFINITION, tmp_path, lambda job: {})
    assert not (tmp_path / "runs" / "independent-s0" / RECORD).exists()
