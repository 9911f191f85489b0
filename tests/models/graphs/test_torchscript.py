"""TorchScript programs: layers, hidden states held apart, inputs found, twins, refusals."""

import warnings

import numpy as np
import pytest
import torch
from graph_files import Blocks, Pictures, Recurrent, Seen, opened, scripted
from torch import nn

from mirror_analysis.errors import DefinitionError, FormatError
from mirror_analysis.models.checkpoint import Checkpoint
from mirror_analysis.models.graphs import torchscript
from mirror_analysis.testing import check_model


@torch.inference_mode()
def _stepped(module, states):
    """What a recurrent module gives for one episode, from its start."""
    module.hidden.zero_()
    module.steps = 0
    return torch.cat([module(torch.from_numpy(row[None])) for row in states]).numpy()


def test_recognised_by_content_and_never_run(tmp_path):
    scripted(Blocks(), tmp_path / "policy.onnx")
    words = torchscript.recognise(Checkpoint(tmp_path / "policy.onnx"))
    assert words is not None and words.startswith("TorchScript program of ")
    torch.save({"a": torch.zeros(2)}, tmp_path / "b.pt")
    assert torchscript.recognise(Checkpoint(tmp_path / "b.pt")) is None


def test_blocks_of_one_class_are_layers_of_their_own(tmp_path):
    module = scripted(Blocks(), tmp_path / "m.pt")
    model = opened(torchscript, tmp_path / "m.pt")
    names = [info.name for info in model.layers()]
    assert names == [
        "stem", "blocks.0.first", "blocks.0.second", "blocks.0", "blocks.1.first",
        "blocks.1.second", "blocks.1", "blocks.2.first", "blocks.2.second", "blocks.2", "head",
    ]  # fmt: skip
    states = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    seen = {}
    for name, tap in model.taps().items():
        tap.register_forward_hook(lambda m, i, o, name=name: seen.update({name: o}))
    with torch.inference_mode():
        output = model.forward_batch([Seen({"states": states})])[0]
        x = module.stem(torch.from_numpy(states))
        torch.testing.assert_close(seen["stem"], x)
        for i, block in enumerate(module.blocks):
            torch.testing.assert_close(seen[f"blocks.{i}.first"], block.first(x))
            x = block(x)
            torch.testing.assert_close(seen[f"blocks.{i}"], x)
        torch.testing.assert_close(output, module.head(x))
    few = opened(torchscript, tmp_path / "m.pt", layers="5")
    assert [i.name for i in few.layers()] == ["stem", "blocks.0", "blocks.1", "blocks.2", "head"]


def test_contract(tmp_path):
    scripted(Blocks(), tmp_path / "b.pt")
    check_model(opened(torchscript, tmp_path / "b.pt"))
    scripted(Recurrent(), tmp_path / "r.pt")
    check_model(opened(torchscript, tmp_path / "r.pt"))
    scripted(Pictures(), tmp_path / "p.pt")
    check_model(opened(torchscript, tmp_path / "p.pt", size="16"))


def test_hidden_state_is_fresh_for_every_episode_and_environment(tmp_path):
    module = scripted(Recurrent(), tmp_path / "r.pt")
    model = opened(torchscript, tmp_path / "r.pt")
    assert model.facts["hidden state"] == "hidden, steps"
    states = np.random.default_rng(0).standard_normal((3, 6, 5)).astype(np.float32)
    wanted = np.stack([_stepped(module, episode) for episode in states])
    assert np.abs(wanted[:, 0] - wanted[:, -1]).max() > 0.1
    for order in ([0, 1, 2], [0, 1, 2], [2, 0, 1]):
        given = model.forward_batch([Seen({"states": states[i]}) for i in order])
        np.testing.assert_allclose(given, wanted[order], atol=1e-6)
    for _ in range(2):
        acted = np.stack([model.act({"states": states[:, t]}) for t in range(6)], axis=1)
        np.testing.assert_allclose(acted, wanted, atol=1e-6)
        # Features in between leave what the policy remembers of its environments alone.
        model.forward_batch([Seen({"states": states[0]})])
        model.reset()
    assert model.weights_sha256 == opened(torchscript, tmp_path / "r.pt").weights_sha256


