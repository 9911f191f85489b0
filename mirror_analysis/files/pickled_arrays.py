"""What the names of plain values and of numpy in a pickle stand for."""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.files.element_bytes import check_elements
from mirror_analysis.files.inert import Named, Record
from mirror_analysis.files.stack_machine import (
    Constructor,
    Pending,
    PickleFault,
    StackMachine,
    plain_key,
)

_MOST_AXES = 32
_MOST_SIDES = 2**40
_WIDEST = 2**20  # bytes of one element
_TYPE = re.compile(r"[?bBhHiIlLqQefdFDO]|[biufcSUVMmO]\d{1,7}")
_UNITS = {"Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as", "generic"}


def known_values() -> dict[str, object]:
    """The allow list: "module.Name" -> what stands for it."""
    table = {
        "_codecs.encode": _encode,
        "builtins.bytearray": lambda m, a: bytearray(_bytes(m, a)),
        "builtins.bytes": lambda m, a: _bytes(m, a),
        "builtins.complex": lambda m, a: complex(*_exactly(a, float, float)),
        "builtins.dict": _dict,
        "builtins.frozenset": lambda m, a: frozenset(map(plain_key, _items(m, a))),
        "builtins.list": lambda m, a: list(_items(m, a)),
        "builtins.set": lambda m, a: set(map(plain_key, _items(m, a))),
        "builtins.slice": lambda m, a: slice(*_exactly(a, *[int | None] * 3)),
        "builtins.tuple": lambda m, a: tuple(_items(m, a)),
        "collections.OrderedDict": _ordered,
        "collections.defaultdict": lambda m, a: {},
        "collections.deque": _deque,
        "copyreg._reconstructor": _reconstructor,
        "numpy.dtype": _dtype,
        "numpy.ndarray": _refused,
        "builtins.object": _refused,
    }
    for module in ("numpy.core", "numpy._core"):
        table[f"{module}.multiarray._reconstruct"] = _array
        table[f"{module}.multiarray.scalar"] = _scalar
        table[f"{module}.numeric._frombuffer"] = _from_buffer
    return {kind: Constructor(kind, build) for kind, build in table.items()}


def _exactly(arguments: tuple[Any, ...], *kinds: Any) -> tuple[Any, ...]:
    if len(arguments) != len(kinds) or not all(map(isinstance, arguments, kinds)):
        found = ", ".join(type(a).__name__ for a in arguments)
        raise PickleFault(f"a constructor with the arguments ({found})")
    return arguments


def _refused(machine: StackMachine, arguments: tuple[Any, ...]) -> Any:
    raise PickleFault("an array or object made directly, with whatever size")


def _encode(machine: StackMachine, arguments: tuple[Any, ...]) -> bytes:
    text, encoding = _exactly(arguments, str, str)
    if encoding.lower().replace("-", "").replace("_", "") not in ("latin1", "iso88591"):
        raise PickleFault(f"the encoding {encoding[:20]!r}")
    machine.copy(len(text))
    return text.encode("latin1")


def _bytes(machine: StackMachine, arguments: tuple[Any, ...]) -> bytes:
    # Of a number, bytes() would make that many.
    if not arguments:
        return b""
    if isinstance(arguments[0], str):
        return _encode(machine, arguments)
    (data,) = _exactly(arguments, bytes | bytearray)
    machine.copy(len(data))
    return bytes(data)


def _items(machine: StackMachine, arguments: tuple[Any, ...]) -> Any:
    if not arguments:
        return ()
    (items,) = _exactly(arguments, list | tuple | set | frozenset)
    machine.spend(len(items))
    return items


def _pairs(machine: StackMachine, arguments: tuple[Any, ...]) -> list[tuple[Any, Any]]:
    items = _items(machine, arguments)
    pairs = [tuple(item) for item in items if isinstance(item, list | tuple) and len(item) == 2]
    if len(pairs) != len(items):
        raise PickleFault("a dict of something other than pairs")
    return [(plain_key(key), value) for key, value in pairs]


