"""All layers of one model against all layers of another, in every measure, with its inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.errors import DegenerateError, ShapeError, UnknownNameError
from mirror_analysis.inference.jackknife import folds as assign_folds
from mirror_analysis.inference.jackknife import jackknife_interval
from mirror_analysis.inference.multiplicity import q_values
from mirror_analysis.inference.permutation import circular_shifts, permutations
from mirror_analysis.inference.units import Labels
from mirror_analysis.matrices import Array
from mirror_analysis.results import Comparison, Null, Score
from mirror_analysis.similarity.laws import Law, drawn_law, exact_law
from mirror_analysis.similarity.measures import (
    DEFAULT,
    Layer,
    Measure,
    cheaper_by_rows,
    load_measure,
)
from mirror_analysis.similarity.sides import Side, agree, alike

Progress = Callable[[int, int], None]
NullKind = Literal["auto", "moments", "permutation"]
Exchange = Literal["units", "steps"]

# Up to here orders are drawn in a second or two, and are exact; above, "auto" takes moments.
_PERMUTED_ROWS = 256


def grid(
    x: Mapping[str, Array],
    y: Mapping[str, Array],
    *,
    measures: Sequence[str | Measure] = DEFAULT,
    units: Labels | None = None,
    within: Labels | None = None,
    exchange: Exchange = "units",
    null: NullKind = "auto",
    draws: int = 999,
    folds: int = 32,
    seed: int = 0,
    memory: int = 2 << 30,
    progress: Progress | None = None,
) -> Comparison:
    """Every layer of x against every layer of y in every measure.

    Each cell has its value, a delete-a-group jackknife interval, the null of exchanged units,
    its own p, the p corrected for the maximum over the measure's cells, and its false discovery
    rate among them. Orders and folds depend on the rows and the seed only, so two grids on the
    same rows can be subtracted.

    With `within`, group means are removed from every column of both sides and then everything
    is measured; units trade places inside groups only, and group means are taken anew without
    each fold. What unrelated layers give is then not exactly `Measure.chance`; the null says it.

    Up to 512 rows everything is multiplied in float64; above, layers of float32 or less are
    multiplied in float32 after centring in float64, which moves values by less than 1e-6.

    A layer on which a measure is not defined gives scores without a value and the reason.

    Args:
        x: layer name -> [sample, x_feature].
        y: layer name -> [sample, y_feature], row i of the same sample everywhere.
        measures: names out of `MEASURES`, or measures with settings of their own. Where one is
            there more than once, its scores are named with the settings that differ.
        units: [sample] labels of independent units, such as episode ids; None for every row.
        within: [sample] group labels, such as tasks; None for one group.
        exchange: what trades places under the null: "units" whole, or "steps": the rows of every
            unit are shifted around by a random offset of its own, which asks whether the two
            sides agree in time inside the units.
        null: "permutation" draws orders; "moments" uses the exact moments over all orders, for
            measures that have them, where rows are units and there are no groups; "auto" takes
            moments there above 256 rows and permutations everywhere else.
        draws: permutations; 0 for no null. A measure may take fewer; its scores say so.
        folds: groups of units left out in turn; 0 for no intervals.
        seed: of orders and folds.
        memory: bytes that the matrices over pairs of samples of all layers may take; beyond,
            they are made in blocks again and again.
        progress: called with (steps done, steps in all).

    Returns:
        Scores by measure, then x layer, then y layer, and jackknife replicates.

    Raises:
        ShapeError: if sample or label counts differ, a side has no layers, or units that may
            trade places have different numbers of rows.
        DegenerateError: if units or groups are too few, draws are negative, or moments are asked
            for where a measure has none.
        DeviceError: if layers are on different devices.
        UnknownNameError: if a measure, exchange or null is not known.

    Example:
        >>> comparison = grid({"conv1": u}, {"fc1": e, "fc2": f}, units=episode, within=task)
        >>> comparison.best("linear_cka").p_max
        0.001
    """
    _check(exchange, null, draws)
    chosen = [load_measure(m) for m in measures]
    titles = _titles(chosen)
    sides = alike((Side.read(x, "x"), Side.read(y, "y")))
    rows, device = agree(sides)
    labels = np.arange(rows) if units is None else np.asarray(units)
    groups = _groups(within, rows, device)
    if len(labels) != rows:
        raise ShapeError(f"units has {len(labels)} labels for {rows} rows; needed one per row")
    number = len(np.unique(labels))
    if exchange == "steps":
        scheme = "steps shifted inside units"
    else:
        scheme = "rows" if units is None else "units"
    if groups is not None:
        scheme += " within groups"
    free = exchange == "units" and groups is None and number == rows
    if null == "moments" and not free:
        raise DegenerateError(
            f"moments were asked for {scheme}; needed rows that all may trade places, so leave"
            " null at 'auto'"
        )
    exact = free and draws > 0 and null != "permutation"
    exact = exact and (null == "moments" or rows > _PERMUTED_ROWS)

    fold = assign_folds(labels, within=within, count=folds, seed=seed) if folds else None
    folded = None if fold is None else torch.from_numpy(fold).to(device)
    number_of_folds = 0 if fold is None else int(fold.max()) + 1
    budget = memory // (len(sides[0].layers) + len(sides[1].layers))
    by_rows = cheaper_by_rows(rows, sides[0].widths, sides[1].widths)
    numbers = None
    if number < rows:
        numbers = torch.from_numpy(np.unique(labels, return_inverse=True)[1]).to(device)

    def prepared(
        of: tuple[Side, Side], groups: Tensor | None, units: Tensor | None
    ) -> tuple[dict[str, Layer], dict[str, Layer]]:
        first, second = (
            side.prepared(groups, units, budget=budget, by_rows=by_rows) for side in of
        )
        return first, second

    layers = prepared(sides, groups, numbers)
    counts = [_draws(m, draws) for m in chosen]
    steps = _Steps(sum(counts) + (number_of_folds + 1) * len(chosen), progress)

    orders: Tensor | None = None
    cells: list[_Cells] = []
    laws: list[Law | None] = []
    replicates: list[NDArray[np.float64] | None] = []
    for m, count in zip(chosen, counts, strict=True):
        found = _values(m, layers, sides)
        steps.add(1)
        values, law = found.values[np.ix_(*found.defined)], None
        if exact and values.size:
            law = exact_law(m, found.states, values, scheme)
            if law is None and null == "moments":
                raise DegenerateError(
                    f"{m.name} has no exact moments; leave null at 'auto' or 'permutation'"
                )
        if law is None and count and values.size:
            if orders is None:
                orders = _orders(exchange, labels, within, draws, seed).to(device)
            law = drawn_law(m, found.states, values, orders[:count], scheme, steps.add)
        else:
            steps.add(count)
        cheap = None
        if folded is not None and groups is None and all(found.states):
            cheap = _left_out(m, found, folded)
        cells.append(found.bare(m))
        laws.append(law)
        replicates.append(cheap)
    missing = [k for k, r in enumerate(replicates) if r is None]
    steps.add(number_of_folds * (len(chosen) - len(missing)))
    anew = np.full((len(missing), number_of_folds, len(x), len(y)), np.nan)
    for k in range(number_of_folds if missing else 0):
        assert fold is not None
        keep = torch.from_numpy(np.flatnonzero(fold != k)).to(device)
        kept = sides[0].take(keep), sides[1].take(keep)
        left = None if groups is None else torch.unique(groups[keep], return_inverse=True)[1]
        rest = prepared(kept, left, None if numbers is None else numbers[keep])
        for out, position in zip(anew, missing, strict=True):
            out[k] = _values(chosen[position], rest, kept).values
            steps.add(1)
    for out, position in zip(anew, missing, strict=True):
        replicates[position] = out

    scores: list[Score] = []
    by_cell: dict[tuple[str, str, str], Sequence[float]] = {}
    for m, title, c, law, r in zip(chosen, titles, cells, laws, replicates, strict=True):
        made, kept_replicates = _scores(m, title, c, law, r, number, groups is not None)
        scores += made
        by_cell |= kept_replicates
    return Comparison(tuple(scores), by_cell)


@dataclass(frozen=True, eq=False)
class _Cells:
    """One measure of all layer pairs.

    Attributes:
        names: layer names of x and of y.
        values: [x layer, y layer], NaN where not defined.
        reasons: why a layer of x, or of y, is not defined.
        states: what the measure prepared, of the layers of x and y where it could.
        notes: what a reader of a cell must know, by positions of its layers.
    """

    names: tuple[list[str], list[str]]
    values: NDArray[np.float64]
    reasons: tuple[dict[str, str], dict[str, str]]
    states: tuple[list[Any], list[Any]]
    notes: Mapping[tuple[int, int], str] = field(default_factory=dict)

    @property
    def defined(self) -> tuple[list[int], list[int]]:
        """Positions of the layers that have a state."""
        first, second = (
            [i for i, n in enumerate(names) if n not in reasons]
            for names, reasons in zip(self.names, self.reasons, strict=True)
        )
        return first, second

    def bare(self, measure: Measure) -> _Cells:
        """The same with notes in place of the states, which may be large."""
        rows, columns = self.defined
        notes = {
            (i, j): measure.note(a, b)
            for i, a in zip(rows, self.states[0], strict=True)
            for j, b in zip(columns, self.states[1], strict=True)
        }
        return _Cells(self.names, self.values, self.reasons, ([], []), notes)


class _Steps:
    """Counts what is done and tells whoever asked."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def add(self, count: int) -> None:
        self.done += count
        if self.progress is not None and count:
            self.progress(self.done, self.total)