def test_operations_are_layers_where_there_are_no_modules(tmp_path):
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    scripted(module, tmp_path / "f.pt", freeze=True)
    model = opened(torchscript, tmp_path / "f.pt")
    assert [(i.name, i.width) for i in model.layers()] == [("relu", 6), ("linear", 2)]
    states = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    with torch.inference_mode():
        wanted = module(torch.from_numpy(states)).numpy()
    np.testing.assert_allclose(model.act({"states": states}), wanted, atol=1e-6)
    with pytest.raises(FormatError, match=r"keeps its weights inside its program .* frozen"):
        model.untrained(0)


def test_traced_modules(tmp_path):
    module = Pictures().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(module, torch.rand(1, 3, 16, 16)), str(tmp_path / "t.pt"))
    model = opened(torchscript, tmp_path / "t.pt", size="16", mean="0", std="1", scale="0.01")
    assert [(i.name, i.axes.split()[1]) for i in model.layers()] == [
        ("stem", "channel"), ("norm", "channel"), ("head", "channel"),
    ]  # fmt: skip
    frames = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    x = torch.from_numpy(frames.transpose(0, 3, 1, 2).astype(np.float32)) * 0.01
    with torch.inference_mode():
        wanted = module(x)
    given = model.forward_batch([Seen({"camera": frames})])[0]
    torch.testing.assert_close(given, wanted, atol=1e-5, rtol=0)


