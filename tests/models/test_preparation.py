"""Pictures made ready for a network, against the processors of transformers."""

import json

import numpy as np
import pytest
import torch

from mirror_analysis.errors import FormatError
from mirror_analysis.files.pictures import read_picture
from mirror_analysis.models.checkpoint import Checkpoint
from mirror_analysis.models.preparation import CLIP_MEAN, CLIP_STD, Preparation
from mirror_analysis.models.transformers.published import (
    MODEL_TYPES,
    PROCESSORS,
    published_preparation,
)
from mirror_analysis.torchvision_shim import ensure_torchvision

SIZES = ((101, 67), (333, 517), (7, 300), (224, 225), (64, 64))
# Processor -> settings other than its own; its class here is the one that resizes with PIL, where
# there are two.
PUBLISHED = {
    "BeitImageProcessor": {},
    "BitImageProcessor": {},
    "CLIPImageProcessor": {},
    "CLIPImageProcessor small": {"size": {"shortest_edge": 60}, "crop_size": 97},
    "ConvNextImageProcessor": {},
    "ConvNextImageProcessor small": {"size": {"shortest_edge": 96}, "crop_pct": 0.9},
    "DINOv3ViTImageProcessor": {},
    "DeiTImageProcessor": {},
    "PvtImageProcessor": {},
    "SiglipImageProcessor": {},
    "TimesformerVideoProcessor": {},
    "VJEPA2VideoProcessor": {},
    "VJEPA2VideoProcessor small": {"crop_size": 64},
    "ViTImageProcessor": {},
    "ViTImageProcessor plain": {"do_rescale": False, "do_normalize": False, "resample": 1},
    "ViTImageProcessor raw": {"do_resize": False},
    "VideoMAEImageProcessor": {},
    "VideoMAEVideoProcessor": {},
    "VivitImageProcessor": {},
    "VivitVideoProcessor": {},
}


