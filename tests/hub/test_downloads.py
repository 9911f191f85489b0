"""Files at addresses and in packages, and how a name of the catalogue leads to them."""

import hashlib
import importlib.metadata
import sys
import urllib.request
from contextlib import nullcontext
from http.client import BadStatusLine
from types import SimpleNamespace

import pytest

from mirror_analysis.definitions import PublicCheckpoint, PublicFile
from mirror_analysis.errors import (
    ChecksumError,
    FormatError,
    MissingDependencyError,
    MissingFileError,
)
from mirror_analysis.hub import checkpoint_file, downloads

DIGEST = hashlib.sha256(b"policy").hexdigest()
FILE = {"path": "runs/a b.zip", "sha256": DIGEST, "size_bytes": 6}
REVISION = "89abcdef0123456789abcdef0123456789abcdef"


@pytest.fixture
def repository(site, put, monkeypatch):
    """A checkpoint in a repository, whose files come from the site."""
    monkeypatch.setattr(downloads, "_RAW", site.address)
    site.plain[f"/me/policies/{REVISION}/runs/a b.zip"] = b"policy"
    return lambda **keys: put(
        "policy",
        **{
            "url": "https://github.com/me/policies",
            "revision": REVISION,
            "family": "sb3",
            "files": [FILE],
        }
        | keys,
    )


def test_a_file_of_a_repository(repository, site, tmp_path, monkeypatch):
    own = repository()
    path = checkpoint_file("policy", [own], folder=tmp_path / "kept")
    assert path == tmp_path / "kept" / "policy" / REVISION / "runs" / "a b.zip"
    assert path.read_bytes() == b"policy"
    assert [p.name for p in path.parent.iterdir()] == ["a b.zip"]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert checkpoint_file("policy", [own], folder=tmp_path / "kept") == path
    assert len(site.asked) == 1
    path.write_bytes(b"damage")
    message = (
        r"a%20b\.zip was not fetched before and HF_HUB_OFFLINE is set; unset it, or give the p"
    )
    with pytest.raises(MissingFileError, match=message):
        checkpoint_file("policy", [own], folder=tmp_path / "kept")


def test_other_bytes_are_refused_and_not_kept(repository, site, tmp_path):
    own = repository()
    site.plain[f"/me/policies/{REVISION}/runs/a b.zip"] = b"Policy"
    message = rf"a%20b\.zip has sha256 \w{{64}} but its definition says {DIGEST}; fetch it again"
    with pytest.raises(ChecksumError, match=message):
        checkpoint_file("policy", [own], folder=tmp_path)
    site.plain[f"/me/policies/{REVISION}/runs/a b.zip"] = b"policy" * 9
    with pytest.raises(
        FormatError, match=r"holds more than the 6 bytes that are recorded or allow"
    ):
        checkpoint_file("policy", [own], folder=tmp_path)
    assert not [p for p in (tmp_path / "policy").rglob("*") if p.is_file()]


def test_what_does_not_answer(repository, site, tmp_path, monkeypatch):
    own = repository()
    site.plain.clear()
    with pytest.raises(
        MissingFileError, match=r"a%20b\.zip cannot be fetched \(HTTP Error 404.*net"
    ):
        checkpoint_file("policy", [own], folder=tmp_path)
    assert not (tmp_path / "policy").exists()
    monkeypatch.setattr(downloads, "_RAW", "http://127.0.0.1:1")
    with pytest.raises(MissingFileError, match=r"a%20b\.zip cannot be fetched \(<urlopen error"):
        checkpoint_file("policy", [own], folder=tmp_path)


def test_an_answer_that_breaks_off(repository, site, tmp_path):
    own = repository(files=[{"path": FILE["path"]}])
    site.lost = 2
    with pytest.raises(MissingFileError, match=r"\(.*a%20b\.zip broke off after 4 of 6 bytes\); f"):
        checkpoint_file("policy", [own], folder=tmp_path)
    assert not [p for p in (tmp_path / "policy").rglob("*") if p.is_file()]


def test_an_answer_that_is_none(monkeypatch):
    def broken(asked, **more):
        raise BadStatusLine("nonsense")

    monkeypatch.setattr(urllib.request, "urlopen", broken)
    with pytest.raises(OSError, match=r"^https://x\.org broke off: BadStatusLine$"):
        with downloads.opened("https://x.org"):
            pass


def test_an_answer_from_a_place_without_encryption(monkeypatch):
    answer = nullcontext(SimpleNamespace(geturl=lambda: "http://y.org"))
    monkeypatch.setattr(urllib.request, "urlopen", lambda asked, **more: answer)
    with pytest.raises(
        OSError, match=r"^https://x\.org leads to http://y\.org, which is not https$"
    ):
        with downloads.opened("https://x.org"):
            pass


