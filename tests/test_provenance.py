"""What ran is written down as it was."""

import hashlib
import os
import platform
import subprocess
import tomllib
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import msgspec
import pytest

import mirror_analysis
from mirror_analysis import provenance
from mirror_analysis.provenance import Provenance, available_threads, record, sha256_file


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A source tree under git with the module in it."""
    module = tmp_path / "mirror_analysis" / "provenance.py"
    module.parent.mkdir()
    module.write_text("old\n")
    monkeypatch.setattr(provenance, "__file__", str(module))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def git(tree, *words):
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    done = subprocess.run(
        ["git", *who, *words], cwd=tree, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def recorded():
    return record(device="cpu", seeds={"fit": [1]}, inputs={"a": "b"}, seconds=1.26)


def test_record_says_what_ran(monkeypatch):
    installed = {"mirror-analysis": "9.9", "numpy": "8.8", "unrelated": "7.7"}

    def look_up(name):
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(provenance, "version", look_up)
    before = datetime.now(UTC).replace(microsecond=0)
    found = recorded()
    assert before <= datetime.fromisoformat(found.created) <= datetime.now(UTC)
    assert found.version == "9.9"
    assert found.python == platform.python_version()
    assert found.packages == {"numpy": "8.8"}
    assert found.threads == available_threads()
    assert (found.device, found.seeds, found.inputs) == ("cpu", {"fit": [1]}, {"a": "b"})
    assert found.seconds == 1.3


def test_record_survives_json():
    found = recorded()
    assert msgspec.json.decode(msgspec.json.encode(found), type=Provenance) == found


def test_commit_and_uncommitted_changes(tree):
    git(tree, "init", "-q")
    git(tree, "add", ".")
    git(tree, "commit", "-q", "-m", "first")
    head = git(tree, "rev-parse", "HEAD")
    assert (recorded().commit, recorded().dirty) == (head[:12], False)
    (tree / "mirror_analysis" / "provenance.py").write_text("new\n")
    assert (recorded().commit, recorded().dirty) == (head[:12], True)


def test_no_commit_outside_git_or_before_the_first(tree):
    assert (recorded().commit, recorded().dirty) == ("", False)
    git(tree, "init", "-q")
    assert (recorded().commit, recorded().dirty) == ("", False)


def test_one_version_everywhere():
    root = Path(mirror_analysis.__file__).parent.parent
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert project["version"] == mirror_analysis.__version__
    assert f"\nversion: {project['version']}\n" in (root / "CITATION.cff").read_text()
    assert project["version"] in (root / "CHANGELOG.md").read_text()


def test_threads_are_those_of_the_process(monkeypatch):
    assert available_threads() == len(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 7})
    assert available_threads() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_threads() == 1


def test_sha256_of_a_file(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"abc" * 100_000)
    assert sha256_file(path) == hashlib.sha256(b"abc" * 100_000).hexdigest()
