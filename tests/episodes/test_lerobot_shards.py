import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from moving import moving, psnr

from mirror_analysis.episodes.lerobot_shards import TableShards, VideoShards
from mirror_analysis.episodes.video import decode


def test_tables_are_divided_by_size(tmp_path):
    shards, places = TableShards(tmp_path, most=0.01), []
    for number in range(5):
        table = pa.table({"n": np.full(600, number)})
        places.append(shards.place(table.nbytes))
        shards.add(table)
    shards.close()
    assert places == [(0, 0), (0, 0), (0, 1), (0, 1), (0, 2)]
    held = [
        set(pq.read_table(tmp_path / "chunk-000" / f"file-00{n}.parquet")["n"].to_pylist())
        for n in range(3)
    ]
    assert held == [{0, 1}, {2, 3}, {4}]
    assert pq.read_metadata(tmp_path / "chunk-000" / "file-000.parquet").num_row_groups == 2


def test_what_is_larger_than_a_file_has_its_own(tmp_path):
    shards = TableShards(tmp_path, most=0.001)
    table = pa.table({"n": np.zeros(600)})
    for number in range(1001):
        assert shards.place(table.nbytes) == divmod(number, 1000)
        shards.add(table[:1]) if number else shards.add(table)
        shards._size = 10**6
    shards.close()
    assert (tmp_path / "chunk-001" / "file-000.parquet").is_file()


def test_videos_are_divided_between_episodes(tmp_path):
    shards = VideoShards(tmp_path, fps=12.5, codec="h264", most=0.003)
    episodes = [moving(8, seed=number) for number in range(6)]
    spans = [shards.add(frames) for frames in episodes]
    shards.close()
    assert {span["file_index"] for span in spans} >= {0, 1, 2}
    for frames, span in zip(episodes, spans, strict=True):
        assert span["to_timestamp"] - span["from_timestamp"] == 8 / 12.5
        path = tmp_path / "chunk-000" / f"file-{span['file_index']:03d}.mp4"
        found = decode(path, timestamps=np.arange(8) / 12.5, start=span["from_timestamp"])
        assert psnr(found, frames) > 38
