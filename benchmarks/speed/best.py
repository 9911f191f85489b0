"""For each measure the fastest code we know of that gives it, alone and of all layer pairs."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.speed.process import Side

_LAYERS = ("x_layers", "y_layers")
_PAIR = ("x", "y")
_PEERS = "benchmarks.speed.peers:"
_PUBLISHED = "benchmarks.speed.published:"


def _of_one_pair(
    measure: str, name: str, make: str, package: str = "", **settings: object
) -> Callable[[int], Side]:
    def side(layers: int) -> Side:
        return Side(
            name,
            "peer" if package else "published",
            make,
            settings,
            arrays=_PAIR,
            package=package,
            like=f"ours, {measure}, values",
            scale=layers**2,
            note=f"one pair measured, times {layers**2}: it keeps nothing between pairs",
        )

    return side


def _of_grid(
    measure: str, name: str, make: str, package: str, **settings: object
) -> Callable[[int], Side]:
    return lambda layers: Side(
        name,
        "peer",
        make,
        settings,
        arrays=_LAYERS,
        package=package,
        like=f"ours, {measure}, values",
    )


# The fastest we know of that gives the measure, by the measure's name.
BEST: dict[str, Callable[[int], Side]] = {
    "cknna": _of_one_pair("cknna", "CKNNA as published", _PUBLISHED + "cknna"),
    "distance_correlation": _of_one_pair("distance_correlation", "dcor", _PEERS + "dcor", "dcor"),
    "linear_cka": _of_grid("linear_cka", "pytorch-cka", _PEERS + "pytorch_cka", "pytorch-cka"),
    "mean_cca": _of_one_pair("mean_cca", "CCA as published", _PUBLISHED + "cca"),
    "mean_squared_cca": _of_one_pair(
        "mean_squared_cca", "R2 CCA as published", _PUBLISHED + "mean_squared_cca"
    ),
    "mutual_knn": _of_one_pair("mutual_knn", "mutual kNN as published", _PUBLISHED + "mutual_knn"),
    "procrustes_similarity": _of_one_pair(
        "procrustes_similarity", "Procrustes as published", _PUBLISHED + "procrustes_similarity"
    ),
    "rbf_cka": _of_one_pair(
        "rbf_cka", "ckatorch", _PEERS + "ckatorch", "ckatorch", kernel="rbf", unbiased=True
    ),
    "rsa": _of_grid(
        "rsa",
        "rsatoolbox",
        _PEERS + "rsatoolbox_grid",
        "rsatoolbox",
        distance="correlation",
        comparison="spearman",
    ),
    "svcca": _of_one_pair("svcca", "SVCCA as published", _PUBLISHED + "svcca"),
}
