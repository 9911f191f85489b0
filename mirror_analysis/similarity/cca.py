"""Canonical correlations of the principal components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float64
from torch import Tensor

from mirror_analysis.errors import DegenerateError
from mirror_analysis.results import Parameter
from mirror_analysis.similarity.measures import Invariance, Layer, Measure
from mirror_analysis.similarity.preparation import (
    Array,
    as_pair,
    need_rows,
    need_variation,
)


def svcca(x: Array, y: Array, *, variance: float = 0.99) -> float:
    """SVCCA: mean canonical correlation of the leading principal components, in [0, 1].

    Each side keeps the fewest components that hold `variance` of its summed squared singular
    values; the mean is over as many correlations as the smaller side has components.
    Chance is not 0: it grows with the number of components over the number of samples, and
    once the components kept, k_x + k_y, outnumber the samples, k_x + k_y - (n - 1) correlations
    are 1 whatever the data. A value near 1 is then no evidence: judge it by its null only.

    Args:
        x: [sample, x_feature].
        y: [sample, y_feature], row i of the same sample as row i of x.
        variance: share of the variance to keep, in (0, 1].

    Returns:
        The mean correlation, no unit.

    Raises:
        ShapeError: if the sample counts differ.
        DegenerateError: if a representation is constant or not finite, there are fewer than 3
            samples, or `variance` is not in (0, 1].

    Source:
        Raghu et al. 2017, section 2.

    Example:
        >>> x = np.random.default_rng(0).standard_normal((50, 3))
        >>> round(svcca(x, x[:, :2] + 5), 6)
        1.0
    """
    a, b = as_pair(x, y)
    measure = SVCCA(variance)
    states = [measure.prepare(Layer(name, m)) for name, m in (("x", a), ("y", b))]
    return float(measure.values(states[:1], states[1:])[0, 0])


def principal_basis(
    centred: Float64[Tensor, "sample feature"], variance: float
) -> Float64[Tensor, "sample component"]:
    """Orthonormal scores of the fewest components that hold a share of the variance.

    Args:
        centred: [sample, feature], not all 0.
        variance: the share, in (0, 1].
    """
    scaled = centred / centred.abs().max()
    n, d = scaled.shape
    # The eigenvectors of the smaller product are exact enough for components that are not tiny.
    power, vectors = torch.linalg.eigh(scaled.T @ scaled if d <= n else scaled @ scaled.T)
    power, vectors = power.flip(0).clamp(min=0), vectors.flip(1)
    kept = _count(power, variance)
    if power[kept - 1] > 1e-8 * power[0]:
        if d > n:
            return vectors[:, :kept].contiguous()
        return scaled @ vectors[:, :kept] / power[:kept].sqrt()
    basis, singular, _ = torch.linalg.svd(scaled, full_matrices=False)
    rank = int((singular > singular[0] * max(n, d) * torch.finfo(singular.dtype).eps).sum())
    return basis[:, : min(rank, _count(singular.square(), variance))].contiguous()


def _count(power: Tensor, variance: float) -> int:
    if variance == 1:
        return len(power)
    share = power.cumsum(0) / power.sum()
    # Rounding must not ask for one component more, nor for more than there are.
    return min(int((share < variance - 1e-12).sum()) + 1, len(power))


@dataclass(frozen=True)
class SVCCA(Measure):
    """`svcca` for whole grids: one orthonormal basis per layer.

    Attributes:
        variance: share of the variance each side keeps, in (0, 1].
        draws: most permutations to draw; each costs one eigenproblem per cell, so fewer are
            drawn than of the other measures, and the score records how many.
    """

    name: ClassVar[str] = "svcca"
    lowest: ClassVar[float] = 0.0
    invariances: ClassVar[frozenset[Invariance]] = frozenset({"rotation", "scale", "shift"})
    variance: float = 0.99
    draws: int = 199

    @property
    def most_draws(self) -> int | None:
        """Permutations worth their cost."""
        return self.draws

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The settings that decide the value."""
        return {"variance": self.variance}

    def prepare(self, layer: Layer) -> Float64[Tensor, "sample component"]:
        """Orthonormal scores of the components kept."""
        if not 0 < self.variance <= 1:
            raise DegenerateError(
                f"svcca got variance {self.variance}; needed a share in (0, 1], such as 0.99"
            )
        need_rows(len(layer), 3, measure=self.name)
        need_variation(layer.centred, name=layer.name)
        return principal_basis(layer.centred, self.variance)

    def values(self, x: Sequence[Tensor], y: Sequence[Tensor]) -> Tensor:
        """Mean singular value of the product of every two bases, [x layer, y layer]."""
        cells = [_mean_singular_value(a.T @ b) for a in x for b in y]
        return torch.stack(cells).reshape(len(x), len(y))

    def null(self, x: Sequence[Tensor], y: Sequence[Tensor], permutations: Tensor) -> Tensor:
        """The same with the rows of every y permuted, [draw, x layer, y layer]."""
        left, right = torch.cat(list(x), dim=1), torch.cat(list(y), dim=1)
        sizes_x, sizes_y = [a.shape[1] for a in x], [b.shape[1] for b in y]
        out = torch.empty(
            len(permutations), len(x), len(y), dtype=torch.float64, device=left.device
        )
        for draw, order in enumerate(permutations):
            product = left.T @ right[order]
            for i, band in enumerate(torch.split(product, sizes_x, dim=0)):
                for j, block in enumerate(torch.split(band, sizes_y, dim=1)):
                    out[draw, i, j] = _mean_singular_value(block)
        return out


def _mean_singular_value(block: Tensor) -> Tensor:
    """By the eigenvalues of the smaller Gram: several times cheaper than svdvals, exact to 1e-8."""
    gram = block @ block.T if block.shape[0] <= block.shape[1] else block.T @ block
    return torch.linalg.eigvalsh(gram).clamp(0, 1).sqrt().mean()