def noise(height: int, width: int) -> np.ndarray:
    g = np.random.default_rng(height * 1000 + width)
    coarse = g.integers(0, 256, (height // 5 + 1, width // 5 + 1, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((5, 5, 1), dtype=np.uint8))[:height, :width]


def processor(name: str, changes: dict):
    pytest.importorskip("transformers")
    ensure_torchvision()
    import transformers

    cls = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    return cls(**changes)


def by_processor(made, frames: np.ndarray) -> torch.Tensor:
    """[time, channel, height, width] by the published processor."""
    clips = "Video" in type(made).__name__ or "Vivit" in type(made).__name__
    given = list(frames) if "Image" in type(made).__name__ or not clips else [frames]
    found = next(iter(made(given, return_tensors="pt").values()))
    return found[0] if clips else found


def error(name: str, changes: dict, frames: np.ndarray) -> float:
    made = processor(name, changes)
    ours = Preparation.from_processor(json.loads(made.to_json_string()), defaults=PROCESSORS[name])(
        frames
    )
    theirs = by_processor(made, frames)
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max())


@pytest.mark.parametrize("case", PUBLISHED)
def test_every_published_processor_is_met(case) -> None:
    name = case.partition(" ")[0]
    for height, width in SIZES:
        frames = np.stack([noise(height, width), noise(height, width)[::-1]])
        assert error(name, PUBLISHED[case], frames) < 1e-5


@pytest.mark.real_weights
@pytest.mark.parametrize("case", PUBLISHED)
def test_photographs_are_prepared_as_published(case, shared) -> None:
    for file in ("cat.bmp", "bird.bmp", "hot_dog.jpg"):
        frames = np.array(read_picture(shared / "episodes" / file))[None]
        assert error(case.partition(" ")[0], PUBLISHED[case], frames) < 1e-5


def test_resizing_with_tensors_is_what_the_other_processors_do() -> None:
    pytest.importorskip("transformers")
    ensure_torchvision()
    from transformers import CLIPImageProcessor

    made = CLIPImageProcessor()
    config = json.loads(made.to_json_string()) | {"image_processor_type": "CLIPImageProcessorFast"}
    ours = Preparation.from_processor(config, defaults=PROCESSORS["CLIPImageProcessor"])
    assert ours.engine == "torch"
    frames = noise(333, 517)[None]
    torch.testing.assert_close(ours(frames), by_processor(made, frames), rtol=0, atol=1e-5)


CLIP = Preparation(shortest=224, crop=(224, 224), filter="bicubic", mean=CLIP_MEAN, std=CLIP_STD)
SQUARE = Preparation(size=(224, 224))


@pytest.mark.parametrize(
    ("config", "defaults", "wanted"),
    [
        ({}, CLIP, {}),
        ({"size": 64}, CLIP, {"shortest": 64}),
        ({"size": 64}, SQUARE, {"size": (64, 64)}),
        ({"size": [48, 64]}, SQUARE, {"size": (48, 64)}),
        ({"size": {"height": 48, "width": 64}}, CLIP, {"size": (48, 64), "shortest": None}),
        ({"size": {"shortest_edge": 64}}, SQUARE, {"size": None, "shortest": 64}),
        ({"size": {"shortest_edge": 64, "height": None}}, CLIP, {"shortest": 64}),
        ({"crop_size": 96}, CLIP, {"crop": (96, 96)}),
        ({"crop_size": {"height": 96, "width": 80}}, CLIP, {"crop": (96, 80)}),
        ({"crop_size": 96}, SQUARE, {}),
        ({"crop_size": 96, "do_center_crop": True}, SQUARE, {"crop": (96, 96)}),
        ({"do_center_crop": True}, SQUARE, {"crop": (224, 224)}),
        ({"do_center_crop": False}, CLIP, {"crop": None}),
        ({"do_resize": False}, CLIP, {"shortest": None}),
        ({"resample": 3}, SQUARE, {"filter": "bicubic"}),
        ({"resample": None}, CLIP, {}),
        ({"feature_extractor_type": "CLIPFeatureExtractor", "size": 64}, CLIP, {"shortest": 64}),
        ({"rescale_factor": 0.5}, SQUARE, {"scale": 0.5}),
        ({"do_rescale": False, "offset": True}, SQUARE, {"scale": 1.0, "offset": 0.0}),
        ({"offset": True}, SQUARE, {"offset": -1.0}),
        ({"image_mean": 0.5, "image_std": [0.1, 0.2, 0.3]}, SQUARE,
         {"mean": (0.5, 0.5, 0.5), "std": (0.1, 0.2, 0.3)}),
        ({"do_normalize": False}, SQUARE, {"mean": (0.0,) * 3, "std": (1.0,) * 3}),
        ({"video_processor_type": "VJEPA2VideoProcessor", "crop_size": 64}, CLIP,
         {"crop": (64, 64), "shortest": 73, "engine": "torch"}),
    ],
)  # fmt: skip
def test_every_way_to_say_it_is_understood(config, defaults, wanted) -> None:
    from dataclasses import replace

    assert Preparation.from_processor(config, defaults=defaults) == replace(defaults, **wanted)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"resample": 9}, "says resample 9; needed 0 to 5"),
        ({"resample": "bicubic"}, "says resample 'bicubic'"),
        ({"size": {"longest_edge": 9}}, "says size .*longest_edge.*; needed a shortest_edge, or"),
        ({"size": {"shortest_edge": 0}}, "says 0 pixels; needed a whole number from 1 to 16384"),
        ({"size": 10**9}, "says 1000000000 pixels"),
        ({"size": True}, "says True pixels"),
        ({"crop_size": "large"}, "says 'large' pixels"),
        ({"image_mean": [0.5, 0.5]}, r"says image_mean \[0\.5, 0\.5\]; needed one number for each"),
        ({"image_std": [1, 1, 0]}, "says image_std 0; needed numbers to divide by"),
        ({"image_mean": ["a", 1, 1]}, "says image_mean 'a'; needed a number"),
        ({"rescale_factor": float("nan")}, "says rescale_factor nan; needed a number"),
        ({"do_pad": True, "image_processor_type": "Own"}, "Own asks for do_pad, which cannot be"),
        ({"do_flip_channel_order": True}, "asks for do_flip_channel_order"),
    ],
)
def test_what_cannot_be_done_is_refused(config, words) -> None:
    with pytest.raises(FormatError, match=words):
        Preparation.from_processor(config, defaults=CLIP)


