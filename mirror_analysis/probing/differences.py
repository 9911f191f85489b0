"""How much better a label can be read off one representation than off another."""

from __future__ import annotations

import msgspec
import numpy as np

from mirror_analysis.errors import PairingError
from mirror_analysis.inference import jackknife_interval
from mirror_analysis.probing.decoded import Decoded
from mirror_analysis.results import Score


def gain(after: Decoded, before: Decoded) -> list[Score]:
    """After less before, layer by layer, on the same test rows.

    What is common to both runs cancels: the interval is the jackknife's over the differences of
    their replicates, so for new units of the kind that was held out. For several training seeds
    take `Estimate.over_seeds` of `Decoded.estimate` and subtract those.

    Args:
        after: of the representation under study, such as the aligned or the trained one.
        before: of what it is compared with, decoded with the same settings; layers are matched
            by name, or where names differ by place.

    Returns:
        Scores of role "difference" with the layers of `after`, without null and p; undefined where
        one of the two is.

    Raises:
        PairingError: if rows, labels, settings or the number of layers differ.

    Example:
        >>> trained, twin = decode(features, "task"), decode(untrained_features, "task")
        >>> gain(trained, twin)[-1].interval.low > 0
        True
    """
    same = np.array_equal(after.index.episode, before.index.episode) and np.array_equal(
        after.index.step, before.index.step
    )
    if not same or not np.array_equal(after.truth, before.truth):
        raise PairingError(
            f"the runs were tested on {len(after.index)} and {len(before.index)} rows that are not"
            " the same or not labelled alike; decode the same label of the same episodes"
        )
    if len(after.scores) != len(before.scores):
        raise PairingError(
            f"the runs have {len(after.scores)} and {len(before.scores)} layers; needed as many"
        )
    by_name = {s.x_layer: s for s in before.scores}
    named = all(s.x_layer in by_name for s in after.scores)
    found = []
    for number, a in enumerate(after.scores):
        b = by_name[a.x_layer] if named else before.scores[number]
        for key in ("estimator", "held_out", "folds"):
            if a.parameters[key] != b.parameters[key] or a.measure != b.measure:
                raise PairingError(
                    f"{a.measure} with {key} {a.parameters[key]} meets {b.measure} with"
                    f" {b.parameters[key]}; decode both with the same settings"
                )
        score = msgspec.structs.replace(
            a, x=f"{a.x} less {b.x}", value=None, interval=None, null=None, p_value=None,
            p_max=None, q_value=None, role="difference", undefined=a.undefined or b.undefined,
            note="",
        )  # fmt: skip
        if a.value is not None and b.value is not None:
            replicates = after.replicates[a.x_layer] - before.replicates[b.x_layer]
            value = a.value - b.value
            interval = jackknife_interval(value, replicates)
            method = f"jackknife over {len(replicates)} groups of {a.n} units, paired"
            score = msgspec.structs.replace(
                score, value=value, interval=msgspec.structs.replace(interval, method=method)
            )
        found.append(score)
    return found
