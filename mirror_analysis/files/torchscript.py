"""TorchScript archives, whose programs may compute but not touch files."""

from __future__ import annotations

import io
import tokenize
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from mirror_analysis.errors import FormatError
from mirror_analysis.files.archives import Archive
from mirror_analysis.files.pickles import refusal
from mirror_analysis.files.places import reason, require_file, shown
from mirror_analysis.files.stack_machine import PickleFault

if TYPE_CHECKING:
    import torch

_MOST_CODE = 2**26  # bytes of one program file
# Operations of torch that read, write or map files, wherever they are called on.
_REFUSED = {"from_file", "load", "save", "read_file", "write_file", "_save", "_load"}
# After `ops.`: torch's own, quantised ones, and those of torchvision that only compute.
_NAMESPACES = {"aten", "prim", "prims", "quantized", "torchvision", "inductor"}


def load_torchscript(path: Path, *, most: int = 2**34) -> torch.jit.ScriptModule:
    """A TorchScript module on the CPU, after its program and its tensors were looked through.

    A TorchScript file holds a program in a language of its own. It cannot call Python, but it
    can call operations of torch, a few of which open files; a program that mentions one of them,
    or an operation of another library, is refused. How long it runs and how much it allocates
    when it is called is not bounded.

    Args:
        path: the file.
        most: bytes it may hold.

    Raises:
        MissingFileError: if there is no such file.
        FormatError: if it is no TorchScript file, damaged, or refused.

    Example:
        >>> load_torchscript(Path("g1_motion.pt"))(torch.zeros(1, 47)).shape
        torch.Size([1, 12])
    """
    require_file(path, "a TorchScript file", most=most)
    with Archive(path) as archive:
        tops = {n.partition("/")[0] for n in archive.names if n.endswith("/constants.pkl")}
        if len(tops) != 1:
            raise FormatError(f"{path} is not a TorchScript file; needed one of torch.jit.save")
        (top,) = tops
        for member in archive.names:
            inner = member.removeprefix(f"{top}/")
            if inner.startswith("code/") and inner.endswith(".py"):
                check_program(archive.read(member, most=_MOST_CODE), f"{inner} of {path}")
        try:
            _check_tensors(archive, top)
        except PickleFault as fault:
            raise FormatError(refusal(str(path), fault)) from None
    import torch

    # The reader in C++ raises RuntimeError for all it does not like; newer torch also warns that
    # the format is old, which whoever has such a file cannot help.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
            return module.eval()
    except Exception as error:
        raise FormatError(
            f"{path} cannot be loaded as TorchScript: {reason(error)}; export it anew"
        ) from None


def check_program(code: bytes, name: str) -> None:
    """Refuses a TorchScript source that mentions an operation with files, or of elsewhere.

    Args:
        code: the source.
        name: what a message calls it.

    Raises:
        FormatError: if it does, or cannot be divided into words.
    """
    try:
        words = [
            token.string
            for token in tokenize.tokenize(io.BytesIO(code).readline)
            if token.type in (tokenize.NAME, tokenize.OP)
        ]
    except (tokenize.TokenError, SyntaxError, UnicodeDecodeError, ValueError) as error:
        raise FormatError(
            f"{name} is not a TorchScript program: {reason(error)}; export it anew"
        ) from None
    for place, word in enumerate(words):
        before, after = words[max(place - 1, 0)], words[place + 1 : place + 3]
        called = word in _REFUSED and place and before == "."
        # `torch` and `ops` only directly before a dot, so that no other name can stand for them.
        aside = word in ("torch", "ops") and before != "." and after[:1] != ["."]
        foreign = word == "ops" and before != "." and not _NAMESPACES & set(after[1:])
        if called or aside or foreign:
            raise FormatError(
                f"{name} uses {shown(''.join([*words[max(place - 2, 0) : place + 4]]))}; needed a"
                " program of plain operations of torch, which open no files"
            )


def _check_tensors(archive: Archive, top: str) -> None:
    from mirror_analysis.files.torch_files import read_storages

    for part in ("data", "constants"):
        if f"{top}/{part}.pkl" in archive:
            read_storages(archive, f"{top}/", part, everything=True)
