"""Training of a model that watches and a model that acts together."""

from __future__ import annotations

from mirror_analysis.lazy import lazy

_PUBLIC = {
    "HeadedPolicy": "headed_policy",
    "Joint": "training",
    "JointConfig": "config",
    "Learner": "learners",
    "LoadedLearner": "loaded",
    "ReferenceExecutionLearner": "reference",
    "ReferenceObservationLearner": "reference",
    "train_jointly": "training",
}
__all__ = sorted(_PUBLIC)

__getattr__, __dir__ = lazy(__name__, _PUBLIC)
