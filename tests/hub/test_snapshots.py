"""Hub models become folders of plain data files, or words that say why not."""

import os
import sys

import pytest

from mirror_analysis.errors import FormatError, MissingDependencyError, MissingFileError
from mirror_analysis.hub import fetch

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b"{}",
    "README.md": b"words",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"pickled",
    "modeling.py": b"raise SystemExit",
    "onnx/model.onnx": b"graph",
}


def held(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_data_files_come_and_nothing_else(site, tmp_path):
    site.models["me/tiny"] = FILES
    folder = fetch("me/tiny", folder=tmp_path / "kept", endpoint=site.address)
    assert folder == tmp_path / "kept" / "me--tiny" / COMMIT
    assert held(folder) == {"config.json", "README.md", "model.safetensors"}
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    assert not any(".py" in line or ".bin" in line for line in site.asked)


def test_a_pickle_comes_when_it_is_named(site, tmp_path):
    site.models["me/tiny"] = FILES
    folder = fetch("me/tiny", files=["pytorch_model.bin"], folder=tmp_path, endpoint=site.address)
    assert held(folder) == {"config.json", "README.md", "pytorch_model.bin"}


def test_onnx_is_taken_where_there_are_no_safetensors(site, tmp_path):
    site.models["me/tiny"] = {k: v for k, v in FILES.items() if k != "model.safetensors"}
    folder = fetch("me/tiny", folder=tmp_path, endpoint=site.address)
    assert held(folder) == {"config.json", "README.md", "onnx/model.onnx"}


def test_pickles_alone_have_to_be_named(site, tmp_path):
    site.models["me/tiny"] = {"config.json": b"{}", "pytorch_model.bin": b"pickled"}
    message = r"^hub model 'me/tiny' has no weights as safetensors, ONNX or TFLite; name the file"
    with pytest.raises(MissingFileError, match=message):
        fetch("me/tiny", folder=tmp_path, endpoint=site.address)


def test_code_is_refused_even_when_it_is_named(site, tmp_path):
    site.models["me/tiny"] = FILES
    message = (
        r"^modeling\.py of hub model 'me/tiny' is not a data file; fetched are \*\.json, .*bin"
    )
    with pytest.raises(FormatError, match=message):
        fetch("me/tiny", files=["modeling.py"], folder=tmp_path, endpoint=site.address)
    with pytest.raises(FormatError, match=r"path '\.\./x\.json' must lie inside what is published"):
        fetch("me/tiny", files=["../x.json"], folder=tmp_path, endpoint=site.address)
    assert site.asked == []


def test_code_that_another_program_cached_stays_out(site, tmp_path):
    import huggingface_hub

    site.models["me/tiny"] = FILES
    cached = huggingface_hub.snapshot_download("me/tiny", endpoint=site.address)
    assert "modeling.py" in os.listdir(cached)
    folder = fetch("me/tiny", folder=tmp_path / "kept", endpoint=site.address)
    assert held(folder) == {"config.json", "README.md", "model.safetensors"}


def test_a_copy_is_made_where_no_link_can_be(site, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("another file system")

    monkeypatch.setattr(os, "link", refuse)
    site.models["me/tiny"] = FILES
    folder = fetch("me/tiny", endpoint=site.address)
    assert folder.is_relative_to(tmp_path / "cache" / "mirror-analysis")
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert held(folder) == {"config.json", "README.md", "model.safetensors"}


def test_a_file_that_is_not_there(site, tmp_path):
    site.models["me/tiny"] = FILES
    with pytest.raises(MissingFileError, match=r"^hub model 'me/tiny' has no file other\.safetens"):
        fetch("me/tiny", files=["other.safetensors"], folder=tmp_path, endpoint=site.address)


def test_unknown_models_and_revisions(site, tmp_path):
    site.models["me/tiny"] = FILES
    with pytest.raises(
        MissingFileError, match=r"^no model 'me/tinny' on the hub, or a private one"
    ):
        fetch("me/tinny", folder=tmp_path, endpoint=site.address)
    with pytest.raises(MissingFileError, match=r"^no model 'no id at/all' on the hub"):
        fetch("no id at/all", folder=tmp_path, endpoint=site.address)
    with pytest.raises(MissingFileError, match=r"^hub model 'me/tiny' has no revision 'v9'; leave"):
        fetch("me/tiny", revision="v9", folder=tmp_path, endpoint=site.address)


def test_gated_models(site, tmp_path):
    site.refused["me/gated"] = (403, "GatedRepo")
    message = (
        r"^hub model 'me/gated' is gated: accept its terms at https://huggingface\.co/me/gated,"
    )
    with pytest.raises(MissingFileError, match=message):
        fetch("me/gated", folder=tmp_path, endpoint=site.address)


def test_no_network(site, tmp_path):
    message = (
        r"^hub model 'me/tiny' cannot be fetched \(\w+: .*\); fetch it where there is a networ"
    )
    with pytest.raises(MissingFileError, match=message) as raised:
        fetch("me/tiny", folder=tmp_path, endpoint="http://127.0.0.1:1")
    assert "\n" not in str(raised.value)


def test_no_network_but_fetched_before(site, tmp_path, capfd):
    site.models["me/tiny"] = FILES
    folder = fetch("me/tiny", revision=COMMIT, folder=tmp_path, endpoint=site.address)
    nowhere = "http://127.0.0.1:1"
    assert fetch("me/tiny", revision=COMMIT, folder=tmp_path, endpoint=nowhere) == folder
    with pytest.raises(MissingFileError, match=r"^hub model 'me/tiny' cannot be fetched \("):
        fetch("me/tiny", revision="f" * 40, folder=tmp_path, endpoint=nowhere)
    assert "Retrying" not in capfd.readouterr().err


def test_offline_mode_reads_what_was_fetched_before(site, tmp_path, monkeypatch):
    site.models["me/tiny"] = FILES
    folder = fetch("me/tiny", folder=tmp_path, endpoint=site.address)
    site.asked.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch("me/tiny", folder=tmp_path, endpoint=site.address) == folder
    with pytest.raises(
        MissingFileError, match=r"^hub model 'me/other' was not fetched before and HF_HUB_OFFLINE"
    ):
        fetch("me/other", folder=tmp_path, endpoint=site.address)
    assert site.asked == []


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    message = r"^a checkpoint of the hub needs huggingface-hub, .* install 'mirror-analysis\[hf\]'$"
    with pytest.raises(MissingDependencyError, match=message):
        fetch("me/tiny")
