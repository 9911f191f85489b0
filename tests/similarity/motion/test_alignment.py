import numpy as np
import oracles_motion
import pytest
import torch

from mirror_analysis.errors import DegenerateError, DeviceError, ShapeError, UnknownNameError
from mirror_analysis.similarity.measures import Layer
from mirror_analysis.similarity.motion import alignment as motion
from mirror_analysis.similarity.motion.alignment import (
    SensorimotorAlignment,
    motion_alignment,
    motion_features,
    motion_neighbors,
    sensorimotor_alignment,
)
from mirror_analysis.similarity.motion.dtw import MotionKernel
from mirror_analysis.similarity.motion.trajectories import POSE
from mirror_analysis.similarity.neighbors.nearest import nearest
from mirror_analysis.similarity.neighbors.sets import MutualKNN
from mirror_analysis.testing import check_measure


def reaches(seed, count=40):
    """Movements of a gripper towards a goal each, and noisy features that know the goal."""
    g = np.random.default_rng(seed)
    goals = g.standard_normal((count, 3))
    paths = []
    for goal in goals:
        way = np.linspace(0, 1, int(g.integers(8, 16)))[:, None]
        paths.append(np.hstack([way * goal, 0.3 * way * goal[::-1], way > 0.8]))
    features = np.hstack([goals, goals**2]) @ g.standard_normal((6, 9))
    return features + 0.3 * g.standard_normal(features.shape), paths


def distances(seed, count=40):
    points = np.random.default_rng(seed).standard_normal((count, 3))
    return np.linalg.norm(points[:, None] - points[None], axis=-1)


@pytest.mark.parametrize("form", ["reciprocal", "elementwise"])
def test_equals_the_definition(form):
    features, paths = reaches(0, count=24)
    d = MotionKernel(POSE).distances(paths).numpy()
    expected = oracles_motion.sensorimotor(features, d, 5, form)
    for given in (paths, d, torch.from_numpy(d)):
        value = sensorimotor_alignment(features, given, kernel=MotionKernel(POSE), k=5, form=form)
        assert value == pytest.approx(expected, abs=1e-9)
    other = sensorimotor_alignment(features, paths, k=5, form=form)
    assert other != pytest.approx(expected, abs=1e-9)


def test_a_planted_alignment_is_found_and_its_shuffle_is_not():
    features, paths = reaches(1)
    kernel = MotionKernel(POSE)
    score = motion_alignment(features, paths, kernel=kernel, draws=199, folds=10)
    assert score.value == pytest.approx(sensorimotor_alignment(features, paths, kernel=kernel))
    assert score.p_value == pytest.approx(1 / 200)
    assert score.interval is not None
    assert score.null is not None
    assert score.null.mean < score.interval.low < score.value < score.interval.high
    assert "jackknife over 10 groups" in score.interval.method
    assert (score.measure, score.n, score.x, score.y) == (
        "sensorimotor_alignment",
        40,
        "features",
        "motion",
    )
    assert score.parameters == SensorimotorAlignment().parameters | kernel.parameters
    order = np.random.default_rng(0).permutation(40)
    shuffled = motion_alignment(features[order], paths, kernel=kernel, draws=199, folds=0)
    assert shuffled.p_value is not None
    assert shuffled.p_value > 0.05
    assert shuffled.interval is None


def test_p_is_uniform_without_a_relation():
    found = []
    for seed in range(60):
        features = np.random.default_rng(seed + 1000).standard_normal((24, 4))
        score = motion_alignment(features, distances(seed, 24), draws=39, folds=0)
        found.append(score.p_value)
    assert 0.35 < np.mean(found) < 0.65
    assert np.mean(np.array(found) <= 0.25) < 0.42


def test_the_null_moves_whole_units_inside_groups():
    features, _ = reaches(2)
    d = distances(3)
    units, within = np.repeat(np.arange(20), 2), np.repeat([0, 1], 20)
    score = motion_alignment(features, d, units=units, within=within, draws=50, folds=5, seed=3)
    assert score.n == 20
    assert score.within == "groups"
    assert score.null is not None
    assert (score.null.draws, score.null.scheme) == (50, "units within groups")
    assert score.parameters["kernel"] == "distances as given"
    assert (
        motion_alignment(features, d, units=units, within=within, draws=50, folds=5, seed=3)
        == score
    )
    told = motion_alignment(features, d, kernel=MotionKernel(band=3), draws=0, folds=0)
    assert told.null is told.p_value is None
    assert told.parameters["band"] == 3


def test_the_interval_leaves_samples_out_on_both_sides():
    features, _ = reaches(4)
    d = distances(5)
    score = motion_alignment(features, d, draws=0, folds=40)
    out = []
    for i in range(40):
        keep = np.delete(np.arange(40), i)
        out.append(sensorimotor_alignment(features[keep], d[np.ix_(keep, keep)]))
    half = 2.0226909 * np.sqrt(39 / 40 * np.square(out - np.mean(out)).sum())
    assert score.interval is not None
    assert score.interval.high - score.value == pytest.approx(half, rel=1e-6)


def test_no_interval_where_it_is_not_defined_without_a_fold():
    features, _ = reaches(4, count=13)
    score = motion_alignment(features, distances(5, 13), draws=0, folds=2)
    assert score.value is not None
    assert score.interval is None


