"""Whether public checkpoints still are where the catalogue says, with the bytes it says."""

from __future__ import annotations

import re
import urllib.error
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from mirror_analysis import catalog
from mirror_analysis.definitions import PublicCheckpoint, PublicFile
from mirror_analysis.errors import DefinitionError, MirrorError, MissingDependencyError
from mirror_analysis.hub.downloads import address, digest_of, installed, offline, opened
from mirror_analysis.hub.snapshots import library, refusal

# The index as installers read it, which mirrors have too.
_INDEX = "https://pypi.org/simple"
_PAGE = 1 << 24
_MOST = 1 << 28


def online_faults(
    names: Collection[str] = (),
    include: Sequence[Path] = (),
    *,
    endpoint: str | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Iterator[str]:
    """Everything in which public checkpoints differ from what is published.

    A hub model has to exist at its revision with its files; their sha256 and size are compared
    with the ones the hub states, and small files it states none for are read. Files at an address
    are read and compared. A package has to exist in its version; its files are compared where it
    is installed. Broken definitions are left to `catalog.faults`.

    Args:
        names: of the checkpoints; all when empty.
        include: folders with definitions of your own.
        endpoint: address of the hub; what HF_ENDPOINT says when None.
        progress: called with name, how many are done and how many there are.

    Yields:
        One line per fault. What could not be reached is said in a single line at the end.

    Raises:
        MissingDependencyError: if huggingface-hub is not installed and a hub model is asked for.
        MissingFileError: if a folder of `include` holds no definitions.
    """
    asked = [made for made in _public(include) if not names or made.name in names]
    if asked and offline():
        yield (
            f"HF_HUB_OFFLINE is set: {len(asked)} public checkpoints were not checked online;"
            " unset it to check them"
        )
        return
    silent: dict[str, list[str]] = {}
    for done, made in enumerate(asked):
        if progress is not None:
            progress(made.name, done, len(asked))
        host = _host(made)
        try:
            # A host that did not answer once is not waited for again.
            if host not in silent:
                yield from (f"{made.name}: {problem}" for problem in _problems(made, endpoint))
                continue
        except OSError:
            silent[host] = []
        silent[host].append(made.name)
    if silent:
        count = sum(len(unchecked) for unchecked in silent.values())
        yield (
            f"no answer from {', '.join(sorted(silent))}: {count} of {len(asked)} public"
            " checkpoints were not checked online; check again where there is a network"
        )


def _public(include: Sequence[Path]) -> Iterator[PublicCheckpoint]:
    for name in catalog.names("checkpoints", include):
        try:
            made = catalog.definition("checkpoints", name, include)
        except DefinitionError:
            continue
        if isinstance(made, PublicCheckpoint):
            yield made


def _host(made: PublicCheckpoint) -> str:
    if made.hub is not None:
        return "the hub"
    return urlsplit(made.url or _INDEX).netloc


def _problems(made: PublicCheckpoint, endpoint: str | None) -> Iterator[str]:
    if made.hub is not None:
        return _hub_problems(made, made.hub, endpoint)
    return _package_problems(made) if made.package is not None else _url_problems(made)


def _hub_problems(made: PublicCheckpoint, hub_id: str, endpoint: str | None) -> Iterator[str]:
    package = library()
    api = package.HfApi(endpoint=endpoint)
    try:
        info = api.model_info(hub_id, revision=made.revision, files_metadata=True)
    except (OSError, ValueError, package.errors.HTTPError) as error:
        if (refused := refusal(hub_id, made.revision, error)) is None:
            raise OSError(str(error)) from None
        yield refused
        return
    held = {file.rfilename: file for file in info.siblings or ()}
    for file in made.files:
        there = held.get(file.path)
        if there is None:
            yield f"hub model '{hub_id}' has no file {file.path}; correct the name"
        elif there.lfs is not None:
            yield from _differences(file, there.lfs.sha256, there.lfs.size)
        elif file.sha256 is not None:
            place = package.hf_hub_url(hub_id, file.path, revision=made.revision, endpoint=endpoint)
            yield from _read_problems(file, place)
        else:
            yield from _differences(file, None, there.size)


def _package_problems(made: PublicCheckpoint) -> Iterator[str]:
    package, _, version = (made.package or "").partition("==")
    try:
        with opened(f"{_INDEX}/{package.lower().replace('_', '-')}/") as answer:
            page = answer.read(_PAGE).decode("utf-8", errors="replace")
    except urllib.error.HTTPError as error:
        yield _denied(f"package {package}", error)
        return
    if re.search(rf"-{re.escape(version)}(-|\.tar|\.zip)", page) is None:
        yield f"package {package} has no version {version} on the index; correct the definition"
    try:
        installed(made)
    except MissingDependencyError:
        pass  # a package that is not installed is no fault of its definition
    except MirrorError as error:
        yield str(error)


def _url_problems(made: PublicCheckpoint) -> Iterator[str]:
    places = [(file, address(made, file)) for file in made.files]
    if not places or any(place is None for _, place in places):
        yield from _existence(str(made.url), str(made.url))
        return
    for file, place in places:
        yield from _read_problems(file, str(place))


def _existence(place: str, what: str) -> Iterator[str]:
    try:
        with opened(place):
            return
    except urllib.error.HTTPError as error:
        yield _denied(what, error)


def _read_problems(file: PublicFile, place: str) -> Iterator[str]:
    found: str | None = None
    size: int | None = None
    try:
        with opened(place) as answer:
            if file.sha256 is not None:
                found, size = digest_of(answer, file.size_bytes or _MOST)
            else:
                stated = answer.headers.get("Content-Length", "")
                size = int(stated) if stated.isdigit() else None
    except urllib.error.HTTPError as error:
        yield _denied(place, error)
    except MirrorError as error:
        yield str(error)
    else:
        yield from _differences(file, found, size)


def _denied(what: str, error: urllib.error.HTTPError) -> str:
    """The words for an answer that says no.

    Raises:
        OSError: if the fault is the server's, or it wants to be asked more slowly.
    """
    if error.code == 429 or error.code >= 500:
        raise OSError(f"{what} answers {error.code}") from None
    return f"{what} answers {error.code} {error.reason}; correct the definition"


def _differences(file: PublicFile, sha256: str | None, size: int | None) -> Iterator[str]:
    if file.sha256 is not None and sha256 is not None and sha256 != file.sha256:
        yield f"{file.path} has sha256 {sha256} but the definition says {file.sha256}; correct it"
    if file.size_bytes is not None and size is not None and size != file.size_bytes:
        yield f"{file.path} has {size} bytes but the definition says {file.size_bytes}; correct it"
