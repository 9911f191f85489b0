"""A study from definition to result: complete, resumable, and right where the truth is known."""

import os
import shutil
import subprocess
import sys

import msgspec
import numpy as np
import pytest
import small_study
import tiny_world as world

from mirror_analysis import catalog
from mirror_analysis.errors import (
    ChecksumError,
    DeviceError,
    MissingFileError,
    UnknownNameError,
)
from mirror_analysis.results import load_result, select
from mirror_analysis.study import run_study, running
from mirror_analysis.study.contrasts import PAIR, contrasts

CONTRASTS = contrasts()
DEFINITION = world.definition(measures={"names": ["linear_cka"], "recall": [1]})


@pytest.fixture(scope="module")
def few():
    return world.episodes(fit=8, test=6, fit_failures=3, test_failures=4)


@pytest.fixture(scope="module")
def done(few, tmp_path_factory):
    """Folder and result of the tiny study; made once, and left alone by the tests."""
    from mirror_analysis import parallel
    from mirror_analysis.study import parts

    out = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "processes", lambda workers: parallel.serial())
        result = small_study.run(DEFINITION, small_study.material(few, out / "features"), out)
    return out, result


@pytest.fixture
def copied(done, tmp_path, few):
    """A copy of it that may be damaged, and its material."""
    out = tmp_path / "out"
    shutil.copytree(done[0], out)
    return out, small_study.material(few, out / "features")


def times(folder):
    return {file.name: file.stat().st_mtime_ns for file in (folder / "parts").iterdir()}


# -- complete -----------------------------------------------------------------------------------


def test_the_result_on_disk_is_the_result(done):
    out, result = done
    assert load_result(out) == result
    assert {path.name for path in out.iterdir()} == {"features", "parts", "result.json"}
    assert all(file.suffix == ".part" for file in (out / "parts").iterdir())


@pytest.mark.parametrize("condition", ["plain", "nuisance"])
@pytest.mark.parametrize("contrast", CONTRASTS, ids=lambda contrast: contrast.key)
def test_every_contrast_is_there_in_every_measure(done, contrast, condition):
    found = select(done[1].scores, comparison=contrast.key, condition=condition, seed=None)
    found = [s for s in found if s.role != "difference"]
    measured = {(s.measure, s.within) for s in found}
    expected = {("recall_at_1", ""), ("recall_at_1", "task"), ("infonce", "")}
    if not contrast.shuffle:
        expected |= {("linear_cka", ""), ("linear_cka", "task")}
    assert measured == expected
    for score in found:
        assert score.role == contrast.role
        assert score.undefined or (score.interval and score.null and score.p_value)
        # Nothing is left of the task inside a task.
        gone = "task identity" in contrast.key and score.within and score.stage == "frozen"
        assert (score.value is None) == bool(gone), score.undefined


def measured(scores):
    """(measure, condition, within) -> contrast -> averaged value."""
    table = {}
    for s in scores:
        if s.role != "difference" and s.seed is None:
            place = table.setdefault((s.measure, s.condition, s.within), {})
            place[s.parameters["comparison"]] = s.value
    return table


def test_differences_are_value_less_control(done):
    scores = done[1].scores
    values = measured(scores)
    differences = select(scores, role="difference")
    kinds = set()
    for d in differences:
        own, against = d.parameters["comparison"], d.parameters["against"]
        outcome = "success-failure" in d.condition
        places = ["success", "failure"] if outcome else [d.condition]
        sides = [
            values[d.measure, d.condition.replace("success-failure", place), d.within]
            for place in places
        ]
        if against == "failure":
            expected = sides[0][own] - sides[1][own]
        elif outcome:
            gaps = [side[own] - side[against] for side in sides]
            expected = gaps[0] - gaps[1]
        else:
            expected = sides[0][own] - sides[0][d.parameters.get("best", against)]
        assert d.value == pytest.approx(expected), d
        kinds.add((against, d.condition))
    assert len(kinds) > 30
    won, lost = (select(scores, condition=outcome)[0].n for outcome in ("success", "failure"))
    assert (won, lost) == (12, 8)


