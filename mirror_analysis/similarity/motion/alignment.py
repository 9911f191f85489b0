"""Whether features are near one another where movements are: the sensorimotor alignment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from mirror_analysis.errors import DegenerateError, DeviceError, ShapeError, UnknownNameError
from mirror_analysis.inference.jackknife import folds as assign_folds
from mirror_analysis.inference.jackknife import jackknife_interval
from mirror_analysis.inference.permutation import p_value, permutations
from mirror_analysis.inference.units import Labels
from mirror_analysis.matrices import Array, as_matrix
from mirror_analysis.results import Interval, Null, Parameter, Score
from mirror_analysis.similarity.measures import Invariance, Layer, Measure
from mirror_analysis.similarity.motion.dtw import MotionKernel, dtw_distances
from mirror_analysis.similarity.motion.trajectories import MIXED, POSE, Block, Trajectories, unpad
from mirror_analysis.similarity.neighbors.aligned import CKNNA
from mirror_analysis.similarity.neighbors.nearest import Neighbors
from mirror_analysis.similarity.neighbors.sets import MutualKNN
from mirror_analysis.similarity.preparation import need_rows

__all__ = [
    "MIXED",
    "POSE",
    "Block",
    "MotionKernel",
    "SensorimotorAlignment",
    "dtw_distances",
    "motion_alignment",
    "motion_features",
    "motion_neighbors",
    "sensorimotor_alignment",
    "unpad",
]

Form = Literal["reciprocal", "elementwise"]

# Distances closer than this part of a row's largest are equal: they are sums of rounded costs.
_TIE = 1e-12


def sensorimotor_alignment(
    features: Array,
    motion: Trajectories,
    *,
    kernel: MotionKernel | None = None,
    k: int = 10,
    form: Form = "reciprocal",
    centred: bool = False,
) -> float:
    """Sensorimotor alignment: CKNNA between features and the neighbours of movements.

    `A(x, m) / sqrt(A(x, x) A(m, m))` with A the HSIC_1 of kernels masked by "j is among the k
    nearest of i on both sides": cosines on the side of the features, 1 for every neighbour on
    the side of the movements, whose neighbours are the nearest by dynamic time warping. At most
    about 1, near 0 of unrelated features; `motion_alignment` says how near.

    Args:
        features: [sample, feature].
        motion: trajectory i of sample i, each [time, dimension]; or their distances as one
            [sample, sample] array.
        kernel: how movements are compared; None for all columns as one vector. Not used where
            distances are given.
        k: neighbours per sample.
        form: "reciprocal" as published, where an edge counts only if it runs both ways, or
            "elementwise", where every shared edge counts.
        centred: whether to remove column means of the features first.

    Returns:
        The alignment, no unit.

    Raises:
        ShapeError: if counts differ, or trajectories or distances have the wrong shape.
        DegenerateError: if features are constant, a value is not finite, there are fewer than
            k + 2 samples, distances are negative or not symmetric, or no neighbours are
            reciprocal.
        DeviceError: if features and movements are on two devices.

    Source:
        CKNNA: Huh et al. 2024, appendix A. The published sensorimotor alignment is this with
        `MotionKernel(POSE)`.

    Example:
        >>> g = np.random.default_rng(0)
        >>> paths = [np.cumsum(g.standard_normal((30, 3)), axis=0) for _ in range(200)]
        >>> ends = np.stack([path[-1] for path in paths])
        >>> round(sensorimotor_alignment(ends, paths), 2)
        0.29
    """
    measure = SensorimotorAlignment(k, form, centred)
    x, distances = _pair(features, motion, kernel or MotionKernel())
    side, other = measure.prepare(Layer("features", x)), measure.of(distances)
    return float(measure.values([side], [other])[0, 0])


def motion_alignment(
    features: Array,
    motion: Trajectories,
    *,
    measure: SensorimotorAlignment | None = None,
    kernel: MotionKernel | None = None,
    units: Labels | None = None,
    within: Labels | None = None,
    draws: int = 999,
    folds: int = 32,
    seed: int = 0,
) -> Score:
    """`sensorimotor_alignment` with its null, p and interval.

    The null exchanges the movements of whole units; the interval is a delete-a-group jackknife
    over units, neighbours found anew on both sides without each group.

    Args:
        features: [sample, feature].
        motion: trajectory i of sample i, or [sample, sample] distances.
        measure: with settings of its own; None for the published ones.
        kernel: how movements are compared; where distances are given, how they were made, for
            the record.
        units: [sample] labels of independent units, such as episode ids; None for every sample.
        within: [sample] labels inside whose groups units trade places; None for one group. The
            value stays that over all samples: no group means are removed.
        draws: permutations; 0 for no null.
        folds: groups of units left out in turn; 0 for no interval.
        seed: of orders and folds.

    Returns:
        A score of "features" against "motion", settings of measure and kernel in its parameters.

    Raises:
        ShapeError: as `sensorimotor_alignment`, or if labels do not fit.
        DegenerateError: as `sensorimotor_alignment`, or if units or groups are too few.
        DeviceError: if features and movements are on two devices.
    """
    chosen = measure or SensorimotorAlignment()
    given = _are_distances(motion)
    x, distances = _pair(features, motion, kernel or MotionKernel())
    labels = np.arange(len(x)) if units is None else np.asarray(units)
    if labels.shape != (len(x),):
        raise ShapeError(
            f"units have shape {labels.shape} for {len(x)} samples; needed one label per sample"
        )
    side, other = [chosen.prepare(Layer("features", x))], [chosen.of(distances)]
    value = float(chosen.values(side, other)[0, 0])
    null, p, interval = None, None, None
    if draws:
        orders = permutations(labels, within=within, draws=draws, seed=seed)
        drawn = chosen.null(side, other, torch.from_numpy(orders).to(x.device)).cpu().numpy()
        what = "samples" if units is None else "units"
        scheme = what if within is None else f"{what} within groups"
        null = Null(float(drawn.mean()), float(drawn.std()), draws, scheme)
        p = float(p_value(value, drawn[:, 0, 0]))
    if folds:
        fold = assign_folds(labels, within=within, count=folds, seed=seed)
        interval = _interval(chosen, x, distances, torch.from_numpy(fold).to(x.device), value)
    unknown = given and kernel is None
    told = {"kernel": "distances as given"} if unknown else (kernel or MotionKernel()).parameters
    return Score(
        measure=chosen.name,
        value=value,
        x="features",
        y="motion",
        n=len(np.unique(labels)),
        interval=interval,
        null=null,
        p_value=p,
        parameters={**chosen.parameters, **told},
        within="" if within is None else "groups",
    )


def motion_neighbors(distances: Array, k: int) -> Neighbors:
    """The k nearest of every sample by given distances, each with kernel value 1.

    Samples equally near as the k-th share the places left among them evenly.

    Args:
        distances: [sample, sample]; the diagonal is not looked at.
        k: neighbours per sample.

    Raises:
        ShapeError: if distances are not square.
        DegenerateError: if k is below 1, there are fewer than k + 2 samples, or a distance is
            not finite, negative, or not the same both ways.
    """
    d = _distances(distances)
    n = len(d)
    if k < 1:
        raise DegenerateError(f"motion_neighbors got k {k}; needed at least 1 neighbour")
    need_rows(n, k + 2, measure="motion_neighbors")
    d.fill_diagonal_(torch.inf)
    last = d.topk(k, dim=1, largest=False).values[:, -1:]
    tie = _TIE * torch.where(d.isinf(), 0.0, d).amax(dim=1, keepdim=True)
    row, column = (d <= last + tie).nonzero().T
    sure = d[row, column] < (last - tie)[row, 0]
    count = torch.bincount(row[sure], minlength=n)
    share = (k - count).double() / torch.bincount(row[~sure], minlength=n)
    weight = torch.where(sure, 1.0, share[row])
    return Neighbors(n, row * n + column, weight, torch.ones_like(weight))


def motion_features(distances: Array) -> Float64[Tensor, "sample feature"]:
    """Features whose cosines fall exactly as the distances rise, so that any measure takes them.

    Rows of the root of `c I - D` with c its least value that leaves no negative eigenvalue: all
    rows have the same length and `cosine(i, j) = -D[i, j] / c`. Neighbours are those of the
    distances, and a debiased kernel measure, which leaves out the diagonal, sees the kernel -D.

    Args:
        distances: [sample, sample], as of `dtw_distances`.

    Returns:
        Float64 [sample, sample], a layer for a grid.

    Raises:
        ShapeError: if distances are not square.
        DegenerateError: if they are all 0, negative, not finite or not symmetric.

    Source:
        The shift by a constant is that of Cailliez 1983 for distances, here for similarities.
    """
    d = _distances(distances).fill_diagonal_(0)
    if not bool(d.any()):
        raise DegenerateError(
            f"all {len(d)} movements are the same; needed some that differ to compare them"
        )
    values, vectors = torch.linalg.eigh(-0.5 * (d + d.T))
    return vectors * (values - values[0]).clamp(min=0).sqrt()


@dataclass(frozen=True, eq=False)
class _Side:
    """A layer's neighbours as features and as movements, each with its alignment with itself."""

    graded: tuple[Neighbors, Tensor]
    binary: tuple[Neighbors, Tensor]


