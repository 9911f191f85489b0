"""Which labelled episodes a few-shot probe is shown: the same for all features of the episodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import DegenerateError
from mirror_analysis.features import Index

Labels = NDArray[np.generic]
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Pool:
    """Labelled episodes by class.

    Attributes:
        classes: [class] labels, sorted.
        members: [class] of episode numbers in the order of their ids.
        episode: [row] number of the episode.
        code: [row] number of the class.
    """

    classes: Labels
    members: tuple[Rows, ...]
    episode: Rows
    code: Rows

    @property
    def smallest(self) -> int:
        """Episodes of the class that has fewest."""
        return min(len(members) for members in self.members)

    def rows(self, chosen: Rows) -> Rows:
        """All rows of the chosen episodes."""
        return np.flatnonzero(np.isin(self.episode, chosen))

    def draw(self, shots: int, number: int, seed: int) -> Rows:
        """Rows of `shots` episodes of each class; the same for the same ids, number and seed."""
        rng = np.random.default_rng([seed, shots, number])
        drawn = [rng.choice(members, shots, replace=False) for members in self.members]
        return self.rows(np.concatenate(drawn))

    def without(self, fold: int, folds: int, seed: int) -> Rows:
        """Rows of all episodes but one part, into which those of each class are dealt evenly."""
        rng = np.random.default_rng([seed, 0])
        dealt = np.concatenate([rng.permutation(members) for members in self.members])
        return self.rows(dealt[np.arange(len(dealt)) % folds != fold])

    def deal(self, rows: Rows, folds: int) -> Rows:
        """[row] fold of each shown row: whole episodes, those of a class spread over the folds.

        At most `folds`, and no more than the class with fewest episodes shown has.
        """
        shown, which = np.unique(self.episode[rows], return_inverse=True)
        of_class = np.empty(len(shown), dtype=np.int64)
        of_class[which] = self.code[rows]
        rank = np.empty(len(shown), dtype=np.int64)
        for code in range(len(self.classes)):
            mine = np.flatnonzero(of_class == code)
            rank[mine] = np.arange(len(mine))
        fewest = int(np.bincount(of_class, minlength=len(self.classes)).min())
        return (rank % min(folds, fewest))[which]


def labelled_pool(index: Index, target: str) -> Pool:
    """The episodes that may be shown.

    Raises:
        DegenerateError: if there are fewer than two classes, or a label varies in an episode.
    """
    truth = index.label(target)
    first, of_row = episodes_of(index, target)
    classes, code = np.unique(truth, return_inverse=True)
    if len(classes) < 2:
        raise DegenerateError(
            f"all {len(first)} labelled episodes have '{target}' {classes[0]}; needed at least 2"
            " classes"
        )
    members = tuple(np.flatnonzero(code[first] == number) for number in range(len(classes)))
    return Pool(classes, members, of_row, code.astype(np.int64))


def episodes_of(index: Index, target: str) -> tuple[Rows, Rows]:
    """[episode] its first row, in the order of ids, and [row] the number of its episode.

    Raises:
        DegenerateError: if the label varies in an episode.
    """
    truth = index.label(target)
    _, first, of_row = np.unique(index.episode, return_index=True, return_inverse=True)
    varying = truth != truth[first][of_row]
    if varying.any():
        raise DegenerateError(
            f"'{target}' varies inside episode {index.episode[varying][0]}; shots are whole"
            " episodes, so choose a label of the episode or take one row of each"
        )
    return first.astype(np.int64), of_row.astype(np.int64)
