"""Classifiers that work from a handful of labelled rows: centroids, neighbours, logistic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from mirror_analysis.errors import DegenerateError
from mirror_analysis.generalisation.few_shot_logistic import logistic_shots
from mirror_analysis.generalisation.shots import Pool

Values = NDArray[np.floating]
Codes = NDArray[np.int64]


class Classifier(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a class is told from shots.

    Attributes:
        kind: "centroid" (nearest class mean), "knn" (majority of the nearest shown rows, the
            nearest deciding ties) or "logistic".
        neighbours: of "knn", at most as many as shots.
        strengths: penalties of "logistic", tried by cross-validation inside the shots: at most
            `inner` parts of whole episodes, each class in every part it has episodes for, the
            least log loss winning. One shot per class leaves nothing to choose on, and the
            strongest penalty is taken; for two classes the choice moves no boundary then.
        inner: parts of that cross-validation.
        scaled: whether features are divided by their spread over the labelled episodes, so that
            none counts for its unit; centred they always are.
    """

    kind: Literal["centroid", "knn", "logistic"] = "centroid"
    neighbours: Annotated[int, Meta(ge=1)] = 1
    strengths: Annotated[tuple[float, ...], Meta(min_length=1)] = (1e-3, 1e-2, 1e-1, 1.0)
    inner: Annotated[int, Meta(ge=2)] = 5
    scaled: bool = True


@dataclass(frozen=True, eq=False)
class Prepared:
    """One layer of labelled and test rows, as the labelled rows centre and scale them.

    Attributes:
        pool: [labelled, feature].
        inner: [labelled, labelled] inner products.
        cross: [test, labelled] inner products.
    """

    pool: NDArray[np.float64]
    inner: NDArray[np.float64]
    cross: NDArray[np.float64]


def prepare(pool: Values, test: Values, *, scaled: bool = True) -> Prepared:
    """Centres and scales both by the pool; inner products are taken once for all draws.

    Raises:
        DegenerateError: if the pool is constant.
    """
    labelled = pool.astype(np.float64)
    mean, scale = labelled.mean(axis=0), labelled.std(axis=0)
    if not scale.max() > 0:
        raise DegenerateError(
            f"features are constant over the {len(pool)} labelled rows; choose another layer"
        )
    # A nearly dead unit must not be blown up to the size of the others.
    scale = np.maximum(scale, 0.01 * scale.mean()) if scaled else np.ones_like(scale)
    a, b = (labelled - mean) / scale, (test.astype(np.float64) - mean) / scale
    return Prepared(a, a @ a.T, b @ a.T)


def classify(
    data: Prepared, shown: Sequence[Codes], pool: Pool, *, classifier: Classifier
) -> Codes:
    """The class of every test row, told from each set of shown rows.

    Args:
        data: prepared features.
        shown: sets of labelled rows, each with every class.
        pool: classes and episodes of the labelled rows.
        classifier: how.

    Returns:
        [set, test] class numbers.
    """
    if classifier.kind == "logistic":
        parts = min(int(pool.deal(rows, classifier.inner).max()) + 1 for rows in shown)
        folds = [pool.deal(rows, parts) for rows in shown]
        return logistic_shots(
            data.inner, data.cross, shown, pool.code, folds, strengths=classifier.strengths
        )
    if classifier.kind == "knn":
        return np.stack(
            [_nearest_rows(data, r, pool.code[r], classifier.neighbours) for r in shown]
        )
    return np.stack([_nearest_centroid(data, rows, pool.code[rows]) for rows in shown])


def _nearest_centroid(data: Prepared, rows: Codes, codes: Codes) -> Codes:
    member = np.eye(int(codes.max()) + 1)[codes]
    member /= member.sum(axis=0)
    own = np.square(member.T @ data.pool[rows]).sum(axis=1)
    return np.argmax(2 * data.cross[:, rows] @ member - own, axis=1)


def _nearest_rows(data: Prepared, rows: Codes, codes: Codes, neighbours: int) -> Codes:
    near = 2 * data.cross[:, rows] - data.inner.diagonal()[rows]
    count = min(neighbours, int(np.bincount(codes).min()))
    order = np.argsort(-near, axis=1, kind="stable")[:, :count]
    votes = np.eye(int(codes.max()) + 1)[codes[order]]
    # The rank decides between classes with as many votes and never against one with more.
    weight = 1 + np.arange(count, 0, -1) / (count + 1) ** 2
    return np.argmax((votes * weight[None, :, None]).sum(axis=1), axis=1)
