"""What the names of torch in a pickle stand for: tensors over storages that were checked first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mirror_analysis.files.inert import Named
from mirror_analysis.files.stack_machine import Constructor, PickleFault, StackMachine

if TYPE_CHECKING:
    import torch

_MOST_AXES = 32
_MOST_SIDES = 2**40
_BROADCAST = 2**20  # numbers a tensor may show more often than its storage has them
_STORAGES = {
    "BFloat16Storage": "bfloat16",
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "ShortStorage": "int16",
}
DTYPES = (
    *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"),
    *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
    *("bool", "complex64", "complex128"),
)


_CLASSES = ("torch.Tensor", "torch.nn.parameter.Parameter")


@dataclass(frozen=True)
class StorageKind:
    """The class of a storage: what its numbers are, by their name in torch."""

    dtype: str


@dataclass(eq=False)
class Storage:
    """The memory tensors are views of.

    Attributes:
        dtype: of its numbers, by their name in torch.
        data: its bytes, uint8.
    """

    dtype: str
    data: torch.Tensor

    def __len__(self) -> int:
        return len(self.data) // size_of(self.dtype)


def size_of(dtype: str) -> int:
    """Bytes of a number of a type."""
    import torch

    return getattr(torch, dtype).itemsize


def known_tensors() -> dict[str, object]:
    """The allow list: "module.Name" -> what stands for it. Torch is imported when it is used."""
    table: dict[str, object] = {
        kind: Constructor(kind, build)
        for kind, build in {
            "torch.Size": _size,
            "torch._tensor._rebuild_from_type_v2": _typed,
            "torch._utils._rebuild_parameter": _parameter,
            "torch._utils._rebuild_parameter_with_state": _parameter,
            "torch._utils._rebuild_tensor": _tensor,
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch._utils._rebuild_tensor_v3": _tensor_of_type,
            "torch.device": _device,
            "torch.storage._load_from_bytes": _nested,
        }.items()
    }
    for module in ("torch", "torch.cuda"):
        table |= {f"{module}.{name}": StorageKind(dtype) for name, dtype in _STORAGES.items()}
    table["torch.storage.UntypedStorage"] = StorageKind("uint8")
    table |= {f"torch.{name}": Named(f"torch.{name}") for name in DTYPES}
    table |= {kind: Named(kind) for kind in _CLASSES}
    return table


def view(
    storage: Storage, dtype: str, offset: object, shape: object, strides: object
) -> torch.Tensor:
    """A tensor over a storage.

    Raises:
        PickleFault: if it would reach outside, or be much larger than the storage.
    """
    import torch

    shape, strides, (offset,) = _whole(shape), _whole(strides), _whole((offset,))
    if len(shape) != len(strides):
        raise PickleFault("a tensor with more sides than steps, or fewer")
    flat = storage.data.view(getattr(torch, dtype)) if len(storage.data) else None
    numbers = math.prod(shape)
    if math.prod(max(n, 1) for n in shape) > _MOST_SIDES:
        raise PickleFault(f"a tensor of the shape {str(shape)[:60]}")
    if flat is None or not numbers:
        if numbers:
            raise PickleFault("a tensor over an empty storage")
        return torch.empty(shape, dtype=getattr(torch, dtype))
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    if last >= len(flat) or numbers > max(len(flat), _BROADCAST):
        raise PickleFault(
            f"a tensor {str(shape)[:60]} that reaches number {last} of a storage of {len(flat)}"
        )
    return flat.as_strided(shape, strides, offset)


def _whole(numbers: object) -> tuple[int, ...]:
    if not isinstance(numbers, list | tuple) or len(numbers) > _MOST_AXES:
        raise PickleFault("a tensor of no possible shape")
    if not all(type(n) is int and 0 <= n < 2**60 for n in numbers):
        raise PickleFault(f"a tensor of the shape or steps {str(numbers)[:60]}")
    return tuple(numbers)


def _tensor(machine: StackMachine, arguments: tuple[Any, ...]) -> torch.Tensor:
    # (storage, offset, size, stride, requires_grad, hooks, metadata), the last three not always.
    if len(arguments) < 4 or not isinstance(arguments[0], Storage):
        raise PickleFault("a tensor without its storage")
    storage, offset, shape, strides = arguments[:4]
    return view(storage, storage.dtype, offset, shape, strides)


def _tensor_of_type(machine: StackMachine, arguments: tuple[Any, ...]) -> torch.Tensor:
    if len(arguments) < 7 or not isinstance(arguments[0], Storage):
        raise PickleFault("a tensor without its storage")
    storage, offset, shape, strides, _, _, dtype = arguments[:7]
    name = dtype.kind.removeprefix("torch.") if isinstance(dtype, Named) else ""
    if name not in DTYPES or len(storage.data) % size_of(name):
        raise PickleFault("a tensor whose type does not fit its storage")
    return view(storage, name, offset, shape, strides)


def _parameter(machine: StackMachine, arguments: tuple[Any, ...]) -> torch.Tensor:
    import torch

    if not arguments or not isinstance(arguments[0], torch.Tensor):
        raise PickleFault("a parameter without its tensor")
    return arguments[0]


def _typed(machine: StackMachine, arguments: tuple[Any, ...]) -> Any:
    # (function, class, its arguments, attributes): a tensor with attributes, which are dropped.
    if len(arguments) != 4 or getattr(arguments[1], "kind", None) not in _CLASSES:
        raise PickleFault("a tensor of a class of its own")
    return machine.call(arguments[0], arguments[2])


def _size(machine: StackMachine, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(arguments) != 1 or not isinstance(arguments[0], list | tuple):
        raise PickleFault("a torch.Size of something else")
    machine.spend(len(arguments[0]))
    return tuple(arguments[0])


def _device(machine: StackMachine, arguments: tuple[Any, ...]) -> str:
    if not 1 <= len(arguments) <= 2 or not isinstance(arguments[0], str):
        raise PickleFault("a device without a name")
    return ":".join(str(part) for part in arguments)[:40]


def _nested(machine: StackMachine, arguments: tuple[Any, ...]) -> Any:
    from mirror_analysis.files.torch_files import read_legacy

    if len(arguments) != 1 or not isinstance(arguments[0], bytes):
        raise PickleFault("a storage that is not bytes")
    machine.copy(2 * len(arguments[0]))
    machine.spend(100)
    return read_legacy(arguments[0])
