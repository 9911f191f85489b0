"""A picture of how fits went."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from mirror_analysis.alignment.linear import Curve
from mirror_analysis.reporting import style
from mirror_analysis.writing import write_whole


def draw_curves(curves: Sequence[Curve], seeds: Sequence[int], path: Path) -> None:
    """Losses of fits with several seeds over their updates; a ring marks the weights kept.

    Args:
        curves: one per seed.
        seeds: what they are called.
        path: PNG to write, whole or not at all.
    """
    from matplotlib.figure import Figure

    with style.applied():
        figure = Figure(figsize=(style.SINGLE, 2.4), layout="constrained")
        axes = figure.add_subplot()
        for mark, curve, seed in zip(style.SERIES * len(curves), curves, seeds, strict=False):
            axes.plot(curve.step, curve.fit, color=mark.color, linestyle=":", linewidth=0.9)
            axes.plot(curve.step, curve.validation, color=mark.color, label=f"seed {seed}")
            lowest = curve.validation[curve.step.index(curve.chosen)]
            axes.plot([curve.chosen], [lowest], "o", color=mark.color, fillstyle="none")
        axes.set_xlabel("updates")
        axes.set_ylabel("InfoNCE loss (nats)")
        # A fixed place: looking for the best one can take long, of which matplotlib warns.
        axes.legend(loc="upper right", title="validation (dotted: fit batch)", title_fontsize=7)
        style.bare(axes)
        data = io.BytesIO()
        figure.savefig(data, format="png")
    write_whole(path, data.getvalue())
