from __future__ import annotations

import dataclasses
from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mirror_analysis.errors import DefinitionError, HookError, ShapeError, UnknownNameError
from mirror_analysis.models.model import LayerInfo, weights_digest
from mirror_analysis.models.recording.hooks import first_tensor, record, unwrap
from mirror_analysis.models.recording.pooling import Pooling, pool

B, T, C, H, W = 2, 3, 4, 6, 8


def info(axes: str, width: int = C, name: str = "a", calls: str = "only") -> LayerInfo:
    return LayerInfo(name=name, width=width, axes=axes, calls=calls)


def value(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Fires(nn.Module):
    """Gives what it was made with, whatever comes in."""

    def __init__(self, *outputs: object) -> None:
        super().__init__()
        self.outputs = list(outputs)

    def forward(self, x: object = None) -> object:
        return self.outputs.pop(0) if len(self.outputs) > 1 else self.outputs[0]


def run(module: nn.Module, layer: LayerInfo, *, pooling: str = "mean", calls: int = 1):
    rule = Pooling.parse(pooling)
    with record({layer.name: module}, [layer], pooling=rule, episodes=B, time=T) as recording:
        for _ in range(calls):
            module()
    return recording.features()[layer.name]


# -- pooling ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("axes", "reference"),
    [
        ("episode*time channel height width", lambda x: x.permute(0, 1, 3, 4, 2)),
        ("episode*time token channel", lambda x: x[..., 0, :].movedim(2, 3)),
        ("episode*time channel", lambda x: x[:, :, :, 0, 0]),
        ("episode time channel", lambda x: x[:, :, :, 0, 0]),
        ("episode channel time height width", lambda x: x.permute(0, 1, 3, 4, 2)),
    ],
)
@pytest.mark.parametrize("time", ["mean", "last"])
def test_every_layout_gives_the_same_vector_as_slow_loops(axes, reference, time) -> None:
    raw = value(B, T, C, H, W)
    plain = reference(raw)  # [episode, time, ..., channel]
    layouts = {
        "episode*time channel height width": raw.flatten(0, 1),
        "episode*time token channel": plain.flatten(0, 1) if plain.ndim == 4 else raw,
        "episode*time channel": plain.flatten(0, 1),
        "episode time channel": plain,
        "episode channel time height width": raw.transpose(1, 2),
    }
    got = pool(layouts[axes], info(axes), Pooling(time), episodes=B, time=T)
    for b in range(B):
        frames = [plain[b, t].reshape(-1, C).mean(0) for t in range(T)]
        expected = frames[-1] if time == "last" else torch.stack(frames).mean(0)
        torch.testing.assert_close(got[b], expected)


def test_a_layer_without_time_is_kept_under_every_time_rule() -> None:
    raw = value(B, C)
    for time in ("mean", "last"):
        assert torch.equal(run(Fires(raw), info("episode channel"), pooling=time), raw)


@pytest.mark.parametrize("time", ["mean", "last"])
def test_a_grid_averages_inside_cells_and_keeps_channels_apart(time) -> None:
    raw = value(B * T, C, 4, 4)
    layer = info("episode*time channel height width")
    got = run(Fires(raw), layer, pooling=f"{time}/grid2").reshape(B, C, 2, 2)
    frames = raw.reshape(B, T, C, 4, 4)
    frames = frames[:, -1] if time == "last" else frames.mean(1)
    torch.testing.assert_close(got[1, 2, 0, 1], frames[1, 2, :2, 2:].mean())
    torch.testing.assert_close(got[0, 3, 1, 0], frames[0, 3, 2:, :2].mean())


def test_a_grid_tells_two_places_apart_where_the_mean_does_not() -> None:
    left, right = torch.zeros(B * T, C, 4, 4), torch.zeros(B * T, C, 4, 4)
    left[..., 0], right[..., 3] = 1.0, 1.0
    layer = info("episode*time channel height width")
    assert torch.equal(run(Fires(left), layer), run(Fires(right), layer))
    cells = [run(Fires(x), layer, pooling="mean/grid4") for x in (left, right)]
    assert not torch.equal(*cells)


def test_a_grid_has_no_more_cells_than_the_map_has_places() -> None:
    layer = info("episode*time channel height width")
    assert run(Fires(value(B * T, C, 2, 3)), layer, pooling="last/grid4").shape == (B, C * 2 * 3)


def test_a_grid_of_tokens_is_refused() -> None:
    with pytest.raises(
        ShapeError, match=r"'a' gives tokens without height and width.*'mean/grid2'"
    ):
        run(Fires(value(B * T, 5, C)), info("episode*time token channel"), pooling="mean/grid2")