def test_a_page_is_for_people(repository, tmp_path):
    own = repository(url="https://example.org/share/x", revision=REVISION)
    message = (
        r"^weights of checkpoint 'policy' have to be fetched by hand from https://example\.org/s"
    )
    with pytest.raises(MissingFileError, match=message):
        checkpoint_file("policy", [own], folder=tmp_path)


def test_addresses():
    def at(url, revision=None):
        made = PublicCheckpoint(
            name="x", summary="x", role="execution", family="sb3", license="MIT",
            license_source=url, reference=url, inputs=["states"], checked=[url], url=url,
            revision=revision,
        )  # fmt: skip
        return downloads.address(made, PublicFile("a/b c.zip"))

    raw = "https://raw.githubusercontent.com/me/it"
    assert at("https://github.com/me/it/") == f"{raw}/HEAD/a/b%20c.zip"
    assert at("https://github.com/me/it", REVISION) == f"{raw}/{REVISION}/a/b%20c.zip"
    assert at("https://example.org/zoo/") == "https://example.org/zoo/a/b%20c.zip"
    assert at("https://example.org/zoo") is None


@pytest.fixture
def package(put, tmp_path, monkeypatch):
    """A checkpoint that an installed package ships."""
    (tmp_path / "site" / "runs").mkdir(parents=True)
    (tmp_path / "site" / "runs" / "a b.zip").write_bytes(b"policy")
    found = SimpleNamespace(version="1.0", locate_file=lambda path: tmp_path / "site" / path)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: found)
    return put("policy", package="policies==1.0", family="timm", files=[FILE])


def test_a_file_of_a_package(package, put, tmp_path):
    path = tmp_path / "site" / "runs" / "a b.zip"
    assert checkpoint_file("policy", [package]) == path
    own = put("policy", package="policies==1.0", family="transformers", files=[FILE])
    assert checkpoint_file("policy", [own]) == path.parent
    path.write_bytes(b"Policy")
    with pytest.raises(ChecksumError, match=r"a b\.zip has sha256 \w{64} but its definition says"):
        checkpoint_file("policy", [own])
    path.unlink()
    with pytest.raises(
        MissingFileError, match=r"^package policies has no runs/a b\.zip, .*reinstall"
    ):
        checkpoint_file("policy", [own])


def test_a_package_that_is_not_there(package, put, monkeypatch):
    own = put("policy", package="policies==1.1", family="timm", files=[FILE])
    message = (
        r"^checkpoint 'policy' needs policies 1\.1, which is not .*; pip install policies==1\.1$"
    )
    with pytest.raises(MissingDependencyError, match=message):
        checkpoint_file("policy", [own])

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(MissingDependencyError, match=message):
        checkpoint_file("policy", [own])


def test_a_hub_model_by_name(site, put, tmp_path):
    weights = hashlib.sha256(b"weights").hexdigest()
    site.models["me/tiny"] = {"config.json": b"{}", "model.safetensors": b"weights"}
    file = {"path": "model.safetensors", "sha256": weights}
    own = put("tiny", hub="me/tiny", files=[file])
    folder = checkpoint_file("tiny", [own], folder=tmp_path, endpoint=site.address)
    assert (folder / "config.json").is_file()
    own = put("tiny", hub="me/tiny", family="onnx", files=[file])
    path = checkpoint_file("tiny", [own], folder=tmp_path, endpoint=site.address)
    assert path == folder / "model.safetensors"
    own = put("tiny", hub="me/tiny", files=[file | {"sha256": DIGEST}])
    with pytest.raises(
        ChecksumError, match=rf"has sha256 {weights} but its definition says {DIGEST}"
    ):
        checkpoint_file("tiny", [own], folder=tmp_path / "anew", endpoint=site.address)


def test_a_bundled_checkpoint_by_name():
    path = checkpoint_file("reference-observation-s0")
    assert path.name == "reference-observation-s0.safetensors"
    assert "huggingface_hub" not in vars(sys.modules["mirror_analysis.hub"])


@pytest.mark.real_weights
def test_recorded_digests_are_those_of_the_real_files(shared):
    from mirror_analysis import catalog
    from mirror_analysis.provenance import sha256_file

    checked = 0
    known = {}
    for path in (shared / "weights").rglob("*"):
        if path.is_file():
            known[sha256_file(path)] = path.stat().st_size
    for name, made in catalog.definitions("checkpoints").items():
        if name.startswith(("sb3-", "dapg-", "cs285-", "playground-", "unitree-", "mobilenet-")):
            for file in made.files:
                assert known[file.sha256] == file.size_bytes, (name, file.path)
                checked += 1
    assert checked >= 25