def test_the_best_control_is_the_largest(done):
    scores = done[1].scores
    values = measured(scores)
    keys = [contrast.key for contrast in CONTRASTS if contrast.role == "control"]
    found = select(scores, role="difference", against="best control")
    assert len(found) == 2 * 5
    for d in found:
        place = values[d.measure, d.condition, d.within]
        assert place[d.parameters["best"]] == max(place[key] for key in keys)
        assert d.interval.low <= d.value <= d.interval.high + 1e-9


def test_findings_say_the_numbers_of_the_scores(done):
    result = done[1]
    assert [finding.name for finding in result.findings] == [
        "excess-recall", "excess-cka-within-task", "beyond-task", "excess-recall-plain",
        "success-against-failure",
    ]  # fmt: skip
    for finding in result.findings:
        score = finding.score
        assert score in result.scores
        assert f"{score.value:+.3f}" in finding.statement
        assert f"[{score.interval.low:+.3f}, {score.interval.high:+.3f}]" in finding.statement
        low, high = score.interval.low > 0, score.interval.high < 0
        assert finding.holds is (True if low else False if high else None)
    (pair,) = select(result.scores, role="pair", measure="recall_at_1", condition="nuisance",
                     within="", seed=None)  # fmt: skip
    assert f"{pair.value:.2f}" in result.findings[0].statement


def test_provenance_names_everything_that_went_in(done, few):
    result = done[1]
    made = result.provenance
    assert made.inputs["watcher-s0"] == world.observation().weights_sha256
    assert made.inputs["actor-s0"] == world.execution().weights_sha256
    assert made.inputs["episodes"] == few.fingerprint
    assert set(made.seeds) == {"training", "alignment", "fit episodes", "test episodes", "nuisance"}
    assert made.seeds["nuisance"] == [7] and made.device == "cpu" and made.seconds > 0
    assert result.definition == msgspec.to_builtins(DEFINITION)
    assert result.models == {
        "x": "observation model (watcher)", "y": "execution model (actor)"
    }  # fmt: skip
    assert result.data["fit successes"] == 16 and result.data["test failures"] == 8
    assert result.data["tasks"] == ["pull", "push"] and result.data["instructions"] == 4
    notes = " ".join(result.notes)
    assert "vision of actor-s0 has seen pixels only" in notes
    assert "one checkpoint of each model" in notes and "same for both" not in notes
    for contrast in CONTRASTS:
        assert contrast.role == "pair" or contrast.key in notes


# -- again --------------------------------------------------------------------------------------


def test_a_second_run_only_reads(copied, done, monkeypatch):
    out, material = copied
    before = times(out), (out / "result.json").stat().st_mtime_ns
    monkeypatch.setattr(running, "compute", lambda *a, **k: pytest.fail("computed again"))
    assert small_study.run(DEFINITION, material, out) == done[1]
    assert (times(out), (out / "result.json").stat().st_mtime_ns) == before


@pytest.mark.parametrize("damage", ["cut", "\xff\xfe", "{}"])
def test_a_damaged_result_is_made_again_from_its_parts(copied, done, damage):
    out, material = copied
    before = times(out)
    text = (out / "result.json").read_bytes()
    broken = text[:500] if damage == "cut" else b'{"study": "' + damage.encode("latin1") + b'"}'
    (out / "result.json").write_bytes(broken)
    result = small_study.run(DEFINITION, material, out)
    assert result.scores == done[1].scores
    assert load_result(out) == result
    assert times(out) == before


