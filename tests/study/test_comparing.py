"""Any two checkpoints over any episodes, told apart by what they are and not by their names."""

from dataclasses import replace

import numpy as np
import pytest
import tiny_world as world
import torch

from mirror_analysis import parallel
from mirror_analysis.episodes import Episodes
from mirror_analysis.errors import DegenerateError, MissingFileError, StreamError, UnknownNameError
from mirror_analysis.extraction import extract
from mirror_analysis.models.model import ExecutionModel, Input, LayerInfo
from mirror_analysis.models.reference.family import save
from mirror_analysis.results import load_result, select
from mirror_analysis.similarity.cka import linear_cka
from mirror_analysis.study import comparing, parts
from mirror_analysis.study.comparing import compare_checkpoints, divided_episodes
from mirror_analysis.study.contrasts import PAIR, contrasts

MODELS = {
    "first/model": world.observation(0),
    "second/model": world.observation(1),
    "actor": world.execution(0),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Name -> file; two of them have the same stem."""
    folder = tmp_path_factory.mktemp("files")
    found = {}
    for name, model in MODELS.items():
        found[name] = folder / f"{name}.safetensors"
        found[name].parent.mkdir(exist_ok=True)
        save(model, found[name], provenance={})
    return found


SMALL = world.definition(measures={"names": ["linear_cka"], "recall": [1]})


@pytest.fixture(autouse=True)
def tiny_settings(monkeypatch):
    monkeypatch.setattr(comparing.catalog, "quick", lambda study: SMALL)


@pytest.fixture(scope="module")
def of_one_stem(files, tmp_path_factory):
    """Folder and result of two observation models of one file name, over states of 5 numbers."""
    out = tmp_path_factory.mktemp("stem")
    both = files["first/model"], files["second/model"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(comparing.catalog, "quick", lambda study: SMALL)
        patch.setattr(parts, "processes", lambda workers: parallel.serial())
        return out, compare_checkpoints(*both, unlabelled(states=5), out=out, workers=1)


def unlabelled(count=8, **changes) -> Episodes:
    return Episodes(
        world.episode(task, i, split=None, **changes) for task in world.TASKS for i in range(count)
    )


def pair(result, **fields):
    (score,) = select(result.scores, role="pair", condition="plain", within="", **fields)
    return score


def cka(models, layers, episodes):
    x, y = (
        extract(model, episodes)[layer].values for model, layer in zip(models, layers, strict=True)
    )
    return linear_cka(x, y)


def test_two_files_of_one_stem_keep_their_own_features(of_one_stem):
    _, result = of_one_stem
    chosen = unlabelled(states=5)
    models = MODELS["first/model"], MODELS["second/model"]
    tested = Episodes([e for e in divided_episodes(chosen) if e.labels["split"] == "test"])
    score = pair(result, measure="linear_cka")
    assert score.value == pytest.approx(cka(models, ["penultimate"] * 2, tested), abs=1e-5)
    assert score.value < 0.99999
    # Names are told apart wherever they are shown.
    assert result.models == {
        "x": "first observation model (model)", "y": "second observation model (model)"
    }  # fmt: skip
    inputs = result.provenance.inputs
    assert inputs["model"] == models[0].weights_sha256
    assert inputs["second model"] == models[1].weights_sha256


def test_what_the_episodes_lack_is_left_out_and_what_was_given_is_not_made_up(of_one_stem):
    out, result = of_one_stem
    keys = {s.parameters["comparison"] for s in result.scores}
    assert keys == {contrast.key for contrast in contrasts()} - {
        "trained-proprioception",
        "pixels-pixels",
    }
    notes = " ".join(result.notes)
    assert "trained-state" in notes and "trained-proprioception" not in notes
    assert "Both models read the camera A" in notes and "has seen pixels only" not in notes
    assert "in the one view that both see" in result.findings[0].statement
    assert "episodes" not in result.definition and "seeds" not in result.definition["models"]
    assert set(result.provenance.seeds) == {"alignment", "nuisance"}
    assert {s.seed for s in result.scores} == {None}
    assert result.data["fit successes"] == result.data["test successes"] == 8
    assert load_result(out) == result


def test_a_file_with_itself_with_failures_and_a_split(files, tmp_path):
    chosen = world.episodes(fit=6, test=4, fit_failures=3, test_failures=4)
    result = compare_checkpoints(
        files["actor"], files["actor"], chosen, out=tmp_path, x_layer="vision", workers=1
    )
    assert (result.definition["models"]["x_layer"], result.definition["models"]["y_layer"]) == (
        "vision", "hidden3",
    )  # fmt: skip
    score = pair(result, measure="linear_cka")
    assert score.n == 16  # failures are judged as well
    test = chosen.where(split="test")
    expected = cka([MODELS["actor"]] * 2, ["vision", "hidden3"], test)
    assert score.value == pytest.approx(expected, abs=1e-5)
    assert not select(result.scores, condition="success")
    notes = " ".join(result.notes)
    assert "vision of actor has seen pixels only" in notes
    assert "hidden3 of actor has proprioception in it" in notes
    # Untrained twins of the two sides are two networks, not one.
    (twins,) = select(result.scores, comparison="untrained-untrained", role="control",
                      measure="linear_cka", condition="plain", within="")  # fmt: skip
    assert twins.value < 0.9999


def test_a_second_comparison_only_reads(files, tmp_path, monkeypatch):
    from mirror_analysis.study import running

    both = files["first/model"], files["actor"]
    chosen = unlabelled()
    first = compare_checkpoints(*both, chosen, out=tmp_path, draws=25, workers=1)
    assert pair(first, measure="linear_cka").null.draws == 25
    assert first.models["x"] == "observation model (model)"
    monkeypatch.setattr(running, "compute", lambda *a, **k: pytest.fail("computed again"))
    assert compare_checkpoints(*both, chosen, out=tmp_path, draws=25, workers=1) == first


def test_constant_lengths_and_a_single_task_are_no_obstacle(files, tmp_path):
    chosen = Episodes([replace(e, length=60) for e in unlabelled(16) if e.task == "push"])
    result = compare_checkpoints(
        files["first/model"], files["actor"], chosen, out=tmp_path, workers=1
    )
    place = {"measure": "recall_at_1", "condition": "plain", "within": ""}
    for key in ("trained-time", "trained-task identity"):
        (score,) = [
            s for s in select(result.scores, comparison=key, **place) if s.role != "difference"
        ]
        assert score.value is None and "is constant over the" in score.undefined
    against = {s.parameters["against"] for s in select(result.scores, role="difference", **place)}
    assert "best control" in against and "trained-time" not in against
    assert select(result.scores, comparison=PAIR, role="pair", **place)[0].value is not None


# -- dividing -----------------------------------------------------------------------------------


def words(episodes):
    return [episode.labels["split"] for episode in episodes]


def test_a_split_that_is_there_is_kept():
    chosen = world.episodes()
    assert divided_episodes(chosen) is chosen


@pytest.mark.parametrize("word", [None, "fit", "test"])
def test_without_two_parts_half_of_each_task_is_tested_on(word):
    labels = {} if word is None else {"split": word, "other": 3}
    chosen = Episodes([replace(e, labels=labels) for e in unlabelled(9)])
    divided = divided_episodes(chosen)
    for task in world.TASKS:
        assert sorted(words(divided.where(task=task))) == ["fit"] * 4 + ["test"] * 5
    assert words(divided_episodes(chosen)) == words(divided)
    assert [e.id for e in divided] == [e.id for e in chosen]
    assert word is None or all(e.labels["other"] == 3 for e in divided)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (lambda: unlabelled(1)[:1], "1 episodes give 0 to fit on and 1 to test on; needed at lea"),
        (lambda: Episodes([]), "0 episodes give 0 to fit on and 0 to test on"),
        (lambda: unlabelled(7), "14 episodes give 6 to fit on and 8 to test on"),
        (
            lambda: Episodes([*unlabelled(12)[:12], *unlabelled(4)[4:]]),
            "task pull has 2 episodes to test on; needed at least 3 of every task, so collect more",
        ),
        (
            lambda: Episodes(
                replace(e, task=f"{e.task}{i // 2}" if e.labels["split"] == "fit" else e.task)
                for i, e in enumerate(world.episodes(fit_failures=0))
            ),
            "no task has more than 2 episodes to fit on; needed 3 of at least two tasks",
        ),
    ],
)  # fmt: skip
def test_too_few_episodes_are_told_before_any_work(chosen, message):
    with pytest.raises(DegenerateError, match=message):
        divided_episodes(chosen())


def test_says_what_is_wrong_and_writes_nothing(files, tmp_path):
    out = tmp_path / "out"
    both = files["first/model"], files["actor"]
    with pytest.raises(StreamError, match="actor does not fit the episodes: no camera:B"):
        compare_checkpoints(*both, unlabelled(cameras=("A",)), out=out)
    with pytest.raises(UnknownNameError, match="unknown layer of actor 'penultimate'"):
        compare_checkpoints(*both, unlabelled(), out=out, y_layer="penultimate")
    with pytest.raises(UnknownNameError, match="unknown checkpoint 'nobody'"):
        compare_checkpoints("nobody", files["actor"], unlabelled(), out=out)
    with pytest.raises(MissingFileError, match="no checkpoint at"):
        compare_checkpoints(tmp_path / "no.safetensors", files["actor"], unlabelled(), out=out)
    with pytest.raises(DegenerateError, match="give 1 to fit on and 1 to test on"):
        compare_checkpoints(*both, unlabelled()[:2], out=out)
    assert not out.exists()


class Blind(ExecutionModel):
    """Acts from states alone."""

    def __init__(self, name: str, seed: int) -> None:
        torch.manual_seed(seed)
        self.name, self.needs = name, (Input("states", 39),)
        self.module = torch.nn.Sequential(torch.nn.Linear(39, 6), torch.nn.Tanh())

    def layers(self):
        return [LayerInfo(name, 6, "episode time channel") for name in ("first", "last")]

    def taps(self):
        return {"first": self.module[0], "last": self.module}

    def forward_batch(self, episodes):
        return self.module(torch.from_numpy(np.stack([e.stream("states") for e in episodes])))

    def act(self, now):
        raise NotImplementedError

    def untrained(self, seed):
        return Blind(f"{self.name}-untrained{seed}", seed + 7)


@pytest.mark.parametrize("kind", ["one sees", "none sees"])
def test_models_without_a_view_are_told_so(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(parts, "processes", lambda workers: parallel.serial())
    monkeypatch.setattr(comparing.catalog, "quick", lambda study: SMALL)
    x = MODELS["first/model"] if kind == "one sees" else Blind("feeler", 0)
    result = compare_checkpoints(x, Blind("blind", 1), unlabelled(), out=tmp_path, workers=1)
    conditions = {score.condition for score in result.scores}
    keys = {score.parameters["comparison"] for score in result.scores}
    notes = " ".join(result.notes)
    assert "blind reads no camera but states" in notes
    if kind == "one sees":
        assert conditions == {"plain", "nuisance"}
        assert {"pixels-input", "trained-input", "pixels-trained"} <= keys
        seen = "nuisance in the view of watcher-s0, the only one that sees"
        assert seen in result.findings[0].statement
    else:
        assert conditions == {"plain"} and "input-input" not in keys
        assert {"trained-input", "input-trained"} <= keys
