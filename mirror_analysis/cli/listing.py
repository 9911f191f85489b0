"""What the catalogue, a checkpoint or a folder of episodes holds, as plain rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mirror_analysis import catalog
from mirror_analysis.errors import UnknownNameError

if TYPE_CHECKING:
    from mirror_analysis.episodes import Episodes

Row = dict[str, object]

_MEASURES = {
    "cknna": "CKA among mutual nearest neighbours",
    "cycle_knn": "how often a step to a neighbour and back through the other model returns",
    "distance_correlation": "distance correlation, without bias",
    "knn_edit_similarity": "edits that turn one list of neighbours into the other, as a similarity",
    "knn_jaccard": "overlap of the sets of k nearest neighbours",
    "knn_lcs": "longest common subsequence of the lists of k nearest neighbours",
    "knn_rank_similarity": "ranks in one model of the nearest neighbours in the other",
    "linear_cka": "debiased linear centred kernel alignment",
    "linear_predictivity": "held-out share of variance that ridge regression predicts",
    "mean_cca": "mean canonical correlation",
    "mean_squared_cca": "mean squared canonical correlation",
    "mutual_knn": "share of k nearest neighbours both models have in common",
    "orthogonal_predictivity": "held-out share of variance that a rotation predicts",
    "polynomial_cka": "CKA with polynomial kernels",
    "procrustes_similarity": "agreement after the best rotation",
    "pwcca": "canonical correlations weighted by what they explain",
    "rbf_cka": "CKA with Gaussian kernels, bandwidth a fraction of the median distance",
    "ridge_cca": "mean canonical correlation, regularised",
    "rsa": "correlation of dissimilarity matrices",
    "rv": "RV coefficient: biased linear CKA",
    "svcca": "mean canonical correlation of the leading principal components",
    "donsker_varadhan": "lower bound on mutual information, in nats",
    "gaussian_mi": "mutual information of Gaussian variables, in nats",
    "infonce": "lower bound on mutual information, in nats, at most log of the batch",
    "jensen_shannon": "lower bound on mutual information by a Jensen-Shannon critic, in nats",
    "ksg_mi": "mutual information from nearest neighbours, in nats",
    "mine": "lower bound on mutual information, Donsker-Varadhan with a moving average, in nats",
    "nwj": "lower bound on mutual information, in nats",
    "smile": "estimate of mutual information with clipped density ratios, in nats",
    "recall_at_k": "how often a linear alignment finds the partner among the first k",
}
_SOURCES = {
    "metaworld": "collects 18 tasks x 2 instructions in the simulator, seen by two cameras",
    "arrays": "a folder of npz files with a manifest",
}


def listing(kind: str, include: Sequence[Path]) -> dict[str, list[Row]]:
    """Kind -> rows of name and summary."""
    found: dict[str, list[Row]] = {
        name: [
            {"name": stem, "summary": made.summary}
            for stem, made in catalog.definitions(name, include).items()
        ]
        for name in catalog.KINDS
    }
    for name, entries in (("measures", _MEASURES), ("sources", _SOURCES)):
        found[name] = [{"name": key, "summary": text} for key, text in entries.items()]
    if not kind:
        return found
    if kind not in found:
        raise UnknownNameError("kind", kind, found)
    return {kind: found[kind]}


def description(source: str, include: Sequence[Path]) -> tuple[Row, list[Row]]:
    """Facts about a checkpoint, and its layers."""
    from mirror_analysis.models import load_model

    model = load_model(source, include=include)
    facts: Row = {
        "name": model.name,
        "role": model.role,
        "inputs": ", ".join(model.inputs),
        "parameters": sum(p.numel() for p in model.module.parameters()),
        "weights sha256": model.weights_sha256,
    }
    known = catalog.definitions("checkpoints", include)
    if source in known:
        made = known[source]
        facts |= {"summary": made.summary, "license": made.license, "made by": made.source}
        facts |= {name: value for name, value in made.metrics.items()}
    layers: list[Row] = [
        {"layer": i.name, "width": i.width, "kind": i.kind, "axes": i.axes} for i in model.layers()
    ]
    return facts, layers


def check(names: Iterable[str], include: Sequence[Path]) -> tuple[int, list[str]]:
    """How many definitions were checked, and every fault."""
    known = {stem for kind in catalog.KINDS for stem in catalog.names(kind, include)}
    wanted = set(names)
    for name in wanted:
        if name not in known:
            raise UnknownNameError("definition", name, known)
    found = catalog.faults(include)
    if wanted:
        found = [fault for fault in found if any(f"/{name}.toml" in fault for name in wanted)]
    return len(wanted or known), found + _layer_faults(wanted or known, include)


def _layer_faults(names: Iterable[str], include: Sequence[Path]) -> list[str]:
    """Bundled checkpoints whose layers or inputs are not what their definition says."""
    from mirror_analysis.errors import MirrorError
    from mirror_analysis.models import load_model

    found = []
    for name in sorted(set(names) & set(catalog.names("checkpoints", include))):
        try:
            made = catalog.definition("checkpoints", name, include)
            model = load_model(name, include=include)
        except MirrorError:
            continue  # already among the faults of the catalogue
        layers = [info.name for info in model.layers()]
        if layers != list(made.layers):
            found.append(f"{name}: layers are {layers} but the definition says {made.layers}")
        if list(model.inputs) != list(made.inputs):
            found.append(f"{name}: inputs are {model.inputs} but the definition says {made.inputs}")
    return found


def describe_episodes(episodes: Episodes) -> tuple[Row, list[Row]]:
    """Facts about episodes, and a row per task."""
    import numpy as np

    labels = episodes.labels()
    facts: Row = {
        "episodes": len(episodes),
        "cameras": ", ".join(episodes.cameras),
        "fingerprint": episodes.fingerprint,
    }
    rows: list[Row] = []
    for task in np.unique(labels["task"]) if len(episodes) else ():
        mask = labels["task"] == task
        rows.append(
            {
                "task": str(task),
                "episodes": int(mask.sum()),
                "successes": int(labels["success"][mask].astype(bool).sum()),
                "instructions": len(np.unique(labels["instruction"][mask])),
                "median_length": float(np.median(labels["length"][mask].astype(float))),
            }
        )
    return facts, rows
