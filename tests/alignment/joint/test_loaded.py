"""Loaded models of several families in training, alone and jointly."""

import numpy as np
import pytest
import torch
from tiny_models import ACTIONS, MAKERS, STATES
from torch import nn

from mirror_analysis.alignment.joint.config import JointConfig
from mirror_analysis.alignment.joint.loaded import LoadedLearner
from mirror_analysis.alignment.joint.objectives import (
    Classification,
    Diffusion,
    Discretised,
    Regression,
    Target,
    VideoText,
)
from mirror_analysis.alignment.joint.training import train_jointly
from mirror_analysis.episodes.episode import Episode, Episodes
from mirror_analysis.episodes.nuisance import Nuisance
from mirror_analysis.errors import (
    DefinitionError,
    DegenerateError,
    ShapeError,
    UnknownNameError,
)
from mirror_analysis.extraction import extract
from mirror_analysis.models import load_model
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.model import ExecutionModel, Input, LayerInfo
from mirror_analysis.models.trained import Origin, load, save_trained

WORDS = ("open the door", "close the door", "push the cup")
PIXELS = 32


def planted(number, time=6, states=STATES, actions=ACTIONS, pixels=PIXELS):
    """The colour says the instruction; the action is a linear function of the state."""
    g = np.random.default_rng(number)
    word = number % len(WORDS)
    pictures = g.integers(0, 90, (time, pixels, pixels, 3))
    pictures[..., word] += 120
    felt = g.standard_normal((time, states)).astype(np.float32)
    map_ = np.random.default_rng(99).standard_normal((states, actions)) / states**0.5
    return Episode.from_frames(
        {"A": pictures.astype(np.uint8)}, id=f"episode {number}", task="t",
        instruction=WORDS[word], success=True, states=felt,
        actions=(felt @ map_).astype(np.float32), timestamps=np.arange(time) / 10,
        steps=np.arange(time), length=time, labels={"word": word},
    )  # fmt: skip


def episodes(count=12, **given):
    return Episodes([planted(number, **given) for number in range(count)])


@pytest.fixture
def make(tmp_path):
    return lambda name: MAKERS[name](tmp_path)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def fit(learner, updates, rate=2e-3):
    """Losses of so many updates on all episodes."""
    learner.train()
    trained = [p for p in learner.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, rate)
    drawn, losses = generator(), []
    for _ in range(updates):
        step = learner.step(torch.arange(len(learner.episodes)), drawn)
        optimiser.zero_grad()
        step.loss.backward()
        optimiser.step()
        losses.append(step.loss.item())
    learner.eval()
    return losses


WATCHING = {
    "clips-text": ("clips", "block2", VideoText(width=16), "episode channel"),
    "pictures-text": ("pictures", "norm", VideoText(width=16), ""),
    "pictures-label": ("pictures", "norm", Classification(label="word"), ""),
    "windows-label": ("windows", None, Classification(), ""),
    "timm-text": ("timm", "norm", VideoText(width=16), ""),
    "convolutions-label": ("timm-convolutions", "stage3.block0", Classification(), ""),
}
ACTING = {
    "perceptron-regression": ("perceptron", "hidden1", Regression()),
    "perceptron-output": ("perceptron", "hidden1", Regression(source="output", error="mse")),
    "perceptron-bins": ("perceptron", "hidden1", Discretised(bins=8)),
    "perceptron-diffusion": ("perceptron", "hidden1", Diffusion(steps=10, width=32, depth=1)),
    "perceptron-chunks": ("perceptron", "hidden1", Regression(target=Target(horizon=3))),
}


@pytest.mark.parametrize("case", WATCHING)
def test_watching_models_learn_what_is_planted(case, make):
    name, layer, objective, _ = WATCHING[case]
    model = make(name)
    learner = LoadedLearner(
        model,
        episodes(),
        layer=layer or model.layers()[-1].name,
        objective=objective,
        frames=2,
    )
    losses = fit(learner, 8, 3e-3)
    assert np.mean(losses[-3:]) < 0.8 * losses[0]
    first = next(p for p in model.module.parameters() if p.requires_grad and p.ndim > 1)
    assert first.grad is not None and first.grad.any()


@pytest.mark.parametrize("case", ACTING)
def test_acting_models_learn_what_is_planted(case, make):
    name, layer, objective = ACTING[case]
    model = make(name)
    learner = LoadedLearner(model, episodes(), layer=layer, objective=objective, frames=4)
    losses = fit(learner, 30, 2e-2)
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert next(model.module.parameters()).grad.any()


def test_an_agent_learns_by_its_raw_action(make):
    model = make("agent")
    width, action = model.needs[0].width, model.layers()[2].width
    of = episodes(states=width, actions=action)
    learner = LoadedLearner(model, of, layer="hidden1", objective=Regression(), frames=4)
    losses = fit(learner, 30, 2e-2)
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


