"""Trains one run of a study: the reference pair, jointly, as its condition says."""

from __future__ import annotations

import msgspec

from mirror_analysis.alignment.joint.config import JointConfig
from mirror_analysis.alignment.joint.reference import (
    ReferenceExecutionLearner,
    ReferenceObservationLearner,
)
from mirror_analysis.alignment.joint.state import STATE
from mirror_analysis.alignment.joint.training import train_jointly
from mirror_analysis.models.reference.family import (
    ReferenceExecution,
    ReferenceObservation,
    save,
)
from mirror_analysis.study.training_effects.runs import FILES, MAPS, Curve, RunJob, TrainedAs


def train_reference_pair(job: RunJob) -> Curve:
    """Trains the pair and writes its models, and its maps where the two were aligned.

    Goes on where an earlier call of the same job was stopped.

    Args:
        job: which run, with what, on what, and where to.

    Returns:
        The mean of every loss over each pass.
    """
    settings, frames = job.settings, job.settings.training.frames
    observation = ReferenceObservationLearner(
        job.episodes, camera=settings.x_camera, seed=settings.seed, frames=frames
    )
    execution = ReferenceExecutionLearner(
        job.episodes, camera=settings.y_camera, seed=settings.seed, frames=frames
    )
    joint = train_jointly(
        observation, execution, job.episodes.labels(), config=joint_config(settings, job.device),
        folder=job.folder,
    )  # fmt: skip
    provenance = {
        "training": msgspec.json.encode(settings.training).decode(),
        "seed": str(settings.seed),
        "episodes": settings.episodes,
    }
    for learner, name in zip((joint.observation, joint.execution), FILES, strict=True):
        model = learner.to("cpu").model
        assert isinstance(model, ReferenceObservation | ReferenceExecution)
        save(model, job.folder / name, provenance=provenance)
    if joint.alignment is not None:
        joint.alignment.save(job.folder / MAPS)
    (job.folder / STATE).unlink(missing_ok=True)  # twice the models, and of no more use
    table: dict[str, list[float]] = msgspec.to_builtins(joint.curve)
    return {name: [float(value) for value in values] for name, values in table.items()}


def joint_config(settings: TrainedAs, device: str) -> JointConfig:
    """Settings of joint training as a run has them.

    Args:
        settings: of the run.
        device: where it is trained.
    """
    table: dict[str, object] = msgspec.to_builtins(settings.training)
    del table["frames"]  # the learners' own
    return msgspec.convert({**table, "seed": settings.seed, "device": device}, JointConfig)
