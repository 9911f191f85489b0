import sys

import numpy as np
import oracles
import pytest
import torch

from mirror_analysis.errors import DegenerateError, ShapeError, UnknownNameError
from mirror_analysis.inference import Estimate, folds, jackknife_interval, permutations
from mirror_analysis.inference.multiplicity import q_values
from mirror_analysis.results import select
from mirror_analysis.similarity import (
    DEFAULT,
    cknna,
    linear_cka,
    mean_squared_cca,
    mutual_knn,
    svcca,
)
from mirror_analysis.similarity.cca.mean import SVCCA
from mirror_analysis.similarity.cka import RBFCKA, LinearCKA
from mirror_analysis.similarity.distances import DistanceCorrelation
from mirror_analysis.similarity.grid import grid
from mirror_analysis.similarity.measures import load_measure
from mirror_analysis.similarity.neighbors.sets import MutualKNN

module = sys.modules[grid.__module__]

FUNCTIONS = {
    "linear_cka": linear_cka,
    "mutual_knn": mutual_knn,
    "cknna": cknna,
    "mean_squared_cca": mean_squared_cca,
    "svcca": svcca,
}


def layers(seed, count, n=48, width=6, shared=1.0):
    z = np.random.default_rng(99).standard_normal((n, 4))
    g = np.random.default_rng(seed)
    return {
        f"layer{i}": (
            shared * z @ g.standard_normal((4, width + i)) + g.standard_normal((n, width + i))
        ).astype(np.float32)
        for i in range(count)
    }


@pytest.mark.parametrize("measure", sorted({*DEFAULT, *FUNCTIONS}))
def test_every_cell_is_the_function_with_its_null_interval_and_p(measure):
    x, y = layers(0, 3), layers(1, 2)
    f = FUNCTIONS[measure]
    found = grid(x, y, measures=[measure], draws=19, folds=6, seed=5)
    orders = permutations(np.arange(48), draws=19, seed=5)
    fold = folds(np.arange(48), count=6, seed=5)
    assert [(s.x_layer, s.y_layer) for s in found.scores] == [(a, b) for a in x for b in y]
    for s in found.scores:
        a, b = x[s.x_layer], y[s.y_layer]
        assert s.value == pytest.approx(f(a, b), abs=1e-9)
        null = np.array([f(a, b[order]) for order in orders])
        assert s.null.mean == pytest.approx(null.mean(), abs=1e-9)
        assert s.null.sd == pytest.approx(null.std(), abs=1e-9)
        assert (s.null.draws, s.null.scheme) == (19, "rows")
        assert s.p_value == (1 + (null >= s.value).sum()) / 20
        assert s.p_max >= s.p_value
        replicates = [f(a[fold != k], b[fold != k]) for k in range(6)]
        kept = found.replicates[measure, s.x_layer, s.y_layer]
        method = load_measure(measure).interval_method
        if method == "jackknife":
            assert kept == pytest.approx(replicates, abs=1e-9)
        assert s.interval == jackknife_interval(s.value, kept, method=method)
        assert (s.n, s.within, s.undefined) == (48, "", "")


def test_inside_groups_means_are_removed_everywhere_and_folds_take_them_anew():
    x, y = layers(2, 2), layers(3, 1)
    group = np.repeat(np.array(["a", "b", "c", "d"]), 12)
    shifted = {k: v + 50 * (group == "c")[:, None] for k, v in x.items()}
    found = grid(shifted, y, measures=["linear_cka", "mutual_knn"], within=group, draws=9, folds=4)
    fold = folds(np.arange(48), within=group, count=4, seed=0)
    orders = permutations(np.arange(48), within=group, draws=9, seed=0)

    def inside(name, a, b, rows=slice(None), order=slice(None)):
        a = oracles.group_residual(a[rows], group[rows])
        b = oracles.group_residual(b[rows], group[rows])
        return FUNCTIONS[name](a, b[order])

    for s in found.scores:
        a, b = x[s.x_layer], y[s.y_layer]
        assert s.value == pytest.approx(inside(s.measure, a, b), abs=1e-6)
        null = [inside(s.measure, a, b, order=order) for order in orders]
        assert s.null.mean == pytest.approx(np.mean(null), abs=1e-6)
        assert s.null.scheme == "rows within groups"
        expected = [inside(s.measure, a, b, rows=fold != k) for k in range(4)]
        assert found.replicates[s.measure, s.x_layer, s.y_layer] == pytest.approx(
            expected, abs=1e-6
        )
        assert s.within == "groups"


