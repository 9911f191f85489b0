"""A realistic result with every part a study can leave, made from fixed random numbers."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np

from mirror_analysis.provenance import Provenance
from mirror_analysis.results import EmbeddingMap, Finding, Interval, Null, Result, Role, Score

OBSERVATION = "Observation model (reference)"
EXECUTION = "Execution model (reference)"
X_LAYERS = ("conv1", "conv2", "conv3", "conv4", "temporal", "penultimate")
Y_LAYERS = ("conv1", "conv2", "conv3", "conv4", "vision", "hidden1", "hidden2")
MEASURES = ("linear_cka", "mutual_knn", "cknna", "svcca", "recall_at_1", "infonce")
SEEDS = (0, 1, 2)
METHOD = "jackknife over 32 groups of episodes"
KS = (1, 2, 3, 5, 10, 20, 32)
TASKS = (
    "reach", "push", "pick-place", "drawer-open", "drawer-close", "window-open", "window-close",
    "door-open", "door-close", "faucet-open", "faucet-close", "button-press-topdown",
    "button-press", "plate-slide", "plate-slide-back", "handle-press", "handle-pull", "sweep-into",
)  # fmt: skip


@dataclass(frozen=True)
class Side:
    x: str
    y: str
    role: Role
    level: float


SIDES = {
    "trained-trained": Side("observation", "execution", "pair", 0.40),
    "trained-untrained": Side("observation", "execution-untrained", "control", 0.12),
    "untrained-trained": Side("observation-untrained", "execution", "control", 0.07),
    "untrained-untrained": Side("observation-untrained", "execution-untrained", "control", 0.04),
    "trained-pixels": Side("observation", "pixels B", "control", 0.09),
    "pixels-trained": Side("pixels A", "execution", "control", 0.08),
    "pixels-pixels": Side("pixels A", "pixels B", "control", 0.10),
    "shuffled": Side("observation", "execution", "reference", 0.015),
    "shuffled within task": Side("observation", "execution", "reference", 0.22),
    "trained-proprioception": Side("observation", "proprioception", "reference", 0.39),
    "trained-state": Side("observation", "state", "reference", 0.45),
    "trained-time": Side("observation", "time", "reference", 0.05),
    "trained-task identity": Side("observation", "task identity", "reference", 0.25),
    "task identity-task identity": Side("task identity", "task identity", "reference", 0.28),
}
SIMPLER = {"plain": 1.35, "nuisance": 1.0}


class Maker:
    """Draws plausible scores; equal seeds make equal results."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)

    def score(self, measure: str, level: float, side: Side, **fields: object) -> Score:
        top = np.log(64) if measure == "infonce" else 1.0
        value = float(np.clip(level + self.rng.normal(0, 0.008), -0.02, 0.99) * top)
        half = float(0.03 * top)
        significant = level > 0.08 * top
        base = {
            "measure": measure,
            "value": value,
            "x": side.x,
            "y": side.y,
            "n": 288,
            "interval": Interval(value - half, value + half, 0.95, METHOD),
            "null": Null(0.0156 * top, 0.007, 999, "episodes"),
            "p_value": 0.001 if significant else 0.24,
            "p_max": 0.001 if level > 0.2 else 0.03 if significant else 0.61,
            "ceiling": float(top) if measure == "infonce" else None,
            "role": side.role,
            "stage": "after" if measure in ("infonce", "recall_at_1", "recall_at_k") else "frozen",
        }  # fmt: skip
        return Score(**{**base, **fields})


def settings(measure: str, within: str = "") -> dict[str, object]:
    return {
        "linear_cka": {"debiased": True},
        "mutual_knn": {"k": 10},
        "cknna": {"k": 10},
        "svcca": {"variance": 0.99},
        "recall_at_1": {"gallery": 16 if within else 64},
        "infonce": {"batch": 64, "temperature": 0.1},
    }[measure]