@pytest.mark.parametrize("text", ["mean", "last", "mean/grid2", "last/grid4"])
def test_pooling_reads_back_what_it_writes(text) -> None:
    assert str(Pooling.parse(text)) == text
    assert str(Pooling.parse(f"{text}/mean" if "/" not in text else text)) == text


@pytest.mark.parametrize("text", ["", "max", "mean/", "mean/grid3", "grid2", "mean/grid2/x"])
def test_unknown_pooling_names_all_known(text) -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown pooling .*last/grid2, last/grid4, last/patches, mean"
    ):
        Pooling.parse(text)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), dtype=st.sampled_from([torch.float16, torch.bfloat16]))
def test_half_precision_is_averaged_in_float32(seed, dtype) -> None:
    raw = (torch.randn(B * T, C, 16, 16, generator=torch.Generator().manual_seed(seed)) + 100).to(
        dtype
    )
    got = run(Fires(raw), info("episode*time channel height width"))
    expected = raw.double().reshape(B, T, C, -1).mean((1, 3)).float()
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("axes", "shape", "pooling"),
    [
        ("episode channel", (B, C), "mean"),
        ("episode time channel", (B, T, C), "last"),
        ("episode time channel", (B, 1, C), "mean"),
        ("episode channel height width", (B, C, 2, 2), "mean/grid4"),
    ],
)
def test_nothing_of_the_activation_is_kept_alive_or_shared(axes, shape, pooling) -> None:
    raw = value(*shape).requires_grad_()
    got = run(Fires(raw), info(axes), pooling=pooling)
    assert not got.requires_grad
    assert got.untyped_storage().nbytes() == got.numel() * 4
    before = got.clone()
    raw.data.zero_()
    assert torch.equal(got, before)


# -- faults of a layer ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "axes", "words"),
    [
        ((B, T, C), "episode channel", r"gave shape \(2, 3, 4\) but declares the axes"),
        ((B + 1, C), "episode channel", r"gave 3 rows for 2 episodes of 3 frames; 'episode' needs"),
        ((B, C), "episode*time channel", r"gave 2 rows for 2 episodes of 3 frames.*needs 6"),
        ((B, C + 1), "episode channel", r"gave 5 channels \(shape \(2, 5\)\) but declares 4"),
        ((B, 0, C), "episode time channel", r"gave the empty shape \(2, 0, 4\)"),
    ],
)
def test_an_output_other_than_declared_is_refused(shape, axes, words) -> None:
    with pytest.raises(HookError, match=words):
        run(Fires(value(*shape)), info(axes))


@pytest.mark.parametrize(
    "axes",
    ["channel episode", "episode", "episode batch channel", "episode channel height",
     "episode*time time channel", "episode channel channel", ""],
)  # fmt: skip
def test_axes_that_are_not_words_of_the_table_are_refused(axes) -> None:
    with pytest.raises(ShapeError, match=r"layer 'a' has the axes .*needed 'episode' or"):
        info(axes)


@pytest.mark.parametrize("output", [torch.ones(B), torch.ones(B, C).long(), None, {"x": 3}, "text"])
def test_an_output_without_a_tensor_is_refused(output) -> None:
    with pytest.raises(HookError, match=r"'a' \(Fires\) gave a .* without a floating-point tensor"):
        run(Fires(output), info("episode channel"))


def test_a_layer_that_does_not_run_is_named_with_those_that_did() -> None:
    taps = {"one": Fires(value(B, C)), "two": Fires(value(B, C))}
    layers = [info("episode channel", name=name) for name in taps]
    with record(taps, layers, pooling=Pooling(), episodes=B, time=T) as recording:
        taps["one"]()
        taps["two"].forward()
    with pytest.raises(HookError, match=r"'two' did not run in the forward pass \(ran: one\)"):
        recording.features()


def test_a_layer_without_a_tap_is_named() -> None:
    with (
        pytest.raises(UnknownNameError, match=r"unknown tap 'conv2'; did you mean 'conv1'"),
        record({"conv1": Fires(1)}, [info("episode channel", name="conv2")], pooling=Pooling(),
               episodes=B, time=T),
    ):  # fmt: skip
        pass


# -- calls and outputs ------------------------------------------------------------------------


def test_repeated_calls_follow_the_declared_rule() -> None:
    calls = [value(B, C) + k for k in range(3)]
    expected = {"first": calls[0], "last": calls[2], "mean": sum(calls) / 3}
    expected |= {f"step {k}": calls[k - 1] for k in (1, 2, 3)}
    for rule, tensor in expected.items():
        got = run(Fires(*calls), info("episode channel", calls=rule), calls=3)
        torch.testing.assert_close(got, tensor)