def test_pictures_may_be_of_any_kind_of_memory() -> None:
    frames = noise(50, 60)[None].repeat(2, 0)
    frozen = frames.copy()
    frozen.flags.writeable = False
    for how in (CLIP, SQUARE, Preparation(size=(32, 32), engine="torch")):
        whole = how(frames)
        assert whole.dtype == torch.float32
        assert whole.is_contiguous()
        assert torch.equal(how(frozen), whole)
        assert torch.equal(how(frames[::-1, :, ::-1]), how(frames[:, :, ::-1].copy()))
    assert (SQUARE.pixels, CLIP.pixels) == ((224, 224), (224, 224))
    assert Preparation(shortest=9).pixels is None


def test_nothing_is_done_where_nothing_is_asked() -> None:
    plain = Preparation(scale=1.0, mean=(0.0,) * 3, std=(1.0,) * 3)
    frames = noise(11, 13)[None]
    assert torch.equal(plain(frames)[0].permute(1, 2, 0), torch.tensor(frames[0]).float())


def test_a_preparation_says_what_it_does() -> None:
    said = json.loads(str(Preparation(shortest=32, crop=(30, 30))))
    assert said["shortest"] == 32
    assert "size" not in said


# -- the files of a checkpoint ----------------------------------------------------------------


def folder(tmp_path, files: dict) -> Checkpoint:
    for name, said in files.items():
        (tmp_path / name).write_text(json.dumps(said))
    return Checkpoint(tmp_path)


VIT = {"image_processor_type": "ViTImageProcessor", "size": 64}
VIDEO = {"crop_size": 96}


@pytest.mark.parametrize(
    ("files", "source", "pixels"),
    [
        ({"preprocessor_config.json": VIT}, r"preprocessor_config\.json \(ViTImageProcessor\)", 64),
        ({"preprocessor_config.json": VIT, "video_preprocessor_config.json": VIDEO},
         r"video_preprocessor_config\.json \(of no named kind\)", 96),
        ({"processor_config.json": {"image_processor": VIT, "tokenizer": {}}},
         r"processor_config\.json \(ViTImageProcessor\)", 64),
        ({"processor_config.json": {"processor_class": "CLIPProcessor"}},
         "no file says it; as usual for clip", 32),
        ({}, "no file says it; as usual for clip", 32),
    ],
)  # fmt: skip
def test_the_files_count_in_the_order_of_transformers(files, source, pixels, tmp_path) -> None:
    import re

    prepare, said = published_preparation(folder(tmp_path, files), "clip", pixels=32)
    assert re.fullmatch(source, said)
    assert prepare.pixels == (pixels, pixels)
    assert prepare.engine == ("torch" if "video" in said else "pil")


def test_the_usual_proportions_are_kept_for_pictures_of_another_size(tmp_path) -> None:
    prepare, _ = published_preparation(Checkpoint(tmp_path), "dinov2", pixels=112)
    assert (prepare.shortest, prepare.crop) == (128, (112, 112))
    prepare, _ = published_preparation(Checkpoint(tmp_path), "deit", pixels=112)
    assert (prepare.size, prepare.crop) == ((128, 128), (112, 112))
    _, said = published_preparation(Checkpoint(tmp_path), "unheard", pixels=None)
    assert said == "no file says it; resized, cropped and normalised as for ImageNet"


def test_the_engine_may_be_asked_for_but_not_where_nothing_is_rounded(tmp_path) -> None:
    checkpoint = Checkpoint(tmp_path)
    for kind, wanted in {"vit": "torch", "dinov3_vit": "torch"}.items():
        prepare, _ = published_preparation(checkpoint, kind, pixels=None, engine="torch")
        assert prepare.engine == wanted
    prepare, _ = published_preparation(checkpoint, "dinov3_vit", pixels=None, engine="pil")
    assert (prepare.engine, prepare.early) == ("torch", True)


def test_all_that_is_usual_gives_pictures_of_one_size() -> None:
    for prepare in MODEL_TYPES.values():
        assert prepare.pixels is not None
        assert prepare(noise(30, 40)[None]).shape == (1, 3, *prepare.pixels)