class _Dictionary(nn.Module):
    def __init__(self):
        super().__init__()
        self.see = nn.Conv2d(3, 4, 3)
        self.act = nn.Linear(7, 2)

    def forward(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        seen = self.see(obs["image"]).mean((2, 3))
        return self.act(torch.cat([seen, obs["state"]], 1))


def test_dictionaries_need_words_about_their_shapes(tmp_path):
    module = scripted(_Dictionary(), tmp_path / "d.pt")
    with pytest.raises(DefinitionError, match=r"takes \(obs: Dict.*say the shape of each"):
        opened(torchscript, tmp_path / "d.pt")
    model = opened(torchscript, tmp_path / "d.pt", shape="image=0,3,8,8;state=0,3")
    assert model.role == "execution" and model.inputs == ("camera", "states")
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    states = np.random.default_rng(1).standard_normal((2, 3)).astype(np.float32)
    with torch.inference_mode():
        image = model.readings[0].prepare(frames)
        wanted = module({"image": image, "state": torch.from_numpy(states)}).numpy()
    np.testing.assert_allclose(model.act({"camera": frames, "states": states}), wanted, atol=1e-6)
    check_model(model)
    for wrong in ("image=0,3,8,8;0,3", "image=x;state=0,3", "state=3"):
        with pytest.raises(DefinitionError, match=r"option shape is .*; needed the axes of \(obs"):
            opened(torchscript, tmp_path / "d.pt", shape=wrong)


class _OneRow(nn.Module):
    """A program that was made for one row, and changes nothing inside."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.second = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x).reshape(1, 6))


def test_programs_for_one_row_are_run_row_by_row(tmp_path):
    module = scripted(_OneRow(), tmp_path / "o.pt")
    model = opened(torchscript, tmp_path / "o.pt")
    assert model.engine.batch == 1 and not model.engine.remembers
    states = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    with torch.inference_mode():
        wanted = torch.cat([module(torch.from_numpy(row[None])) for row in states])
    np.testing.assert_allclose(model.act({"states": states}), wanted, atol=1e-6)


class _Repeating(nn.Module):
    def __init__(self):
        super().__init__()
        self.step = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(3):
            x = torch.tanh(self.step(x))
        return x


def test_repeated_calls_follow_the_rule(tmp_path):
    module = scripted(_Repeating(), tmp_path / "l.pt")
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32))
    with torch.inference_mode():
        calls = [module.step(x)]
        for _ in range(2):
            calls.append(module.step(torch.tanh(calls[-1])))
    from mirror_analysis.models.recording.hooks import record
    from mirror_analysis.models.recording.pooling import Pooling

    for rule, wanted in (("first", calls[0]), ("last", calls[2]), ("mean", sum(calls) / 3)):
        model = opened(torchscript, tmp_path / "l.pt", calls=rule)
        layer = model.layers()[0]
        assert (layer.name, layer.calls) == ("step", rule)
        with record(model.taps(), [layer], pooling=Pooling(), episodes=1, time=2) as recording:
            model.forward_batch([Seen({"states": x.numpy()})])
        np.testing.assert_allclose(recording.features()["step"][0], wanted.mean(0), atol=1e-6)


class _Sampling(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mean(x) + torch.randn([x.size(0), 2])


def test_chance_is_drawn_the_same_every_time(tmp_path):
    scripted(_Sampling(), tmp_path / "s.pt")
    model = opened(torchscript, tmp_path / "s.pt")
    states = np.zeros((2, 4), dtype=np.float32)
    before = torch.random.get_rng_state()
    np.testing.assert_array_equal(model.act({"states": states}), model.act({"states": states}))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_width_that_cannot_be_told(tmp_path):
    class Free(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.matmul(x, torch.ones([x.size(1), 2])) * self.scale.mean()

    scripted(Free(), tmp_path / "w.pt")
    with pytest.raises(DefinitionError, match=r"cannot be told \(none of its weights' widths"):
        opened(torchscript, tmp_path / "w.pt")
    with pytest.raises(DefinitionError, match=r"option shape is '0'; needed the axes of \(x"):
        opened(torchscript, tmp_path / "w.pt", shape="0")
    model = opened(torchscript, tmp_path / "w.pt", shape="0,9")
    assert model.needs[0].width == 9


def test_refusals(tmp_path):
    class Writes(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch.save(x, "/nowhere/at/all")
            return x

    scripted(Writes(), tmp_path / "w.pt")
    with pytest.raises(FormatError, match=r"save"):
        opened(torchscript, tmp_path / "w.pt", shape="0,4")
    scripted(Blocks(), tmp_path / "b.pt")
    with pytest.raises(FormatError, match=r"does not run on 1 rows|does not run \("):
        opened(torchscript, tmp_path / "b.pt", shape="0,9")
    data = (tmp_path / "b.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match=r"cut\.pt"):
        opened(torchscript, tmp_path / "cut.pt", shape="0,4")

    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> int:
            return int(self.a(x).size(0))

    scripted(Counts(), tmp_path / "c.pt")
    with pytest.raises(FormatError, match=r"gives a int without a floating-point tensor"):
        opened(torchscript, tmp_path / "c.pt", shape="0,4")


@pytest.mark.real_weights
def test_real_walking_policy(shared):
    path = shared / "weights" / "torchscript" / "g1_motion.pt"
    model = opened(torchscript, path)
    assert [(i.name, i.width) for i in model.layers()] == [
        ("memory", 64), ("actor.0", 32), ("actor.1", 32), ("actor.2", 12),
    ]  # fmt: skip
    assert model.needs[0].width == 47
    assert model.facts["hidden state"] == "cell_state, hidden_state"
    states = np.random.default_rng(0).standard_normal((3, 20, 47)).astype(np.float32)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        direct = torch.jit.load(str(path))
        wanted = []
        for episode in torch.from_numpy(states):
            direct.reset_memory()
            wanted.append(torch.cat([direct(row[None]) for row in episode]))
    acted = np.stack([model.act({"states": states[:, t]}) for t in range(20)], axis=1)
    np.testing.assert_array_equal(acted, torch.stack(wanted))
    given = model.forward_batch([Seen({"states": states[i]}) for i in (2, 1, 0)])
    np.testing.assert_array_equal(given, torch.stack(wanted[::-1]))
    check_model(model)
