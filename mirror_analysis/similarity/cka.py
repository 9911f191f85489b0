"""Centred kernel alignment: linear, radial and polynomial kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from mirror_analysis.errors import DegenerateError
from mirror_analysis.matrices import Array
from mirror_analysis.results import Parameter
from mirror_analysis.similarity.measures import Invariance, Layer, of_two
from mirror_analysis.similarity.pairwise.measure import PairwiseMeasure
from mirror_analysis.similarity.pairwise.pairs import Kind, Pairs, gram_pairs, strip_pairs
from mirror_analysis.similarity.preparation import need_rows, need_variation

# Rows whose distances give the median where there are more samples.
_MEDIAN_ROWS = 2048


def linear_cka(x: Array, y: Array, *, debiased: bool = True) -> float:
    """Linear CKA of two representations of the same samples.

    `HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y))`. 1 means equal up to rotation, scale and shift.
    Debiased (each HSIC the unbiased HSIC_1) it lies in [-1, 1] and unrelated representations
    score 0 in expectation, so single values can be slightly negative; biased it lies in [0, 1]
    and nears 1 for anything with more features than samples. The biased value is the RV
    coefficient.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.
        debiased: whether to use the unbiased HSIC estimator.

    Returns:
        The similarity, no unit.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, or there are fewer than
            4 samples (3 when biased).

    Source:
        Kornblith et al. 2019, section 3; Song et al. 2012, equation 4 (HSIC_1).

    Example:
        >>> x = np.arange(10.0).reshape(5, 2) % 3
        >>> round(linear_cka(x, 7 * x + 1000), 6)
        1.0
    """
    return of_two(LinearCKA(debiased), x, y)


def rbf_cka(x: Array, y: Array, *, median_fraction: float = 0.5, debiased: bool = True) -> float:
    """CKA with Gaussian kernels `exp(-d² / (2 s²))`, s a fraction of the median distance.

    The bandwidth of each side is `median_fraction` times the root of the median squared distance
    over all ordered pairs, each sample with itself among them, as in the published code.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.
        median_fraction: bandwidth as a fraction of the median distance, above 0. Small ones see
            near neighbours only; large ones approach linear CKA.
        debiased: whether to use the unbiased HSIC estimator.

    Returns:
        The similarity, no unit; ranges as for `linear_cka`.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, there are fewer than 4
            samples (3 when biased), or the fraction is not above 0.

    Source:
        Kornblith et al. 2019, section 3 and appendix.

    Example:
        >>> x = np.arange(10.0).reshape(5, 2) % 3
        >>> round(rbf_cka(x, 7 * x + 1000), 6)
        1.0
    """
    return of_two(RBFCKA(median_fraction, debiased), x, y)


def polynomial_cka(
    x: Array, y: Array, *, degree: int = 3, constant: float = 1.0, debiased: bool = True
) -> float:
    """CKA with polynomial kernels `(constant + a . b / s)^degree` of centred rows a and b.

    s is the mean squared norm of the centred rows, so that the scale of the features and an
    offset common to all samples do not matter.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.
        degree: 1 or more; 1 is linear CKA.
        constant: weight of the lower degrees, at least 0.
        debiased: whether to use the unbiased HSIC estimator.

    Returns:
        The similarity, no unit; ranges as for `linear_cka`.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, there are fewer than 4
            samples (3 when biased), or a setting is out of range.

    Source:
        Cortes et al. 2012, section 2; kernel as in Schoelkopf and Smola 2002, section 2.2.

    Example:
        >>> x = np.arange(10.0).reshape(5, 2) % 3
        >>> round(polynomial_cka(x, 7 * x + 1000), 6)
        1.0
    """
    return of_two(PolynomialCKA(degree, constant, debiased), x, y)


def rv(x: Array, y: Array) -> float:
    """RV coefficient, a squared correlation of whole configurations, in [0, 1].

    `tr(S_xy S_yx) / sqrt(tr(S_xx²) tr(S_yy²))` with S the covariances: biased linear CKA by its
    older name. It nears 1 for anything with more features than samples; `linear_cka` does not.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.

    Returns:
        The coefficient, no unit.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, or there are fewer than
            3 samples.

    Source:
        Robert and Escoufier 1976; its permutation moments in Josse et al. 2008.

    Example:
        >>> x = np.arange(10.0).reshape(5, 2) % 3
        >>> round(rv(x, 7 * x + 1000), 6)
        1.0
    """
    return of_two(RV(), x, y)


def cka_angular_distance(x: Array, y: Array, *, debiased: bool = False) -> float:
    """The angle whose cosine is linear CKA, in radians: [0, pi / 2], or to pi when debiased.

    Biased, it is a metric on representations up to rotation, scale and shift; debiased, values
    above 1 or below -1 by rounding are cut, and the triangle inequality holds on average only.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.
        debiased: whether to use the unbiased HSIC estimator.

    Returns:
        The angle in radians.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: as `linear_cka`.

    Source:
        Williams et al. 2021, section 3.

    Example:
        >>> x = np.arange(10.0).reshape(5, 2) % 3
        >>> round(cka_angular_distance(x, 7 * x + 1000), 3)
        0.0
    """
    return math.acos(min(1.0, max(-1.0, linear_cka(x, y, debiased=debiased))))


@dataclass(frozen=True)
class LinearCKA(PairwiseMeasure):
    """`linear_cka` for whole grids: one centred Gram per layer.

    Attributes:
        debiased: whether to use the unbiased HSIC estimator.
    """

    name: ClassVar[str] = "linear_cka"
    lowest: ClassVar[float] = -1.0
    invariances: ClassVar[frozenset[Invariance]] = frozenset({"rotation", "scale", "shift"})
    debiased: bool = True

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The settings."""
        return {"debiased": self.debiased}

    def chance(self, samples: int) -> float | None:
        """0 when debiased."""
        return 0.0 if self.debiased else None

    def prepare(self, layer: Layer) -> Pairs:
        """The centred Gram matrix in its parts."""
        return gram_pairs(_rows(self.name, layer, self.debiased), layer, kind=_kind(self.debiased))