def grid_scores(make: Maker) -> list[Score]:
    scores = []
    for condition, factor in SIMPLER.items():
        for within in ("", "task"):
            for measure in MEASURES:
                for i, x_layer in enumerate(X_LAYERS):
                    for j, y_layer in enumerate(Y_LAYERS):
                        depth = (i + 1) * (7 - abs(j - 4)) / 42
                        level = 0.42 * factor * depth * (0.4 if within else 1.0)
                        scores.append(
                            make.score(
                                measure, level, SIDES["trained-trained"], x_layer=x_layer,
                                y_layer=y_layer, condition=condition, within=within,
                                parameters=settings(measure, within),
                            )
                        )  # fmt: skip
    return scores


def declared(side: Side) -> dict[str, str]:
    return {
        "x_layer": "penultimate" if side.x.startswith("observation") else "",
        "y_layer": "vision" if side.y.startswith("execution") else "",
    }


def control_scores(make: Maker) -> list[Score]:
    scores = []
    for key, side in SIDES.items():
        for condition, factor in SIMPLER.items():
            for within in ("", "task"):
                level = min(0.9, side.level * factor) * (0.4 if within else 1.0)
                seeds = (None, *SEEDS) if "trained" in key else (None,)
                for seed in seeds:
                    common = {
                        **declared(side),
                        "condition": condition,
                        "within": within,
                        "seed": seed,
                    }
                    # A shuffle mixes what the alignment is fitted on, so it has nothing else.
                    for measure in MEASURES[4:] if "shuffled" in key else MEASURES:
                        named = {**settings(measure, within), "comparison": key}
                        scores.append(make.score(measure, level, side, parameters=named, **common))
                    for k in KS if seed is None else ():
                        named = {"comparison": key, "k": k, "gallery": 16 if within else 64}
                        rise = 1 - (1 - level) ** (k**0.9)
                        if not within or k <= 10:
                            scores.append(
                                make.score("recall_at_k", rise, side, parameters=named, **common)
                            )
    return scores


def difference_scores(make: Maker) -> list[Score]:
    scores = []
    pair = Side("observation", "execution", "difference", 0.0)
    for condition in SIMPLER:
        for within in ("", "task"):
            common = {"condition": condition, "within": within, "x_layer": "penultimate",
                      "y_layer": "vision", "null": None, "ceiling": None}  # fmt: skip
            for measure in MEASURES:
                for against in ("trained-untrained", "untrained-trained", "shuffled within task"):
                    level = 0.40 - SIDES[against].level
                    named = {"comparison": "trained-trained", "against": against}
                    scores.append(make.score(measure, level, pair, parameters=named, **common))
                best = "pixels-pixels" if measure in MEASURES[4:] else "trained-untrained"
                named = {"comparison": "trained-trained", "against": "best control", "best": best}
                scores.append(make.score(measure, 0.18, pair, parameters=named, **common))
    return scores


def outcome_scores(make: Maker) -> list[Score]:
    scores = []
    levels = {
        "trained-trained": {"success": 0.40, "failure": 0.18},
        "untrained-untrained": {"success": 0.06, "failure": 0.04},
    }
    for within in ("", "task"):
        for measure in ("linear_cka", "mutual_knn", "recall_at_1"):
            for key, by_outcome in levels.items():
                side = SIDES[key]
                named = {**settings(measure, within), "comparison": key}
                for outcome, level in by_outcome.items():
                    scores.append(
                        make.score(measure, level, side, parameters=named, condition=outcome,
                                   within=within, n=144, **declared(side))
                    )  # fmt: skip
                gap = Side(side.x, side.y, "difference", 0.0)
                level = by_outcome["success"] - by_outcome["failure"]
                scores.append(
                    make.score(measure, level, gap, within=within,
                               parameters={"comparison": key, "against": "failure"},
                               condition="success-failure", null=None, **declared(side))
                )  # fmt: skip
            both = Side("observation", "execution", "difference", 0.0)
            named = {"comparison": "trained-trained", "against": "untrained-untrained"}
            scores.append(
                make.score(measure, 0.20, both, parameters=named, condition="success-failure",
                           within=within, null=None, **declared(both))
            )  # fmt: skip
    return scores


