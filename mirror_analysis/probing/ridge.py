"""Ridge regression of many problems at once, at all penalties from one decomposition."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from mirror_analysis.probing.span import Span


def ridge_path(
    span: Span,
    y: Float[Tensor, "problem row target"],
    strengths: Float[Tensor, "problem strength"],
) -> Float[Tensor, "problem strength axis target"]:
    """Minimises the penalised mean square of every problem at every strength, in closed form.

    `mean over rows of |w x + b - y|² / 2 + strength / 2 |w|²` on standardised features, the
    intercept free: along each axis `v = rowsᵀ y / (1 + strength * rows / scale²)`.
    scikit-learn's alpha is strength * rows.

    Args:
        span: the rows of each problem.
        y: [problem, row, target] in any unit; 0 in rows that are padding.
        strengths: [problem, strength] not negative.

    Returns:
        Maps in the coordinates of the span.

    Source:
        Hastie, Tibshirani and Friedman 2009, equation 3.47.
    """
    moments = span.rows.mT @ y
    shrunk = 1 + strengths[:, :, None] * (span.curb * span.count[:, None])[:, None]
    return moments[:, None] / shrunk[..., None]
