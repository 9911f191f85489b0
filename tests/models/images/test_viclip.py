"""ViCLIP against its forward pass written out slowly, on small checkpoints in the exact format."""

import json

import numpy as np
import pytest
import torch
from drawn import drawn
from safetensors.torch import save_file

from mirror_analysis.errors import DefinitionError, FormatError, MissingFileError, UnknownNameError
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.families import recognise as recognise_any
from mirror_analysis.models.images.bilinear import four_pixels
from mirror_analysis.models.images.viclip import load, recognise
from mirror_analysis.models.images.viclip_network import ViclipSize, ViclipVision, fitted_times
from mirror_analysis.testing import check_model

WIDTH, DEPTH, PATCH, GRID, FRAMES, OUT = 128, 2, 4, 3, 8, 10
PIXELS = PATCH * GRID


def weights(seed=0, frames=FRAMES):
    """Every tensor of a small ViCLIP under its published name, and some of the half for words."""
    half = {
        "conv1.weight": (WIDTH, 3, 1, PATCH, PATCH),
        "class_embedding": (WIDTH,),
        "positional_embedding": (GRID**2 + 1, WIDTH),
        "temporal_positional_embedding": (1, frames, WIDTH),
        "proj": (WIDTH, OUT),
    }
    for norm in ("ln_pre", "ln_post"):
        half |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    for i in range(DEPTH):
        block = f"transformer.resblocks.{i}"
        half |= {
            f"{block}.attn.in_proj_weight": (3 * WIDTH, WIDTH),
            f"{block}.attn.in_proj_bias": (3 * WIDTH,),
            f"{block}.attn.out_proj.weight": (WIDTH, WIDTH),
            f"{block}.attn.out_proj.bias": (WIDTH,),
            f"{block}.mlp.c_fc.weight": (4 * WIDTH, WIDTH),
            f"{block}.mlp.c_fc.bias": (4 * WIDTH,),
            f"{block}.mlp.c_proj.weight": (WIDTH, 4 * WIDTH),
            f"{block}.mlp.c_proj.bias": (WIDTH,),
        }
        for norm in ("ln_1", "ln_2"):
            half |= {f"{block}.{norm}.weight": (WIDTH,), f"{block}.{norm}.bias": (WIDTH,)}
    found = {f"vision_encoder.{n}": torch.from_numpy(drawn(n, s, seed)) for n, s in half.items()}
    for name, tensor in found.items():
        if ".ln_" in name and name.endswith("weight"):
            tensor += 1.0
    words = {"temp": torch.tensor(0.07), "text_encoder.ln_final.weight": torch.ones(4)}
    return {**found, **words}


