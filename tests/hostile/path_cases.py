"""Names that lead out of a folder, wherever a file can be named."""

import json
import os
import shutil
import zipfile

import h5py
import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from hostile import sound_episodes, sound_models
from hostile.cases import case
from hostile.code_cases import changed_zip
from lerobot_files import SIDE, TOP, change_episodes, write_info
from onnx import TensorProto

OUT = r"inside|climbing|absolute|outside"


def change_json(path, change):
    said = json.loads(path.read_text())
    change(said)
    path.write_text(json.dumps(said))


# -- models -----------------------------------------------------------------------------------


def _shards(folder, name):
    sound_models.transformers_shards(folder)
    index = folder / "model.safetensors.index.json"
    change_json(
        index, lambda said: said["weight_map"].update(dict.fromkeys(said["weight_map"], name))
    )
    return folder


@case("model", OUT)
def shards_above(folder, bait):
    return _shards(folder, bait.climbing(folder, "weights.safetensors"))


@case("inspect", OUT)
def shards_above_by_command(folder, bait):
    return shards_above(folder, bait)


@case("model", OUT)
def shards_absolute(folder, bait):
    return _shards(folder, str(bait.folder / "weights.safetensors"))


@case("model", OUT)
def shards_of_the_system(folder, bait):
    return _shards(folder, "../../../../../../../../etc/passwd")


