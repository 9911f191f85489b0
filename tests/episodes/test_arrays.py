import hashlib
import io
import json
import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest
from test_episode import episode

from mirror_analysis.episodes import (
    ArraysWriter,
    Episodes,
    load_episodes,
    read_arrays,
    write_episode,
)
from mirror_analysis.episodes.arrays import encode, merge_manifest, pack, read_manifest
from mirror_analysis.errors import (
    ChecksumError,
    DefinitionError,
    FormatError,
    MissingFileError,
    ShapeError,
    UnknownNameError,
)


@pytest.fixture
def folder(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        write_episode(tmp_path, episode(name, seed=seed))
    return tmp_path


def lines(folder):
    return (folder / "manifest.jsonl").read_text().splitlines()


def change_line(folder, **changes):
    changed = [json.dumps(json.loads(lines(folder)[0]) | changes), *lines(folder)[1:]]
    (folder / "manifest.jsonl").write_text("\n".join(changed) + "\n")


def replace_arrays(folder, **changes):
    """Writes other arrays into the file of the first episode, with a manifest that agrees."""
    with np.load(folder / "a.npz") as file:
        arrays = {name: file[name] for name in file.files} | changes
    data = pack({name: values for name, values in arrays.items() if values is not None})
    (folder / "a.npz").write_bytes(data)
    change_line(folder, sha256=hashlib.sha256(data).hexdigest())


def npy(values):
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def test_what_was_written_is_read(folder):
    written, read = episode("b", seed=1), read_arrays(folder, verify=True)[1]
    for name in ("states", "actions", "timestamps", "steps"):
        assert np.array_equal(getattr(read, name), getattr(written, name))
    for name in ("id", "task", "instruction", "success", "length", "cameras", "labels"):
        assert getattr(read, name) == getattr(written, name)
    assert np.array_equal(read.extras["expert_actions"], written.extras["expert_actions"])
    assert np.array_equal(read.frames("B"), written.frames("B"))


def test_the_same_episode_gives_the_same_bytes(tmp_path):
    for name in ("x", "y"):
        write_episode(tmp_path / name, episode())
    for name in ("e0.npz", "manifest.jsonl"):
        assert (tmp_path / "x" / name).read_bytes() == (tmp_path / "y" / name).read_bytes()
    assert encode(episode(seed=1)) != encode(episode())
    assert read_arrays(tmp_path / "x").fingerprint == read_arrays(tmp_path / "y").fingerprint


def test_labels_of_numpy_become_plain(tmp_path):
    record = write_episode(tmp_path, episode(labels={"noise": np.float64(0.5), "n": 3}))
    assert record == read_manifest(tmp_path)[0]
    assert record.labels == {"noise": 0.5, "n": 3}


def test_an_id_is_written_once(folder):
    with pytest.raises(FormatError, match="already has an episode a; give every episode an id"):
        write_episode(folder, episode("a"))


def test_nothing_is_left_of_a_failed_write(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk is full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk is full"):
        write_episode(tmp_path, episode())
    assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == []


def test_a_killed_writer_leaves_whole_episodes_and_another_goes_on(tmp_path):
    code = f"""
        import os, signal, sys
        sys.path[:0] = {sys.path!r}
        from test_episode import episode
        from mirror_analysis.episodes import ArraysWriter
        from pathlib import Path
        writer = ArraysWriter(Path({str(tmp_path)!r}))
        writer.add(episode("a"))
        with (writer.folder / "manifest.jsonl").open("a") as file:
            file.write('{{"id": "b", "fi')
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -9
    assert [e.id for e in read_arrays(tmp_path, verify=True)] == ["a"]
    writer = ArraysWriter(tmp_path)
    assert [record.id for record in writer.records] == ["a"]
    writer.add(episode("b", seed=1))
    assert [e.id for e in read_arrays(tmp_path, verify=True)] == ["a", "b"]


def test_a_whole_last_line_without_its_end_counts(folder):
    path = folder / "manifest.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert len(read_arrays(folder)) == 2
    write_episode(folder, episode("c"))
    assert [e.id for e in read_arrays(folder)] == ["a", "b", "c"]


def test_missing_things_are_named(folder):
    with pytest.raises(MissingFileError, match=r"no folder .*nowhere; give one that holds"):
        read_arrays(folder / "nowhere")
    (folder / "empty").mkdir()
    with pytest.raises(MissingFileError, match=r"no manifest.jsonl in .*empty; needed one line"):
        read_arrays(folder / "empty")
    episodes = read_arrays(folder)
    (folder / "a.npz").unlink()
    with pytest.raises(MissingFileError, match=r"a.npz of episode a is not there; restore it"):
        read_arrays(folder)
    with pytest.raises(MissingFileError, match=r"a.npz is not there; needed a zip"):
        episodes[0].frames("A")


def test_changed_bytes_are_found_when_asked_to_look(folder):
    (folder / "a.npz").write_bytes(encode(episode("a", seed=5)))
    assert len(read_arrays(folder)) == 2
    with pytest.raises(ChecksumError, match=r"a.npz has sha256 .* but manifest.jsonl says"):
        read_arrays(folder, verify=True)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 cut off"])
def test_files_that_are_no_archives_are_named(folder, content):
    (folder / "a.npz").write_bytes(content)
    with pytest.raises(FormatError, match=r"a.npz cannot be opened: .*; needed a whole zip"):
        read_arrays(folder)


def test_pickled_objects_are_not_read(folder):
    np.savez(folder / "a.npz", states=np.array([{}], dtype=object))
    with pytest.raises(FormatError, match=r"a.npz has no array 'actions'; needed states, actions"):
        read_arrays(folder)
    with np.load(folder / "b.npz") as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(folder / "a.npz", **arrays | {"states": np.array([{}] * 4, dtype=object)})
    with pytest.raises(
        FormatError,
        match=r"'states.npy' of .*a.npz is not a whole array of plain numbers: .* objects are",
    ):
        read_arrays(folder)


def test_pictures_that_are_gone_are_named(folder):
    episodes = read_arrays(folder)
    replace_arrays(folder, **{"frames/A": None})
    with pytest.raises(FormatError, match=r"a.npz has no array 'frames/A' any more; restore it"):
        episodes[0].frames("A")


def test_a_type_of_gigabytes_takes_none(folder):
    with np.load(folder / "a.npz") as file:
        arrays = {name: file[name] for name in file.files}
    text = b"{'descr': '|V2000000000', 'fortran_order': False, 'shape': (6,)}\n"
    with zipfile.ZipFile(folder / "a.npz", "w") as archive:
        for name, values in arrays.items():
            archive.writestr(f"{name}.npy", npy(values))
        held = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
        archive.writestr("extras/x.npy", held)
    with pytest.raises(FormatError, match=r"'extras/x.npy' of .* is not a whole array of"):
        read_arrays(folder)


def test_a_single_array_is_no_episode(folder):
    with (folder / "a.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(FormatError, match=r"a.npz cannot be opened: .*; needed a whole zip"):
        read_arrays(folder)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"steps": None}, FormatError, r"a.npz has no array 'steps'; needed states, actions"),
        (
            {"states": np.zeros((4, 3))},
            FormatError,
            r"'states' in .*a.npz is float64; needed float",
        ),
        ({"states": np.zeros((2, 3), np.float32)}, ShapeError, "has 4 steps but 2 states"),
    ],
)
def test_arrays_that_do_not_fit_are_named(folder, changes, error, text):
    replace_arrays(folder, **changes)
    with pytest.raises(error, match=text):
        read_arrays(folder)


def test_pictures_that_do_not_fit_are_named_when_read(folder):
    replace_arrays(folder, **{"frames/A": np.zeros((3, 6, 5, 3), np.uint8)})
    with pytest.raises(ShapeError, match="camera 'A' of episode a gave uint8"):
        read_arrays(folder)[0].frames("A")


def test_broken_lines_are_named_by_number(folder):
    path = folder / "manifest.jsonl"
    good = lines(folder)
    path.write_text("\n".join([good[0], "{broken", good[1]]) + "\n")
    with pytest.raises(FormatError, match=r"line 2 of .*manifest.jsonl is not an episode: JSON"):
        read_arrays(folder)
    path.write_text("\n".join([good[0], good[1], good[0]]) + "\n")
    with pytest.raises(FormatError, match=r"line 3 of .* repeats the id a; give every episode"):
        read_arrays(folder)
    change_line(folder, surprise=1)
    with pytest.raises(FormatError, match=r"line 1 of .* unknown field `surprise`"):
        read_arrays(folder)


@pytest.mark.parametrize("name", ["../a.npz", "/etc/passwd", "", "x/../../a.npz"])
def test_files_outside_the_folder_are_refused(folder, name):
    change_line(folder, file=name)
    with pytest.raises(FormatError, match=r"lies outside .*; needed a path inside the folder"):
        read_arrays(folder)
    with pytest.raises(FormatError, match="lies outside"):
        write_episode(folder, episode("c"), file=name)


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "a.npz").write_bytes((folder / "a.npz").read_bytes())
    (folder / "inside").symlink_to(other)
    change_line(folder, file="inside/a.npz")
    with pytest.raises(FormatError, match="lies outside"):
        read_arrays(folder)


def test_manifests_merge_in_place(tmp_path):
    def inner(name, *ids):
        records = [write_episode(tmp_path / name, episode(i)) for i in ids]
        return [type(r)(**{f: getattr(r, f) for f in r.__struct_fields__} | {
            "file": f"{name}/{r.file}"
        }) for r in records]  # fmt: skip

    write_episode(tmp_path, episode("top"))
    first, second = inner("x", "x0", "x1"), inner("y", "y0")
    merge_manifest(tmp_path, first)
    merge_manifest(tmp_path, second)
    whole = (tmp_path / "manifest.jsonl").read_bytes()
    merge_manifest(tmp_path, first)
    assert (tmp_path / "manifest.jsonl").read_bytes() == whole
    assert [e.id for e in read_arrays(tmp_path, verify=True)] == ["top", "x0", "x1", "y0"]
    merge_manifest(tmp_path, first[1:])
    assert [e.id for e in read_arrays(tmp_path)] == ["top", "x1", "y0"]


def test_sources_are_a_reader_and_a_path(folder):
    assert [e.id for e in load_episodes(f"arrays:{folder}")] == ["a", "b"]
    assert load_episodes(str(folder)).fingerprint == read_arrays(folder).fingerprint
    assert isinstance(load_episodes(str(folder), limit=1), Episodes)
    assert [e.id for e in load_episodes(str(folder), limit=1)] == ["a"]
    with pytest.raises(UnknownNameError, match="unknown episode reader 'array'; did you mean 'arr"):
        load_episodes(f"array:{folder}")
    with pytest.raises(DefinitionError, match="limit is -1 episodes; needed 0 or more"):
        load_episodes(str(folder), limit=-1)
    with pytest.raises(MissingFileError, match="no episodes at"):
        load_episodes(str(folder / "nowhere"))