def test_agreement_on_the_group_alone_is_found_over_all_but_not_inside():
    g = np.random.default_rng(4)
    group = np.repeat(np.arange(6), 10)
    centres = g.standard_normal((6, 5))
    x = {"": centres[group] + 0.3 * g.standard_normal((60, 5))}
    y = {"": centres[group] @ g.standard_normal((5, 4)) + 0.3 * g.standard_normal((60, 4))}
    over_all = grid(x, y, draws=99, folds=0)
    inside = grid(x, y, within=group, draws=99, folds=0)
    assert all(s.p_value == 0.01 for s in over_all.scores)
    assert all(s.p_value > 0.05 for s in inside.scores)


def test_units_are_counted_permuted_and_left_out_whole():
    g = np.random.default_rng(5)
    episode = np.repeat(np.arange(12), 4)
    # Rows of an episode are nearly equal on both sides, episodes are unrelated.
    x = {"": np.repeat(g.standard_normal((12, 5)), 4, 0) + 0.05 * g.standard_normal((48, 5))}
    y = {"": np.repeat(g.standard_normal((12, 5)), 4, 0) + 0.05 * g.standard_normal((48, 5))}
    rows = grid(x, y, measures=["mutual_knn"], draws=99, folds=12).scores[0]
    whole = grid(x, y, measures=["mutual_knn"], units=episode, draws=99, folds=12).scores[0]
    assert rows.p_value == 0.01  # what ignoring the episodes would claim
    assert whole.p_value > 0.05
    assert (rows.n, whole.n) == (48, 12)
    assert whole.null.scheme == "units"
    assert whole.null.mean > 1.5 * rows.null.mean


def test_grids_on_the_same_rows_are_paired_whatever_is_compared():
    x, y = layers(6, 1), layers(7, 1)
    first = grid(x, y, measures=["linear_cka"], draws=9, folds=6, seed=3)
    again = grid(x, {**y, "more": y["layer0"][:, :2]}, draws=19, folds=6, seed=3)
    key = ("linear_cka", "layer0", "layer0")
    assert list(first.replicates[key]) == pytest.approx(list(again.replicates[key]), abs=1e-12)
    one, other = (
        Estimate.over_draws([found.scores[0].value], [found.replicates[key]])
        for found in (first, again)
    )
    value, interval = (one - other).mean, (one - other).interval()
    assert value == pytest.approx(0, abs=1e-12)
    assert interval.high - interval.low < 1e-10


def test_layers_that_cannot_be_measured_say_why_and_the_others_go_on():
    x, y = layers(8, 2), layers(9, 1)
    x["dead"] = np.full((48, 3), 0.7)
    y["broken"] = np.full((48, 2), np.nan)
    found = grid(x, y, draws=19, folds=4)
    assert len(found.scores) == 4 * 3 * 2
    for s in found.scores:
        if s.x_layer == "dead":
            assert s.undefined.startswith("layer 'dead' of x is constant over its 48 samples")
        elif s.y_layer == "broken":
            assert s.undefined.startswith("layer 'broken' of y holds NaN or infinity in 48 of 48")
        else:
            assert s.value is not None and s.interval is not None and s.p_max is not None
            continue
        assert s.value is None and s.interval is None and s.null is None and s.p_value is None
        assert (s.measure, s.x_layer, s.y_layer) not in found.replicates
    good = grid(layers(8, 2), layers(9, 1), draws=19, folds=4)
    kept = [s for s in found.scores if s.value is not None]
    assert [s.p_max for s in kept] == [s.p_max for s in good.scores]


def test_a_measure_without_enough_rows_is_undefined_alone():
    x = {"": np.random.default_rng(0).standard_normal((8, 3))}
    found = grid(x, x, draws=5, folds=0)
    by_measure = {s.measure: s for s in found.scores}
    assert by_measure["mutual_knn"].undefined == "mutual_knn got 8 samples; needed at least 12"
    assert by_measure["linear_cka"].value == pytest.approx(1)


