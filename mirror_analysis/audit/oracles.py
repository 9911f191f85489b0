"""Values of the measures that were computed elsewhere, on data built from seeds."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.audit.checks import Check, Job, judged, near

if TYPE_CHECKING:
    from mirror_analysis.similarity.measures import Measure

_GROUP = "oracles"
_ROUNDING = 1e-8
# Seconds on one core for 1,000 samples, and how they grow, of what is not done in a blink.
_COST = {"rsa": 2.0, "pwcca": 2.0, "svcca": 2.0, "mean_cca": 2.0, "mean_squared_cca": 2.0}

Rows = NDArray[np.float32]


@cache
def reference() -> Any:
    """The shipped values."""
    text = resources.files(__package__).joinpath("reference_values.json").read_text("utf-8")
    return json.loads(text)


@cache
def pair(samples: int) -> tuple[Rows, Rows]:
    """768 and 512 features that share 64 latent variables, through noise of their own."""
    g = np.random.default_rng(0)
    latent = g.standard_normal((samples, 64))
    a = g.standard_normal((64, 768)) / np.sqrt(64)
    b = g.standard_normal((64, 512)) / np.sqrt(64)
    x = latent @ a + g.standard_normal((samples, 768))
    y = latent @ b + g.standard_normal((samples, 512))
    return x.astype(np.float32), y.astype(np.float32)


def stacks(samples: int, layers: int) -> tuple[dict[str, Rows], dict[str, Rows]]:
    """Two models of so many layers, 768 and 512 wide, that start from one latent."""
    g = np.random.default_rng(1)
    latent = g.standard_normal((samples, 64))

    def stack(width: int) -> dict[str, Rows]:
        hidden = latent @ (g.standard_normal((64, width)) / np.sqrt(64))
        hidden = hidden + g.standard_normal((samples, width))
        out = {}
        for number in range(layers):
            weights = g.standard_normal((width, width)) / np.sqrt(width)
            noise = 0.3 * g.standard_normal((samples, width))
            hidden = 0.7 * hidden + 0.5 * (hidden @ weights) + noise
            out[f"layer{number}"] = hidden.astype(np.float32)
        return out

    return stack(768), stack(512)


def jobs(quick: bool, seed: int) -> list[Job]:
    """One job for each value; they do not depend on the seed."""
    known = reference()
    found = []
    for place, samples in enumerate(known["pair"]["samples"][: 1 if quick else None]):
        for number, row in enumerate(known["pair"]["values"]):
            if row["value"][place] is None:
                continue
            cost = _COST.get(row["measure"], 1.0) * (samples / 1000) ** 1.5
            found.append(
                Job(_GROUP, _title(row, samples), value, {"row": number, "place": place}, cost)
            )
    sizes = known["null"]["samples"][: 2 if quick else None]
    found += [
        Job(_GROUP, "offsets", offsets, {}, 3.0),
        Job(_GROUP, "published notebook", notebook, {}, 2.0),
        Job(_GROUP, "unrelated, closed form", unrelated, {"sizes": sizes}, 3.0),
        Job(_GROUP, "svcca: components kept", components, {}, 2.0),
    ]
    if not quick:
        found.append(Job(_GROUP, "layer heatmap", heatmap, {}, 30.0))
    return found


def _title(row: Any, samples: int) -> str:
    settings = ", ".join(f"{key} {word}" for key, word in row["settings"].items())
    rows = ", rows normalised" if row.get("rows") else ""
    return f"{row['measure']}{' (' + settings + ')' if settings else ''}{rows}, n = {samples}"


def value(row: int, place: int) -> list[Check]:
    """One measure of the pair against its reference value, to the last digit it is given to."""
    from mirror_analysis import similarity

    known = reference()["pair"]
    entry, samples = known["values"][row], known["samples"][place]
    x, y = pair(samples)
    if entry.get("rows") == "normalised":
        x, y = (side / np.linalg.norm(side.astype(np.float64), axis=1)[:, None] for side in (x, y))
    measured = getattr(similarity, entry["measure"])(x, y, **entry["settings"])
    loose = entry.get("tolerance", [None] * (place + 1))[place]
    tolerance = loose or 0.5 * 10.0 ** -entry["digits"] + _ROUNDING
    note = entry["note"] if loose else ""
    title = _title(entry, samples)
    return [near(_GROUP, title, measured, entry["value"][place], tolerance, note=note)]


def components() -> list[Check]:
    """How many principal components hold 99 % of the variance."""
    import torch

    from mirror_analysis.similarity.cca.mean import SVCCA
    from mirror_analysis.similarity.measures import Layer

    known = reference()["pair"]
    samples, wanted = known["samples"][0], known["svcca_dimensions"][0]
    found = []
    for name, side, count in zip("xy", pair(samples), wanted, strict=True):
        state = SVCCA().prepare(Layer(name, torch.from_numpy(side).double()))
        title = f"svcca: components of {name}, n = {samples}"
        found.append(near(_GROUP, title, state.scores.shape[1], count, 0))
    return found


def offsets() -> list[Check]:
    """What adding a number to every feature does to linear CKA; it should do nothing."""
    from mirror_analysis.comparison import compare
    from mirror_analysis.similarity import linear_cka

    x, y = (side.astype(np.float64) for side in pair(1000))
    found = []
    for debiased in (True, False):
        before = linear_cka(x, y, debiased=debiased)
        word = "debiased" if debiased else "biased"
        for offset in (10.0, 100.0, 1000.0):
            change = abs(linear_cka(x + offset, y + offset, debiased=debiased) - before)
            title = f"linear_cka, {word}: change by {offset:.0f} added to every feature"
            found.append(judged(_GROUP, title, change, high=1e-6))
    for offset in (10.0, 100.0, 1000.0):
        (score,) = compare(x + offset, y + offset, measures=["linear_cka"], draws=0, folds=0).scores
        assert score.value is not None
        change = abs(score.value - linear_cka(x, y))
        title = f"compare, linear_cka: change by {offset:.0f} added to every feature"
        found.append(judged(_GROUP, title, change, high=1e-6))
    return found


def notebook() -> list[Check]:
    """The numbers printed in the notebook of Kornblith et al. 2019."""
    from mirror_analysis.similarity import linear_cka, rbf_cka

    known = reference()["notebook"]
    # The published numbers were drawn from the older generator.
    g = np.random.RandomState(1337)
    x = g.randn(100, 10)
    y = g.randn(100, 10) + x
    found = (
        ("linear_cka, biased", linear_cka(x, y, debiased=False), known["linear_cka"]),
        ("linear_cka, debiased", linear_cka(x, y), known["linear_cka_debiased"]),
        (
            "rbf_cka, biased, half the median",
            rbf_cka(x, y, median_fraction=0.5, debiased=False),
            known["rbf_cka_half_median"],
        ),
    )
    return [near(_GROUP, f"notebook: {name}", seen, truth, 1e-5) for name, seen, truth in found]


def unrelated(sizes: list[int]) -> list[Check]:
    """Independent normal features: biased CKA near its closed form, the others at chance."""
    from mirror_analysis.comparison import compare
    from mirror_analysis.similarity import linear_cka

    g, found = np.random.default_rng(7), []
    for n in sizes:
        drawn = [(g.standard_normal((n, 768)), g.standard_normal((n, 512))) for _ in range(10)]
        biased = [linear_cka(x, y, debiased=False) for x, y in drawn]
        debiased = [linear_cka(x, y) for x, y in drawn]
        closed = ((1 + n / 768) * (1 + n / 512)) ** -0.5
        found.append(near(_GROUP, f"unrelated, linear_cka, biased, n = {n}",
                          float(np.mean(biased)), closed, 0.003))  # fmt: skip
        error = 4 * float(np.std(debiased, ddof=1)) / len(debiased) ** 0.5
        found.append(near(_GROUP, f"unrelated, linear_cka, debiased, n = {n}",
                          float(np.mean(debiased)), 0.0, error))  # fmt: skip
    x, y = pair(1000)
    (score,) = compare(x, y, measures=["mutual_knn"], draws=99, folds=0).scores
    assert score.null is not None
    error = 4 * score.null.sd / score.null.draws**0.5
    title = "permuted, mutual_knn, n = 1000"
    return [*found, near(_GROUP, title, score.null.mean, 10 / 999, error)]


def heatmap() -> list[Check]:
    """The mean over all pairs of two stacks of layers."""
    from mirror_analysis.comparison import compare
    from mirror_analysis.similarity.cka import LinearCKA

    known = reference()["heatmap"]
    x, y = stacks(known["samples"], known["layers"])
    found = []
    for word, truth in known["mean"].items():
        measure: list[str | Measure] = [LinearCKA(debiased=word == "debiased")]
        grid = compare(x, y, measures=measure, draws=0, folds=0).grid("linear_cka")
        title = f"linear_cka, {word}: mean of {len(x)} x {len(y)} layers"
        found.append(near(_GROUP, title, float(grid.to_numpy().mean()), truth, 1.5e-6))
    return found
