"""Mirror training from checkpoints and episodes to files: any two models, or the reference pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from mirror_analysis.alignment.gathering import world
from mirror_analysis.alignment.joint.config import JointConfig
from mirror_analysis.alignment.joint.learners import Learner
from mirror_analysis.alignment.joint.loaded import LoadedLearner
from mirror_analysis.alignment.joint.objectives.binning import Discretised
from mirror_analysis.alignment.joint.objectives.contrasting import VideoText
from mirror_analysis.alignment.joint.objectives.denoising import Diffusion
from mirror_analysis.alignment.joint.objectives.labelling import Classification
from mirror_analysis.alignment.joint.objectives.objective import Objective
from mirror_analysis.alignment.joint.objectives.regressing import Regression
from mirror_analysis.alignment.joint.reference import (
    ReferenceExecutionLearner,
    ReferenceObservationLearner,
)
from mirror_analysis.alignment.joint.state import STATE, state_file
from mirror_analysis.alignment.joint.training import Joint, JointCurve, train_jointly
from mirror_analysis.episodes import Episodes, Nuisance
from mirror_analysis.errors import FormatError, StoreError, UnknownNameError
from mirror_analysis.models import load_model
from mirror_analysis.models.model import Role
from mirror_analysis.models.reference.family import ReferenceExecution, ReferenceObservation, save
from mirror_analysis.models.trained import Origin, save_trained
from mirror_analysis.provenance import record
from mirror_analysis.writing import write_whole

OBSERVATION, EXECUTION = "observation.safetensors", "execution.safetensors"
MAPS, RECORD = "alignment.safetensors", "run.json"

OBJECTIVES: dict[Role, dict[str, Callable[[], Objective]]] = {
    "execution": {
        "diffusion": Diffusion,
        "discretised": Discretised,
        "regression": Regression,
    },
    "observation": {
        "classification": Classification,
        "video-text": VideoText,
    },
}
"""Role -> name of a task -> the task; the last of each role is the usual one."""


@dataclass(frozen=True)
class Side:
    """One of the two models of a mirror training.

    Attributes:
        role: whether it watches or acts.
        source: what `load_model` takes; "" for a model of the reference pair from scratch.
        layer: that is aligned and that the task reads; "" for the last but one.
        objective: a name of `OBJECTIVES`; "" for video-text or regression.
        camera: that a model of the reference pair sees.
        streams: model input -> stream of the episodes, where names differ.
        frames: of each episode in a batch.
        nuisance: how far the appearance of an episode is off, drawn anew for every batch; a model
            of the reference pair has one of its own.
        loading: further arguments of `load_model`, such as family, options and trust.
    """

    role: Role
    source: str = ""
    layer: str = ""
    objective: str = ""
    camera: str = ""
    streams: Mapping[str, str] = field(default_factory=dict)
    frames: int = 8
    nuisance: Nuisance | None = None
    loading: Mapping[str, Any] = field(default_factory=dict)


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept beside two models that were trained together.

    Attributes:
        config: settings.
        curve: how it went.
        episodes: fingerprint of what was trained on.
        commit: of this package; "" where it is not known.
        packages: name -> version.
        seconds: of the last call.
    """

    config: JointConfig
    curve: JointCurve
    episodes: str
    commit: str
    packages: dict[str, str]
    seconds: float


