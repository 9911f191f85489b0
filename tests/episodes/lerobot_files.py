"""LeRobotDatasets written line by line as their description says, not by our writer."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from moving import moving
from PIL import Image

from mirror_analysis.episodes.video_encoder import encode

FPS = 10
TOP, SIDE = "observation.images.top", "observation.images.side"
LENGTHS = (6, 9, 4)
TASKS = ("push the cup", "pull the cup")


def rows(number, start, *, side=True, success=None, **changes):
    """Columns of one episode."""
    n = LENGTHS[number]
    g = np.random.default_rng(number)
    columns = {
        "observation.state": pa.array(g.standard_normal((n, 3)).astype(np.float32).tolist()),
        "action": pa.FixedSizeListArray.from_arrays(
            pa.array(g.standard_normal(2 * n).astype(np.float32)), 2
        ),
        "grid": pa.array(g.integers(0, 99, (n, 2, 2)).tolist(), pa.list_(pa.list_(pa.int32()))),
        "next.reward": pa.array(g.random(n).astype(np.float32)),
        "timestamp": pa.array((np.arange(n) / FPS).astype(np.float32)),
        "frame_index": pa.array(np.arange(n)),
        "episode_index": pa.array(np.full(n, number)),
        "index": pa.array(np.arange(start, start + n)),
        "task_index": pa.array(np.full(n, number % 2)),
    }
    if side:
        pictures = [png(frame) for frame in moving(n, 32, 48, seed=number)]
        columns[SIDE] = pa.array([{"bytes": p, "path": None} for p in pictures])
    if success is not None:
        columns["next.success"] = pa.array([False] * (n - 1) + [success])
    return {k: v for k, v in (columns | changes).items() if v is not None}


def png(frame):
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="PNG")
    return buffer.getvalue()


def features(*, side=True, success=False):
    found = {
        "observation.state": {"dtype": "float32", "shape": [3], "names": ["x", "y", "z"]},
        "action": {"dtype": "float32", "shape": [2], "names": None},
        "grid": {"dtype": "int32", "shape": [2, 2], "names": None},
        "next.reward": {"dtype": "float32", "shape": [1], "names": None},
        TOP: {"dtype": "video", "shape": [48, 64, 3], "names": ["height", "width", "channels"]},
        "remark": {"dtype": "string", "shape": [1], "names": None},
    }
    if side:
        found[SIDE] = {"dtype": "image", "shape": [32, 48, 3], "names": None}
    if success:
        found["next.success"] = {"dtype": "bool", "shape": [1], "names": None}
    for name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
        kind = "float32" if name == "timestamp" else "int64"
        found[name] = {"dtype": kind, "shape": [1], "names": None}
    return found


def write_info(folder, **changes):
    """`meta/info.json`, or changes of one that is there."""
    path = folder / "meta" / "info.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    old = json.loads(path.read_text()) if path.is_file() else {"robot_type": "arm", "fps": FPS}
    path.write_text(json.dumps(old | changes))


def version_2(folder, **options):
    """One file of each kind per episode, the second of them in a chunk of its own."""
    write_info(
        folder,
        codebase_version="v2.1",
        chunks_size=2,
        data_path="data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        video_path="videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
        splits={"train": "0:2", "test": "2:3"},
        features=features(**{k: v for k, v in options.items() if k != "success"})
        | ({"next.success": {"dtype": "bool", "shape": [1]}} if "success" in options else {}),
    )
    tasks = [{"task_index": i, "task": text} for i, text in enumerate(TASKS)]
    listed = []
    for number, length in enumerate(LENGTHS):
        chunk = f"chunk-{number // 2:03d}"
        data = folder / "data" / chunk / f"episode_{number:06d}.parquet"
        data.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(rows(number, sum(LENGTHS[:number]), **options)), data)
        film = folder / "videos" / chunk / TOP / f"episode_{number:06d}.mp4"
        film.parent.mkdir(parents=True, exist_ok=True)
        encode(film, moving(length, seed=number), fps=FPS, codec="h264")
        listed.append({"episode_index": number, "tasks": [TASKS[number % 2]], "length": length})
    for name, lines in (("tasks", tasks), ("episodes", listed)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "meta" / f"{name}.jsonl").write_text(text)
    return folder


def version_3(folder, *, index="__index_level_0__", **options):
    """Episodes 0 and 1 in one data file, 2 in the next; all in one video file."""
    write_info(
        folder,
        codebase_version="v3.0",
        data_path="data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        video_path="videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        splits={"train": "0:3"},
        features=features(**{k: v for k, v in options.items() if k != "success"})
        | ({"next.success": {"dtype": "bool", "shape": [1]}} if "success" in options else {}),
    )
    tables = [pa.table(rows(n, sum(LENGTHS[:n]), **options)) for n in range(3)]
    place = folder / "data" / "chunk-000"
    place.mkdir(parents=True)
    pq.write_table(pa.concat_tables(tables[:2]), place / "file-000.parquet")
    pq.write_table(tables[2], place / "file-001.parquet", row_group_size=3)
    film = folder / "videos" / TOP / "chunk-000" / "file-000.mp4"
    film.parent.mkdir(parents=True)
    frames = np.concatenate([moving(n, seed=k) for k, n in enumerate(LENGTHS)])
    encode(film, frames, fps=FPS, codec="h264")
    ends = np.cumsum(LENGTHS)
    write_episodes(
        folder,
        {
            "episode_index": [0, 1, 2],
            "tasks": [[TASKS[n % 2]] for n in range(3)],
            "length": list(LENGTHS),
            "data/chunk_index": [0, 0, 0],
            "data/file_index": [0, 0, 1],
            "dataset_from_index": [0, *ends[:2]],
            "dataset_to_index": list(ends),
            f"videos/{TOP}/chunk_index": [0, 0, 0],
            f"videos/{TOP}/file_index": [0, 0, 0],
            f"videos/{TOP}/from_timestamp": [0.0, *(ends[:2] / FPS)],
            f"videos/{TOP}/to_timestamp": list(ends / FPS),
            "stats/action/mean": [[0.0, 0.0]] * 3,
        },
    )
    pq.write_table(
        pa.table({"task_index": [1, 0], index: list(reversed(TASKS))}),
        folder / "meta" / "tasks.parquet",
    )
    return folder


def write_episodes(folder, columns):
    path = folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def change_episodes(folder, **changes):
    """Other columns in the list of a dataset of version 3; None takes one out."""
    path = folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet"
    columns = pq.read_table(path).to_pydict() | changes
    write_episodes(folder, {k: v for k, v in columns.items() if v is not None})
