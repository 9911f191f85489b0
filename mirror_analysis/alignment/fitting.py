"""Fits the two linear maps, several seeds at once, stopping on validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.alignment.descent import Problems, descend
from mirror_analysis.alignment.linear import AlignmentConfig, LinearAlignment
from mirror_analysis.alignment.pairing import Matrix, Pairing, Pairs, hold_out, match
from mirror_analysis.alignment.standardising import standardise
from mirror_analysis.errors import DegenerateError, PairingError, ShapeError
from mirror_analysis.features import Features
from mirror_analysis.models.model import require_device


def align(
    x: Features | Matrix,
    y: Features | Matrix,
    x_validation: Features | Matrix | None = None,
    y_validation: Features | Matrix | None = None,
    *,
    pairing: Pairing = "episode",
    config: AlignmentConfig | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> LinearAlignment:
    """Fits two linear layers by bidirectional InfoNCE, stopping where validation is best.

    The maps are affine, their outputs have length 1, and a row is to be more similar to its
    partners than to other rows of its batch. Without validation rows `config.held_out` of the
    episodes are held out whole, drawn within each task where tasks are known.

    Args:
        x: features, or [sample, x_feature], of the first model, of episodes or of steps.
        y: the same of the second model; features are matched by episode and step, of arrays row i
            belongs to row i.
        x_validation: rows that choose the update whose weights are kept, of other episodes.
        y_validation: the same of the second model.
        pairing: what makes rows partners: "step" the row alone; "episode" the rows of an episode;
            the name of another label such as "instruction" or "task"; or labels of the rows of x
            and, below them, of x_validation. All partners count as positives (see `info_nce`).
            Rows of arrays are an episode each.
        config: settings; None takes the defaults.
        seed: of initial weights and batches.
        device: where it runs, such as "cpu" or "cuda". Processes of torchrun share every batch
            inside `launching.launched`.

    Raises:
        ShapeError: if rows, columns or labels do not fit.
        PairingError: if features do not match, or arrays are to be paired by a name, or labels of
            arrays come without validation rows.
        UnknownNameError: if the rows do not carry the label.
        DegenerateError: if there are fewer than two pairs, a side is constant or not finite, all
            rows are partners, or the fit diverges.
        DeviceError: if the device is not there.

    Source:
        van den Oord et al. (2018), eq. 4; several partners as in Khosla et al. (2020), eq. 2.

    Example:
        >>> aligned = align(u["penultimate"], e["vision"], pairing="instruction")
        >>> cosines = aligned.similarity(u_test, e_test)
    """
    found = align_seeds(
        x, y, x_validation, y_validation, pairing=pairing, config=config, seeds=[seed],
        device=device,
    )  # fmt: skip
    return found[0]


def align_seeds(
    x: Features | Matrix,
    y: Features | Matrix,
    x_validation: Features | Matrix | None = None,
    y_validation: Features | Matrix | None = None,
    *,
    pairing: Pairing = "episode",
    config: AlignmentConfig | None = None,
    seeds: Sequence[int],
    device: str = "cpu",
) -> list[LinearAlignment]:
    """`align` for several seeds as one batched problem; each result is as if fitted alone."""
    config = config or AlignmentConfig()
    fit, held = divide(x, y, x_validation, y_validation, pairing=pairing, config=config)
    return align_pairs(fit, held, config=config, seeds=seeds, device=device)


def align_pairs(
    fit: Pairs,
    validation: Pairs,
    *,
    config: AlignmentConfig,
    seeds: Sequence[int],
    device: str = "cpu",
) -> list[LinearAlignment]:
    """`align_seeds` for rows that are matched and divided already."""
    if not seeds:
        raise DegenerateError("no seeds to fit with; needed at least one")
    target = require_device(device)
    require_pairs(len(fit), len(validation))
    problems = Problems(
        [standardise(fit.x, validation.x, name="x")],
        [standardise(fit.y, validation.y, name="y")],
        [(0, 0)],
        tensor(fit.positives),
        tensor(validation.positives),
    )
    (found,) = descend(problems, config=config, seeds=seeds, device=target)
    if isinstance(found, DegenerateError):
        raise found
    return found


def divide(
    x: Features | Matrix,
    y: Features | Matrix,
    x_validation: Features | Matrix | None,
    y_validation: Features | Matrix | None,
    *,
    pairing: Pairing,
    config: AlignmentConfig,
) -> tuple[Pairs, Pairs]:
    """The matched rows to fit on and to validate on, as `align` takes them."""
    if (x_validation is None) != (y_validation is None):
        given, lacking = ("x", "y") if y_validation is None else ("y", "x")
        raise PairingError(
            f"{given} has validation rows but {lacking} has none; give both, or neither"
        )
    if x_validation is None or y_validation is None:
        if not isinstance(pairing, str) and not isinstance(x, Features):
            raise PairingError(
                "arrays with labels of their own need validation rows, since which rows are of one"
                " episode is not known; give x_validation and y_validation, or features"
            )
        return hold_out(match(x, y, pairing=pairing), config.held_out)
    sizes = [_count(part) for part in (x, x_validation, y, y_validation)]
    if sizes[:2] != sizes[2:] and not isinstance(x, Features):
        raise ShapeError(
            f"x has {sizes[0]} fit and {sizes[1]} validation rows but y has {sizes[2]}"
            f" and {sizes[3]}; pair() them first"
        )
    first, second = pairing, pairing
    if not isinstance(pairing, str):
        if pairing.shape != (sizes[0] + sizes[1],):
            raise ShapeError(
                f"pairing has shape {pairing.shape}; needed one label for each of {sizes[0]} rows"
                f" of x and {sizes[1]} of its validation"
            )
        first, second = pairing[: sizes[0]], pairing[sizes[0] :]
    return match(x, y, pairing=first), match(x_validation, y_validation, pairing=second)


def require_pairs(fit: int, validation: int) -> None:
    """Makes sure that there is something to contrast.

    Raises:
        DegenerateError: if there are fewer than two pairs of either.
    """
    if min(fit, validation) < 2:
        raise DegenerateError(
            f"{fit} fit and {validation} validation pairs; a contrastive loss needs at least 2 of"
            " each, so collect more episodes"
        )


def tensor(positives: NDArray[np.int64] | None) -> Tensor | None:
    """Numbers of partners for the loss."""
    return None if positives is None else torch.from_numpy(positives)


def _count(part: Features | Matrix) -> int:
    return len(part.values if isinstance(part, Features) else part)