def _check(exchange: str, null: str, draws: int) -> None:
    if exchange not in get_args(Exchange):
        raise UnknownNameError("exchange", exchange, get_args(Exchange))
    if null not in get_args(NullKind):
        raise UnknownNameError("null", null, get_args(NullKind))
    if draws < 0:
        raise DegenerateError(f"draws is {draws}; needed 0 for no null, or more")


def _titles(measures: Sequence[Measure]) -> list[str]:
    """Names, with the settings that differ where one measure is asked for more than once."""
    titles = []
    for m in measures:
        twins = [other.parameters for other in measures if other.name == m.name]
        differing = [
            f"{key} {value}"
            for key, value in m.parameters.items()
            if any(twin.get(key) != value for twin in twins)
        ]
        titles.append(f"{m.name} ({', '.join(differing)})" if differing else m.name)
    for title in titles:
        if titles.count(title) > 1:
            raise DegenerateError(f"{title} is asked for twice; ask once, or change a setting")
    return titles


def _groups(within: Labels | None, rows: int, device: torch.device) -> Tensor | None:
    if within is None:
        return None
    labels = np.asarray(within)
    if labels.shape != (rows,):
        raise ShapeError(f"within has shape {labels.shape} for {rows} rows; needed one per row")
    return torch.from_numpy(np.unique(labels, return_inverse=True)[1]).to(device)