def train_mirror(
    observation: Side,
    execution: Side,
    episodes: Episodes,
    *,
    out: Path,
    config: JointConfig,
    progress: Callable[[int, int, float], None] | None = None,
) -> Joint:
    """Trains two models together and writes them, their maps and how it went.

    Goes on where an interrupted call of the same arguments stopped.

    Args:
        observation: the model that watches.
        execution: the model that acts.
        episodes: what both learn from.
        out: folder for `observation.safetensors` and `execution.safetensors`, which `load_model`
            takes, `alignment.safetensors` where the two were aligned to each other, and `run.json`.
        config: settings.
        progress: called with (updates done, updates in all, mean loss of late).

    Raises:
        StoreError: if the folder holds a trained pair already, or the state of another run.
        FormatError: if a checkpoint has the other role.
        UnknownNameError: if there is no such layer, stream or objective.
        MirrorError: whatever else is wrong with checkpoints or episodes.

    Example:
        >>> train_mirror(Side("observation"), Side("execution"), episodes, out=Path("pair"),
        ...              config=JointConfig(epochs=60, batch=24))
    """
    import time

    started = time.monotonic()
    if (out / RECORD).is_file():
        raise StoreError(f"{out} holds a trained pair already; give another --out or remove it")
    out.mkdir(parents=True, exist_ok=True)  # told now, and not after hours of work
    learners = [_learner(side, episodes, config) for side in (observation, execution)]
    begun = [learner.model.weights_sha256 for learner in learners]
    joint = train_jointly(
        learners[0], learners[1], episodes.labels(), config=config, folder=out, progress=progress
    )
    if world().rank:
        state_file(out, world().rank).unlink(missing_ok=True)
        return joint
    made = record(
        device=config.device, seeds={"training": [config.seed]},
        inputs={"episodes": episodes.fingerprint}, seconds=time.monotonic() - started,
    )  # fmt: skip
    provenance = {
        "training": msgspec.json.encode(config).decode(),
        "episodes": episodes.fingerprint,
        "commit": made.commit,
    }
    for learner, side, before, name in zip(
        learners, (observation, execution), begun, (OBSERVATION, EXECUTION), strict=True
    ):
        _save(learner.to("cpu"), side, before, out / name, provenance)
    if joint.alignment is not None:
        joint.alignment.save(out / MAPS)
    kept = Record(config, joint.curve, episodes.fingerprint, made.commit, made.packages,
                  time.monotonic() - started)  # fmt: skip
    write_whole(out / RECORD, msgspec.json.format(msgspec.json.encode(kept)))
    (out / STATE).unlink(missing_ok=True)  # twice the models, and of no more use
    return joint


def _learner(side: Side, episodes: Episodes, config: JointConfig) -> Learner:
    if not side.source:
        kind = (
            ReferenceObservationLearner if side.role == "observation" else ReferenceExecutionLearner
        )
        view = side.camera or ("A" if side.role == "observation" else "B")
        return kind(episodes, camera=view, frames=side.frames, seed=config.seed)
    model = load_model(side.source, **side.loading)
    if model.role != side.role:
        raise FormatError(
            f"{side.source} is an {model.role} model; needed an {side.role} model, so give it in"
            " the other place or set its role where its family lets you"
        )
    names = [info.name for info in model.layers()]
    objectives = OBJECTIVES[side.role]
    chosen = side.objective or list(objectives)[-1]
    if chosen not in objectives:
        raise UnknownNameError(f"objective of an {side.role} model", chosen, objectives)
    learner = LoadedLearner(
        model, episodes, layer=side.layer or names[max(0, len(names) - 2)],
        objective=objectives[chosen](), streams=side.streams, frames=side.frames,
        nuisance=side.nuisance, seed=config.seed,
    )  # fmt: skip
    return learner


def _save(
    learner: Learner, side: Side, before: str, path: Path, provenance: Mapping[str, str]
) -> None:
    model = learner.model
    if isinstance(learner, LoadedLearner):
        loading = {k: v for k, v in side.loading.items() if k in ("family", "calls", "options")}
        origin = msgspec.convert({"source": side.source, "weights": before, **loading}, Origin)
        save_trained(model, path, origin=origin, head=learner.head, provenance=provenance)
        return
    assert isinstance(model, ReferenceObservation | ReferenceExecution)
    save(model, path, provenance=provenance)


def losses(curve: JointCurve) -> Sequence[Mapping[str, float]]:
    """A curve row by row, such as {"update": 15, "observation": 3.1, ...}."""
    table: dict[str, list[float]] = msgspec.to_builtins(curve)
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
