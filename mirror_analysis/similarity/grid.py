"""All layers of one model against all layers of another, in every measure, with its inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.errors import DegenerateError, DeviceError, ShapeError
from mirror_analysis.inference.jackknife import folds as assign_folds
from mirror_analysis.inference.jackknife import jackknife_interval
from mirror_analysis.inference.maximum import p_max as max_p
from mirror_analysis.inference.permutation import p_value, permutations
from mirror_analysis.inference.units import Labels
from mirror_analysis.results import Comparison, Null, Score
from mirror_analysis.similarity.measures import DEFAULT, Layer, Measure, load_measure
from mirror_analysis.similarity.preparation import Array, as_matrix, residual

Progress = Callable[[int, int], None]

# Draws between two reports of progress.
_BATCH = 50


def grid(
    x: Mapping[str, Array],
    y: Mapping[str, Array],
    *,
    measures: Sequence[str | Measure] = DEFAULT,
    units: Labels | None = None,
    within: Labels | None = None,
    draws: int = 999,
    folds: int = 32,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Every layer of x against every layer of y in every measure.

    Each cell has its value, a delete-a-group jackknife interval, the null of exchanged units,
    its own p and the p corrected for the maximum over the measure's cells. Orders and folds
    depend on the rows and the seed only, so two grids on the same rows can be subtracted.

    With `within`, group means are removed from every column of both sides and then everything
    is measured; units trade places inside groups only, and group means are taken anew without
    each fold. What unrelated layers give is then not exactly `Measure.chance`; the null says it.

    A layer on which a measure is not defined gives scores without a value and the reason.

    Args:
        x: layer name -> [sample, x_feature].
        y: layer name -> [sample, y_feature], row i of the same sample everywhere.
        measures: names out of `MEASURES`, or measures with settings of their own.
        units: [sample] labels of independent units, such as episode ids; None for every row.
        within: [sample] group labels, such as tasks; None for one group.
        draws: permutations; 0 for no null. A measure may take fewer; its scores say so.
        folds: groups of units left out in turn; 0 for no intervals.
        seed: of orders and folds.
        progress: called with (steps done, steps in all).

    Returns:
        Scores by measure, then x layer, then y layer, and jackknife replicates.

    Raises:
        ShapeError: if sample or label counts differ, a side has no layers, or units that may
            trade places have different numbers of rows.
        DegenerateError: if units or groups are too few.
        DeviceError: if layers are on different devices.
        UnknownNameError: if a measure is not known.

    Example:
        >>> comparison = grid({"conv1": u}, {"fc1": e, "fc2": f}, units=episode, within=task)
        >>> comparison.best("linear_cka").p_max
        0.001
    """
    chosen = [load_measure(m) for m in measures]
    sides = _Side.read(x, "x"), _Side.read(y, "y")
    rows, device = _agree(sides)
    labels = np.arange(rows) if units is None else np.asarray(units)
    groups = _groups(within, rows, device)
    if len(labels) != rows:
        raise ShapeError(f"units has {len(labels)} labels for {rows} rows; needed one per row")
    scheme = ("rows" if units is None else "units") + (
        " within groups" if groups is not None else ""
    )

    orders = None
    if draws:
        drawn = permutations(labels, within=within, draws=draws, seed=seed)
        orders = torch.from_numpy(drawn).to(device)
    counts = [_draws(m, draws) for m in chosen]
    fold = assign_folds(labels, within=within, count=folds, seed=seed) if folds else None
    number = 0 if fold is None else int(fold.max()) + 1
    steps = _Steps(sum(counts) + number * len(chosen) + len(chosen), progress)

    cells = [_measure(m, sides, groups) for m in chosen]
    steps.add(len(chosen))
    nulls = [
        _null(m, c, None if orders is None else orders[:count], steps)
        for m, c, count in zip(chosen, cells, counts, strict=True)
    ]
    replicates = [np.full((number, *c.values.shape), np.nan) for c in cells]
    for k in range(number):
        assert fold is not None
        keep = torch.from_numpy(np.flatnonzero(fold != k)).to(device)
        kept = tuple(side.take(keep) for side in sides)
        left = None if groups is None else torch.unique(groups[keep], return_inverse=True)[1]
        layers = _layers(kept, left)
        for m, out in zip(chosen, replicates, strict=True):
            out[k] = _values(m, layers, kept).values
            steps.add(1)

    scores: list[Score] = []
    by_cell: dict[tuple[str, str, str], Sequence[float]] = {}
    for m, c, null, r in zip(chosen, cells, nulls, replicates, strict=True):
        made, kept_replicates = _scores(m, c, null, r, scheme, len(np.unique(labels)), groups)
        scores += made
        by_cell |= kept_replicates
    return Comparison(tuple(scores), by_cell)