def test_a_step_that_never_comes_and_a_rule_that_is_none_are_refused() -> None:
    words = "layer 'a' ran 2 times in the forward pass but 'step 3' was asked for; ask for an"
    with pytest.raises(HookError, match=words):
        run(Fires(value(B, C)), info("episode channel", calls="step 3"), calls=2)
    for rule in ("third", "step 0", "step", "step -1"):
        with pytest.raises(DefinitionError, match=f"'{rule}' does not say which call of a layer"):
            info("episode channel", calls=rule)


@pytest.mark.parametrize("axes", ["episode token channel", "token episode channel"])
def test_class_tokens_and_patches_are_told_apart(axes) -> None:
    x = value(B, 5, C)
    layer = LayerInfo("a", C, axes, prefix=2)
    given = Fires(x if axes.startswith("episode") else x.transpose(0, 1))
    for rule, expected in {"mean": x.mean(1), "cls": x[:, 0], "patches": x[:, 2:].mean(1)}.items():
        torch.testing.assert_close(run(given, layer, pooling=f"mean/{rule}"), expected)
    bare = LayerInfo("a", C, axes)
    with pytest.raises(ShapeError, match="layer 'a' has no class token; 'mean/cls' needs one"):
        run(given, bare, pooling="mean/cls")
    with pytest.raises(ShapeError, match="has a prefix of 1 tokens on the axes 'episode channel'"):
        LayerInfo("a", C, "episode channel", prefix=1)


def test_repeated_calls_without_a_rule_are_refused() -> None:
    with pytest.raises(HookError, match="'a' ran 2 times in one forward pass; declare which"):
        run(Fires(value(B, C)), info("episode channel"), calls=2)


@dataclasses.dataclass
class Output:
    loss: float
    hidden: torch.Tensor


def test_the_first_floating_tensor_with_two_axes_counts() -> None:
    x, other = value(B, C), value(B, C)
    ids, scalar = torch.ones(B, C, dtype=torch.long), torch.tensor(1.0)
    for output in (
        x,
        (ids, scalar, x, other),
        [None, (x, other)],
        OrderedDict(mask=ids, hidden=x, other=other),
        Output(0.5, x),
        ({"nothing": "here"}, Output(0.5, x)),
    ):
        assert first_tensor(output) is x
    assert first_tensor(Output) is None


# -- hooks on real networks -------------------------------------------------------------------


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(C, C), nn.ReLU(inplace=True), nn.Linear(C, 2))


def count(module: nn.Module) -> int:
    return sum(len(m._forward_hooks) for m in module.modules())


def test_hooks_go_even_when_the_pass_fails() -> None:
    net = network()
    layers = [info("episode channel", name="first")]
    with (
        pytest.raises(RuntimeError, match="shapes cannot be multiplied"),
        record({"first": net[0]}, layers, pooling=Pooling(), episodes=B, time=T),
    ):
        assert count(net) == 1
        net(value(B, C + 1))
    assert count(net) == 0


def test_hooks_do_not_change_what_the_network_gives() -> None:
    net, x = network(), value(B, C)
    plain = net(x)
    with record({"a": net[0]}, [info("episode channel")], pooling=Pooling(), episodes=B, time=T):
        assert torch.equal(net(x), plain)


def test_an_in_place_layer_after_the_tap_does_not_reach_back() -> None:
    net, x = network(), value(B, C)
    layers = [info("episode channel")]
    with record({"a": net[0]}, layers, pooling=Pooling(), episodes=B, time=T) as recording:
        net(x)
    assert torch.equal(recording.features()["a"], net[0](x).detach())


def test_layers_of_a_compiled_network_are_recorded() -> None:
    net, x = network(), value(B, C)
    compiled = torch.compile(net, backend="eager")
    compiled(x)  # hooks added after this would be left out of the compiled code
    taps = {"a": net[0], "whole": compiled}
    layers = [info("episode channel"), info("episode channel", 2, "whole")]
    assert unwrap(compiled) is net
    with record(taps, layers, pooling=Pooling(), episodes=B, time=T) as recording:
        result = compiled(x)
    got = recording.features()
    assert torch.equal(got["a"], net[0](x).detach())
    assert torch.equal(got["whole"], result.detach())


def test_wrappers_are_taken_off() -> None:
    net = network()
    assert unwrap(nn.DataParallel(net)) is net
    assert unwrap(net) is net


def test_the_digest_of_weights_changes_with_any_weight_and_name_only() -> None:
    net, twin = network(), network()
    digest = weights_digest(net)
    assert weights_digest(twin) == digest
    assert weights_digest(twin.eval()) == digest
    with torch.no_grad():
        twin[2].bias[1] += 1e-6
    assert weights_digest(twin) != digest
    assert weights_digest(nn.ModuleDict({"a": net})) != digest
