import msgspec
import numpy as np
import pytest

from mirror_analysis.errors import DegenerateError, UnknownNameError
from mirror_analysis.features import Index
from mirror_analysis.generalisation.held_out import HeldOutConfig, held_out_groups
from mirror_analysis.generalisation.judging import JudgeConfig, Subject
from mirror_analysis.generalisation.parts import Parts, Rows
from mirror_analysis.probing.settings import Probe

ONE = Probe(strengths=(1e-2,))
CONFIG = HeldOutConfig(parts=3, probe=ONE, judged=JudgeConfig(draws=99))


def shared(w, strength=2.0, width=6):
    """The side stands on the same axis in every task."""

    def make(part):
        values = w.noise(part, width)
        values[:, 0] += strength * w.sign(part)
        values[:, 1] += w.task(part)
        return values

    return w.parts(make)


def private(w, tasks=6, strength=4.0):
    """Each task has an axis of its own for its side, which no other task says anything about."""

    def make(part):
        values = w.noise(part, tasks)
        values[np.arange(len(values)), w.task(part)] += strength * w.sign(part)
        return values

    return w.parts(make)


def with_label(parts, name, make):
    """The same features with one more label, made of the index of each part."""

    def added(rows):
        index = rows.index
        labels = {**index.labels, name: make(index)}
        return Rows(rows.values, Index(index.episode, index.step, labels))

    return Parts(added(parts.fit), added(parts.validation), added(parts.test))


def test_what_all_tasks_share_loses_nothing(world):
    found = held_out_groups([shared(world())], "side", by="task", config=CONFIG)
    # Phi(2) = .977 is the best a linear probe can do.
    assert 0.94 < found.inside.score.value < 1.0
    assert abs(found.drop.score.value) < 0.03
    interval = found.drop.score.interval
    assert interval.low <= 0 <= interval.high
    assert found.outside.score.p_value < 0.1
    assert found.outside.score.n == 6 and len(found.outside.episodes) == 120
    assert found.drop.score.value == pytest.approx(
        found.inside.score.value - found.outside.score.value
    )


def test_what_is_private_to_a_task_falls_to_chance(world):
    values, covered, kinds = [], {"group": 0, "episode": 0}, ("group", "episode")
    for seed in range(8):
        parts = private(world(seed))
        for unit in kinds:
            config = msgspec.structs.replace(CONFIG, unit=unit)
            found = held_out_groups([parts], "side", by="task", config=config)
            interval = found.outside.score.interval
            covered[unit] += interval.low <= 0.5 <= interval.high
            assert found.inside.score.value > 0.85
            assert found.drop.score.value > 0.1
        values.append(found.outside.score.value)
        assert abs(found.outside.score.null.mean - 0.5) < 0.06
    assert abs(np.mean(values) - 0.5) < 0.1
    # Episodes of one new task are right or wrong together, so only the interval over tasks holds.
    assert covered["group"] >= 6 > covered["episode"]


def test_the_drop_of_a_planted_shift_is_the_difference_of_two_normal_tails(world):
    # Fit tasks carry the side with strength a on axis 0; the task held out carries it there with
    # strength b, and its other axes are noise: accuracy Phi(a) inside, Phi(b) outside.
    w = world(1, tasks=4, sizes=(400, 100, 1500))

    def make(part):
        values = w.noise(part, 3)
        strength = np.where(w.task(part) == 3, 0.5, 2.0)
        values[:, 0] += strength * w.sign(part)
        return values

    config = msgspec.structs.replace(CONFIG, groups=("task3",))
    found = held_out_groups([w.parts(make)], "side", by="task", config=config)
    assert found.outside.score.value == pytest.approx(0.6915, abs=0.03)  # Phi(.5)
    assert found.outside.score.n == 1500
    # A threshold at 0 is the best for either strength: nothing is to be gained inside.
    assert abs(found.drop.score.value) < 0.02


def test_failures_held_out_by_name(world):
    # The side turns round in failures: a probe fitted on successes is right exactly as often as
    # it would be wrong on them.
    w = world(2, tasks=2, sizes=(200, 60, 300))
    won = {p: w.rng.random(len(w.indices[p])) < 0.5 for p in ("fit", "validation", "test")}

    def make(part):
        values = w.noise(part, 3)
        values[:, 0] += 2 * w.sign(part) * np.where(won[part], 1, -1)
        return values

    parts = w.parts(make)
    parts = Parts(*(
        Rows(rows.values, Index(rows.index.episode, rows.index.step,
                                {**rows.index.labels, "success": won[part]}))
        for part, rows in zip(("fit", "validation", "test"),
                              (parts.fit, parts.validation, parts.test), strict=True)
    ))  # fmt: skip
    config = msgspec.structs.replace(CONFIG, groups=("False",))
    found = held_out_groups([parts], "side", by="success", config=config)
    assert found.outside.score.value == pytest.approx(1 - 0.977, abs=0.03)
    assert found.outside.score.n == int((~won["test"]).sum())
    assert found.outside.score.parameters["unit"] == "episode"
    assert 0.4 < found.inside.score.value < 0.6


