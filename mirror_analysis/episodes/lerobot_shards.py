"""The files of a LeRobotDataset v3.0 while they are written: several episodes in each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.episodes.video_encoder import VideoEncoder, rate_of

if TYPE_CHECKING:
    import pyarrow as pa

CHUNK_FILES = 1000
"""Files in one folder."""


@final
@dataclass(frozen=True, kw_only=True)
class ShardSizes:
    """When the next file is begun; an episode is never divided.

    Attributes:
        data: megabytes of a Parquet file.
        video: megabytes of a video file.
    """

    data: float = 100
    video: float = 200


@final
class TableShards:
    """Parquet files `chunk-000/file-000.parquet`, `file-001` and so on.

    Args:
        folder: that holds the chunks.
        most: megabytes of a file.
    """

    def __init__(self, folder: Path, *, most: float) -> None:
        self._folder, self._most = folder, most * 2**20
        self._number, self._size = 0, 0.0
        self._writer: object = None

    def place(self, size: float) -> tuple[int, int]:
        """Chunk and file in which the next rows go.

        Args:
            size: their bytes, unpacked.
        """
        if self._writer is not None and self._size + size >= self._most:
            self.close()
            self._number += 1
        return divmod(self._number, CHUNK_FILES)

    def add(self, table: pa.Table) -> None:
        """Writes rows as one group, into the file that `place` gave."""
        import pyarrow.parquet as pq

        chunk, file = divmod(self._number, CHUNK_FILES)
        if self._writer is None:
            path = self._folder / f"chunk-{chunk:03d}" / f"file-{file:03d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(path, table.schema, compression="snappy")
            self._size = 0
        self._writer.write_table(table, row_group_size=max(len(table), 1))  # type: ignore[attr-defined]
        self._size += table.nbytes

    def close(self) -> None:
        """Completes the file that is open."""
        if self._writer is not None:
            self._writer.close()  # type: ignore[attr-defined]
            self._writer = None


@final
class VideoShards:
    """Video files of one camera: `chunk-000/file-000.mp4`, `file-001` and so on.

    Args:
        folder: that holds the chunks.
        fps: frames per second.
        codec: see `video_encoder`.
        most: megabytes of a file.
    """

    def __init__(self, folder: Path, *, fps: float, codec: str, most: float) -> None:
        self._folder, self._fps, self._codec = folder, fps, codec
        self._rate, self._most = rate_of(fps), most * 2**20
        self._number = 0
        self._encoder: VideoEncoder | None = None

    def add(self, frames: NDArray[np.uint8]) -> dict[str, int | float]:
        """Writes the pictures of one episode.

        Args:
            frames: [time, height, width, 3].

        Returns:
            chunk_index, file_index, and from_timestamp and to_timestamp in that file, in seconds.
        """
        if self._encoder is not None:
            written, count = self._encoder.size, self._encoder.count
            if written + written / count * len(frames) >= self._most:
                self.close()
                self._number += 1
        chunk, file = divmod(self._number, CHUNK_FILES)
        if self._encoder is None:
            path = self._folder / f"chunk-{chunk:03d}" / f"file-{file:03d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._encoder = VideoEncoder(path, fps=self._fps, codec=self._codec)
        first = self._encoder.count
        for frame in frames:
            self._encoder.add(frame)
        return {
            "chunk_index": chunk,
            "file_index": file,
            "from_timestamp": float(first / self._rate),
            "to_timestamp": float(self._encoder.count / self._rate),
        }

    def close(self, *, whole: bool = True) -> None:
        """Completes the file that is open, or gives it up."""
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            encoder.close(whole=whole)
