"""Finding a layer's counterpart in a network of the same architecture and another seed.

After Kornblith et al. 2019, table 2: linear CKA finds nearly all, canonical correlations hardly
any, since every layer has more features than there are pictures.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from mirror_analysis.audit.checks import Check, Job, judged, shown
from mirror_analysis.audit.digit_networks import digits, train

_GROUP = "identification"
_CANONICAL = ("mean_cca", "pwcca", "svcca")
_QUICK = ("cknna", "linear_cka", "mutual_knn", "svcca")


def jobs(quick: bool, seed: int) -> list[Job]:
    """One job: networks of a seed are compared with those of every other."""
    from mirror_analysis.similarity.measures import MEASURES

    measures = _QUICK if quick else tuple(MEASURES)
    arguments = {
        "measures": tuple(name for name in measures if name in MEASURES),
        "networks": 2 if quick else 4,
        "epochs": 8,
        "seed": seed,
    }
    cost = 10.0 if quick else 120.0
    return [Job(_GROUP, "layers of networks of other seeds", identify, arguments, cost)]


def identify(measures: tuple[str, ...], networks: int, epochs: int, seed: int) -> list[Check]:
    """How often the most similar layer of the other network is the one at the same depth."""
    from mirror_analysis.comparison import compare

    made = [train(seed + number, epochs=epochs) for number in range(networks)]
    learnt = digits()[2]
    sides = [{f"layer{i}": h[learnt:] for i, h in enumerate(net.layers)} for net in made]
    hits: dict[str, list[bool]] = {name: [] for name in measures}
    for a, b in combinations(sides, 2):
        found = compare(a, b, measures=measures, draws=0, folds=0)
        for name in measures:
            grid = found.grid(name).to_numpy()
            depth = np.arange(len(grid))
            hits[name] += [*(grid.argmax(axis=1) == depth), *(grid.argmax(axis=0) == depth)]
    rates = {name: float(np.mean(found)) for name, found in hits.items()}
    trials, layers = len(hits[measures[0]]), len(made[0].layers)
    others = max(rates[name] for name in _CANONICAL if name in rates)
    note = f"{trials} layers, chance {1 / layers:.2f}"
    checks = [
        judged(
            _GROUP,
            "networks: accuracy on unseen digits, least",
            min(net.accuracy for net in made),
            low=0.9,
        ),
        judged(_GROUP, "linear_cka: layers identified", rates["linear_cka"], low=0.9, note=note),
        judged(
            _GROUP,
            "linear_cka: above the best of canonical correlation",
            rates["linear_cka"] - others,
            low=0.3,
        ),
    ]
    rest = [name for name in measures if name != "linear_cka"]
    return checks + [shown(_GROUP, f"{m}: layers identified", rates[m], note) for m in rest]