def test_a_quantity_is_decoded_about_the_mean_of_each_group(world):
    # place = signal, R² of the best map is s² / (s² + 1) for unit noise on s * place.
    w = world(3, tasks=4, sizes=(300, 80, 300))

    def make(part):
        values = w.noise(part, 4)
        values[:, 0] += 2 * w.indices[part].label("place")
        return values

    config = HeldOutConfig(
        parts=4, probe=Probe("ridge"), judged=JudgeConfig(metric="probe_r2", draws=99)
    )
    found = held_out_groups([w.parts(make)], "place", by="task", config=config)
    assert found.outside.score.value == pytest.approx(0.8, abs=0.04)
    assert found.inside.score.value == pytest.approx(0.8, abs=0.04)
    assert found.outside.score.measure == "probe_r2" and found.outside.score.within == "task"

    moved = with_label(w.parts(make), "height", lambda i: i.label("task").astype("U9"))
    # A quantity that only says which task it is explains nothing inside the tasks.
    of_task = with_label(moved, "of", lambda i: np.char.str_len(i.label("task")).astype(float))
    with pytest.raises(DegenerateError, match="constant in every task"):
        held_out_groups([of_task], "of", by="task", config=config)


def test_inside_is_fitted_on_as_many_episodes_of_every_group(world, monkeypatch):
    asked = []

    def told(values, labels, folds, *, probe):
        asked.append(folds)
        return labels

    monkeypatch.setattr("mirror_analysis.generalisation.held_out.decode_folds", told)
    parts = shared(world())
    held_out_groups([parts], "side", by="task", config=CONFIG)
    inside, outside = asked
    groups = np.concatenate([p.index.label("task") for p in (parts.fit, parts.validation)])
    tested = parts.test.index.label("task")
    for within, without in zip(inside, outside, strict=True):
        assert len(within.fit) == len(without.fit) == 80
        assert len(within.validation) == len(without.validation) == 40
        assert np.array_equal(within.test, without.test) and len(within.test) == 40
        held = set(tested[without.test - 180])
        assert len(held) == 2
        assert not held & set(groups[without.known])
        counts = np.unique(groups[within.fit], return_counts=True)[1]
        assert len(counts) == 6 and np.ptp(counts) <= 1
        assert within.fit.max() < 120 <= within.validation.min()
        assert within.validation.max() < 180
    assert sorted(np.concatenate([f.test for f in outside])) == list(range(180, 300))


def test_controls_go_through_the_same_code(world):
    w = world(5)
    found = held_out_groups(
        [shared(w) for _ in range(3)],
        "side",
        by="task",
        controls={
            "untrained": [shared(w, 0.2) for _ in range(3)],
            "pixels": [shared(w, 0.7)] * 3,
        },
        subject=Subject(x="observation", x_layer="trunk", stage="after"),
        config=CONFIG,
    )
    assert found.excess is not None
    best = found.controls["pixels"].outside
    assert found.excess.score.parameters["control"] == "pixels"
    assert found.excess.score.value == pytest.approx(found.outside.score.value - best.score.value)
    assert found.excess.score.interval.low > 0
    assert best.score.role == "control" and best.score.x == "pixels observation"
    assert found.drop.score.role == "difference" and found.drop.score.stage == "after"
    assert [s.parameters["fitted"] for s in found.scores[:2]] == ["inside", "outside"]
    assert len(found.scores) == 4 + 2 * 3


def test_targets_that_mean_nothing_across_groups_are_refused(world):
    parts = shared(world())
    with pytest.raises(DegenerateError, match=r"'task' is constant in every task.*side of the"):
        held_out_groups([parts], "task", by="task", config=CONFIG)
    words = with_label(
        parts, "instruction",
        lambda i: np.char.add(i.label("task").astype(str), i.label("side").astype(str)),
    )  # fmt: skip
    with pytest.raises(DegenerateError, match=r"'instruction' is (task\d)\w+ in task \1, which"):
        held_out_groups([words], "instruction", by="task", config=CONFIG)


def test_groups_that_cannot_be_held_out_are_refused(world):
    parts = shared(world())
    with pytest.raises(UnknownNameError, match="unknown task of the test episodes 'task9'"):
        held_out_groups(
            [parts], "side", by="task", config=msgspec.structs.replace(CONFIG, groups=("task9",))
        )
    with pytest.raises(UnknownNameError, match="unknown label 'taks'"):
        held_out_groups([parts], "side", by="taks", config=CONFIG)
    there = parts.fit.index.label("task") != "task2"
    lacking = Parts(parts.fit.take(there), parts.validation, parts.test)
    with pytest.raises(DegenerateError, match=r"1 of 6 task groups have no fit .*first task2"):
        held_out_groups([lacking], "side", by="task", config=CONFIG)
    with pytest.raises(DegenerateError, match="no features to hold out of; needed those of at"):
        held_out_groups([], "side", by="task")
    one = parts.fit.index.label("task") == "task2"
    with pytest.raises(DegenerateError, match="the fit episodes have one task only"):
        held_out_groups(
            [Parts(parts.fit.take(one), parts.validation, parts.test)], "side", by="task"
        )
