"""Checkpoints as ARP writes them, held to its forward pass written out by names of tensors."""

import numpy as np
import pytest
import torch
from drawn import drawn
from torch.nn import functional as F

from mirror_analysis.errors import FormatError, StreamError
from mirror_analysis.models.arp.family import load, recognise
from mirror_analysis.models.arp.network import ArpSizes, MultiViewTransformer
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.testing import check_model, made_up

SMALL = {"channels": 7, "patch": 4, "side": 3, "visual": 8, "state": 3, "words": 5, "word": 6,
         "width": 20, "heads": 2, "layers": 4}  # fmt: skip


def weights(look, fixed=True):
    network = MultiViewTransformer(ArpSizes(fixed=fixed, **SMALL))
    shapes = {f"mvt{look}.{n}": tuple(t.shape) for n, t in network.state_dict().items()}
    return {n: torch.from_numpy(drawn(n, shape)) for n, shape in shapes.items()}


def write(path, *, fixed=True, less=(), more=None):
    state = weights(1, fixed) | weights(2, fixed)
    state |= {"policy.pos_emb": torch.zeros(1, 17, 8)} | (more or {})
    state = {f"module.{n}": t for n, t in state.items() if n not in less}
    torch.save({"step": 1, "model_state": state, "optimizer_state": {}, "lr_sched_state": {}}, path)
    return path


def loaded(path, **options):
    values = {"words": "5"} | options
    return load(Checkpoint(path), name="arp", options=Options(values=values))


def slow(w, views, felt, words, fixed):
    """The published forward pass of one frame: loops over views, heads and tokens' groups."""

    def dense(name, x, active):
        x = F.linear(x, w[f"{name}.linear.weight"], w[f"{name}.linear.bias"])
        if not active:
            return x
        x = F.group_norm(x, 4, w[f"{name}.norm.weight"], w[f"{name}.norm.bias"])
        return torch.where(x > 0, x, 0.02 * x)

    def block(i, x):
        def norm(part, x):
            name = f"layers.{i}.{part}.norm"
            return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

        y, name = norm(0, x), f"layers.{i}.0.fn"
        q = y @ w[f"{name}.to_q.weight"].T
        k, v = (y @ w[f"{name}.to_kv.weight"].T).chunk(2, -1)
        heads = []
        for h in range(SMALL["heads"]):
            part = slice(64 * h, 64 * (h + 1))
            share = (q[:, part] @ k[:, part].T * 64**-0.5).softmax(-1)
            heads.append(share @ v[:, part])
        out = torch.cat(heads, -1) @ w[f"{name}.to_out.weight"].T + w[f"{name}.to_out.bias"]
        x = x + out
        name = f"layers.{i}.1.fn.net"
        y = F.linear(norm(1, x), w[f"{name}.0.weight"], w[f"{name}.0.bias"])
        y, gate = y.chunk(2, -1)
        gate = 0.5 * gate * (1 + torch.erf(gate / 2**0.5))
        return x + F.linear(y * gate, w[f"{name}.2.weight"], w[f"{name}.2.bias"])

    size, side = SMALL["patch"] * SMALL["side"], SMALL["side"]
    at = torch.linspace(-1, 1, size)
    patches = []
    for v, view in enumerate(views):
        place = torch.full((1, size, size), [-1.0, 0.0, 1.0][v])
        rows, columns = at[:, None].expand(size, size)[None], at[None].expand(size, size)[None]
        x = torch.cat([view, place, rows, columns])[None]
        x = F.conv2d(x, w["patchify.conv2d.weight"], w["patchify.conv2d.bias"], stride=4)
        x = F.group_norm(x, 4, w["patchify.norm.weight"], w["patchify.norm.bias"])[0]
        x = torch.where(x > 0, x, 0.02 * x)
        patches += [x[:, y, z] for y in range(side) for z in range(side)]
    state = dense("proprio_preprocess", felt[None], True)[0]
    x = torch.stack([torch.cat([patch, state]) for patch in patches])
    told = dense("lang_preprocess", words, True)
    places = w["pos_encoding"][0]
    x = torch.cat([told, x + places]) if fixed else torch.cat([told, x]) + places
    x = dense("fc_bef_attn", x, False)
    told, x = x[:5], x[5:]
    seen = []
    for view in x.split(side * side):
        for i in (0, 1):
            view = block(i, view)
        seen.append(view)
    x = torch.cat([told, *seen])
    for i in (2, 3):
        x = block(i, x)
    x = dense("fc_aft_attn", x[5:], False)
    return x.reshape(3, side, side, -1).permute(0, 3, 1, 2)


