"""Runs a study of training: train what is missing, measure what is missing, then say what it is."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from mirror_analysis import catalog
from mirror_analysis.episodes import Episodes
from mirror_analysis.errors import FormatError
from mirror_analysis.provenance import record
from mirror_analysis.results import Result, load_result, save_result
from mirror_analysis.similarity.measures import load_measure
from mirror_analysis.study.material import Progress, collect_episodes
from mirror_analysis.study.parts import fingerprint
from mirror_analysis.study.training_effects import describing
from mirror_analysis.study.training_effects.acting import act_all
from mirror_analysis.study.training_effects.curves import curves
from mirror_analysis.study.training_effects.effects import effects
from mirror_analysis.study.training_effects.findings import findings
from mirror_analysis.study.training_effects.generalising import require_looks
from mirror_analysis.study.training_effects.measuring import measure_all
from mirror_analysis.study.training_effects.probes import require_probes
from mirror_analysis.study.training_effects.readings import Reading
from mirror_analysis.study.training_effects.runs import Run, Train, train_all
from mirror_analysis.training_definitions import TrainingStudyDefinition


@dataclass(frozen=True, eq=False)
class Given:
    """What a study works on.

    Attributes:
        demonstrations: trained on.
        episodes: measured on, with the labels split ("fit" or "test"), task and instruction.
        looks: name -> the test episodes under another look of the scene.
    """

    demonstrations: Episodes
    episodes: Episodes
    looks: Mapping[str, Episodes] = field(default_factory=dict)


def collect(definition: TrainingStudyDefinition, out: Path, progress: Progress) -> Given:
    """The episodes a study asks for, collected or found again."""
    from mirror_analysis.episodes.metaworld import TASKS
    from mirror_analysis.episodes.metaworld import collect as collect_tasks
    from mirror_analysis.episodes.variants import find_variant

    section, d = definition.episodes, definition.demonstrations
    demonstrations = collect_tasks(
        out / "episodes" / "demonstrations",
        tasks=tuple(section.tasks) or tuple(TASKS),
        successes=d.per_task,
        failures=0,
        seed=d.seed,
        split="fit",
        frames=section.frames,
        size=section.size,
        progress=partial(progress, "collecting demonstrations, by task"),
    )
    measured = collect_episodes(section, out / "episodes", progress)
    asked = definition.generalisation
    looks = {
        look: collect_tasks(
            out / "episodes" / "looks" / look,
            tasks=tuple(section.tasks) or tuple(TASKS),
            successes=section.test_successes,
            failures=0,
            seed=section.seed_test,
            split="test",
            frames=section.frames,
            size=section.size,
            variant=find_variant(look),
            progress=partial(progress, f"drawing test episodes as {look}, by task"),
        )
        for look in (asked.looks if asked else ())
    }
    return Given(demonstrations, measured.where(success=True), looks)


def run_training_study(
    definition: TrainingStudyDefinition,
    out: Path,
    *,
    train: Train | None = None,
    given: Given | None = None,
    include: Sequence[Path] = (),
    workers: int | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Result:
    """Carries out a study of training and writes `result.json`.

    Episodes, trained runs, roll-outs and measured parts are kept under `out`, so an interrupted
    study goes on where it stopped and a repeated one only reads.

    Args:
        definition: what is asked.
        out: folder for everything.
        train: trains one run; joint training of the reference pair when None.
        given: episodes; collected when None.
        include: folders with definitions of probes of your own.
        workers: processes; None for as many as there are cores.
        device: where models run.
        progress: called with (stage, done, total).

    Raises:
        UnknownNameError: if a measure or probe is not known.
        StoreError: if the folder holds runs that were trained otherwise.
        MirrorError: whatever is wrong with episodes or models.
    """
    started = time.monotonic()
    told = progress or (lambda stage, done, total: None)
    for name in definition.evaluation.measures:
        load_measure(name)  # faults are told before hours of work
    probes = [catalog.definition("probes", name, include) for name in definition.evaluation.probes]
    require_probes(probes)
    if definition.generalisation:
        require_looks(definition.generalisation.looks)
    if train is None:
        from mirror_analysis.study.training_effects.reference_pair import train_reference_pair

        train = train_reference_pair
    given = given or collect(definition, out, told)
    runs = train_all(
        definition, given.demonstrations, out, train=train, workers=workers, device=device,
        progress=partial(told, "training, by run"),
    )  # fmt: skip
    parts = measure_all(
        runs, given.episodes, definition, out, probes=probes, looks=given.looks,
        workers=workers, device=device, progress=partial(told, "measuring, by run"),
    )  # fmt: skip
    acted = act_all(
        runs, definition, out, workers=workers, progress=partial(told, "acting, by policy")
    )
    readings = {run: [*parts[run].readings, *acted.get(run, [])] for run in runs}
    return _concluded(definition, out, readings, given, device, started)


def _concluded(
    definition: TrainingStudyDefinition, out: Path, readings: dict[Run, list[Reading]],
    given: Given, device: str, started: float,
) -> Result:  # fmt: skip
    sources = {
        "demonstrations": given.demonstrations, "episodes": given.episodes,
        **{f"episodes as {look}": drawn for look, drawn in given.looks.items()},
    }  # fmt: skip
    inputs = describing.inputs(list(readings), out, sources)
    identity = fingerprint(
        msgspec.json.encode(definition),
        msgspec.json.encode(inputs),
        msgspec.msgpack.encode([(run.name, found) for run, found in readings.items()]),
        # What is said of the numbers is made anew by other words, without measuring again.
        *(file.read_bytes() for file in sorted(Path(__file__).parent.glob("*.py"))),
    )
    kept = _kept(out / "result.json", identity)
    if kept is not None:
        return kept
    scores = effects(readings, definition)
    scores += curves(list(readings), out, definition, episodes=len(given.demonstrations))
    result = Result(
        study=definition.name,
        title=definition.title,
        models=describing.display_names(definition),
        definition=msgspec.to_builtins(definition),
        provenance=record(
            device=device,
            seeds=describing.seeds(definition),
            inputs=inputs | {"identity": identity},
            seconds=time.monotonic() - started,
        ),
        data=describing.data(definition, given.demonstrations, given.episodes),
        findings=findings(scores, definition),
        scores=scores,
        maps=[],
        notes=describing.notes(definition),
    )
    save_result(result, out / "result.json")
    return result


def _kept(path: Path, identity: str) -> Result | None:
    if not path.is_file():
        return None
    try:
        result = load_result(path)
    except FormatError:
        return None
    return result if result.provenance.inputs.get("identity") == identity else None
