"""Whatever a checkpoint or dataset holds, it runs no code, opens nothing outside its folder and
takes little memory: it is refused in words. Each file is read by another process, which watches
itself (`hostile/reader.py`); the system tells whether anything outside was opened."""

import ctypes
import os
import re
import shutil
import signal
import struct

import pytest
from hostile import (  # noqa: F401  # they fill the table
    bomb_cases,
    claim_cases,
    code_cases,
    path_cases,
    pickle_cases,
    text_cases,
)
from hostile.cases import CASES, Bait, payload, poison
from hostile.damage import KINDS, REAL, STAND_INS, alone, damaged, victim, ways
from hostile.reading import Reader

MOST = 2**30  # bytes a file may take; a picture of the most pixels allowed takes 0.6 GiB
LONGEST = 30.0  # seconds; generous, since nothing here is timed
SOUND = [(entry, name) for entry, table in KINDS.items() for name in table]


class Opened:
    """What is opened in a folder, by whatever process, as the system sees it."""

    def __init__(self, folder):
        system = ctypes.CDLL(None, use_errno=True)
        self.number = system.inotify_init1(os.O_NONBLOCK)
        assert system.inotify_add_watch(self.number, os.fsencode(folder), 0x20) >= 0

    def names(self):
        try:
            data = os.read(self.number, 2**16)
        except BlockingIOError:
            return set()
        found, at = set(), 0
        while at < len(data):
            _, mask, _, size = struct.unpack_from("iIII", data, at)
            if not mask & 0x40000000:  # of a file, not of the folder
                found.add(data[at + 16 : at + 16 + size].rstrip(b"\0").decode())
            at += 16 + size
        return found


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    reader = Reader(tmp_path_factory.mktemp("reader"), patience=LONGEST)
    yield reader
    reader.close()


@pytest.fixture(scope="module")
def bait(tmp_path_factory):
    root = tmp_path_factory.mktemp("bait")
    path_cases.bait_files(root / "outside")
    return Bait(root / "outside", root / "canary")


@pytest.fixture(scope="module")
def opened(bait):
    return Opened(bait.folder)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """Entry and name -> the folder and the path in it, each made once."""
    root, made = tmp_path_factory.mktemp("sound"), {}

    def get(entry, name):
        if (entry, name) not in made:
            folder = root / entry / name
            folder.mkdir(parents=True)
            made[entry, name] = folder, KINDS[entry][name](folder)
        return made[entry, name]

    return get


def read(reader, entry, path, folder):
    return reader.read({"id": "x", "entry": entry, "path": str(path), "folder": str(folder)})


def check_harmless(report):
    """Read or refused in one line, with no side effect and in little memory."""
    assert report["outcome"] in ("read", "refused"), f"{report['kind']}: {report['trace']}"
    assert report["seen"] == []
    assert report["grown"] < MOST and report["inner"] < 2 * MOST
    if report["outcome"] == "refused":
        assert report["words"].isprintable(), repr(report["words"])  # nothing a terminal obeys
        assert "Traceback" not in report["words"]
        assert 20 < len(report["words"]) < 2000


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_file_is_refused_in_words(name, tmp_path, reader, bait, opened):
    folder = tmp_path / "given"
    folder.mkdir()
    path = CASES[name].make(folder, bait)
    bait.canary.unlink(missing_ok=True)  # made by makers that call what they pickle, were there any
    opened.names()
    report = read(reader, CASES[name].entry, path, folder)
    assert not bait.canary.exists()
    assert opened.names() == set()
    check_harmless(report)
    if CASES[name].words is not None:
        assert report["outcome"] == "refused", report["words"]
        assert re.search(CASES[name].words, report["words"]), report["words"]


def test_there_are_many():
    assert len(CASES) >= 60
    assert {"inspect", "describe"} <= {case.entry for case in CASES.values()}


@pytest.mark.parametrize(("entry", "name"), SOUND)
def test_what_is_sound_is_read(entry, name, reader, sound):
    """So that a refusal of what was made of it means something."""
    folder, path = sound(entry, name)
    report = read(reader, entry, path, folder)
    check_harmless(report)
    assert report["outcome"] == "read", report["words"]


@pytest.mark.parametrize(("entry", "name"), SOUND)
def test_what_is_damaged_is_refused_or_read(entry, name, reader, sound, tmp_path):
    folder, path = sound(entry, name)
    for how in ways():
        target = tmp_path / how
        noticed = damaged(folder, target, how)
        report = read(reader, entry, target / path.relative_to(folder), target)
        check_harmless(report)
        if noticed:
            assert report["outcome"] == "refused", f"{victim(target)}, {how}: {report['words']}"


@pytest.mark.parametrize(("entry", "name"), SOUND)
def test_whatever_stands_in_the_place_of_a_file(entry, name, reader, sound, bait, opened, tmp_path):
    """Every file of every format in turn: nothing is run, followed, waited for or swallowed."""
    folder, path = sound(entry, name)
    files = sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    for number, (file, how) in enumerate((f, h) for f in files for h in STAND_INS):
        if how == "a link outside" and path.is_file() and folder / file == path:
            continue  # the path that is given may be a link
        target = tmp_path / str(number)
        shutil.copytree(folder, target)
        STAND_INS[how](target / file, bait)
        opened.names()
        report = read(reader, entry, target / path.relative_to(folder), target)
        where = f"{how} in the place of {file}: {report}"
        assert not bait.canary.exists(), where
        assert opened.names() == set(), where
        assert report["outcome"] in ("read", "refused"), where
        assert report["seen"] == [] and report["grown"] < MOST, where
        assert report["outcome"] == "read" or report["words"].isprintable(), where
        shutil.rmtree(target)


@pytest.mark.real_weights
@pytest.mark.parametrize("name", REAL)
def test_real_files_that_are_damaged_are_refused_or_read(name, reader, shared, tmp_path):
    folder = alone(shared / name, tmp_path / "whole")
    for how in ("a fifth left", "nearly all left", "bits 0", "bits 1"):
        target = tmp_path / how
        noticed = damaged(folder, target, how)
        report = read(reader, REAL[name], target / (shared / name).name, target)
        check_harmless(report)
        assert not noticed or report["outcome"] == "refused", f"{how}: {report['words']}"


# -- the watch itself -------------------------------------------------------------------------


def test_the_payload_works_where_it_is_believed(bait):
    """The canary is no dead letter: Python's own reader makes it."""
    import pickle

    pickle.loads(poison(bait))
    assert bait.canary.exists()
    bait.canary.unlink()
    assert isinstance(payload(bait), object)


def test_the_watch_sees_what_is_opened_outside(bait, opened, reader, tmp_path):
    opened.names()
    report = read(reader, "file:read_json", bait.folder / "config.json", tmp_path)
    assert opened.names() == {"config.json"}
    assert report["seen"] == [f"opened: {(bait.folder / 'config.json').resolve()} r"]


def test_a_file_that_takes_too_long_is_told(reader, tmp_path, monkeypatch):
    read(reader, "file:kind_of", tmp_path, tmp_path)
    os.kill(reader.process.pid, signal.SIGSTOP)
    monkeypatch.setattr(reader, "patience", 0.1)
    report = read(reader, "file:kind_of", tmp_path, tmp_path)
    assert report["outcome"] == "killed" and report["kind"] == "took over 0.1 seconds"
    assert reader.process is None  # the next file gets another