@pytest.mark.parametrize("name", ["clips", "timm", "timm-convolutions", "perceptron"])
def test_in_evaluation_the_representation_is_that_of_extraction(name, make):
    model, of = make(name), episodes(4)
    layer = model.layers()[-2].name
    objective = Regression() if name == "perceptron" else Classification()
    learner = LoadedLearner(model, of, layer=layer, objective=objective, frames=0).eval()
    expected = extract(model, of, layers=[layer])[layer].values
    found = learner.step(torch.tensor([2, 0, 3]), generator()).representation.detach().numpy()
    error = np.abs(found - expected[[2, 0, 3]]).max() / np.abs(expected).max()
    assert error < 1e-6
    assert found.shape[1] == learner.width


def test_a_frozen_part_stays_as_it_is_to_the_bit(make):
    model = make("timm-convolutions")
    learner = LoadedLearner(
        model, episodes(), layer="stage3.block0", objective=Classification(), frames=2
    )
    frozen = ("network.conv1", "network.bn1", "network.layer1", "network.layer2")
    for name, parameter in learner.named_parameters():
        if name.startswith(frozen):
            parameter.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in learner.state_dict().items()}
    fit(learner, 3)
    same = {n for n, tensor in learner.state_dict().items() if torch.equal(tensor, before[n])}
    assert {name for name in before if name.startswith(frozen)} <= same
    moved = {name for name in before if name.startswith("network.layer4")} - same
    assert any(name.endswith("running_mean") for name in moved)
    assert any(name.endswith("weight") for name in moved)


def test_weights_a_loader_left_frozen_are_trained(make):
    model = make("perceptron")
    model.module.requires_grad_(False)
    learner = LoadedLearner(model, episodes(), layer="hidden1", objective=Regression())
    assert all(p.requires_grad for p in learner.parameters())
    model.module.last.requires_grad_(False)
    again = LoadedLearner(model, episodes(), layer="hidden1", objective=Regression())
    frozen = [name for name, p in again.named_parameters() if not p.requires_grad]
    assert frozen == ["network.last.weight", "network.last.bias"]


def test_parameters_and_state_cover_model_and_head(make):
    model = make("perceptron")
    learner = LoadedLearner(model, episodes(), layer="hidden1", objective=Regression())
    names = set(learner.state_dict())
    assert {f"network.{name}" for name in model.module.state_dict()} <= names
    assert {"head.map.weight", "head.scale.mean", "head.scale.high"} <= names
    other = LoadedLearner(model.untrained(3), episodes(), layer="hidden1", objective=Regression())
    other.load_state_dict(learner.state_dict())
    rows = torch.arange(4)
    a, b = (one.eval().step(rows, generator()).loss for one in (learner, other))
    assert a.item() == b.item()


def test_untrained_is_drawn_anew_and_reads_the_same(make):
    model = make("perceptron")
    learner = LoadedLearner(model, episodes(), layer="hidden1", objective=Regression(), frames=3)
    fit(learner, 2)
    twin, same, other = (learner.untrained(seed) for seed in (1, 1, 2))
    assert (twin.name, twin.episodes, twin.width) == (learner.name, learner.episodes, 16)
    states = [one.state_dict() for one in (learner, twin, same, other)]
    for name in ("network.last.weight", "head.map.weight"):
        a, b, c, d = (state[name] for state in states)
        assert torch.equal(b, c) and not torch.equal(a, b) and not torch.equal(b, d)
    assert torch.equal(states[0]["head.scale.mean"], states[1]["head.scale.mean"])
    assert twin.step(torch.arange(2), generator()).representation.shape == (2, 16)


def test_after_training_the_model_is_an_ordinary_one(make):
    model, of = make("perceptron"), episodes()
    before, digest = extract(model, of), model.weights_sha256
    learner = LoadedLearner(
        model, of, layer="hidden1", objective=Regression(source="output"), frames=6
    )
    fit(learner, 80, 3e-2)
    assert learner.model is model and model.weights_sha256 != digest
    after = extract(model, of)
    assert not np.allclose(after["hidden1"].values, before["hidden1"].values)
    state = of[0].states
    error = np.abs(model.act({"states": state}) - of[0].actions).max()
    assert error < 0.35 * np.abs(of[0].actions).max()
    assert not any(module._forward_hooks for module in model.module.modules())


