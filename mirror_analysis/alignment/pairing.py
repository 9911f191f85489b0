"""Which rows of two models belong together, and which whole episodes are held out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import DegenerateError, PairingError, ShapeError
from mirror_analysis.features import Features, Index, Paired, pair

Matrix: TypeAlias = NDArray[np.floating]
Labels: TypeAlias = NDArray[np.generic]
Pairing: TypeAlias = str | Labels
"""The name of a label, or a label for every row."""

_OWN = ("step", "episode")  # pairings that arrays have, whose rows are an episode each


@dataclass(frozen=True, eq=False)
class Pairs:
    """Rows of two models, row i of both being the same moment, and what else counts as a partner.

    Attributes:
        x: [sample, x_feature]; y: [sample, y_feature].
        positives: [sample] numbers; rows of an equal number are partners of one another. None
            where every row has its own partner only.
        episode: [sample] what is held out together.
        task: [sample] inside which episodes are drawn to be held out; None where not known.
    """

    x: Matrix
    y: Matrix
    positives: NDArray[np.int64] | None
    episode: Labels
    task: Labels | None = None

    def __len__(self) -> int:
        return len(self.x)

    def take(self, rows: NDArray[np.generic]) -> Pairs:
        """The chosen rows (positions or a mask)."""
        positives, task = self.positives, self.task
        return Pairs(
            self.x[rows],
            self.y[rows],
            None if positives is None else positives[rows],
            self.episode[rows],
            None if task is None else task[rows],
        )


def match(x: Features | Matrix, y: Features | Matrix, *, pairing: Pairing = "episode") -> Pairs:
    """Brings the rows of two models together and says which are partners.

    Features are matched by episode and step. "step" makes a row the partner of its own row only;
    "episode" of all rows of its episode, which is the same where an episode is one row; any other
    name, such as "instruction" or "task", of all rows with an equal label of that name.

    Args:
        x: features, or [sample, x_feature] whose row i is a partner of row i of y.
        y: the same of the second model.
        pairing: "step", "episode", the name of a label, or [sample] labels in the order of x.

    Raises:
        PairingError: if only one side is features, rows do not match, or arrays are to be paired
            by the name of a label.
        UnknownNameError: if the rows do not carry the label.
        ShapeError: if there is not one label per row.
        DegenerateError: if all rows are partners of one another.

    Example:
        >>> match(u["penultimate"], e["vision"], pairing="instruction").positives[:4]
        array([3, 3, 0, 7])
    """
    if isinstance(x, Features) and isinstance(y, Features):
        paired = pair({"": x}, {"": y})
        return layer_pairs(paired, ("", ""), pairing=pairing)
    if isinstance(x, Features) or isinstance(y, Features):
        with_labels, without = ("x", "y") if isinstance(x, Features) else ("y", "x")
        raise PairingError(
            f"{with_labels} is features but {without} is an array, so rows cannot be matched; give"
            " both as features, or both as arrays over the same rows"
        )
    if isinstance(pairing, str) and pairing not in _OWN:
        raise PairingError(
            f"pairing '{pairing}' is the name of a label but x and y are arrays, which carry none;"
            " give the labels themselves, or features"
        )
    if len(x) != len(y):
        raise ShapeError(f"x has {len(x)} rows but y has {len(y)}; pair() them first")
    positives = None if isinstance(pairing, str) else _numbers(pairing, len(x))
    return Pairs(x, y, positives, np.arange(len(x)))


def layer_pairs(paired: Paired, layers: tuple[str, str], *, pairing: Pairing = "episode") -> Pairs:
    """One layer of each model out of rows that are matched already; pairing as in `match`."""
    index = paired.index
    return Pairs(
        paired.x[layers[0]],
        paired.y[layers[1]],
        partners(pairing, index),
        index.episode,
        index.labels.get("task"),
    )


def partners(pairing: Pairing, index: Index) -> NDArray[np.int64] | None:
    """Numbers of the rows of an index, equal where rows are partners of one another.

    Args:
        pairing: as in `match`.
        index: which row is what.

    Returns:
        [sample] from 0; None where every row has its own partner only.

    Raises:
        UnknownNameError: if the rows do not carry the label.
        ShapeError: if there is not one label per row.
        DegenerateError: if all rows are partners of one another.
    """
    if not isinstance(pairing, str):
        return _numbers(pairing, len(index))
    if pairing == "step":
        return None
    return _numbers(index.episode if pairing == "episode" else index.label(pairing), len(index))


def hold_out(pairs: Pairs, share: float, *, seed: int = 0) -> tuple[Pairs, Pairs]:
    """Divides rows into those to fit on and whole episodes to validate on.

    Args:
        pairs: rows.
        share: of the episodes that is held out, of each task where tasks are known, in (0, 1).
        seed: of the draw.

    Returns:
        What is fitted on, and what is held out.

    Raises:
        DegenerateError: if either would be empty.
    """
    rng = np.random.default_rng(seed)
    ids, first = np.unique(pairs.episode, return_index=True)
    groups = np.zeros(len(ids)) if pairs.task is None else pairs.task[first]
    members = [rng.permutation(np.flatnonzero(groups == group)) for group in np.unique(groups)]
    held = np.concatenate([own[: round(share * len(own))] for own in members])
    is_held = np.isin(pairs.episode, ids[held])
    if is_held.all() or not is_held.any():
        raise DegenerateError(
            f"holding out {share:g} of {len(ids)} episodes leaves {len(ids) - len(held)} to fit on"
            f" and {len(held)} to validate on; collect more, or give validation rows"
        )
    return pairs.take(~is_held), pairs.take(is_held)


def _numbers(labels: Labels, count: int) -> NDArray[np.int64] | None:
    """Labels as numbers from 0; None where no two rows have an equal one."""
    if labels.shape != (count,):
        raise ShapeError(
            f"pairing has shape {labels.shape}; needed one label for each of {count} rows"
        )
    known, numbers = np.unique(labels, return_inverse=True)
    if len(known) == 1 < count:
        raise DegenerateError(
            f"all {count} rows have the label {known[0]!s}, so every row is a partner of every"
            " other and there is nothing to tell apart; pair by something finer"
        )
    return None if len(known) == count else numbers.astype(np.int64)