@pytest.mark.parametrize(("look", "fixed"), [("first", True), ("second", False)])
def test_maps_are_those_of_the_published_forward_pass(tmp_path, look, fixed):
    model = loaded(write(tmp_path / "arp.safetensors", fixed=fixed), look=look)
    episodes = list(made_up(model.needs, count=2, frames=5))
    with torch.inference_mode():
        maps = model.forward_batch(episodes)
    assert maps.shape == (2, 5, 3, 16, 3, 3)
    w = {n[5:]: t for n, t in weights(1 if look == "first" else 2, fixed).items()}
    for e, episode in enumerate(episodes):
        for t in range(5):
            views, felt, words = (torch.from_numpy(episode.stream(n)[t]) for n in model.inputs)
            wanted = slow(w, views.reshape(3, 7, 12, 12), felt, words.reshape(5, 6), fixed)
            assert (maps[e, t] - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_it_keeps_the_contract_and_says_what_it_is(tmp_path):
    path = write(tmp_path / "arp.pth")
    model = loaded(path)
    check_model(model)
    assert recognise(Checkpoint(path)) == "ARP policy of RLBench"
    assert [info.name for info in model.layers()] == [
        "patches", "view.block0", "view.block1", "joint.block0", "joint.block1", "map",
    ]  # fmt: skip
    assert [need.width for need in model.needs] == [3 * 7 * 12 * 12, 3, 30]
    with pytest.raises(StreamError, match="is one look of ARP, which does not act"):
        model.act({})


def test_faults_are_said_in_words(tmp_path):
    def fault(**changes):
        with pytest.raises(FormatError) as caught:
            loaded(write(tmp_path / "bad.pth", **changes))
        return str(caught.value)

    assert "lacks 'pos_encoding'" in fault(less=["mvt1.pos_encoding"])
    assert "lacks 'fc_bef_attn.linear.bias'" in fault(less=["mvt1.fc_bef_attn.linear.bias"])
    assert "28 places" in fault(more={"mvt1.pos_encoding": torch.zeros(1, 28, 16)})
    torch.save({"model_state": [1]}, tmp_path / "other.pth")
    with pytest.raises(FormatError, match="has no weights under 'model_state'"):
        loaded(tmp_path / "other.pth")
    assert recognise(Checkpoint(tmp_path / "other.pth")) is None
    assert recognise(Checkpoint(tmp_path)) is None


def test_views_of_another_size_are_refused(tmp_path):
    from mirror_analysis.errors import ShapeError
    from mirror_analysis.models.model import Input

    model = loaded(write(tmp_path / "arp.pth"))
    needs = (Input("array:views", 9), *model.needs[1:])
    with pytest.raises(ShapeError, match="array:views has 9 numbers a frame; arp needs 3024"):
        model.forward_batch(list(made_up(needs, count=1)))


def test_sizes_as_published():
    found = ArpSizes.measured(
        {
            "patchify.conv2d.weight": (64, 10, 14, 14),
            "pos_encoding": (1, 768, 128),
            "proprio_preprocess.linear.weight": (64, 3),
            "lang_preprocess.linear.weight": (128, 512),
            **{f"layers.{i}.0.fn.to_q.weight": (512, 512) for i in range(8)},
        },
        words=77,
    )
    assert (found.channels, found.pixels, found.heads, found.layers, found.fixed) == (
        7, 224, 8, 8, True,
    )  # fmt: skip


def test_fixed_places_are_of_patches_alone():
    assert np.prod(weights(1)["mvt1.pos_encoding"].shape[1:2]) == 27
    assert weights(1, fixed=False)["mvt1.pos_encoding"].shape[1] == 32
