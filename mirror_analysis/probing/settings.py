"""How a probe is fitted and judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from mirror_analysis.errors import DegenerateError, UnknownNameError

# "logistic", "ridge" or "knn"; anything else is refused in words.
Estimator: TypeAlias = str
# "episode", "instruction", "task" or "split".
HeldOut: TypeAlias = str
# "auto", "refit", "labels" or "chance".
Null: TypeAlias = str

ESTIMATORS: dict[str, tuple[str, ...]] = {
    "classification": ("logistic", "knn"),
    "regression": ("ridge", "knn"),
}
# Per row, on standardised features: scikit-learn's C is 1 / (strength * rows) and its alpha
# strength * rows.
_STRENGTHS: dict[str, tuple[float, ...]] = {
    "logistic": (10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4),
    "ridge": (100.0, 10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6),
}


@dataclass(frozen=True)
class Probe:
    """Settings of a probe.

    Attributes:
        estimator: "logistic" (multinomial, L2), "ridge", or "knn" on standardised features;
            "" for logistic where the target is a class and ridge where it is a quantity.
        held_out: test rows share no episode, instruction or task with the fit rows; or "split",
            where the label of that name says which rows are "fit", "validation" and "test".
        folds: parts of the cross-validation, each of which is the test once; none for "split".
        strengths: penalties per row to choose from, in any order; () for powers of ten. The
            objective is the mean loss (for ridge half the mean square) + strength / 2 |w|².
        neighbours: numbers of neighbours to choose from.
        balanced: whether every class counts alike, however many rows it has.
        null: "refit" gives whole episodes the labels of others and does everything again, choices
            included; "labels" exchanges the labels of test episodes inside each fold against
            predictions that stay; "chance" names what knows no features. "auto" is "refit" where
            that is cheap (ridge, knn) and "labels" for logistic.
        within: label inside whose groups episodes trade labels, such as "task"; "" for all.
        draws: permutations.
        seed: of folds and permutations.
        tolerance: how far logistic's weights may be from the best ones, as a share of their
            length; below 1e-3 in float64. A bound on the gradient alone, such as scikit-learn's
            `tol`, stops weakly penalised fits points away in accuracy from where they converge.
        device: where fits run.

    Raises:
        UnknownNameError: if a choice does not exist.
        DegenerateError: if a number is out of range.
    """

    estimator: Estimator = ""
    held_out: HeldOut = "episode"
    folds: int = 5
    strengths: tuple[float, ...] = ()
    neighbours: tuple[int, ...] = (1, 3, 5, 10, 20, 50)
    balanced: bool = False
    null: Null = "auto"
    within: str = ""
    draws: int = 199
    seed: int = 0
    tolerance: float = 2e-3
    device: str = "cpu"

    def __post_init__(self) -> None:
        for kind, value, known in (
            ("estimator", self.estimator, ("", "logistic", "ridge", "knn")),
            ("held_out", self.held_out, ("episode", "instruction", "task", "split")),
            ("null of a probe", self.null, ("auto", "refit", "labels", "chance")),
        ):
            if value not in known:
                raise UnknownNameError(kind, value, known)
        for name, number, least in (("folds", self.folds, 2), ("draws", self.draws, 1)):
            if number < least:
                raise DegenerateError(f"probe got {name} {number}; needed at least {least}")
        if any(not strength > 0 for strength in self.strengths):
            raise DegenerateError(
                f"probe got strengths {list(self.strengths)}; needed numbers above 0"
            )
        if not self.neighbours or min(self.neighbours) < 1:
            raise DegenerateError(
                f"probe got neighbours {list(self.neighbours)}; needed numbers of 1 or more"
            )
        if not self.tolerance > 0:
            raise DegenerateError(f"probe got tolerance {self.tolerance}; needed a number above 0")

    def penalties(self, estimator: str) -> tuple[float, ...]:
        """The strengths to choose from, strongest first."""
        return tuple(sorted(set(self.strengths or _STRENGTHS[estimator]), reverse=True))
