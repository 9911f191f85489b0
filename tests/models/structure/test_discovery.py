"""Layers found by structure: blocks, stages, names, axes, calls."""

import pytest
import torch
from torch import nn

from mirror_analysis.errors import HookError
from mirror_analysis.models.recording.hooks import record
from mirror_analysis.models.recording.pooling import Pooling
from mirror_analysis.models.structure.discovery import (
    discover,
    evenly_spaced,
    first_output,
    laid_out,
)
from mirror_analysis.models.structure.layouts import axes_of

E1, T1 = 2, 3
RUNS = ((E1, T1), (E1 + 1, 1))


class Block(nn.Module):
    """Two maps and a shortcut, as in most encoders."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        return x + self.outer(self.inner(x).relu())


class Encoder(nn.Module):
    """Tokens of single pictures, with a class token put before them."""

    def __init__(self, width: int = 8, depth: int = 3) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, width, 4, stride=4)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.layers = nn.ModuleList(Block(width) for _ in range(depth))
        self.ln_post = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, 5)

    def forward(self, x):
        x = self.patch_embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
        for layer in self.layers:
            x = layer(x)
        return self.classifier(self.ln_post(x)[:, 0])


def found(module, shape=(3, 12, 16), **given):
    """Layers by name, on pictures whose frames are folded into the batch."""
    module.eval()
    structure = discover(module, lambda e, t: module(torch.ones(e * t, *shape)), **given)
    assert list(structure.taps) == [info.name for info in structure.layers]
    return {info.name: info for info in structure.layers}


def test_an_encoder_is_told_apart_into_stem_blocks_norm_and_head() -> None:
    layers = found(Encoder(), prefix=1)
    assert list(layers) == ["patch_embed", "block0", "block1", "block2", "norm", "head"]
    assert layers["patch_embed"].axes == "episode*time channel height width"
    assert {layers[n].axes for n in ("block0", "block2", "norm")} == {"episode*time token channel"}
    assert layers["head"].axes == "episode*time channel"
    assert [layers[n].width for n in layers] == [8, 8, 8, 8, 8, 5]
    assert [layers[n].prefix for n in layers] == [0, 1, 1, 1, 1, 0]
    assert {info.calls for info in layers.values()} == {"only"}
    assert layers["block0"].kind == "Block"


def test_the_names_do_not_depend_on_how_attributes_are_called() -> None:
    class Other(Encoder):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.layers = nn.Sequential(*self.layers), None

        def forward(self, x):
            x = self.patch_embed(x).flatten(2).transpose(1, 2)
            return self.classifier(self.ln_post(self.trunk(x))[:, 0])

    assert list(found(Other())) == list(found(Encoder()))


class Staged(nn.Module):
    """Convolutions in stages; the first stage has one block, of another class."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)

        def block(a, b):
            return nn.Sequential(nn.Conv2d(a, b, 1), nn.ReLU(), nn.Conv2d(b, b, 1))

        self.layer1 = nn.Sequential(block(8, 8))
        self.layer2 = nn.Sequential(block(8, 16), block(16, 16))
        self.fc = nn.Linear(16, 2)

    def forward(self, x):
        x = self.layer2(self.layer1(self.conv1(x)))
        return self.fc(x.mean((2, 3)))


def test_stages_are_opened_and_their_blocks_are_not() -> None:
    layers = found(Staged(), shape=(3, 8, 8))
    assert list(layers) == ["conv1", "stage0.block0", "stage1.block0", "stage1.block1", "head"]
    assert layers["stage1.block1"].axes == "episode*time channel height width"
    assert layers["stage1.block1"].width == 16


def test_a_row_of_maps_inside_a_block_is_no_stage() -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn1, self.attn2 = Block(4), Block(4)
            self.feed = nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 4))

        def forward(self, x):
            return self.feed(self.attn2(self.attn1(x)))

    net = nn.Sequential(*(Doubled() for _ in range(2)))
    assert list(found(net, shape=(4,))) == ["block0", "block1"]


class Two(nn.Module):
    """An encoder and a predictor behind it."""

    def __init__(self, skip: bool) -> None:
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(Block(4) for _ in range(3))
        self.predictor = nn.Module()
        self.predictor.layer = nn.ModuleList(Block(4) for _ in range(2))
        self.skip = skip

    def forward(self, x):
        for block in self.encoder.layer:
            x = block(x)
        for block in self.predictor.layer if not self.skip else ():
            x = block(x)
        return x


def test_a_second_stack_is_named_and_one_that_does_not_run_is_left_out() -> None:
    assert list(found(Two(skip=True), shape=(4,))) == ["block0", "block1", "block2"]
    assert list(found(Two(skip=False), shape=(4,))) == [
        *(f"encoder.block{i}" for i in range(3)),
        *(f"predictor.block{i}" for i in range(2)),
    ]


def test_part_of_a_network_is_looked_at_alone() -> None:
    net = Two(skip=False).eval()
    got = discover(net, lambda e, t: net(torch.ones(e * t, 4)), inner=net.predictor)
    assert [info.name for info in got.layers] == ["block0", "block1"]


