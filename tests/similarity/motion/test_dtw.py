import itertools
import math

import numpy as np
import oracles_motion
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror_analysis.errors import DegenerateError, DeviceError, ShapeError, UnknownNameError
from mirror_analysis.similarity.motion import dtw, warping
from mirror_analysis.similarity.motion.dtw import MotionKernel, dtw_distances
from mirror_analysis.similarity.motion.trajectories import POSE, Block, read

seeds = st.integers(0, 2**32 - 1)
few = settings(deadline=None, max_examples=15)
PATTERNS = {"symmetric1": 1, "symmetric2": 2}


def movements(seed, count, *, least=1, most=12, width=7):
    g = np.random.default_rng(seed)
    return [g.standard_normal((int(n), width)) for n in g.integers(least, most + 1, count)]


def expected(x, y, cost, **options):
    return [[oracles_motion.dtw(a, b, cost, **options) for b in y] for a in x]


@pytest.mark.parametrize("band", [None, 0, 1])
@pytest.mark.parametrize("diagonal", [1, 2])
def test_the_recurrence_is_the_least_over_all_paths(diagonal, band):
    options = {"diagonal": diagonal, "band": band}
    for x, y in zip(movements(0, 4, most=5), movements(1, 4, most=5), strict=True):
        least = oracles_motion.dtw_by_paths(x, y, math.dist, **options)
        assert oracles_motion.dtw(x, y, math.dist, **options) == pytest.approx(least)


@pytest.mark.parametrize("band", [None, 0, 2])
@pytest.mark.parametrize("pattern", PATTERNS)
def test_distances_equal_the_recurrence(pattern, band):
    x, y = movements(0, 6), movements(1, 5)
    found = dtw_distances(x, y, step_pattern=pattern, band=band)
    assert found.dtype == torch.float64
    slow = expected(x, y, math.dist, diagonal=PATTERNS[pattern], band=band)
    np.testing.assert_allclose(found, slow, rtol=1e-12)
    slow = expected(x, x, math.dist, diagonal=PATTERNS[pattern], band=band)
    np.testing.assert_allclose(
        dtw_distances(x, step_pattern=pattern, band=band), slow, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 8, 11])
def test_any_dimension(width):
    x = movements(width, 5, width=width)
    slow = expected(x, x, math.dist, diagonal=2)
    np.testing.assert_allclose(dtw_distances(x), slow, rtol=1e-12, atol=1e-12)