def _draws(measure: Measure, draws: int) -> int:
    return draws if measure.most_draws is None else min(draws, measure.most_draws)


def _orders(
    exchange: Exchange, labels: Labels, within: Labels | None, draws: int, seed: int
) -> Tensor:
    if exchange == "steps":
        return torch.from_numpy(circular_shifts(labels, draws=draws, seed=seed))
    return torch.from_numpy(permutations(labels, within=within, draws=draws, seed=seed))


def _values(
    measure: Measure, layers: tuple[dict[str, Layer], dict[str, Layer]], sides: tuple[Side, Side]
) -> _Cells:
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


def _left_out(measure: Measure, cells: _Cells, folds: Tensor) -> NDArray[np.float64] | None:
    """[fold, x layer, y layer] of all layers, if the measure has a cheap way."""
    found = measure.leave_out(*cells.states, folds)
    if found is None:
        return None
    out = np.full((len(found), *cells.values.shape), np.nan)
    out[np.ix_(range(len(found)), *cells.defined)] = found.cpu().numpy()
    return out


def _scores(
    measure: Measure,
    title: str,
    cells: _Cells,
    law: Law | None,
    replicates: NDArray[np.float64] | None,
    units: int,
    grouped: bool,
) -> tuple[list[Score], dict[tuple[str, str, str], Sequence[float]]]:
    rows, columns = cells.defined
    q = None if law is None else q_values(law.p)
    scores, kept = [], {}
    for i, x_layer in enumerate(cells.names[0]):
        for j, y_layer in enumerate(cells.names[1]):
            score = Score(
                measure=title,
                value=None,
                x="x",
                y="y",
                n=units,
                x_layer=x_layer,
                y_layer=y_layer,
                parameters=measure.parameters,
                within="groups" if grouped else "",
                undefined=cells.reasons[0].get(x_layer) or cells.reasons[1].get(y_layer, ""),
            )
            if score.undefined:
                scores.append(score)
                continue
            value = float(cells.values[i, j])
            fields: dict[str, Any] = {"value": value, "note": cells.notes.get((i, j), "")}
            # A layer can be constant without one fold: the value stands, without an interval.
            if (
                replicates is not None
                and len(replicates)
                and np.isfinite(replicates[:, i, j]).all()
            ):
                kept[title, x_layer, y_layer] = replicates[:, i, j].tolist()
                fields["interval"] = jackknife_interval(
                    value, replicates[:, i, j], method=measure.interval_method
                )
            if law is not None and q is not None:
                a, b = rows.index(i), columns.index(j)
                mean, sd = float(law.mean[a, b]), float(law.sd[a, b])
                fields["null"] = Null(mean, sd, law.draws, law.scheme)
                fields["p_value"] = float(law.p[a, b])
                fields["p_max"] = float(law.p_max[a, b])
                fields["q_value"] = float(q[a, b])
            scores.append(msgspec.structs.replace(score, **fields))
    return scores, kept
