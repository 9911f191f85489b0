"""Where a file lies: names that data gives stay inside their folder, sizes are known beforehand."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

from mirror_analysis.errors import FormatError, MissingFileError

_LONGEST = 1024  # characters of a name
_LONGEST_PART = 255  # bytes
_REASON = 160
_SHOWN = 80  # characters of foreign text in a message
_PATH = 240  # of a path
_HUB_FOLDERS = ("models--", "datasets--", "spaces--")


def inside(folder: Path, name: str) -> Path:
    """The file a piece of data names, which must lie in the data's own folder.

    Links are followed and must end inside. The one place links may lead to besides is the
    `blobs` folder of a hub cache, where its `snapshots/REVISION/` folders keep their content.

    Args:
        folder: the folder.
        name: what the data says, with "/" between parts.

    Returns:
        `folder / name`; whether it is there is not looked at.

    Raises:
        FormatError: if the name is absolute, climbs with "..", or leads elsewhere by a link.

    Example:
        >>> inside(Path("policy"), "model.safetensors")
        PosixPath('policy/model.safetensors')
    """
    check_name(name, f"data in {folder} names")
    try:
        target = (folder / name).resolve()
    except (OSError, RuntimeError, ValueError):
        raise FormatError(
            f"{folder} names {shown(name)}, which leads nowhere; needed a file inside {folder}"
        ) from None
    if not any(target.is_relative_to(root) for root in _roots(folder.resolve())):
        raise FormatError(
            f"{folder} names {shown(name)}, which a link takes outside it; needed a file inside,"
            " so put the file itself there"
        )
    return folder / name


def check_name(name: str, where: str) -> None:
    """Refuses a name of a file or member that could lead out of its folder.

    Args:
        name: as the data says it.
        where: whose name it is, for the message, ending in a verb: "archive.zip names".

    Raises:
        FormatError: if it is empty, absolute, climbs, or holds a NUL or backslash.
    """
    fault = None
    if not name or len(name) > _LONGEST:
        fault = f"{len(name)} characters long"
    elif any(len(p.encode("utf-8", "replace")) > _LONGEST_PART for p in name.split("/")):
        fault = f"longer than {_LONGEST_PART} bytes between two '/'"
    elif "\0" in name or "\\" in name:
        fault = "not a plain name"
    elif PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive:
        fault = "absolute"
    elif ".." in name.split("/"):
        fault = "climbing out of the folder"
    if fault:
        raise FormatError(
            f"{where} {shown(name)}, which is {fault}; needed a relative name without '..'"
        )


def require_file(path: Path, needed: str, *, most: int | None = None) -> Path:
    """The path itself, where an ordinary file lies that is not too large.

    Args:
        path: where.
        needed: what should be there, for the message: "an ONNX file".
        most: bytes it may hold; any number when None.

    Raises:
        MissingFileError: if nothing is there, or a folder, pipe or device.
        FormatError: if it is larger.

    Example:
        >>> require_file(Path("policy.onnx"), "an ONNX file", most=2**31)
        PosixPath('policy.onnx')
    """
    try:
        there = path.is_file()
        kind = "a folder" if path.is_dir() else "no file" if path.exists() else "not there"
    except (OSError, ValueError):
        there, kind = False, "not a path"
    if not there:
        raise MissingFileError(f"{_named(path)} is {kind}; needed {needed}")
    size = path.stat().st_size
    if most is not None and size > most:
        raise FormatError(
            f"{path} holds {size} bytes; needed {needed} of at most {most}, so give a smaller one"
        )
    return path


def _named(path: Path) -> str:
    """A path as it is; quoted, and cut in the middle, where it would not make a plain line."""
    text = str(path)
    if text.isprintable() and len(text) <= _PATH:
        return text
    words = repr(text)
    return words if len(words) <= _PATH else f"{words[: _PATH // 2]}...{words[-_PATH // 2 :]}"


def contents(source: Path | bytes, needed: str, *, most: int) -> bytes:
    """All bytes of a file, or the bytes themselves.

    Args:
        source: a path, or bytes that were read already.
        needed: what it should be, for the message.
        most: how many bytes there may be.

    Raises:
        MissingFileError: if there is no such file.
        FormatError: if there are more, or more than fit into memory.
    """
    if isinstance(source, bytes):
        if len(source) > most:
            raise FormatError(f"{len(source)} bytes were given; needed {needed} of at most {most}")
        return source
    try:
        with require_file(source, needed, most=most).open("rb") as file:
            data = file.read(most + 1) if most < 2**20 else file.read()
    except MemoryError:
        raise FormatError(
            f"{_named(source)} holds more than there is memory for; needed {needed} that fits,"
            " so read it on a larger machine"
        ) from None
    if len(data) > most:
        raise FormatError(f"{source} grew past {most} bytes while it was read; read it again")
    return data


def name_of(source: Path | bytes) -> str:
    """What a message calls a source: its path, or how many bytes it has."""
    return str(source) if isinstance(source, Path) else f"a part of {len(source)} bytes"


def shown(text: object) -> str:
    """Foreign text fit for a message: on one line, quoted, at most 80 characters."""
    words = repr(str(text)[: 2 * _SHOWN])
    return words if len(words) <= _SHOWN else f"{words[: _SHOWN - 4]}...{words[0]}"


def reason(fault: object) -> str:
    """What another program says of a fault, fit for the middle of a message.

    On one line, at most 160 characters; with its class where it says nothing.
    """
    text = str(fault)[:_REASON] or type(fault).__name__
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def _roots(folder: Path) -> list[Path]:
    roots = [folder]
    for snapshots in [p for p in (folder, *folder.parents) if p.name == "snapshots"]:
        if snapshots.parent.name.startswith(_HUB_FOLDERS):
            roots.append(snapshots.parent / "blobs")
    return roots