@dataclass(frozen=True)
class RV(PairwiseMeasure):
    """`rv` for whole grids."""

    name: ClassVar[str] = "rv"
    lowest: ClassVar[float] = 0.0
    invariances: ClassVar[frozenset[Invariance]] = frozenset({"rotation", "scale", "shift"})

    def prepare(self, layer: Layer) -> Pairs:
        """The centred Gram matrix in its parts."""
        return gram_pairs(_rows(self.name, layer, False), layer, kind="biased")


@dataclass(frozen=True)
class RBFCKA(PairwiseMeasure):
    """`rbf_cka` for whole grids: one kernel matrix per layer.

    Attributes:
        median_fraction: bandwidth as a fraction of the median distance.
        debiased: whether to use the unbiased HSIC estimator.
    """

    name: ClassVar[str] = "rbf_cka"
    lowest: ClassVar[float] = -1.0
    interval_method: ClassVar[str] = "jackknife with the kernel held"
    invariances: ClassVar[frozenset[Invariance]] = frozenset({"rotation", "scale", "shift"})
    median_fraction: float = 0.5
    debiased: bool = True

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The settings, the bandwidth in words."""
        return {
            "bandwidth": f"{self.median_fraction:g} x median distance",
            "debiased": self.debiased,
        }

    def chance(self, samples: int) -> float | None:
        """0 when debiased."""
        return 0.0 if self.debiased else None

    def prepare(self, layer: Layer) -> Pairs:
        """The kernel matrix in its parts."""
        if not 0 < self.median_fraction < math.inf:
            raise DegenerateError(
                f"rbf_cka got median_fraction {self.median_fraction}; needed a number above 0,"
                " such as 0.5"
            )
        rows = _rows(self.name, layer, self.debiased)
        squares = rows.square().sum(dim=1)

        def distances(index: Tensor) -> Tensor:
            found = torch.addmm(squares[index, None] + squares, rows[index], rows.T, alpha=-2)
            found.clamp_(min=0)[torch.arange(len(index), device=index.device), index] = 0
            return found

        n = len(layer)
        sample = torch.linspace(0, n - 1, min(n, _MEDIAN_ROWS), device=rows.device).long()
        found = torch.cat([distances(part) for part in torch.split(sample, 256)])
        # Of two middle values torch takes the lower one.
        median = float(found.median() - (-found).median()) / 2
        # Distances of equal rows are not exactly 0 but what rounding leaves of their norms.
        if median <= 100 * torch.finfo(rows.dtype).eps * float(squares.median()):
            raise DegenerateError(
                f"{layer.name} has a median distance of 0 (half of all pairs are equal), so rbf_cka"
                " has no bandwidth; remove repeated samples or use linear_cka"
            )
        scale = -1 / (2 * self.median_fraction**2 * median)
        return strip_pairs(
            lambda index: distances(index).mul_(scale).exp_(), layer, kind=_kind(self.debiased)
        )


@dataclass(frozen=True)
class PolynomialCKA(PairwiseMeasure):
    """`polynomial_cka` for whole grids: one kernel matrix per layer.

    Attributes:
        degree: of the polynomial.
        constant: weight of the lower degrees.
        debiased: whether to use the unbiased HSIC estimator.
    """

    name: ClassVar[str] = "polynomial_cka"
    lowest: ClassVar[float] = -1.0
    interval_method: ClassVar[str] = "jackknife with the kernel held"
    invariances: ClassVar[frozenset[Invariance]] = frozenset({"rotation", "scale", "shift"})
    degree: int = 3
    constant: float = 1.0
    debiased: bool = True

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The settings."""
        return {"degree": self.degree, "constant": self.constant, "debiased": self.debiased}

    def chance(self, samples: int) -> float | None:
        """0 when debiased."""
        return 0.0 if self.debiased else None

    def prepare(self, layer: Layer) -> Pairs:
        """The kernel matrix in its parts."""
        if self.degree < 1 or self.degree % 1 or not 0 <= self.constant < math.inf:
            raise DegenerateError(
                f"polynomial_cka got degree {self.degree} and constant {self.constant};"
                " needed a whole degree of at least 1 and a constant of at least 0"
            )
        rows = _rows(self.name, layer, self.debiased)
        # Divided by the value two rows of mean norm have with themselves: entries of size near 1.
        scale = (1 + self.constant) ** self.degree

        def raw(index: Tensor) -> Tensor:
            return (rows[index] @ rows.T).add_(self.constant).pow_(self.degree).div_(scale)

        return strip_pairs(raw, layer, kind=_kind(self.debiased))


def _kind(debiased: bool) -> Kind:
    return "unbiased" if debiased else "biased"


def _rows(measure: str, layer: Layer, debiased: bool) -> Float[Tensor, "sample feature"]:
    """Centred rows of mean squared norm 1, so that products stay in range."""
    need_rows(len(layer), 4 if debiased else 3, measure=measure)
    return layer.derive("unit rows", lambda: _unit(layer))


def _unit(layer: Layer) -> Tensor:
    need_variation(layer.centred, name=layer.name)
    # Brought near 1 first, so that squares of tiny or huge features stay in range.
    largest = max(float(layer.centred.max()), -float(layer.centred.min()))
    rows = layer.centred if 1e-9 < largest < 1e9 else layer.centred / largest
    size = torch.linalg.vector_norm(rows, dim=1).double().square().mean().sqrt()
    return rows / size.to(rows.dtype)
