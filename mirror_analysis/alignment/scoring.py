"""Recall and InfoNCE of fitted alignments on test rows, with null and interval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import msgspec
import numpy as np
from numpy.typing import NDArray

from mirror_analysis.alignment.fitting import align_pairs
from mirror_analysis.alignment.linear import AlignmentConfig, LinearAlignment
from mirror_analysis.alignment.many import align_many
from mirror_analysis.alignment.pairing import layer_pairs
from mirror_analysis.alignment.retrieval import infonce_credit, recall_credit, recall_diagonal
from mirror_analysis.errors import DegenerateError
from mirror_analysis.features import Paired, Split
from mirror_analysis.inference.jackknife import folds, jackknife_interval
from mirror_analysis.inference.maximum import p_max
from mirror_analysis.inference.permutation import p_value, permutations
from mirror_analysis.information.bounds import infonce_ceiling
from mirror_analysis.results import Comparison, Interval, Null, Parameter, Score

Square = NDArray[np.float64]


class RetrievalConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How fitted alignments are judged.

    Attributes:
        recall: the k of Recall@k.
        gallery: episodes among which the partner is sought.
        draws: permutations of the null.
        folds: groups of episodes of the jackknife.
        seed: of permutations and folds.
    """

    recall: tuple[int, ...] = (1, 5, 10)
    gallery: int = 64
    draws: int = 999
    folds: int = 32
    seed: int = 0


@dataclass(frozen=True, eq=False)
class _Measured:
    value: float
    replicates: NDArray[np.float64]
    null: NDArray[np.float64]
    lowest: float
    ceiling: float
    parameters: dict[str, Parameter]


def score_alignments(
    aligned: Sequence[LinearAlignment],
    test: Paired,
    *,
    layers: tuple[str, str],
    config: RetrievalConfig,
    within: str | None = None,
    names: tuple[str, str] = ("x", "y"),
) -> Comparison:
    """Recall@k and, over all rows, the InfoNCE bound of alignments of one layer pair.

    Numbers are means over the given alignments (seeds of the fit). The null permutes whole
    episodes against each other (inside groups where `within` names a label) with the maps as
    they were fitted; the interval leaves groups of test episodes out.

    Args:
        aligned: fits of the same layer pair with different seeds.
        test: rows that took no part in the fits.
        layers: layer of x and layer of y.
        config: settings.
        within: label inside whose groups partners are sought.
        names: of the two representations.

    Returns:
        "recall_at_1", "recall_at_5" and so on in [0, 1], and "infonce" in nats.

    Raises:
        DegenerateError: if there are no alignments, or too few rows.
        UnknownNameError: if the rows do not carry the label `within`.
    """
    if not aligned:
        raise DegenerateError("no alignments to judge; needed at least one fit")
    x_values, y_values = test.x[layers[0]], test.y[layers[1]]
    similarities = [a.similarity(x_values, y_values) for a in aligned]
    temperatures = [a.temperature for a in aligned]
    measured = _measure(similarities, temperatures, test, config, within)
    return _assemble({(name, *layers): m for name, m in measured.items()}, test, within, names)