def test_an_interrupted_run_goes_on_with_what_is_missing(copied, done):
    out, material = copied
    files = sorted((out / "parts").iterdir())
    gone, damaged = files[::3], files[1]
    for file in gone:
        file.unlink()
    damaged.write_bytes(damaged.read_bytes()[:100])
    (out / "result.json").unlink()
    (out / "parts" / "half.partial").write_bytes(b"left behind by a kill")
    before = times(out)
    told = []
    result = small_study.run(
        DEFINITION, material, out, progress=lambda stage, *steps: told.append((stage, *steps))
    )
    assert result.scores == done[1].scores
    after = times(out)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {file.name for file in (*gone, damaged)}
    measured = [steps for stage, *steps in told if stage == "measuring, by part"]
    assert measured[0] == [len(files) - len(gone) - 1, len(files)]
    assert measured[-1] == [len(files), len(files)]


def test_other_settings_are_another_result_and_share_parts(copied, done):
    out, material = copied
    before = times(out)
    changed = msgspec.structs.replace(DEFINITION, title="Other words")
    result = small_study.run(changed, material, out)
    assert result.title == "Other words" and result.scores == done[1].scores
    assert times(out) == before


# -- worlds whose truth is known ----------------------------------------------------------------


class Learned(small_study.Planted):
    """Training taught both sides of it the same, and nothing else knows it."""


class Unlearned(small_study.Planted):
    """Both sides agree on what anything sees: a high score without learning."""

    trained = staticmethod(lambda latent, seen, noise: seen)
    untrained = staticmethod(lambda latent, seen, noise: seen)
    pixels = staticmethod(lambda latent, seen, noise: seen)


class Unrelated(small_study.Planted):
    """Nothing agrees with anything."""

    trained = staticmethod(lambda latent, seen, noise: noise)


def headline(result):
    return {finding.name: finding for finding in result.findings}


def recall(result, contrast):
    (score,) = [
        s for s in select(result.scores, comparison=contrast, condition="nuisance",
                          measure="recall_at_1", within="", seed=None)
        if s.role != "difference"
    ]  # fmt: skip
    return score.value


def test_what_was_learned_is_found(planted):
    result = planted(Learned)
    found = headline(result)
    assert recall(result, PAIR) > 0.9 and recall(result, "untrained-untrained") < 0.4
    for name in ("excess-recall", "excess-cka-within-task", "beyond-task"):
        assert found[name].holds is True, found[name].statement


def test_a_high_score_without_learning_is_seen_through(planted):
    result = planted(Unlearned)
    found = headline(result)
    assert recall(result, PAIR) > 0.9 and recall(result, "untrained-untrained") > 0.9
    for name in ("excess-recall", "excess-cka-within-task"):
        assert found[name].holds is not True, found[name].statement
    (pair,) = select(result.scores, role="pair", measure="recall_at_1", condition="nuisance",
                     within="", seed=None)  # fmt: skip
    assert pair.p_value == 0.05  # the usual test alone would have told nothing of this


def test_nothing_is_found_where_there_is_nothing(planted):
    result = planted(Unrelated)
    for finding in result.findings:
        assert finding.holds is not True, finding.statement


# -- from the name of a study -------------------------------------------------------------------


@pytest.fixture
def include(tmp_path):
    return world.include(tmp_path / "include")


@pytest.fixture
def collected(monkeypatch):
    """Episodes of the tiny world in place of the simulator's."""
    monkeypatch.setattr(
        running, "collect_episodes",
        lambda section, folder, told: world.episodes(fit=8, test=6, test_failures=0),
    )  # fmt: skip