def embedding_maps(make: Maker, per_task: int = 16) -> list[EmbeddingMap]:
    maps = []
    for method in ("tsne", "umap"):
        for stage in ("before", "after"):
            centers = make.rng.normal(0, 30, size=(len(TASKS), 2))
            points, model, episode, task = [], [], [], []
            for side, shift in (("observation", -55.0), ("execution", 55.0)):
                for i, name in enumerate(TASKS):
                    other = make.rng.normal(0, 30, 2) if stage == "before" else centers[i]
                    center = other + (shift if stage == "before" else 0.0)
                    for e in range(per_task):
                        points.append(tuple(map(float, center + make.rng.normal(0, 4, 2))))
                        model.append(side)
                        episode.append(f"{name}/{e:03d}")
                        task.append(name)
            maps.append(EmbeddingMap(method, stage, points, model, episode, task))
    return maps


def provenance() -> Provenance:
    return Provenance(
        created="2026-02-03T04:05:06+00:00",
        version="0.1.0",
        commit="0123456789ab",
        dirty=True,
        python="3.11.7",
        packages={"torch": "2.13.0", "numpy": "2.4.6"},
        device="cpu",
        threads=2,
        seeds={"training": [0, 1, 2], "episodes": [101, 202]},
        inputs={"reference-observation-s0.safetensors": "ab" * 32},
        seconds=5025.0,
    )


def definition() -> dict[str, object]:
    return {
        "name": "spontaneous-alignment",
        "title": "Do a watcher and an actor represent episodes alike?",
        "question": "Do they agree more on the same episodes than those of untrained twins?",
        "models": {"x": "reference-observation", "y": "reference-execution", "seeds": [0, 1, 2],
                   "x_layer": "penultimate", "y_layer": "vision", "untrained_draws": 3},
        "alignment": {"width": 1024, "temperature": 0.1, "probe_seeds": [0, 1, 2, 3, 4]},
        "measures": {"names": list(MEASURES), "k": 10, "draws": 999, "folds": 32, "gallery": 64},
    }  # fmt: skip


def full_result() -> Result:
    make = Maker()
    scores = [
        *grid_scores(make), *control_scores(make), *difference_scores(make), *outcome_scores(make),
    ]  # fmt: skip
    excess = next(
        s for s in scores
        if s.parameters.get("against") == "best control" and s.measure == "recall_at_1"
        and s.condition == "nuisance" and not s.within
    )  # fmt: skip
    same = next(s for s in scores if s.condition == "success-failure" and s.role == "difference")
    return Result(
        study="spontaneous-alignment",
        title="Do a model that watches and a model that acts come to represent episodes alike?",
        models={"x": OBSERVATION, "y": EXECUTION},
        definition=definition(),
        provenance=provenance(),
        data={"fit": {"episodes": 360, "tasks": 18, "fingerprint": "f1" * 8},
              "test": {"episodes": 288, "tasks": 18, "fingerprint": "f2" * 8}},
        findings=[
            Finding("excess-recall", "The trained pair exceeds its best control.", True, excess),
            Finding("excess-plain", "On plain videos it does not.", False, excess),
            Finding("outcome", "Agreement goes with success beyond untrained twins.", None, same),
        ],
        scores=scores,
        maps=embedding_maps(make),
        notes=["Cameras differ between the two models.", "Task identity alone retrieves a fifth."],
    )  # fmt: skip


def small_result(**fields: object) -> Result:
    """One measure, two layers a side, one control: quick to draw; fields replace those of it."""
    make = Maker()
    pair, twin = SIDES["trained-trained"], SIDES["trained-untrained"]
    scores = [
        make.score("linear_cka", 0.1 * (i + j + 1), pair, x_layer=x, y_layer=y,
                   condition="nuisance", parameters={"comparison": "trained-trained"})
        for i, x in enumerate(("conv1", "penultimate"))
        for j, y in enumerate(("conv1", "vision"))
    ]  # fmt: skip
    scores.append(
        make.score("linear_cka", 0.12, twin, condition="nuisance", **declared(twin),
                   parameters={"comparison": "trained-untrained"})
    )  # fmt: skip
    result = empty_result()
    return msgspec.structs.replace(result, **{"scores": scores, **fields})


def empty_result() -> Result:
    return Result(
        study="small",
        title="A small study",
        models={"x": OBSERVATION, "y": EXECUTION},
        definition={"models": {"x_layer": "penultimate", "y_layer": "vision"}},
        provenance=provenance(),
        data={},
        findings=[],
        scores=[],
        maps=[],
        notes=[],
    )