@dataclass(frozen=True)
class SensorimotorAlignment(Measure):
    """`sensorimotor_alignment` for whole grids: features on x, `motion_features` on y.

    Attributes:
        k: neighbours per sample.
        form: "reciprocal" or "elementwise".
        centred: whether to remove column means of features first.
    """

    name: ClassVar[str] = "sensorimotor_alignment"
    lowest: ClassVar[float] = -1.0
    symmetric: ClassVar[bool] = False
    invariances: ClassVar[frozenset[Invariance]] = frozenset({"rotation", "scale"})
    k: int = 10
    form: Form = "reciprocal"
    centred: bool = False

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The settings."""
        return {"k": self.k, "form": self.form, "centred": self.centred}

    def prepare(self, layer: Layer) -> _Side:
        """The neighbours of every sample by cosine."""
        need_rows(len(layer), 4, measure=self.name)
        return self._side(MutualKNN(k=self.k, centred=self.centred).prepare(layer), layer.name)

    def of(self, distances: Array) -> _Side:
        """The state of movements with these distances, to stand on the side of y."""
        return self._side(motion_neighbors(distances, self.k), "motion")

    def values(self, x: Sequence[_Side], y: Sequence[_Side]) -> Tensor:
        """Alignment over shared neighbours, [x layer, y layer]."""
        return self._measure.values([s.graded for s in x], [s.binary for s in y])

    def null(self, x: Sequence[_Side], y: Sequence[_Side], permutations: Tensor) -> Tensor:
        """The same with the rows of every y permuted, [draw, x layer, y layer]."""
        return self._measure.null([s.graded for s in x], [s.binary for s in y], permutations)

    @property
    def _measure(self) -> CKNNA:
        return CKNNA(k=self.k, form=self.form)

    def _side(self, edges: Neighbors, name: str) -> _Side:
        if self.form not in ("reciprocal", "elementwise"):
            raise UnknownNameError("form of cknna", self.form, ("reciprocal", "elementwise"))
        binary = replace(edges, cosine=torch.ones_like(edges.cosine))
        return _Side(self._with_own(edges, name), self._with_own(binary, name))

    def _with_own(self, edges: Neighbors, name: str) -> tuple[Neighbors, Tensor]:
        # Against a self-alignment of 1 on both sides, what is left is the numerator.
        one = torch.ones((), dtype=torch.float64, device=edges.key.device)
        own = self._measure.values([(edges, one)], [(edges, one)])[0, 0]
        if float(own) <= 0:
            raise DegenerateError(
                f"{name} has no positive alignment with itself over {self.k} neighbours"
                f" of {edges.samples} samples; raise k or add samples"
            )
        return edges, own


def _interval(
    measure: SensorimotorAlignment, x: Tensor, distances: Tensor, fold: Tensor, value: float
) -> Interval | None:
    replicates = []
    for number in range(int(fold.max()) + 1):
        keep = (fold != number).nonzero()[:, 0]
        try:
            side = measure.prepare(Layer("features", x[keep]))
            other = measure.of(distances[keep][:, keep])
        except DegenerateError:
            # Defined on all samples but not without a few: the value stands, without an interval.
            return None
        replicates.append(float(measure.values([side], [other])[0, 0]))
    return jackknife_interval(value, replicates)


def _are_distances(motion: Trajectories) -> bool:
    return isinstance(motion, np.ndarray | Tensor) and motion.ndim == 2


def _pair(features: Array, motion: Trajectories, kernel: MotionKernel) -> tuple[Tensor, Tensor]:
    """Features and distances of the same samples, float64 on one device."""
    x = as_matrix(features, name="features")
    if len(motion) != len(x):
        raise ShapeError(
            f"features have {len(x)} samples but motion has {len(motion)};"
            " needed the movement of every sample, in the same order"
        )
    if isinstance(motion, np.ndarray | Tensor) and motion.ndim == 2:
        distances = _distances(motion)
    else:
        distances = kernel.distances(motion)
    if distances.device != x.device:
        raise DeviceError(
            f"features are on {x.device} but motion on {distances.device};"
            " move one to the other's device"
        )
    return x, distances


def _distances(values: Array) -> Tensor:
    """A copy of distances, checked."""
    d = as_matrix(values, name="distances", dtype=torch.float64).clone()
    if d.shape[0] != d.shape[1]:
        raise ShapeError(
            f"distances have shape {tuple(d.shape)}; needed [sample, sample]"
            " (a list of arrays where they are trajectories)"
        )
    if bool((d < 0).any()):
        raise DegenerateError(
            f"distances go down to {float(d.min()):.3g}; needed 0 or more, not similarities"
        )
    gap = float((d - d.T).abs().max())
    if gap > 1e-6 * float(d.max()):
        raise DegenerateError(
            f"distances differ by up to {gap:.3g} between the two ways; needed symmetric ones"
        )
    return d
