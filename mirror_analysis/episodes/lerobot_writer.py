"""Episodes as a LeRobotDataset v3.0, which others can read: whole or absent."""

from __future__ import annotations

import io
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.episodes.episode import Episode, Episodes
from mirror_analysis.episodes.lerobot import CAMERA
from mirror_analysis.episodes.lerobot_schema import (
    COUNTERS,
    Schema,
    arrays_of,
    plain,
    schema_of,
    splits,
)
from mirror_analysis.episodes.lerobot_shards import (
    CHUNK_FILES,
    ShardSizes,
    TableShards,
    VideoShards,
)
from mirror_analysis.episodes.lerobot_stats import (
    NAMES,
    Overall,
    Stats,
    picture_stats,
    vector_stats,
)
from mirror_analysis.episodes.video_encoder import CODECS
from mirror_analysis.errors import FormatError, ShapeError, UnknownNameError
from mirror_analysis.parallel import Progress

if TYPE_CHECKING:
    import pyarrow as pa

_PNG: Final = "png"
_ROWS = 500  # lines of the list of episodes that are held before they are written


def write_lerobot(
    episodes: Iterable[Episode],
    out: Path,
    *,
    fps: float | None = None,
    codec: str = "av1",
    sizes: ShardSizes | None = None,
    progress: Progress | None = None,
) -> Path:
    """Writes episodes as a LeRobotDataset of version 3.0.

    The format has frames at k / fps seconds only; the episodes' own timestamps and steps are kept
    beside them as the features `source.timestamp` and `source.step`. Success is `next.success` at
    the last frame; labels, ids and task names are columns of the list of episodes, so that
    `lerobot.read` gives back what was written. One episode's pictures are held at a time.

    Args:
        episodes: all with the same cameras, arrays and kinds of labels.
        out: the folder to make; it may be there if it is empty.
        fps: frames per second; from the timestamps when not given.
        codec: "av1" or "h264", which lose a little, or "png", which loses nothing and is larger.
        sizes: how large files get.
        progress: called with (episodes written, episodes in all).

    Returns:
        The folder.

    Raises:
        FormatError: if the folder holds something, or a name or number cannot be written.
        ShapeError: if the episodes differ in what they hold, or there are none.
        UnknownNameError: if there is no such codec.
        MissingDependencyError: if PyAV is not installed and the codec needs it.

    Example:
        >>> write_lerobot(episodes, Path("out/dataset"), codec="h264")
        PosixPath('out/dataset')
    """
    if codec not in (*CODECS, _PNG):
        raise UnknownNameError("video codec", codec, (*CODECS, _PNG))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FormatError(f"{out} is there and not an empty folder; give a new one")
    held = Episodes(episodes)
    schema = schema_of(held, fps=fps)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.absolute().with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    try:
        _write(held, partial, schema, codec, sizes or ShardSizes(), progress)
        for path in sorted(partial.rglob("*")):
            if path.is_file():
                _sync(path)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return out


def _write(
    episodes: Episodes,
    folder: Path,
    schema: Schema,
    codec: str,
    sizes: ShardSizes,
    progress: Progress | None,
) -> None:
    tasks: dict[str, int] = {}
    overall = Overall()
    pictures: dict[str, tuple[int, int]] = {}
    data = TableShards(folder / "data", most=sizes.data)
    listing = _Listing(folder / "meta" / "episodes", schema, codec, most=sizes.data)
    videos = {
        camera: VideoShards(
            folder / "videos" / f"{CAMERA}{camera}",
            fps=float(schema.rate),
            codec=codec,
            most=sizes.video,
        )
        for camera in schema.cameras
        if codec != _PNG
    }
    whole = False
    try:
        start = 0
        for number, episode in enumerate(episodes):
            task = tasks.setdefault(episode.instruction, len(tasks))
            arrays = arrays_of(episode) | _counters(schema, number, start, task, len(episode.steps))
            stats = {name: vector_stats(_flat(values)) for name, values in arrays.items()}
            row: dict[str, Any] = {}
            images: dict[str, list[bytes]] = {}
            for camera in schema.cameras:
                frames = episode.frames(camera)
                size = pictures.setdefault(camera, (frames.shape[1], frames.shape[2]))
                if frames.shape[1:3] != size:
                    raise ShapeError(
                        f"camera {camera} of episode {episode.id} gave pictures of"
                        f" {list(frames.shape[1:3])}, earlier ones of {list(size)}; needed one size"
                    )
                stats[f"{CAMERA}{camera}"] = picture_stats(frames)
                if camera in videos:
                    span = videos[camera].add(frames)
                    row |= {f"videos/{CAMERA}{camera}/{key}": v for key, v in span.items()}
                else:
                    images[f"{CAMERA}{camera}"] = [_png(frame) for frame in frames]
            table = _table(images, arrays)
            row["data/chunk_index"], row["data/file_index"] = data.place(table.nbytes)
            data.add(table)
            end = start + len(episode.steps)
            row |= {"dataset_from_index": start, "dataset_to_index": end}
            listing.add(row | _line(episode, number), stats)
            overall.add(stats)
            start = end
            if progress is not None:
                progress(number + 1, len(episodes))
        whole = True
    finally:
        data.close()
        listing.close(whole=whole)
        for shards in videos.values():
            shards.close(whole=whole)
    meta = folder / "meta"
    _write_tasks(meta / "tasks.parquet", list(tasks))
    _write_json(meta / "stats.json", overall.as_lists())
    video = None if codec == _PNG or not schema.cameras else _video_facts(schema, codec)
    info = {
        "codebase_version": "v3.0",
        "robot_type": None,
        "total_episodes": len(episodes),
        "total_frames": start,
        "total_tasks": len(tasks),
        "chunks_size": CHUNK_FILES,
        "data_files_size_in_mb": sizes.data,
        "video_files_size_in_mb": sizes.video,
        "fps": schema.fps,
        "splits": splits(episodes),
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": None
        if video is None
        else "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
        "features": schema.features(pictures, video),
    }
    _write_json(meta / "info.json", info)


