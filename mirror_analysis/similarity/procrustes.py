"""Procrustes similarity and distances, and the shape metrics between it and CCA."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float64
from torch import Tensor

from mirror_analysis.errors import DegenerateError
from mirror_analysis.matrices import Array
from mirror_analysis.similarity.cca.bases import exact_rows, whole_basis
from mirror_analysis.similarity.cca.nuclear import alignment, cross_norms, fold_sums, permuted_norms
from mirror_analysis.similarity.measures import Invariance, Layer, Measure, layers_of
from mirror_analysis.similarity.preparation import need_rows


def procrustes_similarity(x: Array, y: Array) -> float:
    """Procrustes similarity: how far a rotation brings x onto y, in [0, 1].

    `||X' Y||_* / (||X|| ||Y||)` of the centred rows: nuclear norm over Frobenius norms, the
    cosine of the angle left after the best rotation. 1 means equal up to rotation, scale and
    shift. Chance is above 0 and grows with the features over the samples: judge it by its null.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.

    Returns:
        The similarity, no unit.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, or there are fewer than
            3 samples.

    Source:
        Schönemann 1966; Williams et al. 2021, equation 4.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((50, 2))
        >>> round(procrustes_similarity(x, 3 * x[:, ::-1] + 1), 6)
        1.0
    """
    measure = ProcrustesSimilarity()
    a, b = (measure.prepare(layer) for layer in layers_of(x, y))
    return float(measure.values([a], [b])[0, 0])


def procrustes_angle_distance(x: Array, y: Array) -> float:
    """Angle left after the best rotation, arccos of `procrustes_similarity`, in [0, pi / 2].

    A metric on representations up to rotation, scale and shift: it obeys the triangle
    inequality. Right to about 1e-8 where the angle is near 0.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.

    Returns:
        The angle, radians.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, or there are fewer than
            3 samples.

    Source:
        Williams et al. 2021, equation 5.

    Example:
        >>> x = np.eye(3)[:, :2]
        >>> round(procrustes_angle_distance(x, np.diag([1, 0, 0])[:, :2]), 4)
        0.6591
    """
    return shape_distance(x, y)


def procrustes_distance(x: Array, y: Array) -> float:
    """Distance left after the best rotation of layers of norm 1, in [0, sqrt(2)].

    `min_R ||X / ||X|| - Y R / ||Y|| || = sqrt(2 - 2 s)` with s the `procrustes_similarity`; a
    metric. Its square, 2 - 2 s, is the orthogonal Procrustes distance of Ding et al. 2021.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.

    Returns:
        The distance, no unit.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, or there are fewer than
            3 samples.

    Source:
        Williams et al. 2021, equation 4; Ding et al. 2021, section 2 (squared).

    Example:
        >>> x = np.eye(3)[:, :2]
        >>> round(procrustes_distance(x, np.diag([1, 0, 0])[:, :2]), 4)
        0.6472
    """
    return float(max(0.0, 2 - 2 * procrustes_similarity(x, y)) ** 0.5)


def shape_distance(x: Array, y: Array, *, alpha: float = 1.0) -> float:
    """Angle between two representations after partial whitening and the best rotation.

    Each side's centred rows X become `X (alpha I + (1 - alpha) (X' X)^-1/2)`, of norm 1; then
    the angle is that of `procrustes_angle_distance`, in [0, pi / 2]. alpha = 1 is that angle;
    alpha = 0 whitens wholly: the arccos of the summed canonical correlations over
    sqrt(k_x k_y). A metric for every alpha. Between 0 and 1 the mixture depends on the units of
    the features, as in the source: bring both sides to a common scale first.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.
        alpha: 1 for rotations only, 0 for all invertible linear maps, in [0, 1].

    Returns:
        The angle, radians.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, there are fewer than 3
            samples, or alpha is not in [0, 1].

    Source:
        Williams et al. 2021, equations 5, 10 and 11.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((50, 2))
        >>> round(shape_distance(x, x @ [[1, 2], [0, 1]], alpha=0.0), 6)
        0.0
    """
    if not 0 <= alpha <= 1:
        raise DegenerateError(
            f"shape_distance got alpha {alpha}; needed a number in [0, 1]:"
            " 1 for rotations only, 0 for all linear maps"
        )
    sides = []
    for layer in layers_of(x, y):
        need_rows(len(layer), 3, measure="shape_distance")
        basis = whole_basis(layer)
        scales = alpha * basis.scales + (1 - alpha)
        sides.append(basis.scores * (scales / torch.linalg.vector_norm(scales)))
    a, b = sides
    left, singular, right = torch.linalg.svd(a.T @ b, full_matrices=False)
    # The chord keeps the digits that the arccos of a number near 1 has lost.
    chord = torch.linalg.vector_norm(a @ left - b @ right.T)
    unmatched = _rest(a, left) + _rest(b, right.T)
    chord = (chord.square() + unmatched).sqrt()
    if float(singular.sum()) > 0.5:
        return float(2 * torch.asin((chord / 2).clamp(max=1)))
    return float(torch.acos(singular.sum().clamp(0, 1)))


def _rest(rows: Tensor, vectors: Tensor) -> Tensor:
    """What the rows hold outside the span of orthonormal vectors, squared."""
    return (rows - rows @ vectors @ vectors.T).square().sum()


@dataclass(frozen=True)
class ProcrustesSimilarity(Measure):
    """`procrustes_similarity` for whole grids: the rows once per layer, one eigenproblem per cell.

    Replicates of the jackknife are to first order, by each sample's part in the nuclear norm
    and in the two Frobenius norms. At 10 to 50 samples per feature the 95 % interval held the
    estimate's mean in 94 to 97 % of samples, the population's value, which lies below, in 84 to
    91 %.

    Attributes:
        draws: most permutations to draw; each costs one eigenproblem per cell.
    """

    name: ClassVar[str] = "procrustes_similarity"
    lowest: ClassVar[float] = 0.0
    invariances: ClassVar[frozenset[Invariance]] = frozenset({"rotation", "scale", "shift"})
    interval_method: ClassVar[str] = "infinitesimal jackknife"
    draws: int = 199

    @property
    def most_draws(self) -> int | None:
        """Permutations worth their cost."""
        return self.draws

    def prepare(self, layer: Layer) -> Float64[Tensor, "sample component"]:
        """The centred rows, of norm 1, with no more columns than samples.

        Raises:
            DegenerateError: if the layer is constant or has fewer than 3 samples.
        """
        need_rows(len(layer), 3, measure=self.name)
        if layer.values.shape[1] > len(layer):
            basis = whole_basis(layer)
            rows = basis.scores * (basis.scales / basis.scales.max())
        else:
            rows = exact_rows(layer)
            rows /= rows.abs().max()
        return rows / torch.linalg.matrix_norm(rows)

    def values(self, x: Sequence[Tensor], y: Sequence[Tensor]) -> Tensor:
        """Nuclear norm of the product of every two, [x layer, y layer]."""
        return cross_norms(x, y).clamp(max=1)

    def null(self, x: Sequence[Tensor], y: Sequence[Tensor], permutations: Tensor) -> Tensor:
        """The same with the rows of every y permuted, [draw, x layer, y layer]."""
        return permuted_norms(x, y, permutations).clamp(max=1)

    def leave_out(self, x: Sequence[Tensor], y: Sequence[Tensor], folds: Tensor) -> Tensor:
        """The similarity without each fold, to first order, [fold, x layer, y layer]."""
        shape = int(folds.max()) + 1, len(x), len(y)
        out = torch.empty(shape, dtype=torch.float64, device=folds.device)
        own_x, own_y = ([rows.square().sum(dim=1) / 2 for rows in side] for side in (x, y))
        for i, a in enumerate(x):
            for j, b in enumerate(y):
                crossed = alignment(a, b).crossed
                value = crossed.sum()
                lost, left = fold_sums(crossed - value * (own_x[i] + own_y[j]), folds)
                out[:, i, j] = value - len(folds) * lost / left
        return out