def test_a_network_without_blocks_gives_the_modules_of_its_sequences() -> None:
    net = nn.Sequential(nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5)), nn.Linear(5, 2))
    assert {n: i.width for n, i in found(net, shape=(4,)).items()} == {"0.0": 6, "0.2": 5, "1": 2}

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = nn.Module()
            self.model.first, self.model.fc = nn.Linear(4, 3), nn.Linear(3, 2)
            self.model.forward = lambda x: self.model.fc(self.model.first(x))

        def forward(self, x):
            return self.model(x)

    assert list(found(Wrapped(), shape=(4,))) == ["first", "fc"]


# -- axes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [True, False])
def test_tokens_may_come_before_the_batch(first) -> None:
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=not first)
    net = nn.TransformerEncoder(block, 2, enable_nested_tensor=False).eval()

    def run(episodes, time):
        x = torch.randn(episodes, 5, 8, generator=torch.Generator().manual_seed(0))
        return net(x.transpose(0, 1) if first else x)

    got = discover(net, run, prefix=1)
    order = "token episode channel" if first else "episode token channel"
    assert {(i.axes, i.width, i.prefix) for i in got.layers} == {(order, 8, 1)}
    for space, wanted in {
        "mean": lambda y: y.mean(1),
        "cls": lambda y: y[:, 0],
        "patches": lambda y: y[:, 1:].mean(1),
    }.items():
        pooling = Pooling("mean", space)
        with (
            torch.no_grad(),
            record(got.taps, got.layers, pooling=pooling, episodes=4, time=9) as r,
        ):
            y = run(4, 9)
        expected = wanted(y.transpose(0, 1) if first else y)
        torch.testing.assert_close(r.features()["block1"], expected)


@pytest.mark.parametrize(
    ("shapes", "axes"),
    [
        (((6, 7), (3, 7)), "episode*time channel"),
        (((2, 7), (3, 7)), "episode channel"),
        (((6, 17, 32), (3, 17, 32)), "episode*time token channel"),
        (((2, 3, 32), (3, 1, 32)), "episode time channel"),
        (((2, 49, 32), (3, 17, 32)), "episode token channel"),
        (((49, 2, 32), (17, 3, 32)), "token episode channel"),
        (((3, 2, 32), (1, 3, 32)), "time episode channel"),
        (((6, 32, 9, 9), (3, 32, 9, 9)), "episode*time channel height width"),
        (((6, 9, 9, 32), (3, 9, 9, 32)), "episode*time height width channel"),
        (((6, 9, 12, 32), (3, 9, 12, 32)), "episode*time height width channel"),
        (((6, 32, 9, 12), (3, 32, 9, 12)), "episode*time channel height width"),
        (((2, 32, 3, 9, 9), (3, 32, 1, 9, 9)), "episode channel time height width"),
        (((2, 32, 4, 9, 9), (3, 32, 4, 9, 9)), "episode channel time height width"),
        (((2, 4, 9, 9, 32), (3, 4, 9, 9, 32)), "episode time height width channel"),
        (((2, 3, 16, 32), (3, 1, 16, 32)), "episode time token channel"),
        (((2, 32, 6, 9, 9), (3, 32, 2, 9, 9)), "episode channel time height width"),
        (((2, 6, 16, 32), (3, 2, 16, 32)), "episode time token channel"),
        # Windows folded into the batch, heads, nothing of episodes, one axis, other ranks.
        (((24, 16, 32), (12, 16, 32)), None),
        (((8, 16, 32), (12, 16, 32)), None),
        (((5, 32), (5, 32)), None),
        (((2,), (3,)), None),
        (((2, 32), (3, 1, 32)), None),
        (((2, 2, 32), (3, 3, 32)), None),
        (((2, 3), (3, 1)), None),
        (((2, 5, 6, 7, 8, 32), (3, 5, 6, 7, 8, 32)), None),
        (((32, 2, 5), (32, 3, 5)), "token episode channel"),
        (((9, 9, 2, 32), (9, 9, 3, 32)), None),
    ],
)
def test_axes_are_told_by_what_changes(shapes, axes) -> None:
    assert axes_of(shapes, RUNS, widths={32}) == axes


def test_the_channel_is_the_width_of_the_weights_then_the_odd_one_then_the_rule() -> None:
    inputs = ((2, 3), (3, 1))
    cube = ((6, 8, 8, 8), (3, 8, 8, 8))
    assert axes_of(cube, inputs) == "episode*time channel height width"
    assert axes_of(cube, inputs, channels_last=True) == "episode*time height width channel"
    flat = ((6, 8, 8, 6), (3, 8, 8, 6))
    assert axes_of(flat, inputs) == "episode*time height width channel"
    assert axes_of(flat, inputs, widths={8}) == "episode*time channel height width"


def test_a_cube_is_laid_out_as_the_other_maps_are() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 20)

        def forward(self, x):
            return self.second(self.first(x))

    assert {i.axes for i in found(Last(), shape=(8, 8, 3)).values()} == {
        "episode*time height width channel"
    }
    first = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 20, 1))
    assert {i.axes for i in found(first, shape=(3, 8, 8)).values()} == {
        "episode*time channel height width"
    }