def _dict(machine: StackMachine, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    return dict(_pairs(machine, arguments))


def _ordered(
    machine: StackMachine, arguments: tuple[Any, ...]
) -> collections.OrderedDict[Any, Any]:
    return collections.OrderedDict(_pairs(machine, arguments))


def _deque(machine: StackMachine, arguments: tuple[Any, ...]) -> collections.deque[Any]:
    machine.spend(16)
    items = _items(machine, arguments[:1])
    (most,) = _exactly(arguments[1:], int | None) if len(arguments) > 1 else (None,)
    return collections.deque(items, most)


def _reconstructor(machine: StackMachine, arguments: tuple[Any, ...]) -> Record:
    # How the protocols 0 and 1 make an object of a class of Python: (class, object, None), or
    # (class, dict or list, what it holds).
    if len(arguments) != 3 or not isinstance(arguments[0], Named):
        raise PickleFault("an object of a class that is not a record")
    kind, _, content = arguments
    items = content.items() if isinstance(content, dict) else content or ()
    if not isinstance(items, Collection):
        raise PickleFault("an object of a class that is not a record")
    machine.spend(len(items))
    return Record(kind.kind, items=list(items))


def _dtype(machine: StackMachine, arguments: tuple[Any, ...]) -> Pending:
    spec = arguments[0] if arguments else None
    if not isinstance(spec, str) or not _TYPE.fullmatch(spec):
        raise PickleFault(f"the numpy type {str(spec)[:40]!r}")
    dtype = np.dtype(spec)
    if dtype.itemsize > _WIDEST:
        raise PickleFault(f"the numpy type {spec!r}")
    return Pending(lambda machine, state: _typed(machine, dtype, state))


def _typed(machine: StackMachine, dtype: np.dtype[Any], state: Any) -> np.dtype[Any]:
    if not isinstance(state, tuple) or not 8 <= len(state) <= 9:
        raise PickleFault("a numpy type without its state")
    order, base, names, parts, size = state[1:6]
    if order not in ("<", ">", "|", "="):
        raise PickleFault(f"the byte order {str(order)[:20]!r}")
    if base is not None:
        kind, shape = _exactly(base, np.dtype, tuple)
        _check_shape(shape)
        if not _is_plain(kind) or math.prod(shape) * kind.itemsize != size or size > _WIDEST:
            raise PickleFault("a numpy type of types that do not fit")
        return np.dtype((kind, shape))
    if names is not None:
        names, parts, size = _exactly((names, parts, size), tuple, dict, int)
        machine.spend(4 * len(names))
        entries = [parts[name] for name in names]
        kinds = [_exactly(tuple(entry[:2]), np.dtype, int) for entry in entries]
        if size > _WIDEST or not all(_is_plain(kind.base) for kind, _ in kinds):
            raise PickleFault("a numpy type of types that do not fit")
        names = [name if isinstance(name, str) else name.decode("ascii") for name in names]
        formats, offsets = [kind for kind, _ in kinds], [offset for _, offset in kinds]
        return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})
    if dtype.kind in "Mm":
        unit, count = state[8][1][:2] if len(state) == 9 else ("generic", 1)
        unit = unit.decode("ascii") if isinstance(unit, bytes) else unit
        if unit not in _UNITS or not 0 < count < 2**31:
            raise PickleFault("a unit of time")
        dtype = np.dtype(f"{dtype.kind}8" if unit == "generic" else f"{dtype.kind}8[{count}{unit}]")
    return dtype.newbyteorder(order) if order in "<>" else dtype


def _is_plain(dtype: np.dtype[Any]) -> bool:
    # Types of types of types take the stack of whoever walks through them.
    return not dtype.hasobject and dtype.names is None and dtype.subdtype is None


def _check_shape(shape: Any) -> None:
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise PickleFault("a shape that is not made of whole numbers")
    if len(shape) > _MOST_AXES or math.prod(max(n, 1) for n in shape) > _MOST_SIDES:
        raise PickleFault(f"the shape {str(shape)[:60]}")


def _array(machine: StackMachine, arguments: tuple[Any, ...]) -> Pending:
    # (ndarray, (0,), b"b"): an empty array, whose state brings the content.
    if len(arguments) != 3 or getattr(arguments[0], "kind", None) != "numpy.ndarray":
        raise PickleFault("an array of a class other than numpy.ndarray")
    return Pending(_with_content)


def _with_content(machine: StackMachine, state: Any) -> NDArray[Any]:
    if not isinstance(state, tuple) or len(state) not in (4, 5):
        raise PickleFault("an array without its content")
    shape, dtype, fortran, content = state[-4:]
    if not isinstance(dtype, np.dtype):
        raise PickleFault("an array without its type")
    if not dtype.hasobject:
        if isinstance(content, str):
            # Bytes of Python 2, read as text.
            content = content.encode("latin1")
        return _filled(machine, content, dtype, shape, fortran=bool(fortran))
    _check_shape(shape)
    if dtype != np.dtype("O") or not isinstance(content, list) or len(content) != math.prod(shape):
        raise PickleFault("an array of objects that do not fit its shape")
    machine.spend(len(content))
    flat = np.empty(len(content), dtype=object)
    for place, item in enumerate(content):
        flat[place] = item
    return flat.reshape(shape, order="F" if fortran else "C")


def _from_buffer(machine: StackMachine, arguments: tuple[Any, ...]) -> NDArray[Any]:
    content, dtype, shape, order = _exactly(arguments, object, np.dtype, tuple, str)
    return _filled(machine, content, dtype, shape, fortran=order == "F")


def _scalar(machine: StackMachine, arguments: tuple[Any, ...]) -> Any:
    dtype, content = _exactly(arguments, np.dtype, bytes | str)
    content = content.encode("latin1") if isinstance(content, str) else content
    return _filled(machine, content, dtype, (), fortran=False)[()]


def _filled(
    machine: StackMachine, content: Any, dtype: np.dtype[Any], shape: Any, *, fortran: bool
) -> NDArray[Any]:
    _check_shape(shape)
    if dtype.hasobject or not dtype.itemsize or not isinstance(content, bytes | bytearray):
        raise PickleFault("an array whose content is not bytes")
    if math.prod(shape) * dtype.itemsize != len(content):
        raise PickleFault(
            f"an array of {len(content)} bytes that claims {str(shape)[:60]} of {str(dtype)[:40]}"
        )
    machine.copy(len(content))
    flat = np.frombuffer(bytearray(content), dtype)
    check_elements(flat)
    if not dtype.isnative and dtype.names is None:
        flat = flat.astype(dtype.newbyteorder("="))
    return flat.reshape(shape, order="F" if fortran else "C")
