"""A policy in an environment, episode by episode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.episodes.environment import Environment
from mirror_analysis.errors import DegenerateError, FormatError
from mirror_analysis.models import load_model
from mirror_analysis.models.model import ExecutionModel
from mirror_analysis.streams import resolve

RANDOM = "random"
"""Name of the policy that does anything, evenly; a control that needs no file."""


@final
@dataclass(frozen=True)
class PolicySource:
    """Where a policy comes from and how it is read, so that every process can load it.

    Attributes:
        source: what `load_model` takes, or "random".
        family: the family to read it as; by content when None.
        options: further settings of the family, as pairs.
        streams: model input -> stream of the environment, as pairs, where their names differ.
        trust: checkpoints and environments whose own code may run.
        include: folders with definitions of one's own.
    """

    source: str
    family: str | None = None
    options: tuple[tuple[str, str], ...] = ()
    streams: tuple[tuple[str, str], ...] = ()
    trust: tuple[str, ...] = ()
    include: tuple[str, ...] = ()

    def load(self) -> ExecutionModel | None:
        """The model; None for the random policy.

        Raises:
            FormatError: if it is a model that watches.
            MirrorError: whatever else is wrong with it.
        """
        if self.source == RANDOM:
            return None
        model = load_model(
            self.source,
            family=self.family,
            trust=self.trust,
            options=dict(self.options),
            include=[Path(folder) for folder in self.include],
        )
        if not isinstance(model, ExecutionModel):
            raise FormatError(
                f"{self.source} is an {model.role} model; a rollout needs an execution model, such"
                " as reference-execution-s0"
            )
        return model


def policy_source(policy: str | Path | PolicySource, **settings: Any) -> PolicySource:
    """A policy by name or file as a `PolicySource`; one that is given stays as it is."""
    return policy if isinstance(policy, PolicySource) else PolicySource(str(policy), **settings)


@final
@dataclass(eq=False)
class Course:
    """What happened in one episode, step by step.

    Attributes:
        seed: of the environment.
        seen: stream -> what was there before each action.
        actions: what was done.
        rewards: what it gave.
        snapshots: what drawing each moment takes; empty where nobody watched.
        success: whether the environment counted any step as success; None where it never said.
        ended: whether the environment itself ended the episode.
    """

    seed: int
    seen: dict[str, list[NDArray[Any]]] = field(default_factory=dict)
    actions: list[NDArray[np.float32]] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    snapshots: list[tuple[NDArray[Any], ...]] = field(default_factory=list)
    success: bool | None = None
    ended: bool = False

    @property
    def total(self) -> float:
        """The return: the sum of the rewards."""
        return float(np.sum(self.rewards))


def play(
    environment: Environment,
    model: ExecutionModel | None,
    *,
    seed: int,
    horizon: int | None = None,
    streams: Mapping[str, str] | None = None,
    watch: bool = False,
) -> Course:
    """Lets a policy act until the environment ends the episode or its time is over.

    Args:
        environment: where it acts.
        model: what acts; None acts at random.
        seed: of the environment, and of random actions.
        horizon: most steps; the environment's own limit when None.
        streams: model input -> stream of the environment, where their names differ.
        watch: whether to keep what drawing it takes.

    Raises:
        StreamError: if the environment lacks what the model reads.
        ShapeError: if the action has another width than the environment wants.
        DegenerateError: if an action is not finite, or the horizon is below 1.
    """
    if horizon is not None and horizon < 1:
        raise DegenerateError(f"episodes of {horizon} steps asked for; needed at least 1")
    wires: dict[str, str] = {}
    if model is not None:
        wires = resolve(model.name, model.needs, environment.streams, streams)
        model.reset()
    draws = f"camera:{environment.camera}" in wires.values()
    course, seen = Course(seed), dict(environment.reset(seed))
    for step in range(min(horizon or environment.horizon, environment.horizon)):
        for stream, values in seen.items():
            course.seen.setdefault(stream, []).append(values)
        if watch or draws:
            snapshot = environment.snapshot()
            if watch:
                course.snapshots.append(snapshot)
            if draws:
                seen[f"camera:{environment.camera}"] = environment.draw(snapshot)
        if model is None:
            action = environment.random_action(seed, step)
        else:
            now = {name: np.asarray(seen[stream])[None] for name, stream in wires.items()}
            action = model.act(now)[0]
        course.actions.append(np.asarray(action, dtype=np.float32).reshape(-1))
        outcome = environment.step(action)
        course.rewards.append(outcome.reward)
        if outcome.success is not None:
            course.success = bool(course.success) or outcome.success
        seen = dict(outcome.seen)
        if outcome.ended:
            course.ended = True
            break
    return course
