"""Movements as sequences of steps: what their columns mean, and how far two steps are apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from mirror_analysis.errors import DegenerateError, DeviceError, ShapeError, UnknownNameError
from mirror_analysis.matrices import Array

Kind = Literal["vector", "squared", "rotation"]
Trajectories: TypeAlias = Sequence[Array] | Array

_KINDS = ("vector", "squared", "rotation")
_WIDTHS = {
    "6d": 6,
    "axis_angle": 3,
    "euler_xyz": 3,
    "matrix": 9,
    "quaternion_wxyz": 4,
    "quaternion_xyzw": 4,
}
# Rotations stored in half precision are off by about 1e-3; wrong columns by far more.
_UNIT = 1e-2


@dataclass(frozen=True)
class Block:
    """Columns of a trajectory that form one quantity, and what a difference in it costs.

    Attributes:
        name: what the columns are, such as "position".
        columns: which they are, as a slice or as indices.
        kind: "vector": Euclidean distance; "squared": its square; "rotation": the angle of the
            rotation from one to the other, in [0, π] radians (geodesic distance on SO(3)).
        representation: of a rotation: "euler_xyz" (roll, pitch, yaw in radians about fixed axes),
            "quaternion_wxyz", "quaternion_xyzw", "axis_angle" (axis times radians), "matrix" (9
            numbers) or "6d" (two columns or rows of the matrix; the angle is the same).
        unit: unit of the columns in words, such as "m"; radians for rotations.
        weight: cost of one `scale`, above 0.
        scale: the difference that counts as 1, in the unit of the distance, above 0.
    """

    name: str
    columns: slice | Sequence[int]
    kind: Kind = "vector"
    representation: str = ""
    unit: str = ""
    weight: float = 1.0
    scale: float = 1.0

    def __str__(self) -> str:
        unit = self.unit or ("rad" if self.kind == "rotation" else "unit not stated")
        what = f"{self.kind} {self.representation}".strip()
        return f"{self.name} [{unit}]: {what}, weight {self.weight:g}, scale {self.scale:g}"


POSE = (
    Block("position", slice(0, 3), unit="m"),
    Block("orientation", slice(3, 6), kind="rotation", representation="euler_xyz"),
    Block("gripper", slice(6, 7), unit="opening"),
)
"""Seven columns x, y, z, roll, pitch, yaw, gripper, each distance with weight 1: the published
sensorimotor alignment adds metres, radians and gripper openings so."""

MIXED = (Block("all columns", slice(None), unit="mixed"),)
"""One vector of all columns, whatever their units."""


@dataclass(frozen=True, eq=False)
class Steps:
    """Trajectories end to end, their columns turned into what the local cost is made of.

    Attributes:
        values: float64 [step, column]: vectors scaled so that their distance is the cost,
            rotations as unit quaternions.
        lengths: [trajectory] steps of each.
        parts: of each block its kind, its first and its last column + 1 in `values`, and the
            factor of its distance that is not in the values already.
    """

    values: Float64[Tensor, "step column"]
    lengths: tuple[int, ...]
    parts: tuple[tuple[Kind, int, int, float], ...]


def unpad(values: Array, lengths: Sequence[int]) -> list[Array]:
    """Trajectories out of a padded array, by their declared lengths.

    Padding is never guessed from steps that repeat: a robot may hold still.

    Args:
        values: [trajectory, time, dimension].
        lengths: [trajectory] steps that are real, counted from the first.

    Raises:
        ShapeError: if there is not one length for each, or one is less than 1 or beyond the array.
    """
    if values.ndim != 3 or len(values) != len(lengths):
        raise ShapeError(
            f"values have shape {tuple(values.shape)} with {len(lengths)} lengths;"
            " needed [trajectory, time, dimension] and one length each"
        )
    for i, length in enumerate(lengths):
        if not 1 <= length <= values.shape[1]:
            raise ShapeError(
                f"trajectory {i} has length {length}; needed 1 to {values.shape[1]} steps"
            )
    return [values[i, :length] for i, length in enumerate(lengths)]


def read(trajectories: Trajectories, blocks: Sequence[Block], *, name: str = "x") -> Steps:
    """Checks trajectories and turns their columns into what the local cost is made of.

    Args:
        trajectories: each [time, dimension], or one [trajectory, time, dimension].
        blocks: which columns mean what; columns in no block are left out.
        name: what to call them in an error.

    Raises:
        ShapeError: if they are not such arrays, differ in columns, or a block asks for columns
            that are not there, too few, or another block's.
        DegenerateError: if a value is not finite, a block's numbers are not what it says, or a
            weight or scale is not above 0.
        DeviceError: if they are on several devices.
        UnknownNameError: if a kind or representation is not known.
    """
    rows = [_as_rows(t, f"{name}[{i}]") for i, t in enumerate(trajectories)]
    if not rows:
        raise ShapeError(f"{name} has no trajectories; needed at least one [time, dimension]")
    for i, row in enumerate(rows):
        if row.shape[1] != rows[0].shape[1]:
            raise ShapeError(
                f"{name}[{i}] has {row.shape[1]} columns but {name}[0] has {rows[0].shape[1]};"
                " needed the same columns in every trajectory"
            )
        if row.device != rows[0].device:
            raise DeviceError(
                f"{name}[0] is on {rows[0].device} but {name}[{i}] on {row.device};"
                " move all trajectories to one device"
            )
    values = torch.cat(rows)
    if not bool(torch.isfinite(values).all()):
        bad = [int((~torch.isfinite(row)).any(dim=1).sum()) for row in rows]
        i = next(i for i, count in enumerate(bad) if count)
        raise DegenerateError(
            f"{name}[{i}] holds NaN or infinity in {bad[i]} of {len(rows[i])} steps;"
            " cut the trajectory there"
        )
    parts: list[tuple[Kind, int, int, float]] = []
    columns: list[Tensor] = []
    taken: dict[int, str] = {}
    width = 0
    for block in blocks or MIXED:
        numbers = values[:, _columns(block, values.shape[1], taken)]
        if block.kind == "rotation":
            made, factor = _quaternions(numbers, block, name), block.weight / block.scale
        else:
            size = block.weight if block.kind == "vector" else math.sqrt(block.weight)
            made, factor = numbers * (size / block.scale), 1.0
        columns.append(made)
        parts.append((block.kind, width, width + made.shape[1], factor))
        width += made.shape[1]
    return Steps(torch.cat(columns, dim=1), tuple(len(r) for r in rows), tuple(parts))


def _as_rows(trajectory: Array, name: str) -> Tensor:
    if isinstance(trajectory, Tensor):
        rows = trajectory.detach()
    else:
        array = np.asarray(trajectory)
        if array.dtype.kind not in "buif":
            raise ShapeError(f"{name} is of type {array.dtype}; needed real numbers")
        rows = torch.from_numpy(array.astype(np.float64))
    if rows.is_complex():
        raise ShapeError(f"{name} is of type {rows.dtype}; needed real numbers")
    rows = rows.double()
    if rows.ndim != 2 or 0 in rows.shape:
        raise ShapeError(
            f"{name} has shape {tuple(rows.shape)}; needed [time, dimension] with at least one"
            " step and one column"
        )
    return rows


def _columns(block: Block, width: int, taken: dict[int, str]) -> list[int]:
    """Indices of a block's columns, entered in `taken`."""
    if block.kind not in _KINDS:
        raise UnknownNameError("kind of block", block.kind, _KINDS)
    for what, number in (("weight", block.weight), ("scale", block.scale)):
        if not 0 < number < math.inf:
            raise DegenerateError(
                f"block '{block.name}' has {what} {number}; needed a finite number above 0"
            )
    if isinstance(block.columns, slice):
        found = list(range(width))[block.columns]
        given = f"{block.columns.start or 0}:{block.columns.stop}"
    else:
        found, given = [int(c) for c in block.columns], str(list(block.columns))
    outside = [c for c in found if not 0 <= c < width]
    if not found or outside:
        raise ShapeError(
            f"block '{block.name}' takes columns {given} of trajectories with {width};"
            f" needed columns from 0 to {width - 1}"
        )
    if block.kind == "rotation":
        if block.representation not in _WIDTHS:
            raise UnknownNameError("representation of rotations", block.representation, _WIDTHS)
        needed = _WIDTHS[block.representation]
        if len(found) != needed:
            raise ShapeError(
                f"block '{block.name}' has {len(found)} columns; needed {needed}"
                f" for {block.representation}"
            )
    for c in found:
        if c in taken:
            raise ShapeError(
                f"column {c} is in block '{taken[c]}' and in block '{block.name}';"
                " needed every column once at most"
            )
        taken[c] = block.name
    return found


