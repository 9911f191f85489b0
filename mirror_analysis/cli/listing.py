"""What the catalogue, a checkpoint or a folder of episodes holds, as plain rows."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirror_analysis import catalog
from mirror_analysis.definitions import CheckpointDefinition, PublicCheckpoint
from mirror_analysis.errors import UnknownNameError

if TYPE_CHECKING:
    from mirror_analysis.episodes import Episodes
    from mirror_analysis.models.model import Input

Row = dict[str, object]
Report = Callable[[str, int, int], None]

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
_COLLECTED = {
    "metaworld": "collects 18 tasks x 2 instructions in the simulator, seen by two cameras",
    "gym": "gym:ENVIRONMENT collects what policies do in Gymnasium, seen by one camera",
}


def listing(kind: str, include: Sequence[Path]) -> dict[str, list[Row]]:
    """Kind -> rows of name and summary, and for checkpoints of what else is known."""
    makers: dict[str, Callable[[], list[Row]]] = {
        "checkpoints": lambda: [
            _checkpoint(made) for made in catalog.definitions("checkpoints", include).values()
        ],
        **{name: partial(_definitions, name, include) for name in ("probes", "reports")},
        "families": _families,
        "measures": lambda: [{"name": key, "summary": text} for key, text in _MEASURES.items()],
        "sources": _sources,
    }
    if kind and kind not in makers:
        raise UnknownNameError("kind", kind, makers)
    return {name: make() for name, make in makers.items() if kind in ("", name)}


def _definitions(kind: str, include: Sequence[Path]) -> list[Row]:
    made = catalog.definitions(kind, include).items()
    return [{"name": stem, "summary": one.summary} for stem, one in made]


def _checkpoint(made: CheckpointDefinition | PublicCheckpoint) -> Row:
    row: Row = {"name": made.name, "role": made.role, "family": made.family}
    if isinstance(made, PublicCheckpoint):
        kinds = {"hub": made.hub, "url": made.url, "package": made.package}
        row["from"] = next(kind for kind, place in kinds.items() if place)
        row |= {"place": made.place, "revision": made.revision or "", "license": made.license}
    else:
        row |= {"from": "bundled", "license": made.license}
    return {**row, "summary": made.summary}


def _families() -> list[Row]:
    from mirror_analysis.models.families import FAMILIES, family

    return [{"name": name, "summary": family(name).SUMMARY} for name in FAMILIES]


def _sources() -> list[Row]:
    from mirror_analysis.episodes import READERS

    read = {name: importlib.import_module(path).SUMMARY for name, path in READERS.items()}
    return [{"name": name, "summary": text} for name, text in {**_COLLECTED, **read}.items()]


def description(
    source: str, include: Sequence[Path], *, trust: Collection[str] = (), **loading: Any
) -> tuple[Row, list[Row]]:
    """Facts about a checkpoint, and its layers."""
    from mirror_analysis.models import load_model

    model = load_model(source, include=include, trust=trust, **loading)
    facts: Row = {"name": model.name, "role": model.role}
    facts |= dict(model.facts)
    facts["inputs"] = ", ".join(map(_input, model.needs))
    said = set(model.facts.values())
    facts |= {
        name: value
        for name, value in model.settings.items()
        if name not in model.facts and value not in said
    }
    facts |= {
        "parameters": sum(p.numel() for p in model.module.parameters()),
        "weights sha256": model.weights_sha256,
    }
    if source in catalog.names("checkpoints", include):
        made = catalog.definition("checkpoints", source, include)
        facts |= {"summary": made.summary, "license": made.license}
        if isinstance(made, PublicCheckpoint):
            facts |= {"published": made.place, "revision": made.revision or "not known"}
            facts |= {"license stated at": made.license_source, "reference": made.reference}
            facts |= {"note": made.note} if made.note else {}
        else:
            facts |= {"made by": made.source, **made.metrics}
    layers: list[Row] = [
        {"layer": i.name, "width": i.width, "kind": i.kind, "axes": i.axes, "calls": i.calls}
        for i in model.layers()
    ]
    return facts, layers


def _input(need: Input) -> str:
    width = "" if need.width is None else f" [{need.width}]"
    return need.name + width + (f" ({need.note})" if need.note else "")


def check(
    names: Iterable[str], include: Sequence[Path], *, online: Report | None = None
) -> tuple[int, list[str]]:
    """How many definitions were checked, and every fault.

    Args:
        names: definitions; all if none.
        include: folders with definitions of your own.
        online: asks where public checkpoints lie whether they are there; told of every one.
    """
    known = {stem for kind in catalog.KINDS for stem in catalog.names(kind, include)}
    wanted = set(names)
    for name in wanted:
        if name not in known:
            raise UnknownNameError("definition", name, known)
    found = catalog.faults(include)
    if wanted:
        found = [fault for fault in found if any(f"/{name}.toml" in fault for name in wanted)]
    found += _layer_faults(wanted or known, include)
    if online is not None:
        from mirror_analysis.hub import online_faults

        public = [
            name
            for name in sorted((wanted or known) & set(catalog.names("checkpoints", include)))
            if isinstance(catalog.definition("checkpoints", name, include), PublicCheckpoint)
        ]
        told = online
        found += online_faults(
            public, include, progress=lambda name, done, total: told("asking", done, total)
        )
    return len(wanted or known), found


def _layer_faults(names: Iterable[str], include: Sequence[Path]) -> list[str]:
    """Bundled checkpoints whose layers or inputs are not what their definition says."""
    from mirror_analysis.errors import MirrorError
    from mirror_analysis.models import load_model

    found = []
    for name in sorted(set(names) & set(catalog.names("checkpoints", include))):
        try:
            made = catalog.definition("checkpoints", name, include)
            if isinstance(made, PublicCheckpoint):
                continue  # is not here; `--online` asks where it is
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
        "streams": ", ".join(
            f"{name} {list(shape)}" if shape else name for name, shape in episodes.streams.items()
        ),
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
