"""Where the pictures of one episode's cameras lie, and how they are read when asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.episodes.parquet import batches, numbers, open_parquet
from mirror_analysis.episodes.video import MOST_BYTES, decode
from mirror_analysis.errors import FormatError
from mirror_analysis.files.pictures import read_picture
from mirror_analysis.files.places import inside


@final
@dataclass(frozen=True, eq=False)
class VideoSpan:
    """Part of a video file.

    Attributes:
        path: the file.
        start: seconds at which the episode starts in it.
        times: [time] seconds since then.
        tolerance: seconds the nearest picture may be off; None for a quarter of a frame.
    """

    path: Path
    start: float
    times: NDArray[np.float64]
    tolerance: float | None

    def __call__(self) -> NDArray[np.uint8]:
        """[time, height, width, 3], decoded now."""
        return decode(self.path, timestamps=self.times, start=self.start, tolerance=self.tolerance)


@final
@dataclass(frozen=True, eq=False)
class ImageColumn:
    """Pictures in a column of a Parquet file, as bytes or as names of files.

    Attributes:
        folder: in which named files must lie.
        path: the Parquet file.
        column: its column.
        episode: number of the episode.
        kept: [time] positions within the episode, increasing.
    """

    folder: Path
    path: Path
    column: str
    episode: int
    kept: NDArray[np.int64]

    def __call__(self) -> NDArray[np.uint8]:
        """[time, height, width, 3], read now.

        Raises:
            FormatError: if a picture is missing, damaged, or of another size than the first.
        """
        pictures: NDArray[np.uint8] | None = None
        row, done = 0, 0
        with open_parquet(self.path) as file:
            span = ("episode_index", self.episode, self.episode)
            columns = ["episode_index", self.column]
            for batch in batches(self.path, file, columns, where=span):
                index = numbers(self.path, "episode_index", batch.column("episode_index"))
                values = batch.column(self.column)
                for place in np.flatnonzero(index[:, 0] == self.episode):
                    if done < len(self.kept) and row == self.kept[done]:
                        picture = self._picture(values[int(place)].as_py())
                        if pictures is None:
                            pictures = self._room(picture)
                        if picture.shape != pictures.shape[1:]:
                            raise FormatError(
                                f"{self.column} of episode {self.episode} in {self.path} changes"
                                " its size; needed pictures of one size"
                            )
                        pictures[done] = picture
                        done += 1
                    row += 1
        if pictures is None or done < len(self.kept):
            raise FormatError(
                f"{self.path} holds {done} of {len(self.kept)} pictures of {self.column} in episode"
                f" {self.episode}; fetch it again"
            )
        return pictures

    def _room(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if len(self.kept) * picture.size > MOST_BYTES:
            raise FormatError(
                f"{len(self.kept)} pictures in {self.path} take more than"
                f" {MOST_BYTES / 2**30:.0f} GiB; read fewer frames of each episode"
            )
        return np.empty((len(self.kept), *picture.shape), dtype=np.uint8)

    def _picture(self, value: Any) -> NDArray[np.uint8]:
        data, name = value, None
        if isinstance(value, dict):
            data, name = value.get("bytes"), value.get("path")
        if isinstance(data, str):
            data, name = None, data
        if isinstance(data, bytes):
            return read_picture(data)
        if isinstance(name, str):
            return read_picture(inside(self.folder, name))
        raise FormatError(
            f"{self.column} of episode {self.episode} in {self.path} holds"
            f" {type(value).__name__}; needed the bytes of a picture, or the name of its file"
        )


Source = VideoSpan | ImageColumn


@final
@dataclass(frozen=True, eq=False)
class Sources:
    """The loader of an episode: camera -> where its pictures lie.

    Attributes:
        cameras: by name, in the order of the source.
    """

    cameras: Mapping[str, Source]

    def __call__(self, camera: str) -> NDArray[np.uint8]:
        """[time, height, width, 3] of one camera, read now."""
        return self.cameras[camera]()
