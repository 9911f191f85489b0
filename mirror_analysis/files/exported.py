"""Programs of torch.export, whose graphs may compute but not reach anything else.

`torch.export.load` evaluates expressions of the file, looks operators up anywhere in torch,
compiles guards, and unpickles without bounds what it cannot read otherwise. So a file is looked
through first, and only what was found harmless is handed on, in an archive made anew.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirror_analysis.errors import FormatError
from mirror_analysis.files.archives import Archive
from mirror_analysis.files.jsons import read_json
from mirror_analysis.files.places import reason, require_file, shown
from mirror_analysis.files.torch_files import read_torch

if TYPE_CHECKING:
    import torch

_MOST_GRAPH = 2**28  # bytes
_SPACES = r"aten|prims|quantized|quantized_decomposed"
_HIGHER = "cond|scan|map_impl|while_loop|wrap_with_set_grad_enabled|wrap_with_autocast"
_ARITHMETIC = (
    "add|sub|mul|truediv|floordiv|mod|neg|pos|pow|abs|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem"
)
_OPERATOR = re.compile(
    rf"torch\.ops\.({_SPACES})\.(?!from_file\b|save\b)\w+\.\w+|torch\.ops\.higher_order\.({_HIGHER})"
    rf"|_operator\.({_ARITHMETIC})|math\.[a-z]\w*|torch\.sym_\w+|torch\._sym_\w+"
)
_NAMES = re.compile(
    r"[suzf]\d+|Symbol|Integer|Float|Rational|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|IntTrueDiv"
    r"|FloatTrueDiv|ModularIndexing|Where|Max|Min|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|TruncToInt|CeilToInt"
    r"|FloorToInt|RoundToInt|ToFloat|oo|int_oo|True|False|positive|integer|nonnegative|real"
)
_EXPRESSION = re.compile(r"[\w\s'()+\-*/,=<>.]{1,2000}")
_KEPT = ("nn_module_stack", "torch_fn")  # names of the layers the nodes come from


def load_exported(path: Path, *, most: int = 2**34) -> torch.export.ExportedProgram:
    """A program of torch.export, as torch 2.8 and later save them.

    Refused are operators other than those of torch that compute, expressions other than sums,
    products, quotients and comparisons of sizes, objects of other classes, and compiled code.
    Guards of the file are left out. How long the program runs is not bounded.

    Args:
        path: the file.
        most: bytes it may hold.

    Raises:
        MissingFileError: if there is no such file.
        FormatError: if it is no such file, damaged, or refused.

    Example:
        >>> load_exported(Path("policy.pt2")).module()(torch.zeros(1, 17)).shape
        torch.Size([1, 6])
    """
    require_file(path, "a file of torch.export.save", most=most)
    import torch

    with Archive(path) as archive:
        clean = _clean(archive)
    # Torch raises whatever its reader meets; the parts that could do more are gone by now.
    try:
        return torch.export.load(io.BytesIO(clean))
    except Exception as error:
        raise FormatError(
            f"{path} cannot be loaded as a program of torch.export: {reason(error)}; export it anew"
        ) from None


def _clean(archive: Archive) -> bytes:
    tops = {n.partition("/")[0] for n in archive.names if n.endswith("/archive_format")}
    graphs = [n for n in archive.names if re.fullmatch(r"[^/]+/models/[\w.-]+\.json", n)]
    if len(tops) != 1 or len(graphs) != 1:
        raise FormatError(
            f"{archive.name} holds no one program as torch 2.8 and later export it; needed that, so"
            " load it with the torch it was made with and save it anew"
        )
    top = tops.pop()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as written:
        for name in archive.names:
            inner = name.removeprefix(f"{top}/")
            content = _member(archive, name, inner)
            if content is not None:
                written.writestr(name, content)
    return buffer.getvalue()


def _member(archive: Archive, name: str, inner: str) -> bytes | bytearray | None:
    if re.fullmatch(r"archive_format|archive_version|byteorder|\.data/\w+|version", inner):
        return archive.read(name, most=256)
    if inner.startswith("models/"):
        return json.dumps(
            check_graph_json(archive.read(name, most=_MOST_GRAPH), archive.name)
        ).encode()
    if re.fullmatch(r"data/(weights|constants)/\w+_config\.json", inner):
        return _check_weights(archive, name)
    if re.fullmatch(r"data/(weights/weight_|constants/tensor_)\d+", inner):
        return archive.buffer(name)
    if re.fullmatch(r"data/sample_inputs/[\w.-]+\.pt", inner):
        import torch

        sample = io.BytesIO()
        torch.save(read_torch(archive.read(name)), sample)
        return sample.getvalue()
    if inner.startswith(("extra/", "data/aotinductor/")):
        return None
    raise FormatError(
        f"{archive.name} has the member {shown(name)}, an object or compiled code; needed a program"
        " of plain operators and tensors"
    )


def check_graph_json(data: bytes, name: str) -> dict[str, Any]:
    """The graph of an exported program, without what loading it would evaluate.

    Args:
        data: the JSON.
        name: what a message calls it.

    Raises:
        FormatError: if it names an operator or expression that is not on the list.
    """
    model: dict[str, Any] = read_json(data, most=_MOST_GRAPH)
    model["guards_code"] = []
    for part in _dicts(model):
        for key in ("target", "as_operator"):
            target = part.get(key)
            # Targets of signatures are names of weights; only nodes have inputs too.
            called = key == "as_operator" or "inputs" in part
            if isinstance(target, str) and called and not _OPERATOR.fullmatch(target):
                raise FormatError(
                    f"{name} uses the operator {shown(target)}; needed operators of torch that only"
                    " compute, so export it without custom ones"
                )
        _check_expression(part.get("expr_str", "1"), name)
        if isinstance(part.get("metadata"), dict):
            part["metadata"] = {k: v for k, v in part["metadata"].items() if k in _KEPT}
        for key in ("in_spec", "out_spec"):
            spec = part.get(key)
            if isinstance(spec, str) and any("__enum__" in d for d in _dicts(json.loads(spec))):
                raise FormatError(f"{name} names an enumeration; needed plain inputs and outputs")
        if "range_constraints" in part and not all(map(_is_name, part["range_constraints"])):
            raise FormatError(f"{name} bounds something other than sizes; export it anew")
    return model


def _check_expression(text: object, name: str) -> None:
    if not isinstance(text, str) or not _EXPRESSION.fullmatch(text):
        raise FormatError(f"{name} has the expression {shown(text)}; needed one of sizes")
    words = re.findall(r"[^\W\d]\w*", text)
    dotted = re.search(r"\.\s*[^\W\d]|[\w)']\s*\.(?!\d)|\d{20}", text)
    # A power of a power fills the memory.
    powers = text.count("**") > 1 or ("**" in text and not re.search(r"\*\*\s*[2-4](?!\d)", text))
    if dotted or powers or not all(_NAMES.fullmatch(word) for word in words):
        raise FormatError(f"{name} has the expression {shown(text)}; needed one of sizes")


def _is_name(text: object) -> bool:
    return isinstance(text, str) and re.fullmatch(r"\w{1,40}", text) is not None


def _check_weights(archive: Archive, name: str) -> bytes:
    data = archive.read(name, most=_MOST_GRAPH)
    folder = name.rpartition("/")[0]
    for part in _dicts(read_json(data, most=_MOST_GRAPH)):
        if part.get("use_pickle"):
            raise FormatError(f"{archive.name} has a pickled weight; needed plain ones")
        if "path_name" not in part:
            continue
        meta = part.get("tensor_meta")
        sizes = [s.get("as_int") for s in meta["sizes"]] if isinstance(meta, dict) else [None]
        whole = all(type(n) is int and 0 <= n < 2**40 for n in sizes)
        member = f"{folder}/{part['path_name']}"
        size = archive.size(member)
        numbers = 1
        for n in sizes if whole else ():
            numbers *= max(n or 0, 1)
        if not whole or (size and numbers > size):
            raise FormatError(
                f"{archive.name} has a weight of {size} bytes that claims the shape"
                f" {str(sizes)[:60]}; export it anew"
            )
    return data


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    """Every dict in a value of JSON, the value itself first."""
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)