class Counting(ExecutionModel):
    """Gives the states it sees; they number the frames."""

    def __init__(self, framewise=True, role="execution"):
        self.name, self.needs, self.framewise = "counting", (Input("states", 1),), framewise
        self.module = nn.ModuleDict({"layer": nn.Linear(1, 1, bias=False)})
        self.module["layer"].weight.data.fill_(1.0)
        self.role = role

    def layers(self):
        return [LayerInfo("layer", 1, "episode time channel")]

    def taps(self):
        return {"layer": self.module["layer"]}

    def forward_batch(self, episodes):
        self.seen = np.stack([episode.stream("states") for episode in episodes])[..., 0]
        self.steps = np.stack([episode.steps for episode in episodes])
        return self.module["layer"](torch.from_numpy(self.seen)[..., None])

    def act(self, now):
        raise NotImplementedError

    def untrained(self, seed):
        return Counting(self.framewise)


def numbered(*lengths):
    return Episodes(
        Episode.from_frames(
            {}, id=str(i), task="t", instruction=str(i % 2), success=True,
            states=np.arange(time, dtype=np.float32)[:, None],
            actions=np.arange(time, dtype=np.float32)[:, None] + 0.5,
            timestamps=np.arange(time) / 10, steps=np.arange(time) * 3, length=3 * time,
        )
        for i, time in enumerate(lengths)
    )  # fmt: skip


def drawn_frames(model, of, count, batches=80):
    learner = LoadedLearner(model, of, layer="layer", objective=Regression(), frames=count)
    found, drawn = [], generator()
    for _ in range(batches):
        learner.step(torch.arange(len(of)), drawn)
        assert (model.steps == 3 * model.seen).all()
        found.append(model.seen.astype(int))
    return np.stack(found, axis=1)  # [episode, batch, frame]


