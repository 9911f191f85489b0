"""The run over damaged files: every mutant can be made again, and a fault is kept and counted."""

import io
import json
import random
import zipfile
import zlib

import pytest
from hostile.sound_episodes import framed, picture

from mirror_analysis.errors import MirrorError
from mirror_analysis.files.pictures import read_picture
from mirror_analysis.files.tfrecords import masked, records
from scripts.fuzz import __main__ as fuzz
from scripts.fuzz.formats import FORMATS, Format
from scripts.fuzz.mutating import framed_anew, mutated


def zipped(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


DATA = {
    "bytes": bytes(range(256)) * 4,
    "nothing": b"",
    "JSON": json.dumps({"a": [1, 2, {"b": "c"}]}).encode(),
    "zip": zipped(x=b"y" * 100, z=b"1234"),
    "PNG": picture(),
}


@pytest.mark.parametrize("kind", DATA)
def test_a_number_decides_a_mutant(kind):
    data = DATA[kind]
    made = [mutated(data, random.Random(f"x:{n}"), b"other") for n in range(200)]
    assert made == [mutated(data, random.Random(f"x:{n}"), b"other") for n in range(200)]
    assert len(set(made)) > (100 if data else 0)


def test_members_and_chunks_are_changed_behind_their_checksums():
    whole = changed = 0
    for n in range(100):
        with zipfile.ZipFile(io.BytesIO(DATA["zip"])) as archive:
            before = {name: archive.read(name) for name in archive.namelist()}
        try:
            with zipfile.ZipFile(io.BytesIO(mutated(DATA["zip"], random.Random(n)))) as archive:
                after = {name: archive.read(name) for name in archive.namelist()}
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, zlib.error):
            continue
        whole += 1
        changed += after != before
    assert whole > 50 and changed > 40
    readable = 0
    for n in range(100):
        try:
            read_picture(mutated(DATA["PNG"], random.Random(n)))
            readable += 1
        except MirrorError:
            pass
    assert 5 < readable < 95


def test_records_are_framed_anew(tmp_path):
    path = tmp_path / "x.tfrecord"
    for n in range(20):
        path.write_bytes(framed_anew(framed(b"a" * 50, b"b" * 50), random.Random(n), masked))
        assert len(list(records(path))) == 2


def run(monkeypatch, tmp_path, *words):
    monkeypatch.setattr("sys.argv", ["fuzz", "--out", str(tmp_path / "out"), *words])
    return fuzz.main()


def test_clean_formats_make_a_table_and_go_on(tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, tmp_path, "--only", "json", "--files", "5") == 0
    assert run(monkeypatch, tmp_path, "--only", "json", "--files", "8") == 0
    *_, last = capsys.readouterr().out.splitlines()
    cells = last.strip("| ").split(" | ")
    assert cells[:2] == ["json", "8"] and cells[4:6] == ["0", "0"]
    assert int(cells[2]) + int(cells[3]) == 8


def test_a_fault_is_kept_and_told(tmp_path, monkeypatch, capsys):
    # A function that takes other arguments: whatever it is given, it fails by a TypeError.
    broken = Format("file:write_safetensors", FORMATS["json"].make)
    monkeypatch.setitem(FORMATS, "broken", broken)
    assert run(monkeypatch, tmp_path, "--only", "broken", "--files", "7") == 1
    assert "7 files were neither read nor refused" in capsys.readouterr().out
    kept = sorted((tmp_path / "out" / "broken").glob("*/a.json"))
    assert len(kept) == fuzz.KEPT
    (tmp_path / "again").mkdir()
    (tmp_path / "sound").mkdir()
    broken.make(tmp_path / "sound")
    number = int(kept[0].parent.name)
    place, _ = fuzz.mutant("broken", number, tmp_path / "sound", tmp_path / "again")
    assert place.read_bytes() == kept[0].read_bytes()
    assert json.loads((kept[0].parent / "report.json").read_text())["kind"] == "TypeError"


def test_every_format_has_a_reader():
    assert {form.entry.partition(":")[0] for form in FORMATS.values()} == {
        "file",
        "model",
        "episodes",
    }
    assert len(FORMATS) > 40
