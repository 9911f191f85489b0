"""Where a number came from: versions, commit, device, seeds, checksums."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

_PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "umap-learn", "mujoco", "metaworld")


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ran.

    Attributes:
        created: time of completion, ISO 8601, UTC.
        version: of this package.
        commit: of the source tree, "" when not run from one; dirty: with uncommitted changes.
        python: version of the interpreter.
        packages: versions of what the numbers depend on.
        device: in words.
        threads: compute threads the process could use.
        seeds: every seed by purpose.
        inputs: sha256 by name of every file that was read.
        seconds: wall time.
    """

    created: str
    version: str
    commit: str
    dirty: bool
    python: str
    packages: dict[str, str]
    device: str
    threads: int
    seeds: dict[str, list[int]]
    inputs: dict[str, str]
    seconds: float


def record(
    *, device: str, seeds: dict[str, list[int]], inputs: dict[str, str], seconds: float
) -> Provenance:
    """The provenance of this process, now."""
    commit, dirty = _commit()
    return Provenance(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        version=_version("mirror-analysis"),
        commit=commit,
        dirty=dirty,
        python=platform.python_version(),
        packages={name: v for name in _PACKAGES if (v := _version(name))},
        device=device,
        threads=available_threads(),
        seeds=seeds,
        inputs=inputs,
        seconds=round(seconds, 1),
    )


def available_threads() -> int:
    """Processor cores this process may use (its affinity mask, not the machine's size)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def sha256_file(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _commit() -> tuple[str, bool]:
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return "", False
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        return head, bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return "", False


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()
