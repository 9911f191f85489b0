"""Contracts that plug-ins of other people can be held to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mirror_analysis.errors import DegenerateError
from mirror_analysis.similarity.measures import Layer, Measure, load_measure

_ROWS, _WIDTH = 60, 6

Matrix = NDArray[np.float64]


def check_measure(measure: str | Measure, *, seed: int = 0) -> None:
    """Holds a similarity measure to what it declares.

    Range, symmetry, each declared invariance, that a layer is as like itself as can be, that
    related layers stand above unrelated ones, chance where it is stated, that the null is the
    measure of permuted rows, and that a constant or too short layer is refused.

    Args:
        measure: a name out of `MEASURES`, or a measure.
        seed: of the random layers.

    Raises:
        AssertionError: naming the measure, what it declares and what it did.
        UnknownNameError: if there is no measure of that name.

    Example:
        >>> check_measure("linear_cka")
    """
    m = load_measure(measure)
    g = np.random.default_rng(seed)
    x = g.standard_normal((_ROWS, _WIDTH))
    y = x @ g.standard_normal((_WIDTH, 4)) + g.standard_normal((_ROWS, 4))
    value = _value(m, x, y)
    _expect(
        m.lowest - 1e-9 <= value <= m.highest + 1e-9,
        f"{m.name} declares the range [{m.lowest}, {m.highest}] but gave {value}",
    )
    own = _value(m, x, x)
    _expect(
        own > value, f"{m.name} of a layer with itself is {own}, not above {value} with another"
    )
    if m.symmetric:
        _same(m, "symmetry", value, _value(m, y, x))
    changes: dict[str, Callable[[Matrix], Matrix]] = {
        "rotation": lambda z: z @ np.linalg.qr(g.standard_normal((_WIDTH, _WIDTH)))[0],
        "scale": lambda z: 37.0 * z,
        "shift": lambda z: z + 100 * g.standard_normal(_WIDTH),
        "linear": lambda z: z @ (g.standard_normal((_WIDTH, _WIDTH)) + 3 * np.eye(_WIDTH)),
    }
    for name, change in changes.items():
        if name in m.invariances:
            _same(m, f"invariance to {name}", value, _value(m, change(x), y))
    order = g.permutation(_ROWS)
    _same(m, "independence of the order of rows", value, _value(m, x[order], y[order]))
    _check_null(m, x, y, g)
    for name, bad in {"constant": np.ones((_ROWS, 3)), "one-row": x[:1]}.items():
        try:
            given = _value(m, bad, y[: len(bad)])
        except DegenerateError:
            continue
        raise AssertionError(f"{m.name} gave {given} for a {name} layer; needed a DegenerateError")


def _check_null(m: Measure, x: Matrix, y: Matrix, g: np.random.Generator) -> None:
    a, b = _state(m, x), _state(m, y)
    orders = np.stack([g.permutation(_ROWS) for _ in range(200)])
    null = m.null([a], [b], torch.from_numpy(orders))
    shape = tuple(null.shape)
    _expect(shape == (200, 1, 1), f"{m.name}.null has shape {shape}; needed [draw, x, y]")
    draws = null[:, 0, 0].cpu().numpy()
    _same(m, "null of permuted rows", _value(m, x, y[orders[0]]), float(draws[0]))
    value = _value(m, x, y)
    _expect(
        value > float(np.quantile(draws, 0.99)),
        f"{m.name} gave {value} to related layers, not above the null of mean {draws.mean()}",
    )
    chance = m.chance(_ROWS)
    if chance is not None:
        error = 5 * float(draws.std()) / len(draws) ** 0.5
        _expect(
            abs(float(draws.mean()) - chance) < error,
            f"{m.name} declares chance {chance} but the null mean is {draws.mean()} ± {error}",
        )


def _state(m: Measure, values: Matrix) -> Any:
    return m.prepare(Layer("layer", torch.from_numpy(np.ascontiguousarray(values))))


def _value(m: Measure, x: Matrix, y: Matrix) -> float:
    return float(m.values([_state(m, x)], [_state(m, y)])[0, 0])


def _same(m: Measure, what: str, before: float, after: float) -> None:
    close = abs(before - after) <= 1e-7 * max(1.0, abs(before))
    _expect(close, f"{m.name} declares {what} but {before} became {after}")


def _expect(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)
