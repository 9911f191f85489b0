"""The standardised Pearson type III law: a gamma shifted to mean 0, sd 1, leaning either way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

# Below this the third moment moves no p by 1e-6 and the gamma's shape outgrows its series.
_NO_SKEW = 1e-5


def upper_tail(t: NDArray[np.float64], skewness: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(T >= t); of the normal law where there is no skewness.

    Args:
        t: [...] in standard deviations from the mean.
        skewness: [...] that broadcasts with t.

    Returns:
        [...] in [0, 1], NaN where t is.

    Example:
        >>> float(upper_tail(np.array(1.0), np.array(2.0)).round(4))  # an exponential
        0.1353
    """
    size = np.maximum(np.abs(skewness), _NO_SKEW)
    shape = 4 / size**2
    at = np.maximum(shape + np.sign(skewness) * t * 2 / size, 0.0)
    leaning = np.where(skewness > 0, special.gammaincc(shape, at), special.gammainc(shape, at))
    return np.where(np.abs(skewness) <= _NO_SKEW, special.ndtr(-t), leaning)


def from_normal(normal: NDArray[np.float64], skewness: NDArray[np.float64]) -> NDArray[np.float64]:
    """The quantiles at which normal ones stand.

    Args:
        normal: [...] quantiles of the normal law.
        skewness: [...] that broadcasts with them.

    Returns:
        [...] values of the same probability under the Pearson type III law.

    Example:
        >>> float(from_normal(np.array(0.0), np.array(2.0)).round(4))  # ln 2 - 1
        -0.3069
    """
    size, side = np.maximum(np.abs(skewness), _NO_SKEW), np.sign(skewness)
    shape, z = 4 / size**2, np.where(side < 0, -normal, normal)
    # From whichever tail is nearer, so that no quantile is lost to rounding.
    lower = special.gammaincinv(shape, special.ndtr(np.minimum(z, 0.0)))
    upper = special.gammainccinv(shape, special.ndtr(-np.maximum(z, 0.0)))
    leaning = side * (np.where(z < 0, lower, upper) - shape) * size / 2
    return np.where(np.abs(skewness) <= _NO_SKEW, normal, leaning)