@dataclass(frozen=True, eq=False)
class _Side:
    """Layers of one model as float64, or the reason why one cannot be measured."""

    name: str
    layers: Mapping[str, Tensor | str]

    @staticmethod
    def read(layers: Mapping[str, Array], name: str) -> _Side:
        if not layers:
            raise ShapeError(f"{name} has no layers; needed at least one [sample, feature]")
        out: dict[str, Tensor | str] = {}
        for layer, values in layers.items():
            try:
                out[layer] = as_matrix(values, name=_title(name, layer))
            except DegenerateError as error:
                out[layer] = str(error)
        return _Side(name, out)

    def take(self, rows: Tensor) -> _Side:
        return _Side(
            self.name, {k: v if isinstance(v, str) else v[rows] for k, v in self.layers.items()}
        )


@dataclass(frozen=True, eq=False)
class _Cells:
    """One measure of all layer pairs.

    Attributes:
        names: layer names of x and of y.
        values: [x layer, y layer], NaN where not defined.
        reasons: why a layer of x, or of y, is not defined.
        states: what the measure prepared, of the layers of x and y where it could.
    """

    names: tuple[list[str], list[str]]
    values: NDArray[np.float64]
    reasons: tuple[dict[str, str], dict[str, str]]
    states: tuple[list[Any], list[Any]]

    @property
    def defined(self) -> tuple[list[int], list[int]]:
        """Positions of the layers that have a state."""
        first, second = (
            [i for i, n in enumerate(names) if n not in reasons]
            for names, reasons in zip(self.names, self.reasons, strict=True)
        )
        return first, second