def test_one_frame_is_drawn_of_each_stretch():
    found = drawn_frames(Counting(), numbered(12, 3, 5), 4)
    long, short, odd = found
    assert (long // 3 == np.arange(4)).all()  # four stretches of three frames
    assert {tuple(np.unique(long[:, i])) for i in range(4)} == {
        (0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11)
    }  # fmt: skip
    assert (np.diff(short, axis=1) >= 0).all() and set(np.unique(short)) == {0, 1, 2}
    # A stretch of 1.25 frames reaches into two.
    assert set(np.unique(odd[:, 0])) == {0, 1} and set(np.unique(odd[:, 3])) == {3, 4}
    assert np.mean(odd[:, 0] == 1) == pytest.approx(0.2, abs=0.13)


def test_policies_that_remember_get_consecutive_frames():
    (found,) = drawn_frames(Counting(framewise=False), numbered(7), 3)
    assert (np.diff(found, axis=1) == 1).all()
    assert np.bincount(found[:, 0]).min() > 6 and found[:, 0].max() == 4
    watching = Counting(framewise=False, role="observation")
    (found,) = drawn_frames(watching, numbered(30), 3)
    assert (found // 10 == np.arange(3)).all()


def test_all_frames_and_the_same_generator_the_same_frames():
    (found,) = drawn_frames(Counting(), numbered(5), 0, batches=2)
    assert found.tolist() == [[0, 1, 2, 3, 4]] * 2
    again = [drawn_frames(Counting(), numbered(9, 8), 3, batches=4) for _ in range(2)]
    assert (again[0] == again[1]).all()


def test_targets_are_those_of_the_frames_that_were_seen():
    model, of = Counting(), numbered(9, 9)
    learner = LoadedLearner(
        model,
        of,
        layer="layer",
        objective=Regression(source="output", error="mse"),
        frames=4,
    )
    loss = learner.step(torch.tensor([1, 0]), generator()).loss
    # Every action is 0.5 above the state, which the model gives.
    assert loss.item() == pytest.approx(0.25 / of[0].actions.var(), rel=1e-5)


def test_appearance_is_drawn_anew_for_every_batch(make):
    of = episodes(6)

    def given(nuisance):
        return LoadedLearner(
            make("timm"), of, layer="norm", objective=Classification(), frames=0, nuisance=nuisance
        ).eval()

    plain, off = given(None), given(Nuisance(gain=(0.5, 1.5), shift=3, seed=5))
    rows, drawn = torch.arange(6), generator(1)
    a, b = (off.step(rows, drawn).representation for _ in range(2))
    assert not torch.allclose(a, b)
    torch.testing.assert_close(off.step(rows, generator(1)).representation, a)
    still = given(Nuisance(gain=(1.0, 1.0), offset=(0.0, 0.0), shift=0))
    expected = plain.step(rows, generator(1)).representation
    torch.testing.assert_close(still.step(rows, generator(1)).representation, expected)
    assert not torch.allclose(a, expected)
    twin = off.untrained(1).eval()
    a, b = (twin.step(rows, generator(seed)).representation for seed in (1, 2))
    assert not torch.allclose(a, b)


def test_dropout_is_on_in_training_only(make):
    model = make("reference-observation")
    learner = LoadedLearner(
        model, episodes(pixels=64), layer="penultimate", objective=VideoText(), frames=3
    )
    rows = torch.arange(4)
    learner.train()
    a, b = (learner.step(rows, generator()).representation for _ in range(2))
    assert not torch.equal(a, b)
    learner.eval()
    a, b = (learner.step(rows, generator()).representation for _ in range(2))
    assert torch.equal(a, b)


def test_mixed_precision_is_near_the_full_one(make):
    learner = LoadedLearner(
        make("timm"), episodes(), layer="norm", objective=VideoText(width=16), frames=2
    )
    rows = torch.arange(6)
    exact = learner.step(rows, generator())
    with torch.autocast("cpu", torch.bfloat16):
        low = learner.step(rows, generator())
    assert low.loss.dtype == torch.float32
    assert low.loss.item() == pytest.approx(exact.loss.item(), rel=0.05)
    low.loss.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in learner.parameters())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("case", ACTING)
def test_another_device_gives_the_same_losses(case, make):
    name, layer, objective = ACTING[case]
    learner = LoadedLearner(make(name), episodes(), layer=layer, objective=objective, frames=4)
    expected = learner.step(torch.arange(6), generator()).loss.item()
    learner.to("cuda")
    step = learner.step(torch.arange(6), generator())
    step.loss.backward()
    assert step.representation.device.type == "cuda"
    assert step.loss.item() == pytest.approx(expected, rel=1e-2)


def test_what_cannot_be_trained():
    of, model = numbered(9, 9), Counting()

    def learner(model=model, of=of, layer="layer", **given):
        return LoadedLearner(model, of, layer=layer, objective=Regression(), **given)

    with pytest.raises(UnknownNameError, match="unknown layer of counting 'layers'; did you mean"):
        learner(layer="layers")
    with pytest.raises(DegenerateError, match="no episodes to train on; needed at least one"):
        learner(of=Episodes([]))
    with pytest.raises(ShapeError, match="between 4 and 9 frames; showing all of them needs"):
        learner(of=numbered(9, 4), frames=0)
    with pytest.raises(ShapeError, match="episode 1 has 4 frames; 6 consecutive ones were asked"):
        learner(model=Counting(framewise=False), of=numbered(9, 4), frames=6)
    with pytest.raises(UnknownNameError, match="unknown stream of the episodes 'array:x'"):
        learner(streams={"states": "array:x"})
    engine = Counting()
    engine.module, engine.facts = nn.Identity(), {"family": "tflite"}
    with pytest.raises(DefinitionError, match=r"counting \(tflite\) cannot be trained: its engine"):
        learner(model=engine)


def both(folder, of):
    (folder / "u").mkdir(exist_ok=True, parents=True)
    watches = LoadedLearner(
        MAKERS["clips"](folder / "u"),
        of,
        layer="block2",
        objective=VideoText(width=16),
        frames=4,
    )
    acts = LoadedLearner(
        MAKERS["perceptron"](folder), of, layer="hidden1", objective=Regression(source="output")
    )
    return watches, acts


def test_two_loaded_models_are_trained_jointly_and_resumed(tmp_path):
    of = episodes()
    labels = of.labels()
    config = JointConfig(epochs=6, batch=6, learning_rate=5e-3, width=16, seed=3)
    whole = train_jointly(*both(tmp_path / "a", of), labels, config=config)
    curve = whole.curve
    for name in ("observation", "execution", "alignment"):
        values = getattr(curve, name)
        assert np.mean(values[-2:]) < values[0], name
    assert whole.observation.model.role == "observation" and whole.alignment is not None
    x = extract(whole.observation.model, of, layers=["block2"])["block2"].values
    y = extract(whole.execution.model, of, layers=["hidden1"])["hidden1"].values
    assert whole.alignment.similarity(x, y).shape == (12, 12)

    class Stop(Exception):
        pass

    def stop(done, total, loss):
        if done == 7:
            raise Stop

    state = tmp_path / "state"
    with pytest.raises(Stop):
        train_jointly(*both(tmp_path / "b", of), labels, config=config, folder=state,
                      progress=stop)  # fmt: skip
    resumed = train_jointly(*both(tmp_path / "c", of), labels, config=config, folder=state)
    for side in ("observation", "execution"):
        a, b = (getattr(joint, side).state_dict() for joint in (whole, resumed))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
    source = tmp_path / "a" / "policy.pkl"
    origin = Origin("policy", load_model(source).weights_sha256)
    acts = resumed.execution
    save_trained(acts.model, tmp_path / "execution.safetensors", origin=origin, head=acts.head)
    again = load(
        Checkpoint(tmp_path / "execution.safetensors"),
        name="execution",
        options=Options(values={"source": str(source)}),
    )
    found = extract(again, of, layers=["hidden1"])["hidden1"].values
    np.testing.assert_array_equal(found, y)