def test_the_published_pose_cost_is_reproduced():
    x = movements(3, 6)
    slow = expected(x, x, oracles_motion.pose_cost, diagonal=2)
    np.testing.assert_allclose(dtw_distances(x, blocks=POSE), slow, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("band", [None, 0, 3])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("blocks", [(), POSE, (Block("all", slice(None), "squared"),)])
def test_diagonals_equal_lanes(blocks, pattern, band, monkeypatch):
    monkeypatch.setattr(warping, "_NUMBERS", 10_000)  # several batches
    x, y = movements(4, 11, most=20), movements(5, 6, most=20)
    for other in (None, y):
        a = read(x, blocks)
        b = a if other is None else read(other, blocks)
        steps = []
        found = warping.by_diagonals(
            a,
            b,
            band=band,
            diagonal=float(PATTERNS[pattern]),
            progress=lambda *step: steps.append(step),  # noqa: B023
        )
        lanes = dtw_distances(x, other, blocks=blocks, step_pattern=pattern, band=band)
        np.testing.assert_allclose(found, lanes, rtol=1e-9, atol=1e-9)
        assert len(steps) > 1
        assert steps[-1] == (66, 66)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same():
    x = movements(6, 9, most=30)
    on_gpu = [torch.from_numpy(t).cuda() for t in x]
    found = dtw_distances(on_gpu, blocks=POSE)
    assert found.is_cuda
    np.testing.assert_allclose(found.cpu(), dtw_distances(x, blocks=POSE), rtol=1e-9, atol=1e-9)


@few
@given(seed=seeds, band=st.sampled_from([None, 0, 1, 4]))
def test_symmetric_with_zeros_on_the_diagonal(seed, band):
    d = dtw_distances(movements(seed, 9), blocks=POSE, band=band)
    assert torch.equal(d, d.T)
    assert d.diagonal().abs().max() == 0
    assert d.min() >= 0
    assert d.sum() > 0


@few
@given(seed=seeds)
def test_repeated_steps_cost_nothing_without_weights(seed):
    g = np.random.default_rng(seed)
    x, y = movements(seed, 4), movements(seed + 1, 4)
    slower = [np.repeat(t, g.integers(1, 4, len(t)), axis=0) for t in x]
    before = dtw_distances(x, y, step_pattern="symmetric1")
    # Against itself, dwelling is free; against others it can only be matched as well or worse.
    dwelt = dtw_distances(x, slower, step_pattern="symmetric1").diagonal()
    assert dwelt.max() == 0
    assert bool((dtw_distances(slower, y, step_pattern="symmetric1") >= before - 1e-9).all())
    # Band 0 allows no warping of equally long movements, so it tells them apart.
    late = [np.concatenate([t[:1], t[:-1]]) for t in movements(seed, 3, least=6)]
    on_time = movements(seed, 3, least=6)
    assert dtw_distances(late, on_time, band=0).diagonal().min() > 0.1


@few
@given(seed=seeds)
def test_reversal_and_a_common_shift_or_rotation_change_nothing(seed):
    x, y = movements(seed, 4), movements(seed + 1, 5)
    before = dtw_distances(x, y, step_pattern="symmetric1")
    turned = [t[::-1].copy() for t in x], [t[::-1].copy() for t in y]
    np.testing.assert_allclose(dtw_distances(*turned, step_pattern="symmetric1"), before, rtol=1e-9)
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((7, 7)))[0]
    moved = ([t @ basis + 3 for t in x], [t @ basis + 3 for t in y])
    np.testing.assert_allclose(dtw_distances(*moved, step_pattern="symmetric1"), before, rtol=1e-9)
    twice = dtw_distances([2 * t for t in x], [2 * t for t in y], step_pattern="symmetric1")
    np.testing.assert_allclose(twice, 2 * before, rtol=1e-9)


def test_order_in_time_matters():
    x = movements(0, 4, least=6)
    assert dtw_distances(x, [t[::-1].copy() for t in x]).diagonal().min() > 0.1


@few
@given(seed=seeds)
def test_a_wider_band_never_costs_more(seed):
    x, y = movements(seed, 4, most=16), movements(seed + 1, 4, most=16)
    found = [dtw_distances(x, y, band=b) for b in (0, 1, 2, 4, 8, None)]
    for narrow, wide in itertools.pairwise(found):
        assert bool((wide <= narrow + 1e-12).all())
    assert torch.equal(dtw_distances(x, y, band=16), found[-1])


def test_band_zero_of_equal_lengths_is_step_by_step():
    x, y = np.random.default_rng(0).standard_normal((2, 3, 10, 2))
    apart = np.linalg.norm(x[:, None] - y[None], axis=-1)
    single = dtw_distances(x, y, band=0, step_pattern="symmetric1")
    np.testing.assert_allclose(single, apart.sum(axis=-1), rtol=1e-12)
    double = dtw_distances(x, y, band=0)
    np.testing.assert_allclose(double, 2 * apart.sum(axis=-1) - apart[..., 0], rtol=1e-12)


def test_normalised_is_the_mean_cost_of_the_path():
    x = movements(0, 5)
    # Everything is 5 apart, whatever the lengths and the path.
    still = [np.zeros((len(t), 2)) for t in x]
    away = [np.tile([3.0, 4.0], (len(t) + 2, 1)) for t in x]
    np.testing.assert_allclose(dtw_distances(still, away, normalise=True), 5, rtol=1e-12)
    weight = np.add.outer([len(t) for t in x], [len(t) for t in x]) - 1
    np.testing.assert_allclose(
        dtw_distances(x, normalise=True).numpy() * weight, dtw_distances(x), rtol=1e-12
    )