def slow(half, clip):
    """The published forward pass of one clip [time, 3, height, width], in float64 and loops."""
    w = {name.removeprefix("vision_encoder."): t.double().numpy() for name, t in half.items()}

    def normed(x, name):
        spread = np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return (x - x.mean(-1, keepdims=True)) / spread * w[f"{name}.weight"] + w[f"{name}.bias"]

    places = w["positional_embedding"]
    tokens = [w["class_embedding"] + places[0]]
    kernel = w["conv1.weight"][:, :, 0].reshape(WIDTH, -1)
    for row in range(GRID):
        for column in range(GRID):
            for time, frame in enumerate(clip):
                square = frame[:, row * PATCH : (row + 1) * PATCH,
                               column * PATCH : (column + 1) * PATCH]  # fmt: skip
                when = w["temporal_positional_embedding"][0]
                when = when[time] if len(clip) > 1 else when.mean(0)
                place = places[1 + row * GRID + column]
                tokens.append(kernel @ square.reshape(-1) + place + when)
    x = normed(np.stack(tokens), "ln_pre")
    for i in range(DEPTH):
        name = f"transformer.resblocks.{i}"
        y = normed(x, f"{name}.ln_1")
        y = y @ w[f"{name}.attn.in_proj_weight"].T + w[f"{name}.attn.in_proj_bias"]
        heads = []
        for head in range(WIDTH // 64):
            q, k, v = (y[:, j * WIDTH + head * 64 : j * WIDTH + (head + 1) * 64] for j in range(3))
            scores = q @ k.T / 8.0
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(shares / shares.sum(-1, keepdims=True) @ v)
        out = np.concatenate(heads, axis=-1) @ w[f"{name}.attn.out_proj.weight"].T
        x = x + out + w[f"{name}.attn.out_proj.bias"]
        y = normed(x, f"{name}.ln_2") @ w[f"{name}.mlp.c_fc.weight"].T + w[f"{name}.mlp.c_fc.bias"]
        y = y / (1 + np.exp(-1.702 * y))
        x = x + y @ w[f"{name}.mlp.c_proj.weight"].T + w[f"{name}.mlp.c_proj.bias"]
    return normed(x[0], "ln_post") @ w["proj"]


@pytest.fixture
def path(tmp_path):
    """A checkpoint as published, under a lying name."""
    file = tmp_path / "holiday.mp4"
    torch.save({"model": weights()}, file)
    return file


def opened(path, **options):
    return load(Checkpoint(path), name="viclip", options=Options(values=options))


def refused(path, error=FormatError, **options):
    with pytest.raises(error) as caught:
        opened(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def clips(time, seed=0):
    return np.random.default_rng(seed).standard_normal((2, time, 3, PIXELS, PIXELS))


def embedded(model, given):
    x = torch.from_numpy(given).float().transpose(1, 2)
    with torch.no_grad():
        return model.module(x).numpy()


def test_gives_what_the_published_network_gives(path):
    given = clips(FRAMES)
    expected = np.stack([slow(weights(), clip) for clip in given])
    np.testing.assert_allclose(embedded(opened(path), given), expected, atol=1e-5)
    assert np.abs(expected).max() > 0.1


def test_other_numbers_of_frames(path):
    half, known = weights(), weights()["vision_encoder.temporal_positional_embedding"]
    for frames, times in ((4, known[:, :4]), (1, known), (12, None)):
        model = opened(path, frames=str(frames))
        if times is None:
            times = torch.empty(1, 12, WIDTH)
            for i in range(12):
                at = min(max((i + 0.5) * 8 / 12 - 0.5, 0.0), 7.0)
                low = min(int(at), 6)
                times[0, i] = known[0, low] + (at - low) * (known[0, low + 1] - known[0, low])
        half["vision_encoder.temporal_positional_embedding"] = times
        given = clips(frames)
        expected = np.stack([slow(half, clip) for clip in given])
        np.testing.assert_allclose(embedded(model, given), expected, atol=1e-5)
        assert model.settings["preparation"].count(f'"frames":{frames}') == 1


def test_order_of_frames_matters(path):
    given, model = clips(FRAMES), opened(path)
    assert not np.allclose(embedded(model, given), embedded(model, given[:, ::-1].copy()))


def test_layers(path):
    found = {i.name: (i.axes, i.width, i.prefix) for i in opened(path).layers()}
    assert list(found) == ["conv1", "norm_pre", "block0", "block1", "norm", "embedding"]
    assert found["conv1"] == ("episode channel time height width", WIDTH, 0)
    assert found["norm_pre"] == ("episode token channel", WIDTH, 1)
    assert found["block0"] == ("token episode channel", WIDTH, 1)
    assert found["embedding"] == ("episode channel", OUT, 0)


@pytest.mark.parametrize("frames", [3, 20])
def test_holds_the_contract_of_models(path, frames):
    check_model(opened(path), pixels=(40, 50), frames=frames)


def test_pictures_are_prepared_as_published(path):
    model = opened(path)
    frames = np.random.default_rng(0).integers(0, 256, (19, 30, 41, 3), dtype=np.uint8)
    expected = np.stack([four_pixels(f, (PIXELS, PIXELS)) for f in frames[::2][:8]]) / 255.0
    expected = (expected - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    found = model.prepare(frames).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    even = opened(path, sampling="even").prepare(frames)
    torch.testing.assert_close(even[-1], model.prepare(frames[-1:])[0])
    assert "unknown value of option sampling" in refused(path, UnknownNameError, sampling="odd")
    assert "option frames is 0" in refused(path, DefinitionError, frames="0")


def test_recognised_by_content(path, tmp_path):
    found = recognise_any(Checkpoint(path))
    assert (found.family, found.what) == ("viclip", "ViCLIP, its half that watches")
    folder = tmp_path / "hub"
    folder.mkdir()
    assert recognise(Checkpoint(folder)) is None
    assert "has no weights" in refused(folder, MissingFileError)
    prefixed = {f"model.{k}": v for k, v in weights().items()}
    save_file(prefixed, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architectures": ["ViCLIP"], "size": "b"}))
    assert recognise_any(Checkpoint(folder)).family == "viclip"
    given = clips(FRAMES)
    np.testing.assert_allclose(
        embedded(opened(folder), given), embedded(opened(path), given), atol=1e-6
    )
    torch.save({"model": {"other": torch.zeros(1)}}, path)
    assert recognise(Checkpoint(path)) is None


def test_facts(path):
    facts = opened(path).facts
    assert facts["architecture"] == "ViCLIP of another size/4, 2 blocks of 128 channels"
    assert facts["left out"] == "the half for words (1 tensors), temp"
    assert facts["weights"] == "holiday.mp4, stored in float32, taken from its model"


def test_sizes_of_the_published_networks():
    for size in (ViclipSize(768, 12, 16, 14, 8, 512), ViclipSize(1024, 24, 14, 16, 8, 768)):
        with torch.device("meta"):
            network = ViclipVision(size)
        assert ViclipSize.of(network.state_dict()) == size
        assert network.transformer.resblocks[0].attn.num_heads == {768: 12, 1024: 16}[size.width]


def test_damaged_checkpoints_are_refused(path):
    whole = weights()
    for name, words in {
        "vision_encoder.conv1.weight": "holds no ViCLIP; needed vision_encoder.conv1.weight",
        "vision_encoder.positional_embedding": "holds no ViCLIP",
        "vision_encoder.transformer.resblocks.1.ln_1.bias": "it lacks transformer.resblocks.1.ln",
        "vision_encoder.ln_pre.bias": "it lacks ln_pre.bias",
    }.items():
        torch.save({"model": {k: v for k, v in whole.items() if k != name}}, path)
        assert words in refused(path)
    for name, shape in {
        "conv1.weight": (WIDTH, 3, 2, PATCH, PATCH),
        "positional_embedding": (GRID**2, WIDTH),
        "class_embedding": (1, WIDTH),
    }.items():
        torch.save({"model": whole | {f"vision_encoder.{name}": torch.zeros(shape)}}, path)
        assert "holds no ViCLIP" in refused(path)
    path.write_bytes(path.read_bytes()[:-500])
    refused(path)


def test_positions_in_time_that_fit_stay():
    known = torch.rand(1, 8, 4)
    assert fitted_times(known, 8) is known
    assert fitted_times(known, 16).shape == (1, 16, 4)
