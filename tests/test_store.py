from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import threading

import msgspec
import numpy as np
import pytest

from mirror_analysis.errors import ShapeError, StoreError
from mirror_analysis.features import FeatureKey
from mirror_analysis.store import FeatureStore, StackKey

KEY = StackKey("watcher/v1", "0" * 64, "mean", "f" * 64, ("camera:A",))
ROWS = [(f"ep{i}", 100 + i) for i in range(6)]


def values(seed: int = 0, width: int = 3, rows: int = len(ROWS)) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


def filled(folder) -> tuple[FeatureStore, dict[str, np.ndarray]]:
    store, layers = FeatureStore(folder), {"a": values(0), "b": values(1, 5)}
    for rows in (slice(0, 4), slice(4, 6)):
        store.write(KEY, ROWS[rows], {name: stack[rows] for name, stack in layers.items()})
    return store, layers


def manifest(folder):
    return folder / KEY.folder / "manifest.jsonl"


def shards(folder):
    return sorted((folder / KEY.folder).glob("*.safetensors"))


# -- reading back -----------------------------------------------------------------------------


def test_rows_come_back_exactly_and_in_the_order_asked_for(tmp_path) -> None:
    _, layers = filled(tmp_path)
    order = [5, 0, 3]
    found = FeatureStore(tmp_path).read(KEY, [ROWS[i] for i in order], ["b", "a"])
    for name in ("a", "b"):
        np.testing.assert_array_equal(found.values[name], layers[name][order])
        assert found.there[name].all()
    assert found.damaged == ()


def test_rows_and_layers_that_are_not_stored_are_said_to_be_missing(tmp_path) -> None:
    store, layers = filled(tmp_path)
    asked = [ROWS[1], ("ep1", 999), ("other", 101)]
    found = store.read(KEY, asked, ["a", "c"])
    assert found.there["a"].tolist() == [True, False, False]
    assert found.there["c"].tolist() == [False, False, False]
    np.testing.assert_array_equal(found.values["a"][0], layers["a"][1])
    assert np.isnan(found.values["a"][1:]).all()
    assert "c" not in found.values


def test_layers_of_the_same_rows_may_come_in_several_shards(tmp_path) -> None:
    store = FeatureStore(tmp_path)
    store.write(KEY, ROWS, {"a": values(0)})
    store.write(KEY, ROWS, {"b": values(1)})
    found = store.read(KEY, ROWS, ["a", "b"])
    np.testing.assert_array_equal(found.values["a"], values(0))
    np.testing.assert_array_equal(found.values["b"], values(1))


@pytest.mark.parametrize("field", StackKey.__struct_fields__)
def test_nothing_of_another_key_is_ever_read(tmp_path, field) -> None:
    store, _ = filled(tmp_path)
    other = msgspec.structs.replace(KEY, **{field: ("x",) if field == "inputs" else "x"})
    assert not store.read(other, ROWS, ["a"]).there["a"].any()


def test_a_layer_key_names_everything() -> None:
    assert KEY.layer("a") == FeatureKey("watcher/v1", "0" * 64, "a", "mean", "f" * 64)


def test_a_hostile_model_name_stays_in_the_store(tmp_path) -> None:
    store = FeatureStore(tmp_path / "store")
    key = msgspec.structs.replace(KEY, checkpoint="../../etc/" + "x" * 500)
    store.write(key, ROWS, {"a": values()})
    assert [p.name for p in tmp_path.iterdir()] == ["store"]
    assert store.read(key, ROWS, ["a"]).there["a"].all()


def test_values_that_are_not_float32_rows_are_refused(tmp_path) -> None:
    store = FeatureStore(tmp_path)
    for stack in (values(rows=5), values()[:, 0]):
        with pytest.raises(ShapeError, match=r"'a' to be stored .* needed float32 of 6 rows"):
            store.write(KEY, ROWS, {"a": stack})
    assert not (tmp_path / KEY.folder).exists()