def test_what_is_padded_is_no_matter():
    x = movements(7, 5, least=3)
    alone = [[float(dtw_distances([a], [b])) for b in x] for a in x]
    np.testing.assert_allclose(dtw_distances(x), alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_and_small_tasks_give_the_same_and_report_every_pair(threads, monkeypatch):
    x, y = movements(8, 30), movements(9, 7)
    whole = dtw_distances(x), dtw_distances(x, y)
    monkeypatch.setattr(warping, "_CELLS", 500)
    for other, before, pairs in ((None, whole[0], 465), (y, whole[1], 210)):
        steps = []
        found = dtw_distances(x, other, threads=threads, progress=lambda *s: steps.append(s))  # noqa: B023
        assert torch.equal(found, before)
        assert len(steps) > 10
        assert steps[-1] == (pairs, pairs)
        assert steps == sorted(steps)


def test_stopping_in_between_stops_the_threads(monkeypatch):
    monkeypatch.setattr(warping, "_CELLS", 500)

    def stop(done, pairs):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dtw_distances(movements(8, 30), threads=2, progress=stop)


def test_takes_any_precision_and_leaves_its_input():
    x = movements(0, 4)
    found = dtw_distances([torch.tensor(t, dtype=torch.float16) for t in x])
    np.testing.assert_allclose(found, dtw_distances([t.astype(np.float16) for t in x]), rtol=1e-12)
    np.testing.assert_allclose(found, dtw_distances(x), rtol=1e-2, atol=1e-9)
    steps = np.arange(6).reshape(1, 3, 2)
    assert float(dtw_distances(steps, steps + 1)) == pytest.approx((1 + 2 + 2) * math.sqrt(2))
    np.testing.assert_array_equal(steps, np.arange(6).reshape(1, 3, 2))


def test_a_folder_that_cannot_be_written_only_costs_the_cache(monkeypatch):
    import numba

    calls = []

    def compile_(**settings):
        calls.append(settings)
        if settings.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(numba, "njit", compile_)
    warping._compiled.cache_clear()
    assert warping._compiled() is warping._sweep
    assert [c.get("cache", False) for c in calls] == [True, False]
    warping._compiled.cache_clear()


def test_the_plain_form_of_the_kernel_is_the_compiled_one(monkeypatch):
    x = movements(2, 5, most=5)
    compiled = dtw_distances(x, blocks=POSE, band=1)
    monkeypatch.setattr(warping, "_compiled", lambda: warping._sweep)
    np.testing.assert_allclose(dtw_distances(x, blocks=POSE, band=1), compiled, rtol=1e-12)


def test_a_kernel_is_the_function_with_its_settings_on_record():
    x = movements(0, 4)
    kernel = MotionKernel(POSE, band=2, normalise=True)
    assert torch.equal(kernel.distances(x), dtw_distances(x, blocks=POSE, band=2, normalise=True))
    assert kernel.parameters == {
        "band": 2,
        "normalise": True,
        "step_pattern": "symmetric2",
        "blocks": "; ".join(map(str, POSE)),
    }
    assert MotionKernel().parameters == {
        "band": "none",
        "normalise": False,
        "step_pattern": "symmetric2",
        "blocks": "all columns [mixed]: vector, weight 1, scale 1",
    }


def test_bad_settings_are_refused():
    x = movements(0, 3)
    with pytest.raises(DegenerateError, match="band is -1; needed 0 steps or more, or None"):
        dtw_distances(x, band=-1)
    with pytest.raises(DegenerateError, match="threads is 0; needed at least 1"):
        dtw_distances(x, threads=0)
    with pytest.raises(DegenerateError, match="normalise was asked with symmetric1"):
        dtw_distances(x, normalise=True, step_pattern="symmetric1")
    kernel = MotionKernel()
    object.__setattr__(kernel, "step_pattern", "symmetric3")
    with pytest.raises(UnknownNameError, match="unknown step pattern 'symmetric3'"):
        dtw._check(kernel, None)
    with pytest.raises(ShapeError, match="x has 7 columns but y has 6; needed the same"):
        dtw_distances(x, [t[:, :6] for t in x])
    with pytest.raises(ShapeError, match=r"y\[0\] has shape \(7,\)"):
        dtw_distances(x, [x[0][0]])


def test_two_devices_are_refused(monkeypatch):
    steps = read(movements(0, 2), ())
    far = type(steps)(steps.values.to("meta"), steps.lengths, steps.parts)
    monkeypatch.setattr(dtw, "read", lambda t, b, name="x": far if name == "y" else steps)
    with pytest.raises(DeviceError, match="x is on cpu but y on meta; move one"):
        dtw_distances(movements(0, 2), movements(0, 2))