class _Listing:
    """`meta/episodes`: one line for each episode, with its statistics."""

    def __init__(self, folder: Path, schema: Schema, codec: str, *, most: float) -> None:
        self._shards = TableShards(folder, most=most)
        self._labels, self._rows = schema.labels, list[dict[str, Any]]()

    def add(self, row: Mapping[str, Any], stats: Mapping[str, Stats]) -> None:
        flat = {
            f"stats/{feature}/{name}": values[name].tolist()
            for feature, values in sorted(stats.items())
            for name in NAMES
        }
        self._rows.append({**row, **flat})
        if len(self._rows) >= _ROWS:
            self._flush()

    def close(self, *, whole: bool) -> None:
        if whole and self._rows:
            self._flush()
        self._shards.close()

    def _flush(self) -> None:
        import pyarrow as pa

        columns = {name: pa.array([row[name] for row in self._rows]) for name in self._rows[0]}
        for label, kind in self._labels.items():
            values = [row["labels"].get(label) for row in self._rows]
            columns[f"labels/{label}"] = pa.array(values, type=_arrow(kind))
        del columns["labels"]
        table = pa.table(columns)
        chunk, file = self._shards.place(table.nbytes)
        for name, value in (("chunk_index", chunk), ("file_index", file)):
            column = pa.array([value] * len(table), type=pa.int64())
            table = table.append_column(f"meta/episodes/{name}", column)
        self._shards.add(table)
        self._rows.clear()


def _line(episode: Episode, number: int) -> dict[str, Any]:
    return {
        "episode_index": number,
        "tasks": [episode.instruction],
        "length": len(episode.steps),
        "source/id": episode.id,
        "source/task": episode.task,
        "source/length": int(episode.length),
        "source/success": bool(episode.success),
        "labels": {name: plain(value) for name, value in episode.labels.items()},
    }


def _counters(
    schema: Schema, number: int, start: int, task: int, rows: int
) -> dict[str, NDArray[np.generic]]:
    frame = np.arange(rows)
    values: dict[str, NDArray[np.generic]] = {
        "timestamp": frame / float(schema.rate),
        "frame_index": frame,
        "episode_index": np.full(rows, number),
        "index": frame + start,
        "task_index": np.full(rows, task),
    }
    return {name: values[name].astype(dtype) for name, dtype in COUNTERS.items()}


def _flat(values: NDArray[np.generic]) -> NDArray[np.generic]:
    return values.reshape(len(values), -1)


def _table(
    images: Mapping[str, list[bytes]], arrays: Mapping[str, NDArray[np.generic]]
) -> pa.Table:
    """Rows of one episode: a value where a feature is one number, lists of one length elsewhere."""
    import pyarrow as pa

    columns: dict[str, pa.Array] = {}
    picture = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for name, data in images.items():
        rows = [{"bytes": d, "path": f"frame-{n:06d}.png"} for n, d in enumerate(data)]
        columns[name] = pa.array(rows, type=picture)
    for name, values in arrays.items():
        flat = _flat(values)
        column = pa.array(np.ascontiguousarray(flat).ravel(), type=_arrow(flat.dtype.name))
        size = flat.shape[1]
        columns[name] = column if size == 1 else pa.FixedSizeListArray.from_arrays(column, size)
    return pa.table(columns)


def _arrow(kind: str) -> pa.DataType:
    import pyarrow as pa

    named = {"bool": pa.bool_(), "string": pa.string(), "float16": pa.float16()}
    return named[kind] if kind in named else pa.from_numpy_dtype(np.dtype(kind))


def _png(frame: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, format="PNG")
    return buffer.getvalue()


def _video_facts(schema: Schema, codec: str) -> dict[str, Any]:
    return {
        "video.codec": codec,
        "video.pix_fmt": "yuv420p",
        "video.is_depth_map": False,
        "video.fps": schema.fps,
        "video.channels": 3,
        "has_audio": False,
    }


def _write_tasks(path: Path, texts: list[str]) -> None:
    """The texts as the index of a pandas table, which is where readers look for them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    index = "__index_level_0__"
    table = pa.table({"task_index": pa.array(range(len(texts)), type=pa.int64()), index: texts})
    columns = [
        {"name": name, "field_name": field, "pandas_type": kind, "numpy_type": numpy, "metadata": m}
        for name, field, kind, numpy, m in (
            ("task_index", "task_index", "int64", "int64", None),
            (None, index, "unicode", "object", None),
        )
    ]
    labels = {
        "name": None,
        "field_name": None,
        "pandas_type": "unicode",
        "numpy_type": "object",
        "metadata": {"encoding": "UTF-8"},
    }
    pandas = {"index_columns": [index], "column_indexes": [labels], "columns": columns}
    pandas |= {"creator": {"library": "pyarrow", "version": pa.__version__}}
    pandas |= {"pandas_version": "2.2.0"}
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), path)


def _write_json(path: Path, value: object) -> None:
    text = json.dumps(value, indent=4, ensure_ascii=False, allow_nan=False)
    path.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