# -- damage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_shard_is_reported_and_its_rows_count_as_missing(tmp_path, damage) -> None:
    store, layers = filled(tmp_path)
    line = json.loads(manifest(tmp_path).read_text().splitlines()[0])
    path = tmp_path / KEY.folder / line["shard"]
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-1] ^= 1
        path.write_bytes(data)
    elif damage == "cut":
        path.write_bytes(data[:-1])
    else:
        path.unlink()
    found = store.read(KEY, ROWS, ["a"])
    assert found.damaged == (line["shard"],)
    assert found.there["a"].tolist() == [False] * 4 + [True] * 2

    store.set_aside(KEY, found.damaged)
    assert path.with_name(path.name + ".damaged").exists() == (damage != "gone")
    store.write(KEY, ROWS[:4], {name: stack[:4] for name, stack in layers.items()})
    mended = store.read(KEY, ROWS, ["a", "b"])
    assert mended.damaged == ()
    np.testing.assert_array_equal(mended.values["b"], layers["b"])


def test_a_torn_end_of_the_manifest_is_ignored_then_overwritten(tmp_path) -> None:
    store, layers = filled(tmp_path)
    whole = manifest(tmp_path).read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    for kept in range(len(last)):
        manifest(tmp_path).write_bytes(whole[: len(whole) - len(last) + kept])
        found = store.read(KEY, ROWS, ["a"])
        assert found.there["a"].tolist() == [True] * 4 + [False] * 2
    store.write(KEY, ROWS[4:], {name: stack[4:] for name, stack in layers.items()})
    assert manifest(tmp_path).read_bytes() == whole


def test_a_long_torn_end_is_overwritten(tmp_path) -> None:
    store, layers = filled(tmp_path)
    with manifest(tmp_path).open("ab") as file:
        file.write(b"x" * 200_000)
    store.write(KEY, [("new", 1)], {"a": layers["a"][:1]})
    assert store.read(KEY, [*ROWS, ("new", 1)], ["a"]).there["a"].all()


@pytest.mark.parametrize("line", [b"", b"{", b"[1]", b"\xff", b'{"schema": 1}'])
def test_a_torn_line_in_the_middle_is_an_error(tmp_path, line) -> None:
    store, _ = filled(tmp_path)
    first, rest = manifest(tmp_path).read_bytes().split(b"\n", 1)
    manifest(tmp_path).write_bytes(b"\n".join([first, line, rest]))
    with pytest.raises(StoreError, match=r"line 2 of .*manifest.jsonl is damaged .*delete the"):
        store.read(KEY, ROWS, ["a"])


@pytest.mark.parametrize("change", [{"key": "other"}, {"shard": "../../outside"}])
def test_a_manifest_of_another_key_is_refused(tmp_path, change) -> None:
    store, _ = filled(tmp_path)
    line = json.loads(manifest(tmp_path).read_text().splitlines()[0])
    manifest(tmp_path).write_text(json.dumps(line | change) + "\n")
    with pytest.raises(StoreError, match=r"line 1 of .* belongs to .*, not to watcher_v1-"):
        store.read(KEY, ROWS, ["a"])


def test_shards_of_one_layer_with_two_widths_are_refused(tmp_path) -> None:
    store = FeatureStore(tmp_path)
    store.write(KEY, ROWS[:2], {"a": values(rows=2)})
    store.write(KEY, ROWS[2:], {"a": values(width=4, rows=4)})
    with pytest.raises(StoreError, match="layer 'a' with 4 features, an earlier one with 3"):
        store.read(KEY, ROWS, ["a"])


# -- folders that are no store ----------------------------------------------------------------


def test_other_folders_and_files_are_refused(tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="is a file; needed a folder"):
        FeatureStore(tmp_path / "file")
    with pytest.raises(StoreError, match="is not a feature store but holds file; name a new"):
        FeatureStore(tmp_path)


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ('{"format": "mirror-analysis feature store", "schema": 2}', "of schema 2; this version"),
        ('{"format": "something", "schema": 1}', "is a 'something' of schema 1"),
        ("{", r"store\.json cannot be read"),
    ],
)
def test_a_store_of_another_version_is_refused(tmp_path, marker, words) -> None:
    (tmp_path / "store.json").write_text(marker)
    with pytest.raises(StoreError, match=words):
        FeatureStore(tmp_path)


# -- kills and second writers -----------------------------------------------------------------