def _quaternions(numbers: Tensor, block: Block, name: str) -> Tensor:
    """Unit quaternions w, x, y, z of rotations in any representation, [step, 4]."""
    kind = block.representation
    if kind == "euler_xyz":
        return _of_euler(numbers)
    if kind == "axis_angle":
        half = 0.5 * numbers.norm(dim=1, keepdim=True)
        # sin(h) / h, even at 0.
        return torch.cat([half.cos(), 0.5 * numbers * torch.sinc(half / math.pi)], dim=1)
    if kind.startswith("quaternion"):
        off = (numbers.norm(dim=1) - 1).abs()
        _refuse(off, block, name, "has a norm", "unit quaternions")
        ordered = numbers[:, [3, 0, 1, 2]] if kind == "quaternion_xyzw" else numbers
        return ordered / ordered.norm(dim=1, keepdim=True)
    axes = numbers.reshape(len(numbers), -1, 3)
    first = torch.nn.functional.normalize(axes[:, 0], dim=1)
    second = axes[:, 1] - (axes[:, 1] * first).sum(dim=1, keepdim=True) * first
    second = torch.nn.functional.normalize(second, dim=1)
    third = torch.linalg.cross(first, second)
    made = torch.stack([first, second, third], dim=1)
    if kind == "matrix":
        off = (made - axes).abs().amax(dim=(1, 2))
        _refuse(off, block, name, "is", "rotation matrices, determinant 1")
    else:
        off = (made @ made.mT - torch.eye(3).to(made)).abs().amax(dim=(1, 2))
        _refuse(off, block, name, "spans a plane", "two directions that are not parallel")
    return _of_matrix(made)


