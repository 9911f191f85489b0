"""Small datasets of every format, all in order: what the damaged ones are made of."""

import io
import json
import pickle
import struct
import sys
import types

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_files import version_2, version_3
from moving import moving, video
from PIL import Image
from scenes import episodes as scenes

from mirror_analysis.files.tfrecords import masked

STEPS = 5
CLASSES = ("rlbench.demo.Demo", "rlbench.backend.observation.Observation")


def picture(number=0, form="PNG", size=6):
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def pickled(value, classes=(), protocol=4):
    """A pickle of objects whose classes are there while it is written only."""
    with pytest.MonkeyPatch.context() as patch:
        for made in classes:
            parts = made.__module__.split(".")
            for i in range(1, len(parts) + 1):
                name = ".".join(parts[:i])
                if not isinstance(sys.modules.get(name), types.ModuleType):
                    patch.setitem(sys.modules, name, types.ModuleType(name))
            setattr(sys.modules[made.__module__], made.__name__, made)
        return pickle.dumps(value, protocol)


def classes():
    """Stand-ins of the classes of RLBench."""
    return [
        type(kind.rpartition(".")[2], (), {"__module__": kind.rpartition(".")[0]})
        for kind in CLASSES
    ]


def demonstration():
    """The pickle `low_dim_obs.pkl` of RLBench."""
    demo_class, observation_class = classes()
    demo = demo_class()
    demo._observations = []
    for step in range(STEPS):
        held = observation_class()
        held.front_rgb = held.front_depth = None
        held.joint_velocities = np.full(7, 1.0)
        held.joint_positions = np.arange(7) + step / 10
        held.gripper_open = 1.0
        held.gripper_pose = np.arange(7.0) * step
        held.gripper_joint_positions = np.array([0.04, 0.03])
        held.misc = {"front_camera_extrinsics": np.eye(4), "front_camera_near": 0.01}
        demo._observations.append(held)
    demo.random_seed = np.random.RandomState(0).get_state()
    return pickled(demo, (demo_class, observation_class))


def rlbench(folder):
    task = folder / "open_drawer" / "variation0"
    episode = task / "episodes" / "episode0"
    (episode / "front_rgb").mkdir(parents=True)
    (episode / "low_dim_obs.pkl").write_bytes(demonstration())
    (task / "variation_descriptions.pkl").write_bytes(pickle.dumps(["open the drawer"]))
    for step in range(STEPS):
        (episode / "front_rgb" / f"{step}.png").write_bytes(picture(step))
    return folder


def peract(folder):
    """The variant with everything inside the episode."""
    episode = folder / "open_drawer" / "all_variations" / "episodes" / "episode0"
    (episode / "front_rgb").mkdir(parents=True)
    (episode / "low_dim_obs.pkl").write_bytes(demonstration())
    (episode / "variation_descriptions.pkl").write_bytes(pickle.dumps(["open the drawer"]))
    (episode / "variation_number.pkl").write_bytes(pickle.dumps(3))
    for step in range(STEPS):
        (episode / "front_rgb" / f"{step}.png").write_bytes(picture(step))
    return folder


def demonstrations(folder):
    """Pickled trajectories."""
    path = folder / "experts.pkl"
    one = {"observations": np.ones((STEPS, 3)), "actions": np.ones((STEPS, 2))}
    one |= {"rewards": np.ones(STEPS), "image": np.zeros((STEPS, 4, 4, 3), np.uint8)}
    path.write_bytes(pickle.dumps([one, one]))
    return path


def robomimic(folder):
    path = folder / "lift.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        settings = {"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20}}
        data.attrs["env_args"] = json.dumps(settings)
        for number in (10, 9):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = STEPS
            demo["actions"] = np.full((STEPS, 7), number, np.float64)
            demo["states"] = np.full((STEPS, 11), 0.5)
            demo["rewards"] = np.eye(STEPS)[-1]
            pixels = np.zeros((STEPS, 5, 4, 3), np.uint8)
            demo.create_dataset("obs/front_image", data=pixels, compression="gzip")
            demo["obs/object"] = np.arange(STEPS * 3.0).reshape(STEPS, 3)
        file["mask/train"] = np.array([b"demo_9"])
    return path


