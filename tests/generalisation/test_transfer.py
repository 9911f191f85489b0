from dataclasses import dataclass

import numpy as np
import pytest

from mirror_analysis.alignment.fitting import align
from mirror_analysis.alignment.linear import AlignmentConfig
from mirror_analysis.errors import UnknownNameError
from mirror_analysis.generalisation.judging import JudgeConfig, Subject
from mirror_analysis.generalisation.transfer import (
    Meeting,
    TransferConfig,
    across_models,
    shuffled_pairs,
)
from mirror_analysis.probing.settings import Probe

CONFIG = TransferConfig(probe=Probe(strengths=(1e-2,)), judged=JudgeConfig(draws=99))


@dataclass(frozen=True)
class Planted:
    """Maps that are known instead of fitted."""

    x_map: np.ndarray
    y_map: np.ndarray
    y_shift: float = 0.0

    def embed_x(self, x):
        return x @ self.x_map

    def embed_y(self, y):
        return y @ self.y_map + self.y_shift


def rotation(rng, width):
    return np.linalg.qr(rng.standard_normal((width, width)))[0]


def rotated(w, *, width=5, strength=1.2):
    """y is x turned, x knows the side."""
    turn = rotation(w.rng, width)
    x = {}
    for part, index in w.indices.items():
        x[part] = w.rng.standard_normal((len(index), width))
        x[part][:, 0] += strength * w.sign(part)
    return w.split(lambda p: x[p], lambda p: x[p] @ turn), turn


def test_through_the_right_rotation_the_transfer_is_the_ceiling(world):
    w = world(0, tasks=3, sizes=(60, 20, 60))
    data, turn = rotated(w)
    maps = Planted(np.eye(5), turn.T)
    for direction in ("x_to_y", "y_to_x"):
        found = across_models(
            [Meeting(data, ("l", "l"), maps)], "side", direction=direction, config=CONFIG
        )
        assert found.away.score.value == pytest.approx(found.refitted.score.value, abs=1e-9)
        assert found.away.score.value == pytest.approx(found.home.score.value, abs=1e-9)
        assert 0.82 < found.away.score.value < 0.94  # Phi(1.2) = .885
        assert found.shortfall.score.interval.high < 0.05
        assert found.away.score.p_value == 0.01


def test_a_turn_that_is_not_undone_leaves_chance(world):
    w = world(1, tasks=3, sizes=(60, 20, 60))
    data, _ = rotated(w)
    # The axis of the side is mapped onto another one.
    swap = np.eye(5)[[1, 0, 2, 3, 4]]
    data = w.split(lambda p: getattr(data, p).x["l"], lambda p: getattr(data, p).x["l"] @ swap)
    found = across_models(
        [Meeting(data, ("l", "l"), Planted(np.eye(5), np.eye(5)))], "side", config=CONFIG
    )
    assert found.away.score.interval.low < 0.5 < found.away.score.interval.high
    assert found.refitted.score.value > 0.8
    assert found.shortfall.score.interval.low > 0.2


def test_fitted_maps_carry_a_probe_and_maps_of_shuffled_pairs_do_not(world):
    w = world(2, tasks=3, sizes=(60, 20, 60))
    data, _ = rotated(w, strength=1.5)
    noise = w.split(lambda p: w.noise(p, 5), lambda p: w.noise(p, 5))
    small = AlignmentConfig(width=16, steps=80, learning_rate=2e-2)

    def met(train, test):
        maps = align(
            train.fit.x["l"], train.fit.y["l"], train.validation.x["l"], train.validation.y["l"],
            config=small,
        )  # fmt: skip
        return [Meeting(test, ("l", "l"), maps)]

    found = across_models(
        met(data, data), "side",
        controls={"shuffled": met(shuffled_pairs(data), data), "untrained": met(noise, noise)},
        subject=Subject(x="observation", y="execution", stage="after"), config=CONFIG,
    )  # fmt: skip
    ceiling = found.refitted.score.value
    assert ceiling > 0.88
    assert found.away.score.value > ceiling - 0.04
    assert found.excess.score.interval.low > 0.1
    untrained = found.controls["untrained"].away.score
    assert untrained.interval.low < 0.5 < untrained.interval.high
    assert found.away.score.parameters["fitted"] == "observation in the shared space"
    assert found.away.score.parameters["tested"] == "execution in the shared space"
    assert (found.away.score.x, found.away.score.y) == ("observation", "execution")


def test_a_constant_between_the_sides_is_taken_off_unless_asked_not_to(world):
    w = world(3, tasks=3, sizes=(60, 20, 60))
    data, turn = rotated(w)
    apart = [Meeting(data, ("l", "l"), Planted(np.eye(5), turn.T, y_shift=4.0))]
    together = [Meeting(data, ("l", "l"), Planted(np.eye(5), turn.T))]
    centred, exact = (across_models(m, "side", config=CONFIG) for m in (apart, together))
    assert centred.away.score.value == pytest.approx(exact.away.score.value, abs=1e-9)
    plain = TransferConfig(centred=False, probe=CONFIG.probe, judged=CONFIG.judged)
    left = across_models(apart, "side", config=plain)
    assert left.away.score.value < centred.away.score.value - 0.2
    assert left.refitted.score.value == pytest.approx(centred.refitted.score.value, abs=1e-9)


def test_the_probe_never_sees_a_test_row(world):
    w = world(4, tasks=3, sizes=(40, 10, 40))
    data, turn = rotated(w)
    seen = []

    class Watched(Planted):
        def embed_y(self, y):
            seen.append(len(y))
            return super().embed_y(y)

    across_models([Meeting(data, ("l", "l"), Watched(np.eye(5), turn.T))], "side", config=CONFIG)
    assert seen == [120, 30, 120]
    # Other test rows change the numbers, and not what was fitted: the fit side is untouched.
    moved = w.split(lambda p: getattr(data, p).x["l"] + 100 * (p == "test"),
                    lambda p: getattr(data, p).y["l"])  # fmt: skip
    maps = Planted(np.eye(5), turn.T)
    a, b = (
        across_models([Meeting(d, ("l", "l"), maps)], "side", config=CONFIG) for d in (data, moved)
    )
    assert a.away.estimate.values == b.away.estimate.values
    assert a.refitted.estimate.values == b.refitted.estimate.values
    assert a.home.estimate.values != b.home.estimate.values


def test_shuffling_keeps_the_label_and_breaks_the_pairs(world):
    w = world(5, tasks=3, sizes=(20, 10, 20))
    data = w.split(lambda p: w.task(p)[:, None] + 0.0, lambda p: np.arange(len(w.task(p)))[:, None])
    mixed = shuffled_pairs(data, seed=1)
    for part in ("fit", "validation"):
        before, after = getattr(data, part).y["l"][:, 0], getattr(mixed, part).y["l"][:, 0]
        assert sorted(after) == sorted(before) and (after != before).mean() > 0.8
        task = w.task(part)
        assert np.array_equal(task[after.astype(int)], task)
        assert getattr(mixed, part).x["l"] is getattr(data, part).x["l"]
    assert mixed.test is data.test
    over = shuffled_pairs(data, within="").fit.y["l"][:, 0].astype(int)
    assert (w.task("fit")[over] != w.task("fit")).any()


def test_layers_that_are_not_there_are_refused(world):
    w = world(6, tasks=3)
    data, turn = rotated(w)
    with pytest.raises(UnknownNameError, match="unknown layer of y 'k'"):
        across_models([Meeting(data, ("l", "k"), Planted(np.eye(5), turn.T))], "side")