def _refuse(off: Tensor, block: Block, name: str, what: str, needed: str) -> None:
    bad = int((off > _UNIT).sum())
    if bad:
        raise DegenerateError(
            f"block '{block.name}' of {name} {what} off by up to {float(off.max()):.3g} in {bad} of"
            f" {len(off)} steps; needed {needed} ({block.representation}), so check the columns"
        )


def _of_euler(angles: Tensor) -> Tensor:
    (cx, cy, cz), (sx, sy, sz) = (0.5 * angles).cos().T, (0.5 * angles).sin().T
    return torch.stack(
        [
            cx * cy * cz + sx * sy * sz,
            sx * cy * cz - cx * sy * sz,
            cx * sy * cz + sx * cy * sz,
            cx * cy * sz - sx * sy * cz,
        ],
        dim=1,
    )


def _of_matrix(m: Tensor) -> Tensor:
    """From the row of q qᵀ with the largest diagonal, which never divides by a small number."""
    a, b, c = m[:, 0, 0], m[:, 1, 1], m[:, 2, 2]
    x, y, z = m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]
    xy, xz, yz = m[:, 0, 1] + m[:, 1, 0], m[:, 0, 2] + m[:, 2, 0], m[:, 1, 2] + m[:, 2, 1]
    outer = torch.stack(
        [
            torch.stack([1 + a + b + c, x, y, z], dim=1),
            torch.stack([x, 1 + a - b - c, xy, xz], dim=1),
            torch.stack([y, xy, 1 - a + b - c, yz], dim=1),
            torch.stack([z, xz, yz, 1 - a - b + c], dim=1),
        ],
        dim=1,
    )
    largest = outer.diagonal(dim1=1, dim2=2).argmax(dim=1)
    row = outer[torch.arange(len(m), device=m.device), largest]
    return row / row.norm(dim=1, keepdim=True)
