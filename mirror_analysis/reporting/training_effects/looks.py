"""What is left under another look of the scene: camera, robot, room."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mirror_analysis.reporting import style, wording
from mirror_analysis.reporting.figures.drawing import Absent, Drawing, dot
from mirror_analysis.reporting.style import Mark
from mirror_analysis.reporting.training_effects.evidence import RECOGNITION, TrainingEvidence
from mirror_analysis.reporting.training_effects.marks import condition_marks
from mirror_analysis.reporting.training_effects.points import in_points
from mirror_analysis.reporting.training_effects.rows import Panel, Scores, known

_NAME = "looks"
_TITLE = "Under another look of the scene"
_FITTED = "fitted on plain videos"
_ROW = 0.42  # inches

PANELS = (
    Panel("Recognition, observation", RECOGNITION),
    *(
        Panel(f"Probe, {model}", "probe_accuracy", "", (("model", model), ("setting", _FITTED)))
        for model in ("observation", "execution")
    ),
)


def looks(evidence: TrainingEvidence) -> list[str]:
    """Plain videos, then every look that was asked for."""
    asked = evidence.generalisation.get("looks")
    return ["plain", *map(str, asked)] if isinstance(asked, list) and asked else []


def draw(evidence: TrainingEvidence) -> Drawing | Absent:
    """A panel per number, a row per look, a mark per condition."""
    rows = looks(evidence)
    panels = known(evidence, PANELS, rows)
    if not rows or not panels:
        return Absent(_NAME, _TITLE, "the result has no numbers under another look of the scene")
    marks = condition_marks(evidence)
    shown = [c for c in evidence.conditions if any(c == k[0] for f in panels.values() for k in f)]
    figure = Figure(figsize=(style.DOUBLE, 1.2 + _ROW * len(rows)), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axes, (panel, found) in zip(grid, panels.items(), strict=True):
        _draw_panel(axes, rows, shown, found, marks)
        style.panel_title(axes, panel.title, width=28)
        axes.set_xlabel("% of test episodes", fontsize=7)
    grid[0].set_yticks(range(len(rows)), [wording.condition_label(row) for row in rows])
    grid[0].set_ylim(len(rows) - 0.45, -0.55)
    figure.legend(
        handles=[
            Line2D([], [], color=marks[c].color, marker=marks[c].marker, markersize=4, linewidth=0,
                   label=evidence.title(c))
            for c in shown
        ],
        loc="outside lower center", ncols=3,
    )  # fmt: skip
    return Drawing(_NAME, _TITLE, figure, _caption(evidence, panels), _alt(evidence, panels))


def _draw_panel(
    axes: Axes, rows: list[str], shown: list[str], found: Scores, marks: dict[str, Mark]
) -> None:
    step = 0.8 / max(len(shown), 1)
    for at, look in enumerate(rows):
        if at % 2 == 0:
            axes.axhspan(at - 0.5, at + 0.5, color="#F6F6F6", linewidth=0, zorder=-1)
        for number, condition in enumerate(shown):
            score = found.get((condition, look))
            if score is not None:
                place = at + (number - (len(shown) - 1) / 2) * step
                dot(axes, place, in_points(score), marks[condition], upright=False)
    axes.set_xlim(-2, 102)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    style.bare(axes)


def _caption(evidence: TrainingEvidence, panels: dict[Panel, Scores]) -> str:
    scores = [s for found in panels.values() for s in found.values()]
    meaning = wording.intervals(scores)
    target = wording.plain(evidence.generalisation.get("target", "label"))
    return (
        "The same test episodes drawn from another camera, with another robot or in another room."
        " Nothing was trained or fitted under these looks. Recognition: the answer of the"
        f" observation model itself. Probe: the {target}, by a linear probe fitted on plain videos."
        + (f" Bars: {meaning}." if meaning else "")
        + f" {wording.units(scores)} per seed."
    )


def _alt(evidence: TrainingEvidence, panels: dict[Panel, Scores]) -> str:
    words = []
    for panel, found in panels.items():
        words.append(f"{panel.title}:")
        words += [
            f"{wording.condition_label(look)}, {evidence.title(condition)} {wording.spoken(s)};"
            for (condition, look), s in found.items()
        ]
    return " ".join(words)
