"""Alignments of every layer pair, fitted together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.alignment.descent import Problems, descend
from mirror_analysis.alignment.fitting import require_pairs, tensor
from mirror_analysis.alignment.linear import AlignmentConfig, LinearAlignment
from mirror_analysis.alignment.pairing import partners
from mirror_analysis.alignment.standardising import Side, standardise
from mirror_analysis.errors import DegenerateError
from mirror_analysis.features import Paired
from mirror_analysis.models.model import require_device

Layers: TypeAlias = tuple[str, str]
Fitted: TypeAlias = tuple[Layers, list[LinearAlignment] | DegenerateError]

_FLOAT = 4  # bytes
_BLOCK = 2048  # rows of logits that are there at once
_COPIES = 6  # of the weights: themselves, gradient, two moments, those kept, and one on the way


def align_many(
    fit: Paired,
    validation: Paired,
    *,
    pairing: str = "episode",
    config: AlignmentConfig | None = None,
    seeds: Sequence[int] = (0,),
    device: str = "cpu",
    memory: int = 1 << 30,
) -> Iterator[Fitted]:
    """Fits an alignment for every pair of layers, many pairs in one batched descent.

    Layers of equal width run together; each is standardised once. A seed draws the same weights
    and batches for every pair, so each result is what `align_seeds` gives for that pair alone.

    Args:
        fit: rows to fit on, with all layers of both models.
        validation: rows of other episodes that choose the update whose weights are kept.
        pairing: what makes rows partners, as in `align`.
        config: settings; None takes the defaults.
        seeds: of initial weights and batches.
        device: where it runs.
        memory: bytes that one descent may take beyond the layers; it fits as many pairs together
            as they allow, one at least.

    Returns:
        Comes pair by pair, as they are fitted: layer of x and layer of y, and an alignment per
        seed, or why there is none: a constant layer, or a fit that diverged. Pairs of equal
        widths follow one another.

    Raises:
        DegenerateError: if there are fewer than two pairs of rows or no seeds, or all rows are
            partners.
        UnknownNameError: if the rows do not carry the label.
        DeviceError: if the device is not there.

    Example:
        >>> fits = dict(align_many(split.fit, split.validation))
        >>> fits["penultimate", "vision"][0].curve.chosen
        120
    """
    config = config or AlignmentConfig()
    if not seeds:
        raise DegenerateError("no seeds to fit with; needed at least one")
    target = require_device(device)
    require_pairs(len(fit), len(validation))
    work = _Work(
        _sides(fit.x, validation.x, "x"),
        _sides(fit.y, validation.y, "y"),
        [tensor(partners(pairing, part.index)) for part in (fit, validation)],
        config,
        seeds,
        target,
    )
    return _fitted(work, memory)


@dataclass(frozen=True, eq=False)
class _Work:
    x: Mapping[str, Side | DegenerateError]
    y: Mapping[str, Side | DegenerateError]
    positives: Sequence[Tensor | None]
    config: AlignmentConfig
    seeds: Sequence[int]
    device: torch.device


def _fitted(work: _Work, memory: int) -> Iterator[Fitted]:
    groups: dict[tuple[int, int], list[tuple[Layers, Side, Side]]] = {}
    for names in product(work.x, work.y):
        x, y = work.x[names[0]], work.y[names[1]]
        if isinstance(x, DegenerateError):
            yield names, x
        elif isinstance(y, DegenerateError):
            yield names, y
        else:
            widths = x.fit.shape[1], y.fit.shape[1]
            groups.setdefault(widths, []).append((names, x, y))
    for cells in groups.values():
        each = len(work.seeds) * bytes_of_fit(cells[0][1], cells[0][2], work.config)
        size = max(1, memory // each)
        for start in range(0, len(cells), size):
            yield from _together(cells[start : start + size], work)


def _together(cells: Sequence[tuple[Layers, Side, Side]], work: _Work) -> Iterator[Fitted]:
    x = {names[0]: side for names, side, _ in cells}
    y = {names[1]: side for names, _, side in cells}
    at = [(list(x).index(names[0]), list(y).index(names[1])) for names, _, _ in cells]
    problems = Problems(list(x.values()), list(y.values()), at, *work.positives)
    found = descend(problems, config=work.config, seeds=work.seeds, device=work.device)
    return zip((names for names, _, _ in cells), found, strict=True)


def bytes_of_fit(x: Side, y: Side, config: AlignmentConfig) -> int:
    """About what the descent of one layer pair with one seed holds beyond its layers."""
    features = x.fit.shape[1] + y.fit.shape[1]
    batch = min(config.batch, len(x.fit))
    weights = _COPIES * (features + 2) * config.width
    # The rows of a batch, their embeddings and what the loss keeps of them, and its logits.
    rows = batch * (2 * features + 8 * config.width + 4 * min(batch, _BLOCK))
    held = len(x.validation) * (4 * config.width + 4 * min(len(x.validation), _BLOCK))
    return _FLOAT * (weights + max(rows, held))


def _sides(
    fit: Mapping[str, NDArray[np.float32]], validation: Mapping[str, NDArray[np.float32]], side: str
) -> dict[str, Side | DegenerateError]:
    found: dict[str, Side | DegenerateError] = {}
    for name, values in fit.items():
        try:
            found[name] = standardise(values, validation[name], name=side)
        except DegenerateError as error:
            found[name] = error
    return found