def test_a_layer_that_is_constant_without_one_fold_keeps_its_value_but_has_no_interval():
    x = {"": np.zeros((48, 2))}
    x[""][7] = 1
    for measure in (LinearCKA(False), DistanceCorrelation(False)):
        found = grid(x, layers(9, 1), measures=[measure], draws=0, folds=48)
        score = found.scores[0]
        assert score.value is not None and score.interval is None and score.null is None
        assert found.replicates == {}


def test_a_measure_may_bring_settings_and_take_fewer_draws():
    x, y = layers(10, 1), layers(11, 1)
    found = grid(x, y, measures=[MutualKNN(3), SVCCA(0.9, draws=7), "cknna"], draws=12, folds=0)
    assert [s.null.draws for s in found.scores] == [12, 7, 12]
    assert found.scores[0].parameters == {"k": 3, "metric": "cosine", "centred": False}
    assert found.scores[1].parameters == {"variance": 0.9}
    assert found.scores[0].value == pytest.approx(mutual_knn(x["layer0"], y["layer0"], k=3))


def test_progress_counts_up_to_the_end():
    seen = []
    x, y = layers(12, 1), layers(13, 1)
    grid(x, y, draws=120, folds=4, progress=lambda done, total: seen.append((done, total)))
    total = seen[-1][1]
    assert seen[-1] == (total, total)
    assert [d for d, _ in seen] == sorted({d for d, _ in seen})


def test_intervals_cover_the_population_value():
    # Population CKA: ||Sxy||² / (||Sxx|| ||Syy||) with y = x B + noise.
    g = np.random.default_rng(0)
    n, draws = 200, 60
    scale = np.linspace(2, 0.3, 8)
    b = g.standard_normal((8, 6)) / np.sqrt(8)
    sxx = np.diag(scale**2)
    sxy, syy = sxx @ b, b.T @ sxx @ b + np.eye(6)
    truth = (sxy**2).sum() / np.sqrt((sxx**2).sum() * (syy**2).sum())
    values, covered = [], 0
    for _ in range(draws):
        x = g.standard_normal((n, 8)) * scale
        y = x @ b + g.standard_normal((n, 6))
        s = grid({"": x}, {"": y}, measures=["linear_cka"], draws=0, folds=16).scores[0]
        values.append(s.value)
        covered += s.interval.low <= truth <= s.interval.high
    # Four standard errors of a binomial share; of a mean.
    assert 0.95 - 4 * np.sqrt(0.05 * 0.95 / draws) < covered / draws
    assert np.mean(values) == pytest.approx(truth, abs=4 * np.std(values) / np.sqrt(draws))


def test_p_of_unrelated_layers_is_uniform_and_p_max_holds_its_level():
    g = np.random.default_rng(1)
    cells, grids = [], []
    for seed in range(150):
        x = {str(i): g.standard_normal((24, 4)) for i in range(3)}
        y = {str(i): g.standard_normal((24, 5)) for i in range(3)}
        found = grid(x, y, measures=["linear_cka"], draws=39, folds=0, seed=seed)
        cells.append(np.mean([s.p_value <= 0.05 for s in found.scores]))
        grids.append(min(s.p_max for s in found.scores) <= 0.05)
    assert np.mean(cells) == pytest.approx(0.05, abs=4 * np.std(cells) / np.sqrt(150))
    assert 0 < np.mean(grids) < 0.05 + 4 * np.sqrt(0.05 * 0.95 / 150)


