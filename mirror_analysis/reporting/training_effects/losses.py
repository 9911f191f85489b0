"""How the losses fell under every condition."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mirror_analysis.reporting import style, wording
from mirror_analysis.reporting.figures.drawing import Absent, Drawing
from mirror_analysis.reporting.style import Mark
from mirror_analysis.reporting.training_effects.evidence import TrainingEvidence
from mirror_analysis.reporting.training_effects.marks import condition_marks
from mirror_analysis.results import Score

_NAME = "losses"
_TITLE = "How training went"
_PANELS = {
    "observation_loss": "cross-entropy (nats)",
    "execution_loss": "Huber loss of the action",
    "alignment_loss": "InfoNCE (nats)",
}

_Curves = dict[str, list[Score]]


def draw(evidence: TrainingEvidence) -> Drawing | Absent:
    """A panel per loss on a logarithmic scale, a line per condition, a band over the seeds."""
    panels = {
        loss: curves
        for loss in _PANELS
        if (curves := {c: s for c in evidence.conditions if (s := evidence.curve(c, loss))})
    }
    if not panels:
        return Absent(_NAME, _TITLE, "the result keeps no curves of training")
    marks = condition_marks(evidence)
    figure = Figure(figsize=(style.DOUBLE, 2.9), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (loss, curves) in zip(grid, panels.items(), strict=True):
        for condition, scores in curves.items():
            _line(axes, scores, marks[condition])
        axes.set_yscale("log")
        # On less than a decade, powers of ten alone would leave the axis without a number.
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(_brief)
        axes.tick_params(axis="y", which="minor", labelsize=6)
        axes.set_xlabel("updates", fontsize=7)
        axes.set_ylabel(_PANELS[loss], fontsize=7)
        style.panel_title(axes, wording.measure_label(loss), width=24)
        style.bare(axes)
    figure.legend(
        handles=[
            Line2D([], [], color=marks[c].color, linestyle=marks[c].line, linewidth=1.2,
                   label=evidence.title(c))
            for c in evidence.conditions
            if any(c in curves for curves in panels.values())
        ],
        loc="outside lower center", ncols=3,
    )  # fmt: skip
    return Drawing(_NAME, _TITLE, figure, _caption(evidence), _alt(evidence, panels))


def _brief(value: float, place: object) -> str:
    """A number at a minor tick, where there is room: 2 and 5 of each decade."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""


def _line(axes: Axes, scores: list[Score], mark: Mark) -> None:
    known = [s for s in scores if s.value is not None]
    updates = [float(s.parameters["update"]) for s in known]
    axes.plot(updates, [s.value for s in known if s.value is not None], color=mark.color,
              linestyle=mark.line, linewidth=1.2)  # fmt: skip
    if all({"least", "largest"} <= s.parameters.keys() for s in known):
        low, high = ([float(s.parameters[end]) for s in known] for end in ("least", "largest"))
        axes.fill_between(updates, low, high, color=mark.color, alpha=0.12, linewidth=0)


def _caption(evidence: TrainingEvidence) -> str:
    return (
        "Means over each pass through the demonstrations, of the training seeds"
        f" ({len(evidence.seeds)}); bands run from the least to the largest of them. Logarithmic"
        " scales. The alignment loss is that of what each condition is aligned to; trained apart,"
        " it is that of maps which may not change the models."
    )


def _alt(evidence: TrainingEvidence, panels: dict[str, _Curves]) -> str:
    words = []
    for loss, curves in panels.items():
        words.append(f"{wording.measure_label(loss)}, first and last pass:")
        words += [
            f"{evidence.title(c)} {wording.number(s[0].value)} to {wording.number(s[-1].value)};"
            for c, s in curves.items()
        ]
    return " ".join(words)
