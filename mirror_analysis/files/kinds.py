"""What a file is, by its content and never by its name."""

from __future__ import annotations

from pathlib import Path

from mirror_analysis.errors import FormatError
from mirror_analysis.files.bounded import BoundedFile
from mirror_analysis.files.places import require_file
from mirror_analysis.files.protobuf import BYTES, VARINT, varint

_STARTS = (
    (b"version https://git-lfs", "git-lfs"),
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (b"PAR1", "parquet"),
    (b"\x93NUMPY", "npy"),
    (b"\x89PNG\r\n\x1a\n", "picture"),
    (b"\xff\xd8\xff", "picture"),
    (b"GIF87a", "picture"),
    (b"GIF89a", "picture"),
    (b"\x1aE\xdf\xa3", "video"),  # Matroska, WebM
    (b"FLV\x01", "video"),
    (b"OggS", "video"),
    (b"\x00\x00\x01\xba", "video"),  # MPEG program stream
    (b"\x00\x00\x01\xb3", "video"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video"),  # ASF, WMV
    (b"\x1f\x8b", "compressed"),
    (b"BZh", "compressed"),
    (b"\xfd7zXZ\x00", "compressed"),
    (b"\x28\xb5\x2f\xfd", "compressed"),
)
_LEGACY = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number every old torch.save starts with
_HTML = (b"<!doctype html", b"<html")
_WALKED = 4096  # top-level fields of an ONNX model looked at


def kind_of(path: Path) -> str:
    """What a file is, from its bytes alone.

    Args:
        path: a file or folder.

    Returns:
        "safetensors", "torch" (a zip of torch.save), "torch-legacy", "torchscript", "exported"
        (torch.export), "sb3" (Stable-Baselines3), "npz", "npy", "zip", "tar", "pickle", "hdf5",
        "onnx", "tflite", "parquet", "tfrecord", "json", "video", "picture", "compressed" (gzip,
        bzip2, xz, zstd), "git-lfs" (a pointer in place of the file), "html", "text", "empty",
        "folder" or "unknown". It says what a file looks like; its reader says whether it is
        whole.

    Raises:
        MissingFileError: if nothing is there.

    Example:
        >>> kind_of(Path("model.bin"))
        'torch'
    """
    if path.is_dir():
        return "folder"
    require_file(path, "a file")
    with BoundedFile(path) as file:
        start = file.read(4096)
        if not start:
            return "empty"
        for magic, kind in _STARTS:
            if start.startswith(magic):
                return kind
        if start[:2] == b"PK":
            return _zip_kind(path)
        return _by_layout(start, file) or _by_words(start, file) or "unknown"


def _by_layout(start: bytes, file: BoundedFile) -> str | None:
    length = int.from_bytes(start[:8], "little")
    if len(start) > 8 and length <= file.size - 8 and start[8:9] == b"{":
        return "safetensors"
    if start[4:8] == b"TFL3":
        return "tflite"
    if start[4:8] == b"ftyp":
        # The same container holds still pictures of kinds that are not read.
        return "unknown" if start[8:12] in (b"avif", b"heic", b"mif1", b"heix") else "video"
    if start[:4] == b"RIFF":
        return {b"AVI ": "video", b"WEBP": "picture"}.get(start[8:12], "unknown")
    if start[:2] == b"BM" and int.from_bytes(start[14:18], "little") in (12, 40, 52, 56, 108, 124):
        return "picture"
    if start[257:262] == b"ustar":
        return "tar"
    if len(start) >= 189 and start[::188][:20].strip(b"G") == b"" and file.size % 188 == 0:
        return "video"
    if len(start) >= 12 and length <= file.size - 16:
        from mirror_analysis.files.tfrecords import masked

        if masked(start[:8]) == int.from_bytes(start[8:12], "little"):
            return "tfrecord"
    file.seek(max(file.size - 1, 0))
    stops = file.read(1) == b"."
    if start[:1] == b"\x80" and start[1:2] in b"\2\3\4\5":
        if start[2 : 2 + len(_LEGACY)] == _LEGACY:
            return "torch-legacy"
        return "pickle"
    if stops and start[:1] in b"(]}cI)[NFSVKJMLUXG" and _is_old_pickle(start):
        return "pickle"
    return "onnx" if _is_onnx(file) else _late_hdf5(file)


def _by_words(start: bytes, file: BoundedFile) -> str | None:
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.lower().startswith(_HTML):
        return "html"
    if b"\0" in start or sum(code < 32 and code not in b"\t\n\r\f" for code in start):
        return None
    try:
        # The cut may go through a character.
        start[: max(len(start) - 3, 1) if len(start) == 4096 else None].decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(start) - 4:
            return None
    if text[:1] in (b"{", b"["):
        return "json"
    return "text"


def _late_hdf5(file: BoundedFile) -> str | None:
    # After a block of the user's own, the length of which is a power of two from 512.
    place = 512
    while place < min(file.size, 2**20):
        file.seek(place)
        if file.read(8) == b"\x89HDF\r\n\x1a\n":
            return "hdf5"
        place *= 2
    return None


def _zip_kind(path: Path) -> str:
    from mirror_analysis.files.archives import Archive

    try:
        with Archive(path) as archive:
            names = archive.names
    except FormatError:
        return "zip"
    tops = {name.partition("/")[2] or name for name in names}
    plain = set(names)
    if "constants.pkl" in tops and any(name.startswith("code/") for name in tops):
        return "torchscript"
    if {"serialized_exported_program.json", "models/model.json"} & (tops | plain) or (
        "archive_format" in tops and any(name.startswith("models/") for name in tops)
    ):
        return "exported"
    if "data.pkl" in tops:
        return "torch"
    if "data" in plain and any(name.endswith((".pth", ".pkl")) for name in plain):
        return "sb3"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    return "zip"


def _is_old_pickle(start: bytes) -> bool:
    """Whether the first operations are those of a pickle of protocol 0 or 1."""
    import pickletools

    try:
        for count, (operation, _, _) in enumerate(pickletools.genops(start)):
            if operation.name == "STOP" or count == 20:
                return True
    except Exception:
        # A pickle longer than what was read is cut; one that is none fails sooner.
        return False
    return False


def _is_onnx(file: BoundedFile) -> bool:
    """Whether the file is a message with the fields of a ModelProto, the graph among them."""
    wires = {1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 7: BYTES, 8: BYTES}
    wires |= {14: BYTES, 20: BYTES, 25: BYTES, 26: BYTES}
    at, graph = 0, False
    for _ in range(_WALKED):
        if at >= file.size:
            break
        file.seek(at)
        head = memoryview(file.read(24))
        try:
            tag, used = varint(head, 0)
            if wires.get(tag >> 3) != tag & 7:
                return False
            value, used = varint(head, used)
        except ValueError:
            return False
        at += used + (value if tag & 7 == BYTES else 0)
        graph = graph or tag >> 3 == 7
    return graph and at == file.size
