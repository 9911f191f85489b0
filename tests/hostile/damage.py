"""Sound files of every format, cut short or with bits turned over; other things in their place."""

import os
import random
import shutil
from pathlib import Path

from hostile.cases import poison
from hostile.sound_episodes import EPISODES
from hostile.sound_models import MODELS

# Where a file is cut; a name that starts with "bits" is a seed of what is turned over.
CUTS = {"nothing left": 0.0, "a fifth left": 0.2, "half left": 0.45, "nearly all left": 0.97}
FLIPS = 3
# What a cut of which may go unnoticed: descriptions that are text, and films, which are streams.
TEXTS = (".json", ".jsonl", ".csv", ".txt", ".yml", ".md")
FILMS = (".mp4", ".avi", ".mkv", ".webm", ".mov", ".gif")
KINDS = {"model": MODELS, "episodes": EPISODES}


def victim(folder):
    """The file of a folder that holds what is read: the largest, films aside."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    best = [p for p in files if p.suffix not in (*TEXTS, *FILMS)] or files
    return max(best, key=lambda path: (path.stat().st_size, path.name))


def damaged(source, target, how):
    """A copy of a file or folder with its victim damaged; True where that has to be noticed."""
    shutil.copytree(source, target)
    place = victim(target)
    data = bytearray(place.read_bytes())
    if how in CUTS:
        del data[int(len(data) * CUTS[how]) :]
    else:
        chance = random.Random(f"{place.name} {how}")
        for _ in range(8):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    place.write_bytes(data)
    return how in CUTS and place.suffix not in FILMS


def ways():
    return [*CUTS, *(f"bits {seed}" for seed in range(FLIPS))]


def link(place, bait):
    """The very file, but outside; reading it would give what the sound one gives."""
    outside = bait.folder / f"moved {place.name}"
    shutil.move(place, outside)
    place.symlink_to(outside)


def content(data):
    def put(place, bait):
        place.unlink()
        place.write_bytes(data(bait) if callable(data) else data)

    return put


def pipe(place, bait):
    place.unlink()
    os.mkfifo(place)


def folder(place, bait):
    place.unlink()
    place.mkdir()


def sparse(place, bait):
    """64 GiB of zeros behind what is there, which take no room on the disk.

    Films are streams: all of one is gone through, however long it is.
    """
    if place.suffix in FILMS:
        return
    with place.open("r+b") as file:
        file.truncate(2**36)


STAND_INS = {
    "a link outside": link,
    "a pickle that runs": content(poison),
    "an old pickle that runs": content(lambda bait: poison(bait, 0)),
    "a pipe": pipe,
    "a folder": folder,
    "nothing": lambda place, bait: place.unlink(),
    "64 GiB": sparse,
    "deep JSON": content(b'{"a":[' * 50_000),
    "JSON of other things": content(b'{"a": [1, null, {"b": "c"}], "type": 3, "steps": {}}'),
    "a list": content(b"[[], [], {}]"),
}


# Real files: entry and path below `weights` or `episodes`.
REAL = {
    "weights/cs285/Hopper.pkl": "model",
    "weights/dapg/door-v0.pickle": "model",
    "weights/onnx/nfd-fall.onnx": "model",
    "weights/sb3/ars_Hopper-v3.zip": "model",
    "weights/torchscript/g1_motion.pt": "model",
    "weights/vision/mobilenet_v2_1.0_224_quant.tflite": "model",
    "episodes/adroit_door_demos.pickle": "episodes",
    "episodes/bridge_dataset-train.tfrecord-00000-of-00001": "episodes",
    "episodes/expert_data_Hopper-v4.pkl": "episodes",
}


def alone(path: Path, folder: Path):
    """A copy of a real file in a folder of its own, with what belongs to it."""
    folder.mkdir(parents=True)
    shutil.copyfile(path, folder / path.name)
    if "tfrecord" in path.name:
        shutil.copyfile(path.with_name("features.json"), folder / "features.json")
    return folder