def varint(number):
    coded = b""
    while number > 127:
        coded += bytes([number & 127 | 128])
        number >>= 7
    return coded + bytes([number])


def field(number, data):
    """A field of bytes of a protobuf message."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def feature(value):
    if isinstance(value, list):
        return field(1, b"".join(field(1, each) for each in value))
    if value.dtype.kind == "f":
        return field(2, field(1, value.astype("<f4").tobytes()))
    return field(3, field(1, b"".join(varint(int(each)) for each in value)))


def example(values):
    """A tf.train.Example."""
    pairs = (field(1, name.encode()) + field(2, feature(v)) for name, v in values.items())
    return field(1, b"".join(field(1, pair) for pair in pairs))


def framed(*records):
    """A TFRecord file."""
    parts = []
    for data in records:
        length = struct.pack("<Q", len(data))
        parts += [length, struct.pack("<I", masked(length)), data, struct.pack("<I", masked(data))]
    return b"".join(parts)


def steps(**changes):
    """What an RLDS episode holds."""
    values = {
        "steps/action": np.arange(STEPS * 2, dtype=np.float32),
        "steps/observation/state": np.arange(STEPS * 3, dtype=np.float32),
        "steps/observation/image_0": [picture(i) for i in range(STEPS)],
        "steps/language_instruction": [b"lift the block"] * STEPS,
        "steps/is_last": np.eye(STEPS, dtype=np.int64)[-1],
        "steps/reward": np.eye(STEPS, dtype=np.float32)[-1],
    }
    return values | {name.replace("__", "/"): value for name, value in changes.items()}


def rlds(folder):
    path = folder / "bridge-train.tfrecord-00000-of-00001"
    path.write_bytes(framed(example(steps()), example(steps())))
    return path


def rlds_folder(folder):
    """A shard and the description of its features, given as a folder."""
    state = {"tensor": {"shape": {"dimensions": ["3"]}, "dtype": "float32", "encoding": "none"}}
    inner = {"observation": {"featuresDict": {"features": {"state": state}}}}
    stepwise = {"sequence": {"feature": {"featuresDict": {"features": inner}}}}
    told = {"featuresDict": {"features": {"steps": stepwise}}}
    (folder / "features.json").write_text(json.dumps(told))
    return rlds(folder).parent


def robomimic_folder(folder):
    return robomimic(folder).parent


def lerobot_2(folder):
    return version_2(folder)


def lerobot_3(folder):
    return version_3(folder)


def films(folder, kind="csv"):
    """Two videos and a table of one kind."""
    video(folder / "a.mp4", time=8)
    video(folder / "b.mp4", time=9, seed=1)
    rows = [{"file": name, "task": "push", "success": True} for name in ("a.mp4", "b.mp4")]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), folder / "labels.parquet")
    elif kind == "jsonl":
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "labels.jsonl").write_text(text)
    else:
        (folder / "labels.csv").write_text("file,task,success\na.mp4,push,true\nb.mp4,push,false\n")
    return folder


def films_parquet(folder):
    return films(folder, "parquet")


def films_jsonl(folder):
    return films(folder, "jsonl")


def other_films(folder):
    """Videos in containers other than MP4."""
    import av

    names = []
    for name, codec in (("a.avi", "mpeg4"), ("b.mkv", "mpeg4"), ("c.webm", "libvpx"),
                        ("d.mov", "mpeg4"), ("e.gif", "gif")):  # fmt: skip
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height = 64, 48
            stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
            for pixels in moving(6):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        names.append(name)
    (folder / "labels.csv").write_text("file\n" + "\n".join(names) + "\n")
    return folder


def arrays(folder):
    """Episodes as this project writes them."""
    from mirror_analysis.episodes import write_episode

    for episode in scenes(2):
        write_episode(folder, episode)
    return folder


EPISODES = {
    make.__name__: make
    for make in (arrays, demonstrations, films, films_jsonl, films_parquet, lerobot_2, lerobot_3,
                 other_films, peract, rlbench, rlds, rlds_folder, robomimic,
                 robomimic_folder)
}  # fmt: skip
