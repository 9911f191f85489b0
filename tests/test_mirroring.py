import numpy as np
import pytest
import scenes
import tiny_models
from tiny_transformers import SIDE

from mirror_analysis.alignment.joint.config import JointConfig
from mirror_analysis.alignment.linear import LinearAlignment
from mirror_analysis.errors import FormatError, StoreError, UnknownNameError
from mirror_analysis.extraction import extract
from mirror_analysis.mirroring import OBJECTIVES, Side, losses, train_mirror
from mirror_analysis.models import load_model

CONFIG = JointConfig(epochs=2, batch=3, width=8)


def train(out, *, observation=None, execution=None, episodes=None, config=CONFIG, progress=None):
    return train_mirror(
        observation or Side("observation", frames=2),
        execution or Side("execution", frames=2),
        episodes or scenes.episodes(6),
        out=out, config=config, progress=progress,
    )  # fmt: skip


def test_the_reference_pair_is_left_as_files_that_load(tmp_path):
    out = tmp_path / "deep" / "pair"
    joint = train(out)
    assert {path.name for path in out.iterdir()} == {
        "observation.safetensors", "execution.safetensors", "alignment.safetensors", "run.json",
    }  # fmt: skip
    for name in ("observation", "execution"):
        model = load_model(out / f"{name}.safetensors")
        assert model.role == name
        assert model.weights_sha256 == getattr(joint, name).model.weights_sha256
    kept = LinearAlignment.load(out / "alignment.safetensors")
    assert kept.x_weight.shape == (128, 8)
    assert [row["update"] for row in losses(joint.curve)] == [2, 4]
    with pytest.raises(StoreError, match="holds a trained pair already; give another --out"):
        train(out)


def test_loaded_models_are_left_as_files_that_load(tmp_path):
    watcher, actor = tmp_path / "watcher", tmp_path / "actor"
    watcher.mkdir(), actor.mkdir()
    before = tiny_models.MAKERS["timm"](watcher)
    tiny_models.perceptron(actor)
    episodes = scenes.episodes(
        6, size=SIDE, cameras=("top",),
        states=np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32),
        actions=np.random.default_rng(1).normal(size=(3, 3)).astype(np.float32),
    )  # fmt: skip
    out = tmp_path / "pair"
    joint = train(
        out, episodes=episodes,
        observation=Side("observation", str(watcher), frames=2, objective="classification"),
        execution=Side("execution", str(actor / "policy.pkl"), frames=2),
    )  # fmt: skip
    tuned = load_model(out / "observation.safetensors", options={"source": str(watcher)})
    assert tuned.weights_sha256 == joint.observation.model.weights_sha256
    assert tuned.weights_sha256 != before.weights_sha256
    layer = joint.observation.layer
    np.testing.assert_array_equal(
        extract(tuned, episodes)[layer].values,
        extract(joint.observation.model, episodes)[layer].values,
    )
    policy = load_model(
        out / "execution.safetensors", options={"source": str(actor / "policy.pkl")}
    )
    assert policy.weights_sha256 == joint.execution.model.weights_sha256


def test_an_interrupted_training_goes_on(tmp_path):
    whole = train(tmp_path / "whole")

    def stop(done, total, loss):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", progress=stop)
    assert not (tmp_path / "parts" / "run.json").exists()
    told = []
    joint = train(tmp_path / "parts", progress=lambda *words: told.append(words[0]))
    assert told == [3, 4]
    assert joint.execution.model.weights_sha256 == whole.execution.model.weights_sha256


def test_wrong_sides_are_refused(tmp_path):
    train(tmp_path / "pair")
    policy = str(tmp_path / "pair" / "execution.safetensors")
    with pytest.raises(FormatError, match="is an execution model; needed an observation model"):
        train(tmp_path / "a", observation=Side("observation", policy))
    with pytest.raises(
        UnknownNameError, match=r"objective of an execution model 'video-text' \(known: diffusion"
    ):
        train(tmp_path / "b", execution=Side("execution", policy, objective="video-text"))
    with pytest.raises(UnknownNameError, match="unknown layer of execution 'vison'; did you mean"):
        train(tmp_path / "c", execution=Side("execution", policy, layer="vison"))


def test_the_usual_objectives_stand_last():
    assert [list(named)[-1] for named in OBJECTIVES.values()] == ["regression", "video-text"]