def test_neighbors_are_the_nearest_and_ties_share_the_last_places():
    d = distances(0, 12)
    found = motion_neighbors(d, 3)
    mask = torch.zeros(144, dtype=torch.float64)
    mask[found.key] = found.weight
    np.testing.assert_array_equal(mask.reshape(12, 12), oracles_motion.nearest_mask(-d, 3))
    assert found.cosine.tolist() == [1.0] * 36
    # Two classes at distances 0 and 1: all 5 others of a class tie for 3 places.
    classes = np.arange(12) // 6
    tied = motion_neighbors(np.float64(classes[:, None] != classes), 3)
    assert tied.weight.tolist() == pytest.approx([0.6] * 60)
    # Four places for 5 at 0.1 away, one of them nearer.
    line = np.full((6, 6), 1.0)
    line[0, 1] = line[1, 0] = 0.5
    first = motion_neighbors(line, 3)
    assert first.weight[first.key < 6].tolist() == pytest.approx([1.0, 0.5, 0.5, 0.5, 0.5])


def test_features_of_motion_have_the_motion_neighbors_motion():
    _, paths = reaches(6)
    d = MotionKernel(POSE).distances(paths)
    made = motion_features(d)
    assert made.shape == (40, 40)
    a, b = nearest(made, 7), motion_neighbors(d, 7)
    assert torch.equal(a.key, b.key)
    unit = made / made.norm(dim=1, keepdim=True)
    off = ~torch.eye(40, dtype=torch.bool)
    slope = float((unit @ unit.T)[0, 1] / d[0, 1])
    np.testing.assert_allclose((unit @ unit.T)[off], slope * d[off], atol=1e-9)
    assert slope < 0


def test_in_a_grid_of_layers():
    features, paths = reaches(7)
    d = MotionKernel(POSE).distances(paths)
    measure = SensorimotorAlignment(k=6)
    x = measure.prepare(Layer("x", torch.from_numpy(features)))
    y = measure.prepare(Layer("y", motion_features(d)))
    for side in (y, measure.of(d)):
        value = float(measure.values([x], [side])[0, 0])
        assert value == pytest.approx(sensorimotor_alignment(features, d, k=6), abs=1e-12)
    mutual = MutualKNN(6)
    layers = [Layer("x", torch.from_numpy(features)), Layer("y", motion_features(d))]
    shared = mutual.values(*[[mutual.prepare(layer)] for layer in layers])
    given = mutual.values([mutual.prepare(layers[0])], [motion_neighbors(d, 6)])
    assert float(shared) == pytest.approx(float(given))
    order = np.random.default_rng(0).permutation(40)
    null = measure.null([x], [y], torch.from_numpy(order)[None])
    moved = sensorimotor_alignment(features, d[order][:, order], k=6)
    assert float(null[0, 0, 0]) == pytest.approx(moved, abs=1e-12)


def test_is_what_it_declares():
    check_measure(SensorimotorAlignment())


def test_a_common_offset_changes_it_unless_columns_are_centred():
    features, paths = reaches(8)
    before = [sensorimotor_alignment(features, paths, k=5, centred=c) for c in (False, True)]
    after = [sensorimotor_alignment(features + 50, paths, k=5, centred=c) for c in (False, True)]
    assert abs(after[0] - before[0]) > 1e-3
    assert after[1] == pytest.approx(before[1], abs=1e-9)


def test_bad_input_is_refused():
    features, paths = reaches(9, count=20)
    d = distances(0, 20)
    with pytest.raises(ShapeError, match="features have 20 samples but motion has 19; needed"):
        sensorimotor_alignment(features, paths[:-1])
    with pytest.raises(
        ShapeError, match=r"distances have shape \(20, 7\); needed \[sample, sample"
    ):
        sensorimotor_alignment(features, d[:, :7])
    with pytest.raises(DegenerateError, match="distances go down to -1; needed 0 or more"):
        sensorimotor_alignment(features, -d / d.max())
    with pytest.raises(DegenerateError, match=r"differ by up to .* needed symmetric ones"):
        sensorimotor_alignment(features, np.triu(d))
    with pytest.raises(DegenerateError, match="distances holds NaN or infinity in 20 of 20 rows"):
        sensorimotor_alignment(features, d / np.ones((20, 1)) * np.where(d == 0, np.nan, 1))
    with pytest.raises(DegenerateError, match="got 20 samples; needed at least 21"):
        sensorimotor_alignment(features, d, k=19)
    with pytest.raises(DegenerateError, match="motion_neighbors got k 0; needed at least 1"):
        motion_neighbors(d, 0)
    with pytest.raises(DegenerateError, match="got 3 samples; needed at least 4"):
        sensorimotor_alignment(features[:3], d[:3, :3], k=1)
    with pytest.raises(DegenerateError, match="all 20 movements are the same; needed some"):
        motion_features(np.zeros((20, 20)))
    with pytest.raises(ShapeError, match=r"units have shape \(3,\) for 20 samples; needed one"):
        motion_alignment(features, d, units=[1, 2, 3])
    # A chain without a pair that chose each other.
    chain = np.array([[0.0, 1, 9, 9], [1, 0, 0.9, 9], [9, 0.9, 0, 0.8], [9, 9, 0.8, 0]])
    chain[:] = 10 + np.abs(np.subtract.outer(range(4), range(4)))
    with pytest.raises(
        DegenerateError, match="no positive alignment with itself over 2 neighbours"
    ):
        sensorimotor_alignment(np.eye(4), chain, k=2)
    measure = SensorimotorAlignment()
    object.__setattr__(measure, "form", "mutual")
    with pytest.raises(UnknownNameError, match="unknown form of cknna 'mutual'"):
        measure.of(d)


def test_two_devices_are_refused(monkeypatch):
    features, _ = reaches(0, count=20)
    far = torch.zeros(20, 20, dtype=torch.float64, device="meta")
    monkeypatch.setattr(motion, "_distances", lambda values: far)
    with pytest.raises(DeviceError, match="features are on cpu but motion on meta; move one"):
        sensorimotor_alignment(features, distances(0, 20))
