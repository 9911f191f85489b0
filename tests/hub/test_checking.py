"""The online check says what differs from what is published, and what it could not reach."""

import hashlib

import pytest

from mirror_analysis.hub import checking, downloads, online_faults

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = {"path": "model.safetensors", "sha256": hashlib.sha256(b"weights").hexdigest()}
WRONG = "f" * 64


@pytest.fixture
def ask(site, monkeypatch):
    """The faults of own definitions, asked at the site."""
    monkeypatch.setattr(downloads, "_RAW", site.address)
    monkeypatch.setattr(checking, "_INDEX", f"{site.address}/simple")

    def faults(own, *names, endpoint=site.address, **more):
        return list(online_faults(names, [own], endpoint=endpoint, **more))

    return faults


def test_hub_models_that_are_as_described(site, put, ask):
    site.models["me/tiny"] = {"config.json": b"{}", "model.safetensors": b"weights"}
    config = {"path": "config.json", "sha256": hashlib.sha256(b"{}").hexdigest(), "size_bytes": 2}
    own = put("tiny", hub="me/tiny", revision=COMMIT, files=[WEIGHTS | {"size_bytes": 7}, config])
    steps = []
    assert ask(own, "tiny", progress=lambda *step: steps.append(step)) == []
    assert steps == [("tiny", 0, 1)]
    assert not any("model.safetensors" in line for line in site.asked)


def test_hub_models_that_differ(site, put, ask):
    site.models["me/tiny"] = {"config.json": b"{}", "model.safetensors": b"weights"}
    own = put(
        "tiny",
        hub="me/tiny",
        files=[
            WEIGHTS | {"sha256": WRONG, "size_bytes": 8},
            {"path": "config.json", "sha256": WRONG},
            {"path": "config.json", "size_bytes": 3},
            {"path": "other.safetensors"},
        ],
    )
    put("gone", hub="me/gone")
    put("older", hub="me/tiny", revision="a" * 40)
    put("gated", hub="me/gated")
    site.refused["me/gated"] = (403, "GatedRepo")
    assert ask(own, "tiny") == [
        f"tiny: model.safetensors has sha256 {WEIGHTS['sha256']} but the definition says {WRONG};"
        " correct it",
        "tiny: model.safetensors has 7 bytes but the definition says 8; correct it",
        f"tiny: config.json has sha256 {hashlib.sha256(b'{}').hexdigest()} but the definition says"
        f" {WRONG}; correct it",
        "tiny: config.json has 2 bytes but the definition says 3; correct it",
        "tiny: hub model 'me/tiny' has no file other.safetensors; correct the name",
    ]
    gated, gone, older = ask(own, "gone", "older", "gated")
    assert gone.startswith("gone: no model 'me/gone' on the hub, or a private one; correct the id")
    assert gated.startswith("gated: hub model 'me/gated' is gated: accept its terms at https://")
    assert older.startswith(
        f"older: hub model 'me/tiny' has no revision '{'a' * 40}'; leave it out"
    )


def test_files_of_a_repository(site, put, ask):
    site.plain[f"/me/it/{COMMIT}/a.zip"] = b"weights"
    keys = {"url": "https://github.com/me/it", "revision": COMMIT, "family": "sb3"}
    file = {"path": "a.zip", "sha256": WEIGHTS["sha256"], "size_bytes": 7}
    own = put("well", **keys, files=[file])
    put("longer", **keys, files=[file | {"size_bytes": 6}])
    put("other", **keys, files=[file | {"sha256": WRONG}, {"path": "b.zip"}])
    put("unhashed", **keys, files=[{"path": "a.zip", "size_bytes": 9}])
    assert ask(own, "well") == []
    (fault,) = ask(own, "longer")
    assert "holds more than the 6 bytes" in fault
    first, second = ask(own, "other")
    assert first.startswith(
        f"other: a.zip has sha256 {WEIGHTS['sha256']} but the definition says f"
    )
    assert second.endswith("b.zip answers 404 Not Found; correct the definition")
    site.asked.clear()
    assert ask(own, "unhashed") == [
        "unhashed: a.zip has 7 bytes but the definition says 9; correct it"
    ]


def test_pages(site, put, ask, monkeypatch):
    site.plain["/page"] = b"words"
    own = put("there", url="https://example.org/page", family="arp")
    put("gone", url="https://example.org/gone", family="arp")
    opened = downloads.opened
    monkeypatch.setattr(
        checking, "opened", lambda place: opened(place.replace("https://example.org", site.address))
    )
    assert ask(own, "there", "gone") == [
        "gone: https://example.org/gone answers 404 Not Found; correct the definition"
    ]


def test_packages(site, put, ask):
    site.plain["/simple/not-installed-anywhere/"] = (
        b"<a>not_installed_anywhere-1.0-py3-none-any.whl"
    )
    file = {"path": "pytest/__init__.py", "sha256": WRONG}
    own = put("well", package="not_installed_anywhere==1.0", files=[file])
    put("other", package="not-installed-anywhere==1.0.1", files=[file])
    put("gone", package="never-published==2.0", files=[file])
    put("differs", package=f"pytest=={pytest.__version__}", files=[file])
    site.plain["/simple/pytest/"] = f"<a>pytest-{pytest.__version__}.tar.gz".encode()
    assert ask(own, "well") == []
    assert ask(own, "other") == [
        "other: package not-installed-anywhere has no version 1.0.1 on the index; correct the"
        " definition"
    ]
    assert ask(own, "gone") == [
        "gone: package never-published answers 404 Not Found; correct the definition"
    ]
    (fault,) = ask(own, "differs")
    assert fault.startswith("differs: ") and "pytest/__init__.py has sha256" in fault


def test_what_is_out_of_reach_is_said_once(site, put, ask, monkeypatch):
    own = put("one", hub="me/one")
    put("two", hub="me/two")
    put("busy", url="https://github.com/me/it", family="sb3", files=[WEIGHTS])
    monkeypatch.setattr(downloads, "_RAW", "http://127.0.0.1:1")
    assert ask(own, "one", "two", "busy", endpoint="http://127.0.0.1:1") == [
        "no answer from github.com, the hub: 3 of 3 public checkpoints were not checked online;"
        " check again where there is a network"
    ]


def test_a_busy_server_is_no_fault_of_the_definition(site, put, ask):
    site.refused["me/it"] = (503, "")
    site.refused["me/one"] = (500, "")
    own = put("busy", url="https://github.com/me/it", family="sb3", files=[WEIGHTS])
    put("one", hub="me/one")
    (line,) = ask(own, "busy", "one")
    assert line.startswith("no answer from github.com, the hub: 2 of 2 public checkpoints were not")


def test_offline_mode(site, put, ask, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    own = put("one", hub="me/one")
    put("broken", hub="me/one", role="spectator")
    (line,) = ask(own, "one", "broken")
    assert line.startswith(
        "HF_HUB_OFFLINE is set: 1 public checkpoints were not checked online; un"
    )
    assert site.asked == []


def test_every_shipped_definition_is_asked_for():
    steps = []
    faults = online_faults(endpoint="http://127.0.0.1:1", progress=lambda *step: steps.append(step))
    (line,) = faults
    count = len(steps)
    assert count >= 40
    assert [step[1:] for step in steps] == [(done, count) for done in range(count)]
    assert line.startswith("no answer from downloads.cs.stanford.edu, github.com, pypi.org, ")
    assert f": {count} of {count} public checkpoints were not checked online" in line