def align_grid(
    data: Split,
    *,
    alignment: AlignmentConfig,
    config: RetrievalConfig,
    seeds: Sequence[int],
    names: tuple[str, str] = ("x", "y"),
    pairing: str = "step",
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Fits and judges an alignment for every pair of layers, fitting many of them together.

    Args:
        data: fit, validation and test rows.
        alignment: settings of the fits.
        config: settings of the judgement.
        seeds: of the fits; numbers are means over them.
        names: of the two representations.
        pairing: what makes rows partners while fitting, as in `align`.
        device: where the fits run.
        progress: called with (pairs done, pairs in all).

    Returns:
        Scores of every layer pair; p_max corrects for the maximum over the pairs. A pair with a
        constant layer is marked undefined.
    """
    pairs = list(product(data.fit.x, data.fit.y))
    measured: dict[tuple[str, str], dict[str, _Measured]] = {}
    undefined: dict[tuple[str, str], str] = {}
    fits = align_many(
        data.fit, data.validation, pairing=pairing, config=alignment, seeds=seeds, device=device
    )
    for done, (layers, aligned) in enumerate(fits, start=1):
        if isinstance(aligned, DegenerateError):
            undefined[layers] = str(aligned)
        else:
            x, y = data.test.x[layers[0]], data.test.y[layers[1]]
            similarities = [a.similarity(x, y) for a in aligned]
            temperatures = [a.temperature for a in aligned]
            measured[layers] = _measure(similarities, temperatures, data.test, config, None)
        if progress is not None:
            progress(done, len(pairs))
    # Pairs of equal widths were fitted together; scores are in the order of the layers.
    cells = {
        (name, *layers): cell
        for layers in pairs
        if layers in measured
        for name, cell in measured[layers].items()
    }
    missing = {layers: undefined[layers] for layers in pairs if layers in undefined}
    return _assemble(cells, data.test, None, names, _missing(missing, config))


def _missing(
    reasons: Mapping[tuple[str, str], str], config: RetrievalConfig
) -> dict[tuple[str, str, str], str]:
    measures = [*(f"recall_at_{k}" for k in config.recall), "infonce"]
    return {(m, *layers): reason for layers, reason in reasons.items() for m in measures}


def fit_pair(
    data: Split,
    layers: tuple[str, str],
    *,
    alignment: AlignmentConfig,
    seeds: Sequence[int],
    pairing: str = "step",
    device: str = "cpu",
) -> list[LinearAlignment]:
    """Alignments of one pair of layers, one per seed; pairing and device as in `align`."""
    fit, validation = (
        layer_pairs(part, layers, pairing=pairing) for part in (data.fit, data.validation)
    )
    return align_pairs(fit, validation, config=alignment, seeds=seeds, device=device)


def _measure(
    similarities: Sequence[Square],
    temperatures: Sequence[float],
    test: Paired,
    config: RetrievalConfig,
    within: str | None,
) -> dict[str, _Measured]:
    groups = None if within is None else test.index.label(within)
    units = test.index.episode
    orders = permutations(units, within=groups, draws=config.draws, seed=config.seed)
    fold = folds(units, within=test.index.labels.get("task"), count=config.folds, seed=config.seed)
    kept = [fold != number for number in range(int(fold.max()) + 1)]
    rows = np.arange(len(units))
    sizes = [len(rows)] if groups is None else np.unique(groups, return_counts=True)[1]
    largest = int(max(sizes))
    measured: dict[str, _Measured] = {}
    for k in config.recall:
        settings: dict[str, Parameter] = {"k": k, "gallery": min(config.gallery, largest)}

        def recall(s: Square, keep: NDArray[np.bool_], k: int = k) -> float:
            inside = None if groups is None else groups[keep]
            part = s[np.ix_(keep, keep)]
            return float(recall_diagonal(part, k=k, gallery=config.gallery, within=inside).mean())

        credit = np.mean(
            [recall_credit(s, k=k, gallery=config.gallery, within=groups) for s in similarities],
            axis=0,
        )
        measured[f"recall_at_{k}"] = _Measured(
            float(credit.diagonal().mean()),
            np.array([np.mean([recall(s, keep) for s in similarities]) for keep in kept]),
            credit[rows, orders].mean(axis=1),
            0.0,
            1.0,
            settings,
        )
    if within is None:
        same = sorted(set(temperatures))  # they differ where they were learned
        fitted = list(zip(similarities, temperatures, strict=True))
        credits = [infonce_credit(s, temperature=t) for s, t in fitted]
        replicates = [
            np.mean(
                [
                    infonce_credit(s[np.ix_(keep, keep)], temperature=t).diagonal().mean()
                    for s, t in fitted
                ]
            )
            for keep in kept
        ]
        credit = np.mean(credits, axis=0)
        measured["infonce"] = _Measured(
            float(credit.diagonal().mean()),
            np.array(replicates),
            credit[rows, orders].mean(axis=1),
            -np.inf,
            infonce_ceiling(len(units)),
            {
                "batch": len(units),
                "temperature": same[0] if len(same) == 1 else float(np.mean(temperatures)),
            },
        )
    return measured


def _assemble(
    measured: Mapping[tuple[str, str, str], _Measured],
    test: Paired,
    within: str | None,
    names: tuple[str, str],
    undefined: Mapping[tuple[str, str, str], str] | None = None,
) -> Comparison:
    corrected: dict[tuple[str, str, str], float] = {}
    for name in dict.fromkeys(measure for measure, _, _ in measured):
        cells = [cell for cell in measured if cell[0] == name]
        values = np.array([measured[cell].value for cell in cells])
        null = np.stack([measured[cell].null for cell in cells], axis=1)
        corrected |= dict(zip(cells, p_max(values, null).tolist(), strict=True))
    units = len(np.unique(test.index.episode))
    scheme = "episodes" if within is None else f"episodes within {within}"
    scores = [
        Score(
            name,
            m.value,
            x=names[0],
            y=names[1],
            n=units,
            x_layer=x_layer,
            y_layer=y_layer,
            interval=_inside(jackknife_interval(m.value, m.replicates), m.lowest, m.ceiling),
            null=Null(float(m.null.mean()), float(m.null.std()), len(m.null), scheme),
            p_value=float(p_value(m.value, m.null)),
            p_max=corrected[name, x_layer, y_layer],
            ceiling=m.ceiling,
            parameters=m.parameters,
            within=within or "",
            stage="after",
        )
        for (name, x_layer, y_layer), m in measured.items()
    ]
    scores += [
        Score(name, None, x=names[0], y=names[1], n=units, x_layer=x_layer, y_layer=y_layer,
              undefined=reason, stage="after")
        for (name, x_layer, y_layer), reason in (undefined or {}).items()
    ]  # fmt: skip
    return Comparison(tuple(scores), {cell: m.replicates.tolist() for cell, m in measured.items()})


def _inside(interval: Interval, lowest: float, highest: float) -> Interval:
    """The part of an interval that the measure can reach."""
    return msgspec.structs.replace(
        interval, low=max(interval.low, lowest), high=min(interval.high, highest)
    )