class _Steps:
    """Counts what is done and tells whoever asked."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def add(self, count: int) -> None:
        self.done += count
        if self.progress is not None:
            self.progress(self.done, self.total)


def _title(side: str, layer: str) -> str:
    return f"layer '{layer}' of {side}" if layer else side


def _agree(sides: Sequence[_Side]) -> tuple[int, torch.device]:
    seen: tuple[str, int, torch.device] | None = None
    for side in sides:
        for layer, values in side.layers.items():
            if isinstance(values, str):
                continue
            title = _title(side.name, layer)
            if seen is None:
                seen = title, len(values), values.device
            if len(values) != seen[1]:
                raise ShapeError(
                    f"{seen[0]} has {seen[1]} samples but {title} has {len(values)};"
                    " pair() them first"
                )
            if values.device != seen[2]:
                raise DeviceError(
                    f"{seen[0]} is on {seen[2]} but {title} on {values.device};"
                    " move all layers to one device"
                )
    if seen is None:
        reasons = [v for side in sides for v in side.layers.values() if isinstance(v, str)]
        raise DegenerateError(f"no layer can be measured: {reasons[0]}")
    return seen[1], seen[2]


def _groups(within: Labels | None, rows: int, device: torch.device) -> Tensor | None:
    if within is None:
        return None
    labels = np.asarray(within)
    if labels.shape != (rows,):
        raise ShapeError(f"within has shape {labels.shape} for {rows} rows; needed one per row")
    return torch.from_numpy(np.unique(labels, return_inverse=True)[1]).to(device)


def _draws(measure: Measure, draws: int) -> int:
    return draws if measure.most_draws is None else min(draws, measure.most_draws)


_Layers = tuple[dict[str, Layer], dict[str, Layer]]


def _layers(sides: Sequence[_Side], groups: Tensor | None) -> _Layers:
    first, second = (
        {
            name: Layer(
                _title(side.name, name),
                values if groups is None else residual(values, groups),
                groups,
            )
            for name, values in side.layers.items()
            if not isinstance(values, str)
        }
        for side in sides
    )
    return first, second


def _measure(measure: Measure, sides: Sequence[_Side], groups: Tensor | None) -> _Cells:
    return _values(measure, _layers(sides, groups), sides)


def _values(measure: Measure, layers: _Layers, sides: Sequence[_Side]) -> _Cells:
    reasons: tuple[dict[str, str], dict[str, str]] = ({}, {})
    states: tuple[list[Any], list[Any]] = ([], [])
    for number, side in enumerate(sides):
        for name, layer in side.layers.items():
            if isinstance(layer, str):
                reasons[number][name] = layer
                continue
            try:
                states[number].append(measure.prepare(layers[number][name]))
            except DegenerateError as error:
                reasons[number][name] = str(error)
    names = list(sides[0].layers), list(sides[1].layers)
    values = np.full((len(names[0]), len(names[1])), np.nan)
    cells = _Cells(names, values, reasons, states)
    if all(states):
        values[np.ix_(*cells.defined)] = measure.values(*states).cpu().numpy()
    return cells


def _null(
    measure: Measure, cells: _Cells, orders: Tensor | None, steps: _Steps
) -> NDArray[np.float64] | None:
    """[draw, x layer, y layer] of the layers that are defined."""
    if orders is None:
        return None
    parts = []
    for batch in torch.split(orders, _BATCH):
        if all(cells.states):
            parts.append(measure.null(*cells.states, batch).cpu().numpy())
        steps.add(len(batch))
    return np.concatenate(parts) if parts else None


def _scores(
    measure: Measure,
    cells: _Cells,
    null: NDArray[np.float64] | None,
    replicates: NDArray[np.float64],
    scheme: str,
    units: int,
    groups: Tensor | None,
) -> tuple[list[Score], dict[tuple[str, str, str], Sequence[float]]]:
    rows, columns = cells.defined
    p_cell = p_grid = mean = sd = np.empty((0, 0))
    if null is not None:
        values = cells.values[np.ix_(rows, columns)]
        p_cell, p_grid = p_value(values, null), max_p(values, null)
        mean, sd = null.mean(axis=0), null.std(axis=0)
    scores, kept = [], {}
    for i, x_layer in enumerate(cells.names[0]):
        for j, y_layer in enumerate(cells.names[1]):
            name = measure.name
            score = Score(
                measure=name,
                value=None,
                x="x",
                y="y",
                n=units,
                x_layer=x_layer,
                y_layer=y_layer,
                parameters=measure.parameters,
                within="" if groups is None else "groups",
                undefined=cells.reasons[0].get(x_layer) or cells.reasons[1].get(y_layer, ""),
            )
            scores.append(score)
            if score.undefined:
                continue
            value = float(cells.values[i, j])
            fields: dict[str, Any] = {"value": value}
            # A layer can be constant without one fold: the value stands, without an interval.
            if len(replicates) and np.isfinite(replicates[:, i, j]).all():
                kept[name, x_layer, y_layer] = replicates[:, i, j].tolist()
                fields["interval"] = jackknife_interval(value, replicates[:, i, j])
            if null is not None:
                a, b = rows.index(i), columns.index(j)
                fields["null"] = Null(float(mean[a, b]), float(sd[a, b]), len(null), scheme)
                fields["p_value"] = float(p_cell[a, b])
                fields["p_max"] = float(p_grid[a, b])
            scores[-1] = _with(score, fields)
    return scores, kept


def _with(score: Score, fields: dict[str, Any]) -> Score:
    import msgspec

    return msgspec.structs.replace(score, **fields)
