"""What is planted in either model is found elsewhere, and what one task alone shows is not."""

import msgspec
import numpy as np
import pytest
import small_training as small

from mirror_analysis.alignment.linear import AlignmentConfig
from mirror_analysis.errors import DefinitionError, UnknownNameError
from mirror_analysis.features import Index, Paired, Split
from mirror_analysis.generalisation import FewShotConfig, Rows, few_shot_curve, parts_of
from mirror_analysis.study.training_effects.generalising import (
    CEILING,
    CROSSED,
    KNOWN_TASKS,
    MIXED,
    NEW_TASKS,
    PLAIN,
    Asked,
    few_shot_readings,
    held_out_readings,
    look_readings,
    require_looks,
    transfer_readings,
)
from mirror_analysis.training_definitions import GeneralisationSection

TASKS, WIDTH = 5, 8
QUESTIONS = GeneralisationSection("instruction", [1, 2, "all"], True, "side", [])


def asked(**changes):
    definition = small.two(evaluation={"draws": 99, "folds": 8})
    return Asked(
        msgspec.structs.replace(QUESTIONS, **changes), definition.models, definition.evaluation
    )


def index(part, per_task, *, odd=False):
    """Half of the episodes of each task go left; those of the last go near or far if `odd`."""
    task = np.repeat([f"task-{i}" for i in range(TASKS)], per_task)
    side = np.where(np.arange(len(task)) % 2 == 0, "left ", "right")
    if odd:
        last = task == f"task-{TASKS - 1}"
        side = np.where(last, np.where(side == "left ", "near ", "far  "), side)
    instruction = np.array([f"{t} {s}" for t, s in zip(task, side, strict=True)])
    names = np.array([f"{part}-{i:03d}" for i in range(len(task))])
    return Index(names, np.zeros(len(task), dtype=np.int64),
                 {"task": task, "side": side, "instruction": instruction})  # fmt: skip


def world(*, shared=True, odd=False, noise=0.3, seed=0):
    """x shows task and side; y is x turned. Unless `shared`, each task has its own axis of side."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(2 * TASKS + 1, 2 * TASKS + 1)))[0]
    parts = []
    for part, count in (("fit", 24), ("validation", 12), ("test", 24)):
        rows = index(part, count, odd=odd)
        task = np.array([int(t[-1]) for t in rows.label("task")])
        sign = np.where(np.isin(rows.label("side"), ("left ", "near ")), -1.0, 1.0)
        x = rng.normal(size=(len(task), 2 * TASKS + 1)) * noise
        x[np.arange(len(task)), task] += 2.0
        x[np.arange(len(task)), 2 * TASKS if shared else TASKS + task] += sign
        parts.append(Paired({"penultimate": np.float32(x)}, {"vision": np.float32(x @ turn)}, rows))
    return Split(*parts)


def told(readings, **fields):
    (found,) = [
        r for r in readings
        if all(r.score.parameters.get(k, getattr(r.score, k, None)) == v for k, v in fields.items())
    ]  # fmt: skip
    return found


def test_few_labels_are_those_of_the_curve():
    data = world()
    found = list(few_shot_readings(data, asked(), views="nuisance"))
    assert len(found) == 6 and {r.score.condition for r in found} == {"nuisance"}
    config = FewShotConfig(shots=(1, 2, "all"), folds=8, null_draws=99)
    for side, model, layer in (("x", "observation", "penultimate"), ("y", "execution", "vision")):
        curve = few_shot_curve([parts_of(data, side, layer)], "instruction", config=config)
        for shots, point in zip((1, 2, "all"), curve, strict=True):
            one = told(found, model=model, shots=shots)
            assert one.score.value == point.score.value and one.score.x_layer == layer
            assert one.replicates == point.replicates[0].tolist()
            assert one.score.interval == point.score.interval
    assert told(found, model="execution", shots="all").score.parameters["per_class"] == 18


def test_more_shots_than_there_are_is_told_and_nothing_asked_gives_nothing():
    one, _ = few_shot_readings(world(), asked(shots=[18]), views="plain")
    assert one.score.value is None and "18 shots with an interval need 19" in one.score.undefined
    assert one.replicates == []
    silent = asked(shots=[], transfer=False, held_out="")
    assert not list(few_shot_readings(world(), silent, views="plain"))
    assert not list(held_out_readings(world(), silent, views="plain"))
    assert not list(
        transfer_readings(world(), silent, alignment=AlignmentConfig(), seed=0, views="plain")
    )


def test_a_probe_crosses_where_episodes_were_paired_and_not_where_they_were_shuffled():
    config = AlignmentConfig(width=16, steps=200, batch=60, learning_rate=1e-2, patience=50)
    found = list(transfer_readings(world(), asked(), alignment=config, seed=0, views="plain"))
    assert len(found) == 6
    for model in ("observation", "execution"):
        crossed, mixed, ceiling = (
            told(found, model=model, setting=s).score for s in (CROSSED, MIXED, CEILING)
        )
        assert crossed.value > 0.9 and ceiling.value > 0.9
        # Maps of pairs shuffled within tasks know the task and, of two instructions, neither.
        assert 0.3 < mixed.value < 0.75, mixed.value
        assert crossed.null.mean == pytest.approx(0.1, abs=0.02) and crossed.x == model
        assert len(told(found, model=model, setting=CROSSED).replicates) == 8


def test_a_side_that_all_tasks_share_is_told_in_new_ones():
    found = list(held_out_readings(world(), asked(), views="plain"))
    own = list(held_out_readings(world(shared=False), asked(), views="plain"))
    for model in ("observation", "execution"):
        assert told(found, model=model, setting=NEW_TASKS).score.value > 0.9
        assert told(own, model=model, setting=KNOWN_TASKS).score.value > 0.9
        outside = told(own, model=model, setting=NEW_TASKS)
        assert 0.3 < outside.score.value < 0.7 and outside.score.within == "task"
        assert outside.score.n == TASKS and len(outside.replicates) == TASKS


def test_values_of_one_task_alone_are_left_out():
    found = list(held_out_readings(world(odd=True), asked(), views="plain"))
    assert told(found, model="execution", setting=NEW_TASKS).score.n == TASKS - 1
    assert told(found, model="execution", setting=NEW_TASKS).score.value > 0.9


def test_another_look_is_judged_by_the_probe_of_plain_videos():
    data = world()
    test = data.test
    same = {"x": Rows(test.x["penultimate"], test.index), "y": Rows(test.y["vision"], test.index)}
    blind = {side: Rows(np.zeros_like(rows.values), rows.index) for side, rows in same.items()}
    found = list(look_readings(data, {"same": same, "blind": blind}, asked()))
    assert len(found) == 6
    for model in ("observation", "execution"):
        plain, again, gone = (
            told(found, model=model, setting=PLAIN, condition=views)
            for views in ("plain", "same", "blind")
        )
        assert plain.score.value == again.score.value > 0.9
        assert plain.replicates == again.replicates
        assert gone.score.value == pytest.approx(0.1)  # one answer for all


def test_looks_are_known_and_named_once():
    require_looks(["camera-side", "table-dark"])
    with pytest.raises(UnknownNameError, match="unknown variant 'camera-sid'; did you mean"):
        require_looks(["camera-sid"])
    with pytest.raises(DefinitionError, match="look 'table-dark' is named twice; name each once"):
        require_looks(["table-dark", "camera-side", "table-dark"])