@pytest.mark.parametrize("moment", ["fsync", "replace", "write"])
def test_a_write_that_fails_at_any_moment_leaves_what_was_there(
    tmp_path, monkeypatch, moment
) -> None:
    store, layers = filled(tmp_path)
    calls = {"n": 0}

    def fail(*arguments: object) -> None:
        calls["n"] += 1
        raise OSError("no space left")

    if moment == "replace":
        monkeypatch.setattr("pathlib.Path.replace", fail)
    else:
        monkeypatch.setattr(f"mirror_analysis.store.os.{moment}", fail)
    with pytest.raises(OSError, match="no space left"):
        store.write(KEY, [("new", 1)], {"a": values(7, rows=1)})
    assert calls["n"] == 1
    monkeypatch.undo()
    found = store.read(KEY, [*ROWS, ("new", 1)], ["a"])
    assert found.there["a"].tolist() == [True] * 6 + [False]
    np.testing.assert_array_equal(found.values["a"][:6], layers["a"])
    assert not list((tmp_path / KEY.folder).glob(".*.partial"))


KILLED = """
import os, sys
import numpy as np
from mirror_analysis import store as module
folder, stop = sys.argv[1], int(sys.argv[2])
plain = {name: getattr(os, name) for name in ("fsync", "open", "write", "ftruncate")}
count = 0
def counted(name):
    def call(*arguments):
        global count
        count += 1
        if count == stop:
            if name == "write":
                plain["write"](arguments[0], arguments[1][: len(arguments[1]) // 2])
            os.kill(os.getpid(), 9)
        return plain[name](*arguments)
    return call
for name in plain:
    setattr(os, name, counted(name))
s = module.FeatureStore(folder)
key = module.StackKey("watcher/v1", "0" * 64, "mean", "f" * 64, ("camera:A",))
for i in range(3):
    s.write(key, [(f"ep{i}", 100 + i)], {"a": np.full((1, 2), i, np.float32)})
print(count)
"""


def test_a_kill_at_any_system_call_loses_at_most_the_shard_being_written(tmp_path) -> None:
    def run(folder, stop: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", KILLED, str(folder), str(stop)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    total = int(run(tmp_path / "whole", 0).stdout)
    assert total > 20
    there = []
    for stop in range(1, total + 1, 2):
        folder = tmp_path / str(stop)
        assert run(folder, stop).returncode == -9
        store = FeatureStore(folder)
        found = store.read(KEY, ROWS[:3], ["a"])
        assert found.damaged == ()
        for i in np.flatnonzero(found.there["a"]):
            assert found.values["a"][i].tolist() == [i, i]
        there.append(int(found.there["a"].sum()))
        store.write(KEY, ROWS[:3], {"a": values(rows=3, width=2)})
        assert store.read(KEY, ROWS[:3], ["a"]).there["a"].all()
    assert there == sorted(there)
    assert there[0] == 0
    assert there[-1] >= 2


def _writer(folder, barrier, seed: int) -> None:
    store = FeatureStore(folder)
    barrier.wait()
    for i in range(20):
        rows = [(f"shared{i}", 1), (f"own{seed}-{i}", 1)]
        store.write(KEY, rows, {"a": np.full((2, 2), i, np.float32)})


def test_two_processes_writing_one_key_do_not_disturb_each_other(tmp_path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    writers = [context.Process(target=_writer, args=(tmp_path, barrier, k)) for k in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    names = [f"shared{i}" for i in range(20)]
    names += [f"own{k}-{i}" for k in range(2) for i in range(20)]
    found = FeatureStore(tmp_path).read(KEY, [(name, 1) for name in names], ["a"])
    assert found.there["a"].all()
    assert found.damaged == ()
    np.testing.assert_array_equal(found.values["a"][:, 0], np.tile(np.arange(20), 3))


def test_a_reader_beside_a_writer_sees_whole_shards_only(tmp_path) -> None:
    store, rows = FeatureStore(tmp_path), [(f"ep{i}", i) for i in range(40)]

    def write() -> None:
        for i, row in enumerate(rows):
            store.write(KEY, [row], {"a": np.full((1, 2), i, np.float32)})

    thread = threading.Thread(target=write)
    thread.start()
    seen = 0
    while seen < len(rows):
        alive = thread.is_alive()
        found = store.read(KEY, rows, ["a"])
        assert found.damaged == ()
        count = int(found.there["a"].sum())
        assert count >= seen
        assert alive or count == len(rows)
        seen = count
    thread.join()


def test_equal_content_is_one_shard(tmp_path) -> None:
    store = FeatureStore(tmp_path)
    names = {store.write(KEY, ROWS, {"a": values(), "b": values()}) for _ in range(3)}
    assert len(names) == 1
    assert len(shards(tmp_path)) == 1
    assert sorted(os.listdir(tmp_path / KEY.folder)) == sorted([*names, "manifest.jsonl"])