def test_a_study_runs_by_name_with_its_quick_settings(include, tmp_path, collected):
    table = msgspec.to_builtins(DEFINITION)
    table["quick"] = {"episodes": {"test_failures": 0}, "measures": {"names": ["linear_cka"]}}
    lines = world.toml({k: v for k, v in table.items() if k != "quick"})
    lines += "[quick.episodes]\ntest_failures = 0\n[quick.measures]\nnames = ['linear_cka']\n"
    (include / "reports" / "tiny.toml").write_text(lines)
    out = tmp_path / "out"
    result = run_study("tiny", out=out, quick=True, include=[include], workers=1)
    assert load_result(out) == result
    assert "mutual_knn" not in {s.measure for s in result.scores}
    assert not select(result.scores, condition="success")
    assert result.provenance.inputs["actor-s0"] == world.execution().weights_sha256


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"models": {"x_layer": "penultimat"}}, "layer of watcher-s0 'penultimat'; did you mean"),
        ({"models": {"y_layer": "nope"}}, r"layer of actor-s0 'nope' \(known: action"),
        ({"models": {"y": "nobody"}}, "unknown checkpoint 'nobody-s0'"),
        ({"models": {"seeds": [0, 4]}}, "unknown checkpoint 'watcher-s4'; did you mean 'watcher-s"),
        ({"measures": {"names": ["linear_cak"]}}, "measure 'linear_cak'; did you mean 'linear_cka"),
        ({"measures": {"grids": ["shuffled"]}}, "unknown contrast of a grid 'shuffled'"),
    ],
)
def test_names_that_are_not_there_are_told_before_any_work(tmp_path, collected, section, message):
    include = world.include(tmp_path / "include", world.definition(**section))
    with pytest.raises(UnknownNameError, match=message):
        run_study("tiny", out=tmp_path / "out", include=[include])
    assert not (tmp_path / "out").exists()


def test_models_and_devices_that_are_not_there_are_told_before_any_work(include, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UnknownNameError, match="unknown report 'tini'; did you mean 'tiny'"):
        run_study("tini", out=out, include=[include])
    with pytest.raises(DeviceError, match="device 'abacus' was asked for"):
        run_study("tiny", out=out, include=[include], device="abacus")
    weights = include / "checkpoints" / "weights" / "actor-s0.safetensors"
    weights.write_bytes(weights.read_bytes() + b"x")
    with pytest.raises(ChecksumError, match="has sha256"):
        run_study("tiny", out=out, include=[include])
    weights.unlink()
    with pytest.raises(MissingFileError, match="no weights"):
        run_study("tiny", out=out, include=[include])
    assert not out.exists()


@pytest.mark.sim
def test_a_whole_study_from_the_simulator_to_the_page(tmp_path):
    tasks = ["handle-press", "coffee-button"]
    counts = {"fit_successes": 8, "fit_failures": 4, "test_successes": 6, "test_failures": 4}
    measures = {"names": ["linear_cka"], "recall": [1]}
    small = world.definition(episodes={"tasks": tasks, **counts}, measures=measures)
    include = world.include(tmp_path / "include", small)
    out = tmp_path / "out"
    command = [sys.executable, "-c", "from mirror_analysis.cli import main; main()", "run", "tiny",
               "--include", str(include), "--out", str(out), "--workers", "1"]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert f"report: {out / 'report.html'}" in shown.stdout and (out / "report.html").is_file()
    result = load_result(out)
    assert result.data["tasks"] == sorted(tasks)
    counts = [value for name, value in result.data.items() if "successes" in name or "fail" in name]
    assert counts == [16, 8, 12, 8]
    found = {(s.parameters["comparison"], s.condition) for s in result.scores}
    for contrast in CONTRASTS:
        assert {(contrast.key, "plain"), (contrast.key, "nuisance")} <= found
    assert all(np.isfinite(s.value) for s in result.scores if not s.undefined)
    # Manifests of episodes and their locks are opened for writing, whatever is in them.
    opened = set((out / "episodes").rglob("manifest.jsonl")) | set(out.rglob(".lock"))
    files = [path for path in out.rglob("*") if path.is_file() and path not in opened]
    before = {path: path.stat().st_mtime_ns for path in files}
    again = run_study("tiny", out=out, include=[include])
    assert again == result
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert catalog.definition("reports", "tiny", [include]) == small
