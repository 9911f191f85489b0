import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mirror_analysis.episodes.parquet_footer import read_footer
from mirror_analysis.errors import FormatError


@pytest.fixture
def path(tmp_path):
    table = pa.table(
        {
            "n": pa.array([-5, 3, 900, 4]),
            "small": pa.array([1, 2, 3, -4], pa.int32()),
            "text": ["a", "b", None, "d"],
            "lists": [[1.5, 2.0], [], [3.0], [4.0, 5.0, 6.0]],
            "pictures": [{"bytes": b"x", "path": "p"}] * 4,
            "flag": [True, False, True, True],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    return tmp_path / "a.parquet"


def test_it_says_what_pyarrow_says(path):
    facts, groups = pq.ParquetFile(path).metadata, read_footer(path)
    assert len(groups) == facts.num_row_groups == 2
    for number, chunks in enumerate(groups):
        for column, chunk in enumerate(chunks):
            theirs = facts.row_group(number).column(column)
            assert chunk.path == theirs.path_in_schema
            assert chunk.values == theirs.num_values
            assert chunk.unpacked == theirs.total_uncompressed_size
            assert chunk.is_text == (theirs.physical_type == "BYTE_ARRAY")
            if theirs.physical_type.startswith("INT"):
                assert chunk.bounds == (theirs.statistics.min, theirs.statistics.max)
            else:
                assert chunk.bounds is None


def test_other_versions_are_read(path, tmp_path):
    table = pq.read_table(path)
    for number, options in enumerate(
        (
            {"version": "1.0"},
            {"write_statistics": False},
            {"write_page_index": True, "data_page_version": "2.0", "compression": "zstd"},
            {"write_page_checksum": True, "use_dictionary": False},
        )
    ):
        other = tmp_path / f"{number}.parquet"
        pq.write_table(table.replace_schema_metadata({"k": "v" * 300}), other, **options)
        ((first, *_),) = read_footer(other)
        assert (first.path, first.values) == ("n", 4)
    assert read_footer(tmp_path / "1.parquet")[0][0].bounds is None


def test_a_damaged_footer_is_refused(path):
    content = path.read_bytes()
    for changed in (
        content[:-1],
        content[:3],
        content[:-8] + b"\xff\xff\xff\x7fPAR1",
        content[:-60] + bytes(range(52)) + content[-8:],
    ):
        path.write_bytes(changed)
        with pytest.raises(FormatError, match=r"is not a readable Parquet file: its (footer|last)"):
            read_footer(path)


def test_any_footer_is_refused_or_read(path):
    content, refused = path.read_bytes(), 0
    length = int.from_bytes(content[-8:-4], "little")
    for seed in range(60):
        g = np.random.default_rng(seed)
        changed = bytearray(content)
        for place in g.integers(len(content) - 8 - length, len(content) - 8, 1 + seed % 5):
            changed[place] = int(g.integers(256))
        path.write_bytes(changed)
        try:
            read_footer(path)
        except FormatError:
            refused += 1
    assert 10 < refused < 60


def test_nests_of_structs_end(path):
    deep = b"\x1c" * 5000
    path.write_bytes(b"PAR1" + deep + len(deep).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(FormatError, match=r"its footer is damaged"):
        read_footer(path)
