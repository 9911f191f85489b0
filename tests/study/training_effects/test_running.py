"""A study of training from definition to page: complete, resumable, and told faults first."""

import os
import subprocess
import sys

import msgspec
import pytest
import small_training as small
import synthetic_result

from mirror_analysis import catalog, reporting
from mirror_analysis.errors import DefinitionError, UnknownNameError
from mirror_analysis.results import load_result, select
from mirror_analysis.rollout.metaworld import HORIZON
from mirror_analysis.rollout.outcomes import Outcomes
from mirror_analysis.study import run_study, running
from mirror_analysis.study.training_effects import acting, measuring
from mirror_analysis.study.training_effects.running import run_training_study

DEFINITION = small.two(evaluation={"measures": ["linear_cka"], "probes": ["instruction"]})


def rolled(policies, *, tasks, episodes, seed, workers, progress=None):
    won = [[(i + len(p.parent.name)) % 3 > 0 for i in range(episodes)] for p in policies]
    return [
        Outcomes("execution", tuple(tasks), tuple(range(episodes)), (tuple(row),) * len(tasks),
                 ((HORIZON,) * episodes,) * len(tasks), HORIZON, seed, "plain")
        for row in won
    ]  # fmt: skip


def run(out, definition=DEFINITION, **changes):
    settings = {"train": small.train_randomly, "given": small.given(), "workers": 1}
    return run_training_study(definition, out, **settings | changes)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(acting, "rollout_outcomes", rolled)
        return out, run(out)


def test_the_result_on_disk_is_the_result(done):
    out, result = done
    assert load_result(out) == result
    assert {p.name for p in out.iterdir()} == {"parts", "rollouts", "runs", "result.json"}
    assert not [p for p in out.rglob("*partial*")]


def test_everything_asked_for_is_there_for_every_condition(done):
    scores = done[1].scores
    names = {c.name for c in DEFINITION.conditions}
    for measure, views in (
        ("instruction_accuracy", {"plain", "nuisance"}), ("success_rate", {"plain"}),
        ("recall_at_1", {"plain", "nuisance"}), ("linear_cka", {"plain", "nuisance"}),
        ("probe_accuracy", {"plain", "nuisance"}),
    ):  # fmt: skip
        own = [s for s in scores if s.measure == measure and s.role != "difference"]
        for seed in (0, 1, None):
            found = {(s.parameters["comparison"], s.condition) for s in own if s.seed == seed}
            assert found == {(name, view) for name in names for view in views}, (measure, seed)
    probed = select(scores, measure="probe_accuracy", comparison="shuffled", condition="plain",
                    seed=None, against=None)  # fmt: skip
    assert {(s.x, s.x_layer, s.parameters["probe"]) for s in probed} == {
        ("observation", "penultimate", "instruction"), ("execution", "vision", "instruction")
    }  # fmt: skip
    assert all(s.interval and s.null for s in probed)
    curve = select(scores, stage="training", comparison="instruction", measure="execution_loss")
    assert [(s.value, s.parameters["update"], s.split) for s in curve] == [
        (2.0, 1, "fit"), (1.0, 2, "fit")
    ]  # fmt: skip


def test_success_is_that_of_the_roll_outs(done):
    (found,) = select(done[1].scores, measure="success_rate", comparison="shuffled", seed=1,
                      task=None)  # fmt: skip
    (outcomes,) = rolled([done[0] / "runs" / "shuffled-s1" / "x"], tasks=("push", "pull"),
                         episodes=3, seed=0, workers=1)  # fmt: skip
    assert found.value == outcomes.rate


def test_provenance_and_data_name_what_went_in(done):
    result = done[1]
    given = small.given()
    made = result.provenance
    assert made.inputs["demonstrations"] == given.demonstrations.fingerprint
    assert made.inputs["episodes"] == given.episodes.fingerprint
    assert len([name for name in made.inputs if name.endswith(".safetensors")]) == 12
    assert made.seeds["training"] == [0, 1] and made.seeds["demonstrations"] == [303]
    assert result.data["demonstrations"] == 16 and result.data["test episodes"] == 12
    assert result.data["roll-outs per policy"] == 6
    assert result.definition == msgspec.to_builtins(DEFINITION)
    assert result.models == {"x": "observation model (camera A)",
                             "y": "execution model (camera B)"}  # fmt: skip
    notes = " ".join(result.notes)
    assert "“aligned by instruction”" in notes and "aligned to shuffled pairs" in notes
    assert "Published" not in notes and "One seed" not in notes


def test_findings_rest_on_scores_of_the_result(done):
    result = done[1]
    names = [f.name for f in result.findings]
    assert names[:4] == ["recognition-gain", "recognition-gain-beyond-controls", "success-gain",
                         "success-gain-beyond-controls"]  # fmt: skip
    assert all(f.score in result.scores for f in result.findings)


