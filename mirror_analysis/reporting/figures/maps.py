"""Both models' episodes in one plane, before and after alignment."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from mirror_analysis.reporting import style, wording
from mirror_analysis.reporting.evidence import Evidence
from mirror_analysis.reporting.figures.drawing import Absent, Drawing
from mirror_analysis.results import EmbeddingMap

_NAME = "maps"
_TITLE = "Both models' episodes in one plane"
_METHODS = {"tsne": "t-SNE", "umap": "UMAP"}
_COLORS = (
    style.BLUE, style.VERMILION, style.GREEN, style.ORANGE, style.PURPLE, style.SKY, style.BLACK,
)  # fmt: skip
_SHAPES = ("o", "^", "s", "D", "v", "P")
_MANY = 8000  # points above which a vector file is slow to open


def draw(evidence: Evidence) -> Drawing | Absent:
    """Scatter of every map: colour, shape and number tell the task, filling tells the model."""
    maps = [m for m in evidence.result.maps if m.points]
    if not maps:
        return Absent(_NAME, _TITLE, "the result has no maps")
    methods = list(dict.fromkeys(m.method for m in maps))
    stages = sorted({m.stage for m in maps}, key=lambda s: (s != "before", s != "after", s))
    tasks = sorted({task for m in maps for task in m.task})
    models = list(dict.fromkeys(name for m in maps for name in m.model))
    dense = sum(len(m.points) for m in maps) > _MANY
    columns = max(1, min(5, 100 // max(8, *(len(wording.plain(t)) + 5 for t in tasks))))
    legend = 0.25 + 0.16 * (math.ceil(len(tasks) / columns) + 1)
    panel = min(3.3, style.DOUBLE / len(stages)) * 0.92
    figure = Figure(
        figsize=(style.DOUBLE, len(methods) * (panel + 0.28) + legend + 0.2), layout="constrained"
    )
    grid = figure.subplots(len(methods), len(stages), squeeze=False)
    for i, method in enumerate(methods):
        for j, stage in enumerate(stages):
            axes = grid[i, j]
            found = [m for m in maps if (m.method, m.stage) == (method, stage)]
            label = _METHODS.get(method, wording.plain(method))
            style.panel_title(axes, f"{label}, {wording.plain(stage)} alignment")
            axes.set_xlabel(f"{label} 1 (no unit)", fontsize=7)
            axes.set_ylabel(f"{label} 2 (no unit)", fontsize=7)
            axes.set_xticks([])
            axes.set_yticks([])
            if found:
                _scatter(axes, found[0], tasks, models, dense)
            else:
                axes.text(0.5, 0.5, "not in the result", transform=axes.transAxes, ha="center")
    _legend(figure, evidence, tasks, models, columns)
    return Drawing(
        _NAME, _TITLE, figure, _caption(evidence, maps, models), _alt(evidence, maps, models), dense
    )


def _shown(evidence: Evidence, model: str) -> str:
    """The display name of a point's model, which may be given by its side."""
    sides = {"observation": evidence.x, "x": evidence.x, "execution": evidence.y, "y": evidence.y}
    return sides.get(model, wording.plain(model))