@case("model", OUT)
def weights_by_link(folder, bait):
    sound_models.transformers(folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(bait.folder / "weights.safetensors")
    return folder


@case("model", OUT)
def config_by_link(folder, bait):
    sound_models.transformers(folder)
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(bait.folder / "config.json")
    return folder


@case("model", OUT)
def statistics_above(folder, bait):
    sound_models.lerobot(folder)
    name = bait.climbing(folder, "weights.safetensors")
    path = folder / "policy_preprocessor.json"
    change_json(path, lambda said: said["steps"][0].update(state_file=name))
    return folder


@case("model", OUT)
def statistics_absolute(folder, bait):
    sound_models.lerobot(folder)
    name = str(bait.folder / "weights.safetensors")
    path = folder / "policy_preprocessor.json"
    change_json(path, lambda said: said["steps"][0].update(state_file=name))
    return folder


@case("model", OUT)
def statistics_of_sb3_by_link(folder, bait):
    path = sound_models.sb3(folder)
    (folder / "vecnormalize.pkl").unlink()
    (folder / "vecnormalize.pkl").symlink_to(bait.folder / "statistics.pkl")
    return path


@case("model", OUT)
def module_above(folder, bait):
    sound_models.sentences(folder)
    name = bait.climbing(folder, ".")
    change_json(folder / "modules.json", lambda said: said[1].update(path=name))
    return folder


@case("model", OUT)
def tokenizer_by_link(folder, bait):
    sound_models.sentences(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to(bait.folder / "config.json")
    return folder


def _onnx(folder, location):
    path = sound_models.onnx_policy(folder)
    model = onnx.load(str(path))
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", location
    path.write_bytes(model.SerializeToString())
    return path


@case("model", OUT)
def onnx_weights_above(folder, bait):
    return _onnx(folder, bait.climbing(folder, "secret.bin"))


@case("model", OUT)
def onnx_weights_absolute(folder, bait):
    return _onnx(folder, str(bait.secret))


@case("model", OUT)
def onnx_weights_by_link(folder, bait):
    (folder / "weights.bin").symlink_to(bait.secret)
    return _onnx(folder, "weights.bin")


def _renamed(path, name, data=b"x"):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, data)
    return path


@case("model", OUT)
def zip_member_above(folder, bait):
    return _renamed(sound_models.sb3(folder), "../../canary")


@case("model", OUT)
def zip_member_absolute(folder, bait):
    return _renamed(sound_models.sb3(folder), str(bait.canary))


@case("model", "plain name|absolute")
def zip_member_of_windows(folder, bait):
    return _renamed(sound_models.sb3(folder), "C:\\canary")


@case("model", "link")
def zip_member_link(folder, bait):
    path = sound_models.sb3(folder)
    info = zipfile.ZipInfo("weights.pth")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(info, str(bait.secret))
    return path


@case("model", OUT)
def torch_storage_above(folder, bait):
    sound_models.transformers_bin(folder)
    path = folder / "pytorch_model.bin"
    return changed_zip(path, {"../../../canary": b"x"}).parent


@case("model", OUT)
def exported_weight_above(folder, bait):
    return _renamed(sound_models.exported(folder), "policy/../../canary")


@case("inspect", "no checkpoint|hub id|hub")
def hub_name_above(folder, bait):
    return f"..{os.sep}{bait.folder.name}@../.."


# -- episodes ---------------------------------------------------------------------------------


def _templates(folder, **templates):
    sound_episodes.lerobot_2(folder)
    write_info(folder, **templates)
    return folder


@case("episodes", OUT)
def data_above(folder, bait):
    return _templates(folder, data_path=bait.climbing(folder, "table.parquet"))


@case("describe", OUT)
def data_above_by_command(folder, bait):
    return data_above(folder, bait)


@case("episodes", OUT)
def data_absolute(folder, bait):
    return _templates(folder, data_path=str(bait.folder / "table.parquet"))


@case("episodes", OUT)
def video_above(folder, bait):
    return _templates(folder, video_path=bait.climbing(folder, "film.mp4"))


@case("episodes", "path template")
def template_with_attributes(folder, bait):
    return _templates(folder, data_path="data/{episode_index.__class__.__mro__}.parquet")


@case("episodes", "path template")
def template_with_items(folder, bait):
    return _templates(folder, video_path="videos/{video_key[0]!r}.mp4")


@case("episodes", "path template")
def template_of_a_width(folder, bait):
    return _templates(folder, data_path="data/{episode_index:>99999999999}.parquet")


@case("episodes", OUT)
def camera_above(folder, bait):
    """The name of a camera becomes part of a path."""
    sound_episodes.lerobot_2(folder)
    name = f"observation.images/../../{bait.climbing(folder, 'film.mp4')}"

    def change(said):
        said["features"][name] = said["features"].pop(TOP)

    change_json(folder / "meta" / "info.json", change)
    return _templates_only(folder, video_path="videos/{video_key}")


def _templates_only(folder, **templates):
    write_info(folder, **templates)
    return folder


@case("episodes", "without a usable")
def shard_number_below_zero(folder, bait):
    sound_episodes.lerobot_3(folder)
    change_episodes(folder, **{"data/file_index": [-1, -1, -1]})
    return folder


@case("episodes", "without a usable")
def shard_number_of_text(folder, bait):
    sound_episodes.lerobot_3(folder)
    name = bait.climbing(folder, "table.parquet")
    change_episodes(folder, **{f"videos/{TOP}/file_index": [name] * 3})
    return folder


@case("episodes", OUT)
def video_by_link(folder, bait):
    sound_episodes.lerobot_3(folder)
    (film,) = folder.rglob("*.mp4")
    film.unlink()
    film.symlink_to(bait.folder / "film.mp4")
    return folder


@case("episodes", f"{OUT}|known")
def folder_by_link(folder, bait):
    sound_episodes.lerobot_3(folder)
    shutil.move(folder / "meta", bait.folder / "meta")
    (folder / "meta").symlink_to(bait.folder / "meta")
    return folder


def _image(folder, path):
    sound_episodes.lerobot_2(folder)
    for place in folder.rglob("*.parquet"):
        table = pq.read_table(place)
        cells = pa.array([{"bytes": None, "path": path}] * len(table))
        at = table.schema.get_field_index(SIDE)
        pq.write_table(table.set_column(at, SIDE, cells), place)
    return folder


@case("episodes", OUT)
def image_above(folder, bait):
    return _image(folder, bait.climbing(folder, "picture.png"))


@case("episodes", OUT)
def image_absolute(folder, bait):
    return _image(folder, str(bait.folder / "picture.png"))


def _table(folder, name):
    sound_episodes.films(folder)
    (folder / "labels.csv").write_text(f'file,task\n"{name}",push\n')
    return folder


@case("episodes", OUT)
def film_above(folder, bait):
    return _table(folder, bait.climbing(folder, "film.mp4"))


@case("episodes", OUT)
def film_absolute(folder, bait):
    return _table(folder, str(bait.folder / "film.mp4"))


@case("episodes", "is not there|not a plain")
def film_of_a_protocol(folder, bait):
    return _table(folder, "http://127.0.0.1:9/film.mp4")


@case("episodes", "is not there")
def film_by_concatenation(folder, bait):
    return _table(folder, f"concat:{bait.folder}/film.mp4|a.mp4")


def _list(folder, text):
    sound_episodes.films(folder)
    (folder / "a.mp4").write_text(text)
    return folder


@case("episodes", "not a readable video")
def list_of_films(folder, bait):
    return _list(folder, f"ffconcat version 1.0\nfile '{bait.folder}/film.mp4'\n")


@case("episodes", "not a readable video")
def playlist(folder, bait):
    path = bait.folder / "film.mp4"
    return _list(
        folder, f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n{path}\n#EXT-X-ENDLIST\n"
    )


@case("episodes", "not a readable video")
def session_description(folder, bait):
    return _list(folder, "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
                         "m=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n")  # fmt: skip


@case("episodes", "not a readable video")
def manifest_of_films(folder, bait):
    return _list(folder, f'<?xml version="1.0"?><MPD><Period><AdaptationSet><Representation>'
                         f"<BaseURL>file://{bait.folder}/film.mp4</BaseURL></Representation>"
                         f"</AdaptationSet></Period></MPD>")  # fmt: skip


@case("episodes", OUT)
def arrays_above(folder, bait):
    sound_episodes.arrays(folder)
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    name = bait.climbing(folder, "arrays.npz")
    lines = [line | {"file": name} for line in lines]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@case("episodes", f"{OUT}|known")
def episode_by_link(folder, bait):
    sound_episodes.rlbench(folder)
    (episode,) = folder.rglob("episode0")
    shutil.move(episode, bait.folder / "episode0")
    episode.symlink_to(bait.folder / "episode0")
    return folder


@case("episodes", OUT)
def picture_by_link(folder, bait):
    sound_episodes.rlbench(folder)
    (picture,) = folder.rglob("3.png")
    picture.unlink()
    picture.symlink_to(bait.folder / "picture.png")
    return folder


@case("episodes", "no RLBench episode")
def folders_in_a_circle(folder, bait):
    sound_episodes.rlbench(folder)
    (place,) = folder.rglob("low_dim_obs.pkl")
    place.unlink()
    (folder / "open_drawer" / "again").symlink_to(folder)
    return f"rlbench:{folder}"


def _hdf5(folder, change):
    path = sound_episodes.robomimic(folder)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


@case("episodes", "link|external|outside")
def hdf5_link(folder, bait):
    def change(file):
        del file["data/demo_9/obs/object"]
        file["data/demo_9/obs/object"] = h5py.ExternalLink(str(bait.folder / "other.hdf5"), "/x")

    return _hdf5(folder, change)


@case("episodes", "other files")
def hdf5_storage(folder, bait):
    def change(file):
        place = [(str(bait.secret), 0, 5 * 3 * 8)]
        del file["data/demo_9/obs/object"]
        file["data/demo_9/obs"].create_dataset("object", (5, 3), "f8", external=place)

    return _hdf5(folder, change)


@case("episodes", "other files")
def hdf5_virtual(folder, bait):
    def change(file):
        layout = h5py.VirtualLayout((5, 3), "f8")
        layout[:] = h5py.VirtualSource(str(bait.folder / "other.hdf5"), "x", shape=(5, 3))
        del file["data/demo_9/obs/object"]
        file["data/demo_9/obs"].create_virtual_dataset("object", layout)

    return _hdf5(folder, change)


def bait_files(folder):
    """What lies outside: files that would be read without a fault, were they reached."""
    folder.mkdir()
    (folder / "secret.bin").write_bytes(bytes(4096))
    (folder / "config.json").write_text("{}")
    (folder / "picture.png").write_bytes(sound_episodes.picture(size=32))
    np.savez(folder / "arrays.npz", states=np.zeros((3, 2)))
    pq.write_table(pa.table({"x": [1]}), folder / "table.parquet")
    with h5py.File(folder / "other.hdf5", "w") as file:
        file["x"] = np.zeros((5, 3))
    inner = folder / "made"
    for name, source, make in (
        ("film.mp4", "a.mp4", sound_episodes.films),
        ("weights.safetensors", "model.safetensors", sound_models.transformers),
        ("statistics.pkl", "vecnormalize.pkl", sound_models.sb3),
    ):
        inner.mkdir()
        make(inner)
        shutil.copyfile(inner / source, folder / name)
        shutil.rmtree(inner)
