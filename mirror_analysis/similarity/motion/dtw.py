"""Dynamic time warping of all pairs of trajectories, on CPU or GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from mirror_analysis.errors import DegenerateError, DeviceError, ShapeError, UnknownNameError
from mirror_analysis.results import Parameter
from mirror_analysis.similarity.motion.trajectories import MIXED, Block, Trajectories, read
from mirror_analysis.similarity.motion.warping import Progress, by_diagonals, by_lanes

StepPattern = Literal["symmetric1", "symmetric2"]


@dataclass(frozen=True)
class MotionKernel:
    """What it means for two movements to be alike: settings of `dtw_distances`.

    Attributes:
        blocks: which columns mean what, with units and weights; () for one vector of all columns,
            whatever their units.
        band: steps that a match may lie off the diagonal (Sakoe and Chiba 1978), widened by the
            difference of the two lengths; None for no limit, 0 for none but that difference.
        normalise: whether to divide by the sum of the step weights, n + m - 1, which gives the
            mean local cost along the path; for "symmetric2" only.
        step_pattern: "symmetric2" counts a diagonal step twice, so that all paths weigh alike and
            none is favoured for being short; "symmetric1" counts it once. The first cell counts
            once in both.
    """

    blocks: tuple[Block, ...] = ()
    band: int | None = None
    normalise: bool = False
    step_pattern: StepPattern = "symmetric2"

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The settings in words, as they are recorded with a score."""
        return {
            "band": "none" if self.band is None else self.band,
            "normalise": self.normalise,
            "step_pattern": self.step_pattern,
            "blocks": "; ".join(str(b) for b in self.blocks or MIXED),
        }

    def distances(
        self,
        x: Trajectories,
        y: Trajectories | None = None,
        *,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Float64[Tensor, "x y"]:
        """`dtw_distances` with these settings."""
        return dtw_distances(
            x,
            y,
            blocks=self.blocks,
            band=self.band,
            normalise=self.normalise,
            step_pattern=self.step_pattern,
            threads=threads,
            progress=progress,
        )


def dtw_distances(
    x: Trajectories,
    y: Trajectories | None = None,
    *,
    blocks: Sequence[Block] = (),
    band: int | None = None,
    normalise: bool = False,
    step_pattern: StepPattern = "symmetric2",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Float64[Tensor, "x y"]:
    """Dynamic time warping distance of every pair of trajectories.

    The least sum of local costs along a path that matches the first steps, the last steps, and
    goes back in neither movement. The local cost of two steps is the sum over blocks of
    `weight * distance / scale`: Euclidean for vectors, the angle in radians for rotations. At
    least 0, in the unit of the cost; 0 of a trajectory with itself. Not a metric: the triangle
    inequality does not hold.

    Without blocks all columns are one vector, which adds up whatever units they have: metres,
    radians and gripper openings need blocks.

    On the CPU a kernel runs on several threads, compiled in some seconds at the first call of an
    installation; trajectories on a GPU are warped there by anti-diagonals, many pairs at once.

    Args:
        x: trajectories, each [time, dimension], of any lengths; or one array [trajectory, time,
            dimension] (`unpad` cuts one with declared lengths).
        y: others to compare with; None for x against itself, computed once per pair.
        blocks: which columns mean what, with units and weights; columns in no block are left out.
        band: steps that a match may lie off the diagonal, widened by the difference of the two
            lengths; None for no limit.
        normalise: whether to divide by n + m - 1, the weight of every "symmetric2" path.
        step_pattern: "symmetric2" counts diagonal steps twice, "symmetric1" once; the first cell
            counts once in both.
        threads: for the CPU; None for as many as torch uses.
        progress: called with (pairs done, pairs in all).

    Returns:
        Float64 [x, y] on the device of the trajectories.

    Raises:
        ShapeError: if trajectories are not [time, dimension] with the same columns, or a block
            does not fit them.
        DegenerateError: if a value is not finite, a rotation is not one, or a setting is out of
            its range.
        DeviceError: if trajectories are on several devices.
        UnknownNameError: if a step pattern, kind or representation is not known.

    Source:
        Sakoe and Chiba 1978; the step patterns' names are those of Giorgino 2009.

    Example:
        >>> a, b = np.array([[0.0], [1.0], [2.0]]), np.array([[0.0], [2.0]])
        >>> dtw_distances([a], [b], step_pattern="symmetric1")
        tensor([[1.]], dtype=torch.float64)
    """
    kernel = MotionKernel(tuple(blocks), band, normalise, step_pattern)
    _check(kernel, threads)
    a = read(x, kernel.blocks)
    b = a if y is None else read(y, kernel.blocks, name="y")
    if a.values.shape[1] != b.values.shape[1]:
        raise ShapeError(
            f"x has {a.values.shape[1]} columns but y has {b.values.shape[1]};"
            " needed the same columns on both sides"
        )
    if a.values.device != b.values.device:
        raise DeviceError(
            f"x is on {a.values.device} but y on {b.values.device}; move one to the other's device"
        )
    diagonal = 2.0 if step_pattern == "symmetric2" else 1.0
    if a.values.device.type == "cpu":
        count = threads or torch.get_num_threads()
        out = by_lanes(a, b, band=band, diagonal=diagonal, threads=count, progress=progress)
    else:
        out = by_diagonals(a, b, band=band, diagonal=diagonal, progress=progress)
    if kernel.normalise:
        n, m = (torch.tensor(s.lengths, device=out.device) for s in (a, b))
        out = out / (n[:, None] + m[None, :] - 1)
    return out


def _check(kernel: MotionKernel, threads: int | None) -> None:
    if kernel.step_pattern not in ("symmetric1", "symmetric2"):
        raise UnknownNameError("step pattern", kernel.step_pattern, ("symmetric1", "symmetric2"))
    if kernel.normalise and kernel.step_pattern == "symmetric1":
        raise DegenerateError(
            "normalise was asked with symmetric1, whose paths differ in weight, so there is"
            " nothing to divide by; choose symmetric2"
        )
    if kernel.band is not None and kernel.band < 0:
        raise DegenerateError(f"band is {kernel.band}; needed 0 steps or more, or None")
    if threads is not None and threads < 1:
        raise DegenerateError(f"threads is {threads}; needed at least 1, or None")