def test_says_what_is_wrong():
    x, y = layers(14, 1), layers(15, 1)
    with pytest.raises(UnknownNameError, match="unknown measure 'linear_ckaa'; did you mean"):
        grid(x, y, measures=["linear_ckaa"])
    with pytest.raises(ShapeError, match="x has no layers; needed at least one"):
        grid({}, y)
    with pytest.raises(ShapeError, match="'layer0' of x has 48 samples but layer 'layer0' of y h"):
        grid(x, {"layer0": y["layer0"][:-1]})
    with pytest.raises(ShapeError, match="units has 47 labels for 48 rows"):
        grid(x, y, units=np.arange(47))
    with pytest.raises(ShapeError, match=r"within has shape \(47,\) for 48 rows"):
        grid(x, y, within=np.arange(47))
    with pytest.raises(DegenerateError, match="no layer can be measured: layer 'a' of x holds NaN"):
        grid({"a": np.full((4, 2), np.nan)}, {"b": np.full((4, 2), np.nan)})
    with pytest.raises(ShapeError, match="units have between 1 and 2 rows"):
        grid(x, y, units=np.r_[0, np.arange(47)])
    with pytest.raises(DegenerateError, match="moments were asked for units; needed rows that a"):
        grid(x, y, units=np.arange(48) // 2, null="moments")
    with pytest.raises(DegenerateError, match="for rows within groups; needed rows that all may"):
        grid(x, y, within=np.arange(48) // 24, null="moments")
    with pytest.raises(DegenerateError, match="for steps shifted inside units; needed rows that"):
        grid(x, y, units=np.arange(48) // 4, exchange="steps", null="moments")
    with pytest.raises(DegenerateError, match="svcca has no exact moments; leave null at 'auto'"):
        grid(x, y, measures=["svcca"], null="moments")
    with pytest.raises(DegenerateError, match="draws is -1; needed 0 for no null, or more"):
        grid(x, y, draws=-1)
    # The annotations stop these two in the test run before the function sees them.
    with pytest.raises(UnknownNameError, match="unknown exchange 'step'; did you mean 'steps'"):
        module._check("step", "auto", 9)
    with pytest.raises(UnknownNameError, match=r"unknown null 'perm'.* \(known: auto, moments"):
        module._check("units", "perm", 9)


def test_select_finds_cells_by_measure():
    found = grid(layers(0, 2), layers(1, 2), draws=0, folds=0)
    assert len(select(found.scores, measure="cknna", form="reciprocal")) == 4
    assert isinstance(found.scores[0].value, float)
    assert torch.get_default_dtype() == torch.float32


PAIRWISE = [LinearCKA(), LinearCKA(False), RBFCKA(), DistanceCorrelation()]


def many(seed=20, n=600):
    g = np.random.default_rng(seed)
    x = g.standard_normal((n, 6)) * np.linspace(2, 0.5, 6)
    return x, x[:, :4] + g.standard_normal((n, 4))


@pytest.mark.parametrize("memory", [2 << 30, 0])
@pytest.mark.parametrize("measure", PAIRWISE)
def test_single_precision_and_offsets_change_little(measure, memory):
    x, y = many()
    x, y = x.astype(np.float32), y.astype(np.float32)
    settings = {"measures": [measure], "draws": 5, "folds": 5, "memory": memory}
    exact = grid({"": x.astype(float)}, {"": y.astype(float)}, **settings)
    for a, b in (
        (x, y),
        (x, y.astype(float)),
        (x.astype(float) + 1000, y),
        (x.astype(float) - 100, y.astype(float) + 10),
    ):
        found = grid({"": a}, {"": b}, **settings)
        one, other = found.scores[0], exact.scores[0]
        assert one.value == pytest.approx(other.value, abs=1e-6)
        assert one.interval.low == pytest.approx(other.interval.low, abs=1e-5)
        assert one.p_value == pytest.approx(other.p_value, abs=1e-3)
        key = (measure.name, "", "")
        assert found.replicates[key] == pytest.approx(exact.replicates[key], abs=1e-5)


@pytest.mark.parametrize("size", [30, 1e3, 1e5])
@pytest.mark.parametrize("measure", [LinearCKA(), LinearCKA(False), DistanceCorrelation()])
def test_a_few_huge_rows_do_not_drown_the_others_in_rounding(measure, size):
    x, y = many()
    x[5] *= size
    x, y = x.astype(np.float32), y.astype(np.float32)
    (one,) = grid({"": x}, {"": y}, measures=[measure], draws=0, folds=5).scores
    (other,) = grid(
        {"": x.astype(float)}, {"": y.astype(float)}, measures=[measure], draws=0, folds=5
    ).scores
    # Distances between the others lose what their common offset from the mean takes.
    close = 1e-6 if size < 1e5 or isinstance(measure, LinearCKA) else 5e-5
    assert one.value == pytest.approx(other.value, abs=close)
    assert one.interval is None or one.interval.low == pytest.approx(other.interval.low, abs=1e-3)


@pytest.mark.parametrize("measure", PAIRWISE)
@pytest.mark.parametrize("n", [60, 600])
def test_memory_changes_nothing(measure, n):
    x, y = many(n=n)
    wide = np.random.default_rng(21).standard_normal((n, 900))
    settings = {"measures": [measure], "draws": 5, "folds": 5, "null": "permutation"}
    whole = grid({"a": x, "b": wide}, {"": y}, **settings)
    blocks = grid({"a": x, "b": wide}, {"": y}, memory=0, **settings)
    for a, b in zip(whole.scores, blocks.scores, strict=True):
        assert b.value == pytest.approx(a.value, abs=1e-9)
        assert b.null.mean == pytest.approx(a.null.mean, abs=1e-9)
        assert b.null.sd == pytest.approx(a.null.sd, abs=1e-9)
        assert (b.p_value, b.p_max) == (a.p_value, a.p_max)
        assert b.interval.low == pytest.approx(a.interval.low, abs=1e-8)


def test_many_free_rows_take_exact_moments_and_others_draw():
    x, y = ({"": z} for z in many())
    settings = {"measures": ["linear_cka", "svcca"], "draws": 9, "folds": 0}
    free, other = grid(x, y, **settings).scores
    assert (free.null.draws, free.null.scheme) == (0, "rows, exact moments")
    assert (other.null.draws, other.null.scheme) == (9, "rows")
    for restricted in (
        {"null": "permutation"},
        {"units": np.arange(600) // 10},
        {"within": np.arange(600) // 300},
        {"units": np.arange(600) // 100, "exchange": "steps"},
    ):
        assert grid(x, y, **settings, **restricted).scores[0].null.draws == 9
    few = {"": x[""][:60]}, {"": y[""][:60]}
    assert grid(*few, **settings).scores[0].null.draws == 9
    assert grid(*few, measures=["linear_cka"], null="moments").scores[0].null.draws == 0
    assert grid(x, y, measures=["linear_cka"], draws=0).scores[0].null is None


@pytest.mark.parametrize("measure", [*PAIRWISE, "mutual_knn"])
def test_the_order_as_it_is_counts_among_the_draws(measure):
    # Three units have 6 orders, so no p can be below 1 / 6.
    x, y = many(22)
    units = np.arange(600) // 200
    x, y = {"": x.astype(np.float32)}, {"": y.astype(np.float32)}
    (s,) = grid(x, y, measures=[measure], units=units, draws=199, folds=0).scores
    assert 0.1 < s.p_value < 0.25 and 0.1 < s.p_max < 0.25


def test_q_is_of_the_measure_alone():
    x, y = layers(30, 3), layers(31, 2)
    found = grid(x, y, measures=["linear_cka", "mutual_knn"], draws=49, folds=0)
    for name in ("linear_cka", "mutual_knn"):
        cells = select(found.scores, measure=name)
        expected = q_values([s.p_value for s in cells])
        assert [s.q_value for s in cells] == pytest.approx(expected)


def steps(g, length, share=0.95):
    out = g.standard_normal((length, 3))
    for t in range(1, length):
        out[t] = share * out[t - 1] + (1 - share**2) ** 0.5 * out[t]
    return out


def test_steps_are_shifted_inside_units():
    g = np.random.default_rng(40)
    units = np.repeat(np.arange(6), 40)
    settings = {"measures": ["linear_cka"], "draws": 39, "folds": 0}
    rejected = {"rows": 0, "units": 0, "steps": 0}
    for seed in range(25):
        x, y = ({"": np.concatenate([steps(g, 40) for _ in range(6)])} for _ in range(2))
        for name, how in (
            ("rows", {}),
            ("units", {"units": units}),
            ("steps", {"units": units, "exchange": "steps"}),
        ):
            (s,) = grid(x, y, **settings, **how, seed=seed).scores
            rejected[name] += s.p_value <= 0.05
    assert rejected["rows"] > 8
    limit = 25 * 0.05 + 4 * np.sqrt(25 * 0.05 * 0.95)
    assert rejected["units"] <= limit and rejected["steps"] <= limit
    x = np.concatenate([steps(g, 40) for _ in range(6)])
    copy = 3 * x @ np.linalg.qr(g.standard_normal((3, 3)))[0] + 0.5 * g.standard_normal(x.shape) + 7
    (s,) = grid({"": x}, {"": copy}, units=units, exchange="steps", **settings).scores
    assert s.p_value == 0.025 and s.n == 6
    assert s.null.scheme == "steps shifted inside units"
