"""Models of the Hugging Face hub as local folders of plain data files."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from types import ModuleType

from mirror_analysis.definitions import PublicFile
from mirror_analysis.errors import FormatError, MissingDependencyError, MissingFileError
from mirror_analysis.hub.downloads import compare, offline
from mirror_analysis.provenance import sha256_file

# Configurations, tokenizers and model cards are always taken; they are small and hold no code.
_SMALL = ("*.json", "*.jsonl", "*.md", "*.model", "*.txt")
# The second kinds are taken only where there are none of the first.
_WEIGHTS = (("*.safetensors",), ("*.onnx", "*.onnx_data", "*.tflite"))
# Read through the restricted readers only, so they come only where someone named them.
_ON_REQUEST = ("*.bin", "*.ckpt", "*.npz", "*.pickle", "*.pkl", "*.pt", "*.pt2", "*.pth", "*.zip")


def fetch(
    hub_id: str,
    *,
    revision: str | None = None,
    files: Sequence[str] = (),
    folder: Path | None = None,
    endpoint: str | None = None,
) -> Path:
    """Fetches a model of the Hugging Face hub, or finds it where it was fetched before.

    Only data comes: configurations, tokenizers and weights as safetensors, ONNX or TFLite.
    Pickles come only when they are named, code never. The files are links to the hub's own
    cache, so nothing is stored twice; with HF_HUB_OFFLINE=1 nothing else is asked.

    Args:
        hub_id: such as "facebook/dinov2-base".
        revision: commit, branch or tag; the newest when None.
        files: weights to take; every data file when empty.
        folder: where the folder of the model is made; beside the hub's cache when None.
        endpoint: address of the hub; what HF_ENDPOINT says when None.

    Returns:
        A folder with plain files, one for each revision.

    Raises:
        MissingDependencyError: if huggingface-hub is not installed.
        MissingFileError: if there is no such model, revision or file, if its terms have to be
            accepted first, or if it is neither reachable nor fetched before.
        FormatError: if a file was asked for that is not data.

    Example:
        >>> fetch("facebook/dinov2-base", revision="f9e44c814b77203eaa57a6bdbbd535f21ede1415")
        PosixPath('.../facebook--dinov2-base/f9e44c814b77203eaa57a6bdbbd535f21ede1415')
    """
    try:
        wanted = [PublicFile(path) for path in files]
    except ValueError as error:
        raise FormatError(f"hub model '{hub_id}': {error}; correct the name") from None
    return fetch_checked(hub_id, revision, wanted, folder=folder, endpoint=endpoint)


def fetch_checked(
    hub_id: str,
    revision: str | None,
    files: Sequence[PublicFile],
    *,
    folder: Path | None,
    endpoint: str | None,
) -> Path:
    """`fetch` with digests: files that come anew are held to them.

    Raises:
        MirrorError: as `fetch` does.
        ChecksumError: if bytes are not the ones recorded.
    """
    hub = library()
    always = (*_SMALL, *(pattern for kinds in _WEIGHTS for pattern in kinds))
    for file in files:
        if not _matches(file.path, (*always, *_ON_REQUEST)):
            raise FormatError(
                f"{file.path} of hub model '{hub_id}' is not a data file; fetched are"
                f" {', '.join(always)} and, when named, {', '.join(_ON_REQUEST)}"
            )
    named = tuple(glob.escape(file.path) for file in files)
    for weights in (named,) if named else _WEIGHTS:
        patterns = (*_SMALL, *weights)
        snapshot = _snapshot(hub, hub_id, revision, patterns, endpoint)
        there = sorted(p.relative_to(snapshot).as_posix() for p in snapshot.rglob("*"))
        held = [n for n in there if _matches(n, patterns) and (snapshot / n).is_file()]
        if any(_matches(name, weights) for name in held):
            break
    else:
        if not files:
            raise MissingFileError(
                f"hub model '{hub_id}' has no weights as safetensors, ONNX or TFLite; name the file"
                f" that holds them, as https://huggingface.co/{hub_id}/tree/main lists it"
            )
    for file in files:
        if file.path not in held:
            raise MissingFileError(
                f"hub model '{hub_id}' has no file {file.path}; correct the name"
            )
    place = (folder or Path(hub.constants.HF_HOME) / "mirror-analysis") / hub_id.replace("/", "--")
    digests = {file.path: file for file in files}
    _lay(snapshot, held, digests, place)
    return place / snapshot.name


def _snapshot(
    hub: ModuleType,
    hub_id: str,
    revision: str | None,
    patterns: Sequence[str],
    endpoint: str | None,
) -> Path:
    silent: Exception | None = None
    try:
        if not offline():
            # One short question first: the download itself asks again and again for half a minute.
            try:
                hub.HfApi(endpoint=endpoint).model_info(hub_id, revision=revision)
            except (OSError, ValueError, hub.errors.HTTPError) as error:
                if refusal(hub_id, revision, error) is not None:
                    raise
                silent = error
        return Path(
            hub.snapshot_download(
                hub_id,
                revision=revision,
                allow_patterns=list(patterns),
                endpoint=endpoint,
                local_files_only=offline() or silent is not None,
            )
        )
    except (OSError, ValueError, hub.errors.HTTPError) as error:
        raise MissingFileError(
            refusal(hub_id, revision, error) or _unreachable(hub_id, silent or error)
        ) from None


def library() -> ModuleType:
    """The package huggingface_hub.

    Raises:
        MissingDependencyError: if it is not installed.
    """
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise MissingDependencyError(
            "huggingface-hub", "a checkpoint of the hub", "pip install 'mirror-analysis[hf]'"
        ) from None
    return huggingface_hub


def refusal(hub_id: str, revision: str | None, error: Exception) -> str | None:
    """Why the hub refuses a model, in words with the mend; None if it is only out of reach."""
    errors = library().errors
    if isinstance(error, errors.GatedRepoError):
        return (
            f"hub model '{hub_id}' is gated: accept its terms at https://huggingface.co/{hub_id},"
            " then log in with `hf auth login`"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"hub model '{hub_id}' has no revision '{revision}'; leave it out for the newest"
    if isinstance(error, (errors.RepositoryNotFoundError, errors.HFValidationError)):
        return (
            f"no model '{hub_id}' on the hub, or a private one; correct the id (OWNER/NAME), or log"
            " in with `hf auth login`"
        )
    return None


def _unreachable(hub_id: str, error: Exception) -> str:
    if offline():
        return (
            f"hub model '{hub_id}' was not fetched before and HF_HUB_OFFLINE is set; unset it, or"
            " give the path of a folder that holds the model"
        )
    said = str(error).strip().split("\n", maxsplit=1)[0]
    return (
        f"hub model '{hub_id}' cannot be fetched ({type(error).__name__}: {said[:160]}); fetch it"
        " where there is a network, and give the path of its folder"
    )


def _lay(
    snapshot: Path, names: Sequence[str], digests: Mapping[str, PublicFile], place: Path
) -> None:
    """Lays links to the files of a snapshot into a folder of its own.

    The snapshot itself holds symbolic links that leave it, which no reader here follows, and
    whatever other programs fetched into it, code included.
    """
    for name in names:
        source, target = (snapshot / name).resolve(), place / snapshot.name / name
        if target.is_file() and target.stat().st_size == source.stat().st_size:
            continue
        if name in digests:
            compare(digests[name], sha256_file(source), str(source))
        target.parent.mkdir(parents=True, exist_ok=True)
        made = target.with_name(f".{target.name}.{os.getpid()}")
        made.unlink(missing_ok=True)
        try:
            os.link(source, made)
        except OSError:  # another file system
            shutil.copyfile(source, made)
        os.replace(made, target)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(PurePosixPath(name).name, p) or fnmatchcase(name, p) for p in patterns)