def _look(task: int) -> tuple[str, str]:
    return _COLORS[task % len(_COLORS)], _SHAPES[task // len(_COLORS) % len(_SHAPES)]


def _scatter(
    axes: Axes, pictured: EmbeddingMap, tasks: Sequence[str], models: Sequence[str], dense: bool
) -> None:
    points = np.array(pictured.points, dtype=float)
    task, model = np.array(pictured.task), np.array(pictured.model)
    centers, labels = [], []
    for i, name in enumerate(tasks):
        color, shape = _look(i)
        for place, side in enumerate(models):
            chosen = points[(task == name) & (model == side)]
            if not len(chosen):
                continue
            axes.scatter(
                chosen[:, 0], chosen[:, 1], s=9, marker=shape, linewidths=0.6, edgecolors=color,
                facecolors=color if place == 0 else "none", alpha=0.75, rasterized=dense,
            )  # fmt: skip
            centers.append(np.median(chosen, axis=0))
            labels.append((str(i + 1), color))
    placed = _apart(np.array(centers), np.ptp(points, axis=0))
    for (text, color), (at_x, at_y) in zip(labels, placed, strict=True):
        axes.text(
            at_x, at_y, text, fontsize=style.SMALLEST, fontweight="bold", color=color, ha="center",
            va="center", path_effects=[withStroke(linewidth=2.0, foreground="white")],
        )  # fmt: skip
    axes.margins(0.04)


def _apart(centers: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """Label places pushed apart until none covers another (boxes of two digits at 7 points)."""
    box = np.maximum(extent, 1e-9) * np.array([0.045, 0.042])
    places = centers.copy()
    for _ in range(200):
        delta = (places[:, None] - places[None]) / box
        near = np.maximum(np.abs(delta[..., 0]), np.abs(delta[..., 1])) < 1
        np.fill_diagonal(near, False)
        if not near.any():
            break
        # Equal places part along the diagonal of their order, the same way every time.
        order = np.sign(np.subtract.outer(np.arange(len(places)), np.arange(len(places))))
        away = np.where(np.abs(delta) < 1e-6, order[..., None], np.sign(delta))
        places += 0.12 * box * (away * near[..., None]).sum(axis=1).clip(-2, 2)
    return places


def _legend(
    figure: Figure, evidence: Evidence, tasks: Sequence[str], models: Sequence[str], columns: int
) -> None:
    sides = [
        Line2D([], [], color=style.BLACK, marker="o", markersize=4, linewidth=0,
               markerfacecolor=style.BLACK if place == 0 else "none", label=_shown(evidence, side))
        for place, side in enumerate(models)
    ]  # fmt: skip
    figure.legend(handles=sides, loc="outside upper left", ncols=len(sides), handletextpad=0.3)
    handles = []
    for i, name in enumerate(tasks):
        color, shape = _look(i)
        handles.append(
            Line2D([], [], color=color, marker=shape, markersize=4, linewidth=0,
                   label=f"{i + 1}  {wording.plain(name)}")
        )  # fmt: skip
    figure.legend(handles=handles, loc="outside lower left", ncols=columns, handletextpad=0.3,
                  columnspacing=1.2)  # fmt: skip


def _caption(evidence: Evidence, maps: list[EmbeddingMap], models: list[str]) -> str:
    first, others = models[0], models[1:]
    episodes = len({e for m in maps for e in m.episode})
    text = (
        f"Every point is one episode as one model represents it; filled: {_shown(evidence, first)}"
    )
    if others:
        text += f", open: {wording.listing(_shown(evidence, m) for m in others)}"
    return (
        f"{text}. Colour, shape and number tell the task; a number stands at the median of a"
        f" model's points of that task. n = {episodes} episodes. Distances between clusters in"
        " such maps carry no meaning; the scores in the tables do."
    )


def _alt(evidence: Evidence, maps: list[EmbeddingMap], models: list[str]) -> str:
    words = [f"Scatter plots of {wording.listing(_shown(evidence, m) for m in models)}."]
    for pictured in maps:
        label = f"{_METHODS.get(pictured.method, pictured.method)} {pictured.stage} alignment"
        share = _nearest_is_twin(pictured)
        words.append(
            f"{wording.plain(label)}: {len(pictured.points)} points,"
            f" {len(set(pictured.task))} tasks"
            + (
                "." if share is None else
                f"; for {share:.0%} of them the nearest point of another model has the same task."
            )
        )  # fmt: skip
    return " ".join(words)


def _nearest_is_twin(pictured: EmbeddingMap) -> float | None:
    """Share of points whose nearest point of another model has their task."""
    points = np.array(pictured.points, dtype=float)
    task, model = np.array(pictured.task), np.array(pictured.model)
    if len(set(pictured.model)) < 2 or len(points) > _MANY:
        return None
    squares = (points**2).sum(axis=1)
    distance = squares[:, None] + squares[None] - 2 * points @ points.T
    distance[model[:, None] == model[None]] = np.inf
    return float((task[distance.argmin(axis=1)] == task).mean())