def test_frames_folded_by_a_network_of_clips_are_counted() -> None:
    net = Encoder().eval()

    def run(episodes, time):
        return net(torch.ones(episodes, 4, 3, 8, 8).flatten(0, 1)).unflatten(0, (-1, 4)).mean(1)

    got = discover(net, run, clip=4, prefix=1)
    block = next(i for i in got.layers if i.name == "block1")
    assert (block.axes, block.frames, block.prefix) == ("episode*time token channel", 4, 1)
    with torch.no_grad(), record(got.taps, got.layers, pooling=Pooling(), episodes=5, time=30) as r:
        run(5, 30)
    assert r.features()["block1"].shape == (5, 8)
    with pytest.raises(HookError, match="no layer gives a tensor of episodes by channels"):
        discover(net, run)


def test_hierarchies_have_a_class_token_only_where_places_are_a_square() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(Block(4) for _ in range(2))

        def forward(self, x):
            x = self.blocks[0](x)
            x = torch.cat([x[:, :1], x[:, ::4]], 1)
            return self.blocks[1](x)

    assert [i.prefix for i in found(Late(), shape=(16, 4), prefix=1).values()] == [0, 1]


# -- calls ------------------------------------------------------------------------------------


class Denoiser(nn.Module):
    """An encoder once, then blocks over and over."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.blocks = nn.Linear(4, 4), nn.ModuleList(Block(4) for _ in range(2))

    def forward(self, x):
        x = self.encoder(x)
        for _ in range(3):
            for block in self.blocks:
                x = block(x)
        return x


@pytest.mark.parametrize("rule", ["first", "last", "mean", "step 2"])
def test_calls_are_counted_and_get_the_rule(rule) -> None:
    layers = found(Denoiser(), shape=(4,), calls=rule)
    assert {n: i.calls for n, i in layers.items()} == {
        "encoder": "only", "block0": rule, "block1": rule,
    }  # fmt: skip


def test_a_step_that_is_never_taken_is_refused() -> None:
    with pytest.raises(HookError, match=r"'blocks\.0' ran 3 times .* 'step 4'.* an earlier step"):
        found(Denoiser(), shape=(4,), calls="step 4")


# -- others -----------------------------------------------------------------------------------


def test_a_network_that_gives_no_episodes_is_refused() -> None:
    net = nn.Sequential(nn.Flatten(0), nn.Linear(12, 3))
    with pytest.raises(HookError, match=r"no layer gives a tensor of episodes.*\(1 \(3,\)\)"):
        discover(net, lambda e, t: net(torch.ones(12)))
    with pytest.raises(HookError, match=r"\(none ran\); give a network whose modules are called"):
        discover(net, lambda e, t: None)


def test_hooks_are_gone_afterwards_even_after_a_fault() -> None:
    net = Encoder()
    found(net)
    with pytest.raises(RuntimeError):
        discover(net, lambda e, t: net(torch.ones(e * t, 2)))
    assert not any(module._forward_hooks for module in net.modules())


def test_a_compiled_network_is_looked_into() -> None:
    net = Encoder().eval()
    compiled = torch.compile(net, backend="eager")
    x = torch.ones(6, 3, 12, 16)
    compiled(x)
    assert list(found(compiled)) == list(found(net))


def test_layers_are_found_again_in_a_network_of_the_same_architecture() -> None:
    old, new = Encoder().eval(), Encoder().eval()
    structure = discover(old, lambda e, t: old(torch.ones(e * t, 3, 8, 8)))
    moved = structure.moved(old, new)
    assert moved.layers == structure.layers
    assert moved.taps["block1"] is new.layers[1]


def test_layers_known_by_name_are_only_measured() -> None:
    taps = {"b": nn.Identity(), "a": nn.Identity(), "never": nn.Identity(), "flat": nn.Identity()}

    def run(episodes, time):
        taps["a"](torch.ones(episodes * time, 6, 5, 5))
        taps["b"](torch.ones(episodes, 7))
        taps["flat"](torch.ones(3, 7))

    got = laid_out(taps, run)
    assert [(i.name, i.axes, i.width) for i in got.layers] == [
        ("a", "episode*time channel height width", 6), ("b", "episode channel", 7),
    ]  # fmt: skip
    assert list(got.taps) == ["a", "b"]


def test_frames_are_spread_evenly() -> None:
    assert evenly_spaced(10, 4) == [0, 3, 6, 9]
    assert evenly_spaced(3, 5) == [0, 0, 1, 2, 2]
    assert evenly_spaced(9, 1) == [4]


def test_the_output_of_a_network_is_what_it_names_first() -> None:
    logits, pooled, tokens = torch.ones(2, 3), torch.ones(2, 4), torch.ones(2, 5, 4)
    assert first_output(tokens) is tokens
    assert first_output((None, tokens, pooled)) is tokens
    assert first_output({"last_hidden_state": tokens, "pooler_output": pooled}) is pooled
    assert first_output({"pooler_output": pooled, "logits": logits}) is logits
    assert first_output({"pooler_output": None, "last_hidden_state": tokens}) is tokens
    assert first_output("nothing") is None
