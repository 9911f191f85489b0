"""What a loaded model is trained for: tasks of its own, each with a head on one of its layers."""

from __future__ import annotations

from mirror_analysis.lazy import lazy

_PUBLIC = {
    "Classification": "labelling",
    "Diffusion": "denoising",
    "Discretised": "binning",
    "Head": "objective",
    "Objective": "objective",
    "Regression": "regressing",
    "Shown": "objective",
    "Target": "cloning",
    "VideoText": "contrasting",
}
__all__ = sorted(_PUBLIC)

__getattr__, __dir__ = lazy(__name__, _PUBLIC)