def test_a_second_run_only_reads(done, monkeypatch):
    out, result = done
    before = {f: f.stat().st_mtime_ns for f in out.rglob("*") if f.is_file()}
    monkeypatch.setattr(measuring, "measure", lambda job: pytest.fail("measured again"))
    monkeypatch.setattr(acting, "rollout_outcomes", lambda *a, **k: pytest.fail("acted again"))
    assert run(out, train=lambda job: pytest.fail("trained again")) == result
    assert {f: f.stat().st_mtime_ns for f in out.rglob("*") if f.is_file()} == before


def test_other_words_are_another_result_of_the_same_numbers(done, monkeypatch):
    out, result = done
    monkeypatch.setattr(measuring, "measure", lambda job: pytest.fail("measured again"))
    told = []
    changed = msgspec.structs.replace(DEFINITION, title="Other words")
    again = run(out, changed, progress=lambda *steps: told.append(steps))
    assert again.title == "Other words" and again.scores == result.scores
    assert {stage for stage, *_ in told} == {"training, by run", "measuring, by run",
                                             "acting, by policy"}  # fmt: skip
    (out / "result.json").write_text("{}")
    assert run(out).scores == result.scores


def test_a_study_without_roll_outs_seeds_and_controls_says_so(tmp_path):
    kept = [c for c in msgspec.to_builtins(DEFINITION)["conditions"] if c["role"] != "control"]
    small_one = small.two(models={"seeds": [0]}, evaluation={"rollouts": 0, "measures": ["rsa"]})
    definition = msgspec.structs.replace(
        small_one,
        conditions=msgspec.convert(kept, list[type(DEFINITION.conditions[0])]),
        published_from="A paper",
        published=catalog.definition("reports", "explicit-alignment").published[:1],
    )
    result = run(tmp_path, definition)
    notes = " ".join(result.notes)
    assert "no controls" in notes and "One seed was trained" in notes
    assert "Published numbers (A paper) stand beside ours" in notes
    assert not select(result.scores, measure="success_rate")
    assert [f.name for f in result.findings] == ["recognition-gain", "recall-gain"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"measures": ["linear_cak"]}, UnknownNameError, "measure 'linear_cak'; did you mean"),
        ({"probes": ["tusk"]}, UnknownNameError, "unknown probe 'tusk'; did you mean 'task'"),
        ({"probes": ["object-position"]}, DefinitionError, "'object-position' is asked of every s"),
    ],
)
def test_faults_are_told_before_any_work(tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        run(tmp_path / "out", small.two(evaluation=changes))
    assert not (tmp_path / "out").exists()


def test_run_study_runs_it_by_name(tmp_path, monkeypatch):
    asked = []

    def note(definition, out, **settings):
        asked.append((definition, out, settings["device"], settings["workers"]))
        return synthetic_result.empty_result()

    monkeypatch.setattr(running, "run_training_study", note)
    assert run_study("explicit-alignment", out=tmp_path, quick=True, workers=3).study == "small"
    definition = catalog.quick(catalog.definition("reports", "explicit-alignment"))
    assert asked == [(definition, tmp_path, "cpu", 3)]


@pytest.mark.sim
def test_a_whole_study_from_the_simulator_to_the_page(tmp_path):
    table = msgspec.to_builtins(
        small.two(
            models={"seeds": [0]},
            demonstrations={"per_task": 8},
            episodes={"tasks": ["handle-press", "coffee-button"], "fit_failures": 0,
                      "test_failures": 0, "frames": 4},
            evaluation={"measures": ["linear_cka"], "probes": ["goal-side"], "rollouts": 2},
        )
    )  # fmt: skip
    table["name"] = "mine"
    (tmp_path / "own" / "reports").mkdir(parents=True)
    (tmp_path / "own" / "reports" / "mine.toml").write_text(toml(table))
    out = tmp_path / "out"
    command = [sys.executable, "-c", "from mirror_analysis.cli import main; main()", "run", "mine",
               "--include", str(tmp_path / "own"), "--out", str(out), "--workers", "1"]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    assert f"report: {out / 'report.html'}" in shown.stdout
    result = load_result(out)
    assert result.data["tasks"] == ["coffee-button", "handle-press"]
    assert {s.n for s in select(result.scores, measure="success_rate", task=None)} == {4}
    assert reporting.render_report(result, out=tmp_path / "again").is_file()


def toml(table):
    """With one list of tables, as studies of training have."""
    plain, inner = [], []
    for key, value in table.items():
        if isinstance(value, dict):
            inner += [f"[{key}]", *lines(value)] if value else []
        elif value and isinstance(value, list) and isinstance(value[0], dict):
            for part in value:
                inner += [f"[[{key}]]", *lines(part)]
        else:
            plain += lines({key: value})
    return "\n".join([*plain, *inner]) + "\n"


def lines(table):
    return [f"{k} = {msgspec.json.encode(v).decode()}" for k, v in table.items() if v is not None]
