"""Names from data stay in their folder; foreign text stays on its line."""

import os

import pytest

from mirror_analysis.errors import FormatError, MissingFileError
from mirror_analysis.files.places import contents, inside, name_of, reason, require_file, shown


def test_a_file_inside_is_found(tmp_path) -> None:
    (tmp_path / "a").mkdir()
    assert inside(tmp_path, "a/b.txt") == tmp_path / "a" / "b.txt"
    assert inside(tmp_path, "..a/b..") == tmp_path / "..a" / "b.."


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "which is 0 characters long"),
        ("x" * 2000, "which is 2000 characters long"),
        ("x/" + "ü" * 150, "which is longer than 255 bytes between two '/'"),
        ("/etc/passwd", "which is absolute"),
        ("C:x", "which is absolute"),
        ("../x", r"climbing out of the folder; needed a relative name without '\.\.'"),
        ("a/../b", "climbing out of the folder"),
        ("a\0b", "not a plain name"),
        ("a\\..\\b", "not a plain name"),
        ("a\nb/..", r"'a\\nb/\.\.', which is climbing"),
    ],
)
def test_names_that_lead_out_are_refused(tmp_path, name, words) -> None:
    with pytest.raises(FormatError, match=words) as caught:
        inside(tmp_path, name)
    assert "\n" not in str(caught.value)


def test_links_that_lead_out_are_refused(tmp_path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / "secret").write_text("x")
    (folder / "file").symlink_to(tmp_path / "secret")
    (folder / "up").symlink_to(tmp_path)
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "within").symlink_to("real")
    assert inside(folder, "within") == folder / "within"
    for name in ("file", "up/secret"):
        with pytest.raises(FormatError, match="which a link takes outside it"):
            inside(folder, name)
    with pytest.raises(FormatError, match=r"leads nowhere|which a link takes outside it"):
        inside(folder, "loop/x" * 100)


def test_a_hub_cache_keeps_its_files_beside_its_folders(tmp_path) -> None:
    cache = tmp_path / "models--a--b"
    revision = cache / "snapshots" / "abc"
    (cache / "blobs").mkdir(parents=True)
    revision.mkdir(parents=True)
    (cache / "blobs" / "1").write_text("x")
    (cache / "refs").write_text("x")
    (revision / "config.json").symlink_to("../../blobs/1")
    (revision / "refs").symlink_to("../../refs")
    assert inside(revision, "config.json").read_text() == "x"
    with pytest.raises(FormatError, match="which a link takes outside it"):
        inside(revision, "refs")


def test_only_ordinary_files_of_bounded_size_are_there(tmp_path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert require_file(path, "a thing", most=5) == path
    with pytest.raises(FormatError, match="holds 5 bytes; needed a thing of at most 4"):
        require_file(path, "a thing", most=4)
    with pytest.raises(MissingFileError, match="is a folder; needed a thing"):
        require_file(tmp_path, "a thing")
    with pytest.raises(MissingFileError, match="is not there; needed a thing"):
        require_file(tmp_path / "y", "a thing")
    with pytest.raises(MissingFileError, match=r"is not a path; needed a thing|is not there"):
        require_file(tmp_path / ("y" * 5000), "a thing")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MissingFileError, match="is no file; needed a thing"):
        require_file(tmp_path / "pipe", "a thing")


def test_contents_are_bounded(tmp_path, monkeypatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert contents(path, "a thing", most=5) == contents(b"12345", "a thing", most=5) == b"12345"
    with pytest.raises(FormatError, match="5 bytes were given; needed a thing of at most 4"):
        contents(b"12345", "a thing", most=4)
    monkeypatch.setattr("mirror_analysis.files.places.require_file", lambda path, *a, **k: path)
    with pytest.raises(FormatError, match="grew past 4 bytes while it was read"):
        contents(path, "a thing", most=4)


def test_foreign_text_is_one_short_line(tmp_path) -> None:
    assert shown("a\n\x1b[31m") == r"'a\n\x1b[31m'"
    assert len(shown("x" * 10**6)) == 80 and shown("'" * 100)[-1] == '"'
    assert reason(ValueError("a\n  b\x1b")) == r"a b\x1b"
    assert reason(MemoryError()) == "MemoryError" and len(reason("x" * 1000)) == 160
    assert name_of(b"123") == "a part of 3 bytes" and name_of(tmp_path) == str(tmp_path)
