"""A layer with its gradients is the layer that extraction gives."""

import msgspec
import numpy as np
import pytest
import torch
from tiny_models import MAKERS
from torch import nn

from mirror_analysis.errors import DefinitionError, HookError, ShapeError, UnknownNameError
from mirror_analysis.extraction import extract
from mirror_analysis.models.model import Input, LayerInfo, ObservationModel
from mirror_analysis.models.preparation import Preparation
from mirror_analysis.models.recording.live import require_trainable, run_live
from mirror_analysis.models.recording.pooling import Pooling
from mirror_analysis.models.structure.discovery import Structure
from mirror_analysis.models.watching import Watching
from mirror_analysis.streams import resolve
from mirror_analysis.testing import made_up

FRAMES = 4


class Seen:
    """An episode under the names a model gives its inputs."""

    def __init__(self, episode, wires):
        self._episode, self._wires = episode, wires

    def __getattr__(self, name):
        return getattr(self._episode, name)

    def stream(self, name):
        return self._episode.stream(self._wires[name])


def seen(model, episodes):
    wires = resolve(model.name, model.needs, episodes.streams)
    return [Seen(episode, wires) for episode in episodes]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Name -> model; made once."""
    models = {}

    def get(name):
        if name not in models:
            models[name] = MAKERS[name](tmp_path_factory.mktemp(name))
        return models[name]

    return get


def episodes_for(model, frames=FRAMES):
    return made_up(model.needs, count=3, frames=frames)


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_is_what_extraction_gives_and_reaches_the_weights(name, made):
    model = made(name)
    of = episodes_for(model)
    rules = {"mean": extract(model, of), "last": extract(model, of, pooling="last")}
    infos = model.layers()
    for info in {infos[0].name: infos[0], infos[len(infos) // 2].name: infos[len(infos) // 2],
                 infos[-1].name: infos[-1]}.values():  # fmt: skip
        for rule, features in rules.items():
            live = run_live(model, seen(model, of), layer=info.name, pooling=Pooling.parse(rule))
            expected = features[info.name].values
            found = live.representation.detach().numpy()
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
        weights = [p for p in model.module.parameters() if p.requires_grad]
        loss = live.representation.square().sum()
        grads = torch.autograd.grad(loss, weights, allow_unused=True)
        reached = [g for g in grads if g is not None]
        assert reached and all(bool(torch.isfinite(g).all()) for g in reached)
        assert any(bool(g.any()) for g in reached)


@pytest.mark.parametrize("name", ["clips", "perceptron", "timm-convolutions"])
def test_gradients_are_those_of_finite_differences(name, made):
    model = made(name)
    of = seen(model, episodes_for(model))
    layer = model.layers()[-1].name
    weight = next(p for p in model.module.parameters() if p.ndim > 1)

    def loss():
        return run_live(model, of, layer=layer).representation.double().square().mean()

    (grad,) = torch.autograd.grad(loss(), [weight])
    direction = grad / grad.norm()
    size = 1e-2
    with torch.no_grad():
        before = weight.clone()
        weight.copy_(before + size * direction)
        up = loss()
        weight.copy_(before - size * direction)
        down = loss()
        weight.copy_(before)
    slope = ((up - down) / (2 * size)).item()
    assert slope == pytest.approx(grad.norm().item(), rel=0.02)


def test_tokens_are_pooled_as_extraction_does(made):
    model = made("pictures")
    of = episodes_for(model)
    for rule in ("mean/cls", "last/cls", "mean/patches", "last/patches"):
        expected = extract(model, of, layers=["block1"], pooling=rule)["block1"].values
        live = run_live(model, seen(model, of), layer="block1", pooling=Pooling.parse(rule))
        np.testing.assert_allclose(live.representation.detach().numpy(), expected, atol=1e-5)
    with pytest.raises(ShapeError, match="has no class token; 'mean/cls' needs one"):
        other = made("timm")
        run_live(other, seen(other, of), layer="patch_embed", pooling=Pooling("mean", "cls"))
    for rule in (Pooling("mean", "grid2"), Pooling("steps", "mean")):
        with pytest.raises(ShapeError, match="gives no single vector of the width of layer"):
            run_live(model, seen(model, of), layer="block1", pooling=rule)


def test_moments_are_the_layer_frame_by_frame(made):
    model = made("agent")
    of = episodes_for(model)
    live = run_live(model, seen(model, of), layer="hidden1")
    assert live.places.tolist() == [0, 1, 2, 3]
    for frame in range(FRAMES):
        part = [Cut(episode, frame) for episode in seen(model, of)]
        alone = run_live(model, part, layer="hidden1").representation
        torch.testing.assert_close(live.moments[:, frame], alone)


class Cut:
    """One frame of an episode."""

    def __init__(self, episode, frame):
        self._episode, self._part = episode, slice(frame, frame + 1)
        self.steps, self.timestamps = episode.steps[self._part], episode.timestamps[self._part]
        self.id, self.instruction, self.length = episode.id, episode.instruction, episode.length

    def stream(self, name):
        return self._episode.stream(name)[self._part]


def test_output_is_that_of_the_model_and_nothing_is_left_behind(made):
    model = made("perceptron")
    of = seen(model, episodes_for(model))
    live = run_live(model, of, layer="hidden1")
    torch.testing.assert_close(live.output, model.forward_batch(of))
    assert not any(module._forward_hooks for module in model.module.modules())
    with pytest.raises(UnknownNameError, match="unknown layer of policy 'hidden9'; did you mean"):
        run_live(model, of, layer="hidden9")


class Made(ObservationModel):
    """A network on the states whose one layer is declared as it is given."""

    def __init__(self, network, axes, *, run=None, calls="only", width=3, frames=0):
        self.name, self.module, self.needs = "made", network, (Input("states", 2),)
        self.info = LayerInfo("layer", width, axes, calls=calls, frames=frames)
        self.run = run

    def layers(self):
        return [self.info]

    def taps(self):
        return {"layer": self.module.layer}

    def forward_batch(self, episodes):
        x = torch.from_numpy(np.stack([episode.stream("states") for episode in episodes]))
        return self.run(self.module, x) if self.run else self.module.layer(x.flatten(0, 1))

    def untrained(self, seed):
        raise NotImplementedError


def plain(network=None, axes="episode*time channel", **given):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = network or nn.ModuleDict({"layer": nn.Linear(2, 3)})
    return Made(network, axes, **given)


def states(count=2, frames=FRAMES):
    return made_up([Input("states", 2)], count=count, frames=frames)


@pytest.mark.parametrize(
    ("calls", "weights"), [("first", [1, 0]), ("last", [0, 1]), ("mean", [0.5, 0.5]),
                           ("step 2", [0, 1])],
)  # fmt: skip
def test_repeated_calls_follow_the_rule(calls, weights):
    def twice(module, x):
        module["layer"](x.flatten(0, 1))
        return module["layer"](2 * x.flatten(0, 1))

    model = plain(run=twice, calls=calls)
    of = states()
    x = torch.from_numpy(np.stack([e.states for e in of]))
    both = model.module["layer"](x), model.module["layer"](2 * x)
    expected = sum(w * part for w, part in zip(weights, both, strict=True))
    torch.testing.assert_close(run_live(model, of, layer="layer").moments, expected)


def test_what_is_changed_in_place_afterwards_is_kept_as_it_was():
    def spoiling(module, x):
        output = module["layer"](x.flatten(0, 1))
        return output.mul_(0)

    model = plain(run=spoiling)
    of = states()
    live = run_live(model, of, layer="layer")
    x = torch.from_numpy(np.stack([e.states for e in of]))
    torch.testing.assert_close(live.moments, model.module["layer"](x))
    live.moments.sum().backward()
    assert model.module["layer"].weight.grad.any()


def test_axes_of_every_order():
    def clip(module, x):
        module["layer"](x)  # [episode, time, channel]
        return None

    model = plain(axes="episode time channel", run=clip)
    of = states()
    x = torch.from_numpy(np.stack([e.states for e in of]))
    expected = model.module["layer"](x)
    torch.testing.assert_close(run_live(model, of, layer="layer").moments, expected)

    class Moved(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(2, 3)

        def forward(self, x):
            # [token, episode, time, channel], two equal tokens
            return self.inner(x)[None].expand(2, -1, -1, -1)

    moved = plain(nn.ModuleDict({"layer": Moved()}), "token episode time channel", run=clip)
    expected = moved.module["layer"].inner(x)
    live = run_live(moved, of, layer="layer")
    torch.testing.assert_close(live.moments, expected)
    torch.testing.assert_close(live.representation, expected.mean(1))


def test_a_layer_of_the_whole_episode_has_no_moments():
    model = plain(axes="episode channel", run=lambda module, x: module["layer"](x.mean(1)))
    live = run_live(model, states(), layer="layer")
    assert live.moments is None and live.representation.shape == (2, 3)


@pytest.mark.parametrize(("frames", "places"), [(8, [3, 7]), (6, [2, 5]), (4, [1, 3])])
def test_places_are_the_last_frames_that_were_seen(frames, places):
    def halves(module, x):
        return module["layer"](x.unflatten(1, (2, -1)).mean(2))

    model = plain(axes="episode time channel", run=halves)
    live = run_live(model, states(frames=frames), layer="layer")
    assert live.places.tolist() == places
    watching = halves_of_clips()
    of = seen(watching, made_up(watching.needs, count=1, frames=frames))
    live = run_live(watching, of, layer="layer")
    spread = [round(i * (frames - 1) / 3) for i in range(4)]
    assert live.places.tolist() == spread[1::2]


def halves_of_clips():
    """Watches clips of four frames and gives a vector for each two of them."""
    layer = nn.Linear(3, 3)

    def call(module, x):
        return module(x.unflatten(1, (2, -1)).mean(dim=(2, 4, 5)))

    info = LayerInfo("layer", 3, "episode time channel")
    structure = Structure((info,), {"layer": layer})
    return Watching(
        layer, name="halves", prepare=Preparation(size=(8, 8)), call=call, structure=structure,
        rebuild=lambda: (layer, structure), layout="time channel", clip=4,
    )  # fmt: skip


def test_layers_that_see_some_frames_say_which():
    def some(module, x):
        return module["layer"](x[:, [0, 4, 7]].flatten(0, 1))

    live = run_live(plain(run=some, frames=3), states(frames=8), layer="layer")
    assert live.moments.shape == (2, 3, 3) and live.places.tolist() == [0, 4, 7]


def test_what_is_not_what_it_declares():
    of = states()
    with pytest.raises(HookError, match=r"gave the shape \(8, 3\) for 2 episodes of 4 frames but"):
        run_live(plain(width=5), of, layer="layer")
    with pytest.raises(HookError, match="declares 'episode channel' of width 3; declare what it"):
        run_live(plain(axes="episode channel"), of, layer="layer")
    with pytest.raises(HookError, match="declares 'episode time channel'"):
        run_live(plain(axes="episode time channel"), of, layer="layer")

    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, x):
            return "words"

    words = plain(nn.ModuleDict({"layer": Words()}), run=lambda m, x: m["layer"](x) and None)
    with pytest.raises(HookError, match=r"layer 'layer' \(Words\) gave a str without a floating"):
        run_live(words, of, layer="layer")
    silent = plain(run=lambda module, x: None)
    with pytest.raises(HookError, match="layer 'layer' did not run in the forward pass"):
        run_live(silent, of, layer="layer")


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_a_forward_pass_without_gradients_is_refused(without):
    def cut(module, x):
        with without():
            return module["layer"](x.flatten(0, 1))

    model = plain(run=cut)
    with pytest.raises(HookError, match="layer 'layer' of made has no gradients: no weight comes"):
        run_live(model, states(), layer="layer")


def test_inference_mode_is_refused_where_part_is_frozen_too():
    def cut(module, x):
        with torch.inference_mode():
            return module["layer"](x.flatten(0, 1))

    model = plain(run=cut)
    model.module["layer"].bias.requires_grad_(False)
    with pytest.raises(HookError, match="has no gradients: no weight comes before it, or what it"):
        run_live(model, states(), layer="layer")


def test_frozen_models_and_calls_without_gradients_are_fine():
    model = plain()
    with torch.no_grad():
        assert not run_live(model, states(), layer="layer").representation.requires_grad
    model.module.requires_grad_(False)
    assert not run_live(model, states(), layer="layer").representation.requires_grad


def test_an_engine_without_gradients_is_refused():
    engine = plain(nn.ModuleDict({"layer": nn.Identity()}))
    engine.facts = {"family": "onnx"}
    for act in (require_trainable, lambda model: run_live(model, states(), layer="layer")):
        with pytest.raises(DefinitionError, match=r"made \(onnx\) cannot be trained: its engine"):
            act(engine)


def test_autocast_around_the_call_is_obeyed(made):
    model = made("timm")
    of = seen(model, episodes_for(model))
    exact = run_live(model, of, layer="block1").representation
    with torch.autocast("cpu", torch.bfloat16):
        low = run_live(model, of, layer="block1").representation
    assert low.dtype == torch.float32
    error = (low - exact).abs().max() / exact.abs().max()
    assert 1e-5 < error < 0.05


def test_compiled_networks_are_recorded(made):
    model = plain()
    of = states()
    expected = run_live(model, of, layer="layer").moments
    compiled = torch.compile(model.module["layer"], backend="eager")
    compiled(torch.zeros(1, 2))
    wrapped = Made(nn.ModuleDict({"layer": compiled}), "episode*time channel")
    torch.testing.assert_close(run_live(wrapped, of, layer="layer").moments, expected)
    assert msgspec.structs.asdict(wrapped.info)["calls"] == "only"
