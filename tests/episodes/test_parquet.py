import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mirror_analysis.episodes import parquet
from mirror_analysis.episodes.parquet import (
    batches,
    column_names,
    numbers,
    open_parquet,
    plain_rows,
)
from mirror_analysis.errors import FormatError, MissingFileError


@pytest.fixture
def path(tmp_path):
    table = pa.table({"n": range(10), "text": [f"t{i}" for i in range(10)], "x.y": [0.5] * 10})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=4)
    return tmp_path / "a.parquet"


def test_rows_come_in_order(path):
    with open_parquet(path) as file:
        assert column_names(file) == ["n", "text", "x.y"]
        found = [batch.column("n").to_pylist() for batch in batches(path, file, ["n", "x.y"])]
        assert found == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        last = next(batches(path, file, ["x.y"], where=("n", 8, 8)))
        assert last.column("x.y").to_pylist() == [0.5, 0.5]
    assert plain_rows(path, ["text"])[7] == {"text": "t7"}


def test_groups_are_skipped_where_the_statistics_tell(path, tmp_path):
    def rows(path, column, low, high):
        with open_parquet(path) as file:
            found = batches(path, file, ["n"], where=(column, low, high))
            return [n for batch in found for n in batch.column("n").to_pylist()]

    assert rows(path, "n", 5, 5) == [4, 5, 6, 7]
    assert rows(path, "n", 3, 4) == list(range(8))
    assert rows(path, "n", 50, 60) == []
    assert rows(path, "gone", 5, 5) == rows(path, "text", 5, 5) == list(range(10))
    bare = tmp_path / "bare.parquet"
    pq.write_table(pa.table({"n": [1, 2]}), bare, write_statistics=False)
    assert rows(bare, "n", 5, 5) == [1, 2]


def test_long_texts_come_few_at_a_time(tmp_path, monkeypatch):
    path = tmp_path / "long.parquet"
    pq.write_table(pa.table({"text": ["x" * 100_000] * 64}), path)
    monkeypatch.setattr(parquet, "_BATCH", 400_000)
    with open_parquet(path) as file:
        assert max(len(batch) for batch in batches(path, file, ["text"])) <= 4
    monkeypatch.setattr(parquet, "_MOST_TEXT", 10**6)
    with pytest.raises(FormatError, match=r"takes more than 1000000 bytes; needed a table"):
        plain_rows(path)


def test_numbers_are_laid_out_in_rows(path):
    def laid_out(values, kind=None):
        return numbers(path, "a", pa.array(values, kind))

    assert laid_out([1, 2]).tolist() == [[1], [2]]
    assert laid_out([True, False]).tolist() == [[True], [False]]
    assert laid_out([[1.5, 2.0], [3.0, 4.0]]).shape == (2, 2)
    nested = np.arange(24).reshape(2, 3, 4)
    assert np.array_equal(laid_out(nested.tolist()), nested.reshape(2, 12))
    assert laid_out(nested.tolist(), pa.list_(pa.large_list(pa.int8()))).dtype == np.int8
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(range(6)), 3)
    assert numbers(path, "a", fixed[1:]).tolist() == [[3, 4, 5]]
    assert laid_out([], pa.int64()).size == 0
    for bad, words in (
        ([[1], [1, 2]], "differ in length"),
        ([[1], None], "differ in length or are missing"),
        ([1, None], "has missing values; fill them in"),
        (["a"], "holds string; needed numbers"),
        ([[[1], [2]], [[1, 2], []]], "differ in length"),
    ):
        with pytest.raises(FormatError, match=words):
            laid_out(bad)


def test_what_is_not_there_is_said(path, tmp_path):
    with open_parquet(path) as file, pytest.raises(FormatError, match=r"has no column 'z' .*: n, "):
        list(batches(path, file, ["z"]))
    with pytest.raises(MissingFileError, match=r"needed a Parquet file"):
        plain_rows(tmp_path / "gone.parquet")


def test_bounds_hold_before_rows_are_read(path, monkeypatch):
    with (
        pytest.raises(FormatError, match=r"needed a Parquet file of at most 10"),
        open_parquet(path, most=10),
    ):
        pass
    for name, words in (
        ("MOST_ROWS", "has 10 rows of 3 columns; needed at most 2"),
        ("MOST_COLUMNS", "has 10 rows of 3 columns"),
        ("MOST_CHUNK", "column 'n' of .* needed at most 2 in a group of rows"),
    ):
        with monkeypatch.context() as patch, pytest.raises(FormatError, match=words):
            patch.setattr(parquet, name, 2)
            plain_rows(path)


def test_small_files_do_not_unpack_to_large_ones(tmp_path, monkeypatch):
    path = tmp_path / "zeros.parquet"
    lists = pa.ListArray.from_arrays([0, 10**6, 2 * 10**6], pa.array(np.zeros(2 * 10**6, np.int8)))
    pq.write_table(pa.table({"a": lists, "n": [1, 2]}), path, compression="zstd")
    assert len(plain_rows(path, ["n"])) == 2
    monkeypatch.setattr(parquet, "_ALWAYS", 10**6)
    with pytest.raises(
        FormatError, match=r"of \d+ bytes unpacks to 16000\d{3}; needed at most 1000"
    ):
        plain_rows(path)


def test_groups_without_rows_are_refused(tmp_path):
    path = tmp_path / "empty.parquet"
    with pq.ParquetWriter(path, pa.schema([("n", pa.int64())])) as writer:
        for _ in range(3):
            writer.write_table(pa.table({"n": pa.array([], pa.int64())}))
    with pytest.raises(FormatError, match=r"more groups of rows than rows"):
        plain_rows(path)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_file_that_ends_early_is_refused(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(FormatError, match=r"is not a readable Parquet file: .*; fetch it again"):
        plain_rows(path)


def test_flipped_bits_give_rows_or_words(path):
    content, refused = path.read_bytes(), 0
    for seed in range(150):
        g = np.random.default_rng(seed)
        flipped = bytearray(content)
        for place in g.integers(0, len(content), 1 + seed % 4):
            flipped[place] ^= 1 << int(g.integers(8))
        path.write_bytes(flipped)
        try:
            plain_rows(path)
        except FormatError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused
