"""Roll-outs in Meta-World: every policy in the same episodes, simulators shared between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from mirror_analysis.episodes.metaworld import ROLLOUTS, TASKS
from mirror_analysis.episodes.simulator import Simulator
from mirror_analysis.errors import (
    DefinitionError,
    DegenerateError,
    StreamError,
    UnknownNameError,
)
from mirror_analysis.models.model import ExecutionModel
from mirror_analysis.parallel import processes
from mirror_analysis.playing import RANDOM, PolicySource, policy_source
from mirror_analysis.provenance import available_threads
from mirror_analysis.rollout.appearance import PLAIN_CONDITION, Appearance, Look, look_of
from mirror_analysis.rollout.lockstep import End, cameras, remembers, roll, wires
from mirror_analysis.rollout.outcomes import Outcomes

HORIZON = 150  # environment steps an episode may take
# Making a simulator costs as much as an episode, so a job should hold at least the lower number;
# progress is told once a job, so no more than the upper.
_FEWEST, _MOST = 10, 60

Policy = str | Path | PolicySource


def rollout_outcomes(
    policies: Policy | Sequence[Policy],
    *,
    tasks: Sequence[str] = (),
    episodes: int = 17,
    seed: int = 0,
    appearance: Appearance | None = None,
    together: int = 1,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Outcomes]:
    """Lets policies act in Meta-World, all in the same episodes, and says how each episode ended.

    Only what a policy reads is drawn.

    Args:
        policies: one or several execution models, each by catalogue name, file or as a
            `PolicySource`; simulators are shared between them.
        tasks: names of tasks; empty for all.
        episodes: per task.
        seed: environment seeds are 2^31 + seed * 10 000 + episode, as in `rollout`.
        appearance: the name of a variant such as "camera-side", a `Variant`, or a `Nuisance`,
            which is drawn once per episode, the same for every policy that sees from the same
            camera; None for plain pictures. What happens in an episode is the same under all.
        together: simulators for which one forward pass decides, for policies that do not
            remember. A batch differs from single rows in the last bits, which now and then turns
            an outcome, so what is compared should share this number.
        workers: processes; None for as many as there are cores.
        progress: called with (parts done, parts in all).

    Returns:
        One `Outcomes` per policy, in their order, over the same tasks and environment seeds. An
        outcome depends on the policy, the task, the environment seed, the appearance and
        `together` alone: neither on the other policies and episodes nor on the workers.

    Raises:
        FormatError: if a checkpoint does not act.
        StreamError: if a policy reads what Meta-World has not, or no camera, though an
            appearance is given.
        UnknownNameError: if a task or variant is not known.
        DegenerateError: if there is no policy, or fewer than one episode or simulator at a time
            is asked for.
        DefinitionError: if a policy is "random".

    Example:
        >>> a, b = rollout_outcomes(["a.safetensors", "b.safetensors"], episodes=50)
        >>> a.success[0][7], b.success[0][7]  # first task, eighth episode: the same situation
        (True, False)
    """
    if episodes < 1:
        raise DegenerateError(f"{episodes} episodes per task asked for; needed at least 1")
    if together < 1:
        raise DegenerateError(f"{together} simulators together asked for; needed at least 1")
    given = [policies] if isinstance(policies, (str, Path, PolicySource)) else list(policies)
    if not given:
        raise DegenerateError("no policies to roll out; needed at least 1")
    look = look_of(appearance)
    sources = tuple(policy_source(policy) for policy in given)
    names = []
    for source in sources:
        model = load_policy(source)
        streams = wires(model, dict(source.streams))
        if look.condition != PLAIN_CONDITION and not cameras(streams):
            raise StreamError(
                f"{model.name} reads no camera, so {look.condition} changes nothing of what it"
                " does; roll it out in plain pictures"
            )
        names.append(model.name)
    names = told_apart(names, [source.source for source in sources])
    for task in tasks:
        if task not in TASKS:
            raise UnknownNameError("task", task, TASKS)
    chosen = tuple(tasks) or tuple(TASKS)
    first = ROLLOUTS + seed * 10_000
    seeds = tuple(range(first, first + episodes))
    groups = [chosen[start : start + together] for start in range(0, len(chosen), together)]
    size = _per_job(len(groups), episodes, len(sources) * together, workers)
    parts = [seeds[start : start + size] for start in range(0, episodes, size)]
    jobs = [_Job(sources, group, part, look, together) for group in groups for part in parts]
    found = iter(processes(workers).map(_run, jobs, progress))
    ends: list[list[list[End]]] = [[] for _ in sources]  # [policy][task][episode]
    for group in groups:
        of_group = [next(found) for _ in parts]
        for p, rows in enumerate(ends):
            for t in range(len(group)):
                rows.append([end for part in of_group for end in part[p][t]])
    return [
        Outcomes(
            name,
            chosen,
            seeds,
            tuple(tuple(end.success for end in row) for row in rows),
            tuple(tuple(end.steps for end in row) for row in rows),
            HORIZON,
            seed,
            look.condition,
        )
        for name, rows in zip(names, ends, strict=True)
    ]


@dataclass(frozen=True, repr=False)
class _Job:
    policies: tuple[PolicySource, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    look: Look
    together: int

    def __repr__(self) -> str:
        names = ", ".join(self.tasks)
        return f"{names}, environment seeds {self.seeds[0]} to {self.seeds[-1]}"


def _per_job(groups: int, episodes: int, each: int, workers: int | None) -> int:
    """Seeds in a job: enough jobs for all workers to end together, and neither short nor long.

    Args:
        groups: of tasks.
        episodes: per task.
        each: episodes that a seed stands for, over policies and the tasks of a group.
        workers: processes; None for as many as there are cores.
    """
    even = episodes * groups // (4 * (workers or available_threads()))
    return min(max(min(_MOST // each, even), ceil(_FEWEST / each)), episodes)


def _run(job: _Job) -> list[list[list[End]]]:
    """[policy][task][episode] how each ended."""
    models = [load_policy(source) for source in job.policies]
    read = [
        wires(model, dict(source.streams))
        for model, source in zip(models, job.policies, strict=True)
    ]
    views = tuple(sorted({view for streams in read for view in cameras(streams)}))
    with ExitStack() as stack:
        simulators = [
            stack.enter_context(Simulator(task, cameras=views, variant=job.look.variant))
            for task in job.tasks
        ]
        return [
            roll(
                model, simulators, job.seeds, streams=streams, nuisance=job.look.nuisance,
                horizon=HORIZON, rows=1 if remembers(model) else job.together,
            )
            for model, streams in zip(models, read, strict=True)
        ]  # fmt: skip


def told_apart(names: Sequence[str], sources: Sequence[str]) -> list[str]:
    """The names, with the folder before those that several policies have, or else their source.

    Example:
        >>> told_apart(["execution", "execution"], ["out/a/execution.pt", "out/b/execution.pt"])
        ['a/execution', 'b/execution']
    """

    def shared(told: Sequence[str], name: str) -> bool:
        return len({s for n, s in zip(told, sources, strict=True) if n == name}) > 1

    folders = [Path(source).parent.name for source in sources]
    found = [
        f"{folder}/{name}" if shared(names, name) and folder else name
        for name, folder in zip(names, folders, strict=True)
    ]
    return [s if shared(found, name) else name for name, s in zip(found, sources, strict=True)]


def load_policy(source: PolicySource) -> ExecutionModel:
    """The policy of a source.

    Raises:
        FormatError: if it is a model that watches.
        DefinitionError: if it is the random policy, which Meta-World has no use for.
    """
    model = source.load()
    if model is None:
        raise DefinitionError(f"the policy '{RANDOM}' acts in Gymnasium only; name env")
    return model
