import msgspec
import numpy as np
import pytest
import torch

from mirror_analysis.alignment import AlignmentConfig, LinearAlignment, align_seeds, recall_at_k
from mirror_analysis.alignment.linear import Curve
from mirror_analysis.alignment.retrieval import infonce_credit
from mirror_analysis.alignment.scoring import (
    RetrievalConfig,
    align_grid,
    fit_pair,
    score_alignments,
)
from mirror_analysis.errors import DegenerateError, UnknownNameError
from mirror_analysis.features import Index, Paired, Split
from mirror_analysis.inference import folds
from mirror_analysis.results import Comparison, Score, select

FIT = AlignmentConfig(width=16, steps=60, batch=32, check_every=10, learning_rate=1e-2)
JUDGE = RetrievalConfig(recall=(1, 5), gallery=16, draws=99, folds=6)


def rows(count: int, seed: int, *, constant: bool = False) -> Paired:
    """Two layers a side: "near" are views of the same numbers, "far" of nothing."""
    g = np.random.default_rng(seed)
    z = g.standard_normal((count, 4))
    maps = np.random.default_rng(99)

    def near() -> np.ndarray:
        return z @ maps.standard_normal((4, 7)) + 0.3 * g.standard_normal((count, 7))

    def far() -> np.ndarray:
        return np.full((count, 5), 0.1) if constant else g.standard_normal((count, 5))

    ids = np.array([f"episode {i}" for i in range(count)])
    task = np.array([f"task {i % 4}" for i in range(count)])
    sides = [{"near": near(), "far": far()} for _ in range(2)]
    x, y = ({k: v.astype(np.float32) for k, v in side.items()} for side in sides)
    return Paired(x, y, Index(ids, np.full(count, 15), {"task": task}))


def data(**options) -> Split:
    return Split(rows(120, 1, **options), rows(40, 2, **options), rows(64, 3, **options))


def unfitted(seed: int = 0, width: int = 8, features: int = 5) -> LinearAlignment:
    g = torch.Generator().manual_seed(seed)
    shapes = ((features, width), (width,), (features, width), (width,))
    tensors = [torch.randn(*shape, generator=g) for shape in shapes]
    return LinearAlignment(*tensors, config=FIT, curve=Curve([1], [0.0], [0.0], 1))


@pytest.fixture(scope="module")
def grid() -> Comparison:
    return align_grid(data(), alignment=FIT, config=JUDGE, seeds=[0, 1], names=("eye", "hand"))


def cell(grid: Comparison, measure: str, x_layer: str, y_layer: str) -> Score:
    (score,) = select(grid.scores, measure=measure, x_layer=x_layer, y_layer=y_layer)
    return score


# -- the grid ---------------------------------------------------------------------------------


def test_related_layers_stand_out_and_others_do_not(grid):
    assert {s.measure for s in grid.scores} == {"recall_at_1", "recall_at_5", "infonce"}
    assert len(grid.scores) == 4 * 3
    for measure in ("recall_at_1", "recall_at_5", "infonce"):
        best = grid.best(measure)
        assert (best.x_layer, best.y_layer) == ("near", "near")
        assert best.p_max == best.p_value == 0.01
        assert best.interval.low > best.null.mean
        assert cell(grid, measure, "far", "far").p_max > 0.05
    assert cell(grid, "recall_at_1", "near", "near").value > 0.5


def test_the_corrected_p_is_never_below_the_plain_one(grid):
    for score in grid.scores:
        assert score.p_max >= score.p_value - 1 / (JUDGE.draws + 1)
        assert 0 < score.p_value <= 1 and score.p_max <= 1


def test_intervals_stay_where_the_measure_can_be(grid):
    for score in grid.scores:
        assert score.interval.low <= score.value <= score.interval.high <= score.ceiling
        assert score.measure == "infonce" or score.interval.low >= 0.0
    assert cell(grid, "infonce", "near", "near").ceiling == pytest.approx(np.log(64))
    assert cell(grid, "recall_at_5", "far", "near").ceiling == 1.0
    # A jackknife by itself would go past both ends here.
    sure = score_alignments(
        [twins(rows(32, 5))[1]], twins(rows(32, 5))[0], layers=("near", "far"), config=JUDGE
    )
    (score,) = select(sure.scores, measure="recall_at_5")
    assert (score.value, score.interval.high) == (1.0, 1.0)


def twins(paired: Paired) -> tuple[Paired, LinearAlignment]:
    """Rows whose partners are all but equal, and the map that leaves them so."""
    near = paired.x["near"]
    noise = np.random.default_rng(0).standard_normal(near.shape).astype(np.float32)
    same = Paired({"near": near}, {"far": near + 0.01 * noise}, paired.index)
    eye, zero = torch.eye(7), torch.zeros(7)
    return same, LinearAlignment(eye, zero, eye, zero, FIT, Curve([1], [0.0], [0.0], 1))


def test_a_score_says_what_it_is(grid):
    score = cell(grid, "recall_at_5", "near", "near")
    assert (score.x, score.y, score.n, score.stage, score.within) == (
        "eye",
        "hand",
        64,
        "after",
        "",
    )
    assert score.parameters == {"k": 5, "gallery": 16}
    assert (score.null.draws, score.null.scheme) == (99, "episodes")
    assert score.interval.method == "jackknife over 6 groups of units"
    bound = cell(grid, "infonce", "near", "near")
    assert bound.parameters == {"batch": 64, "temperature": 0.1}


def test_a_cell_is_the_mean_over_seeds_of_the_fits_of_its_layers(grid):
    split = data()
    fits = fit_pair(split, ("near", "far"), alignment=FIT, seeds=[0, 1])
    parts = (split.fit, split.validation)
    fresh = align_seeds(
        *(a for p in parts for a in (p.x["near"], p.y["far"])), config=FIT, seeds=[0, 1]
    )
    tables = [a.similarity(split.test.x["near"], split.test.y["far"]) for a in fits]
    again = [a.similarity(split.test.x["near"], split.test.y["far"]) for a in fresh]
    np.testing.assert_allclose(tables, again)
    recalls = [recall_at_k(s, k=5, gallery=16) for s in tables]
    assert recalls[0] != recalls[1]
    assert cell(grid, "recall_at_5", "near", "far").value == pytest.approx(np.mean(recalls))
    bounds = [infonce_credit(s, temperature=0.1).diagonal().mean() for s in tables]
    assert cell(grid, "infonce", "near", "far").value == pytest.approx(np.mean(bounds))


def test_constant_layers_are_undefined_in_every_measure_with_the_reason():
    told = []
    found = align_grid(
        data(constant=True),
        alignment=FIT,
        config=msgspec.structs.replace(JUDGE, recall=(5,)),
        seeds=[0],
        progress=lambda *count: told.append(count),
    )
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert len(found.scores) == 4 * 2
    for score in found.scores:
        if (score.x_layer, score.y_layer) == ("near", "near"):
            assert score.value > score.null.mean and score.undefined == ""
        else:
            assert score.value is None and score.p_value is None
            assert "is constant over its 120 samples" in score.undefined
    table = found.grid("recall_at_5")
    assert table.shape == (2, 2) and table.isna().sum().sum() == 3


# -- one pair of layers -----------------------------------------------------------------------


def test_the_null_is_at_chance_and_inside_groups_where_asked():
    test = rows(48, 4)
    config = msgspec.structs.replace(JUDGE, draws=400)
    for within, chance, scheme in ((None, 5 / 16, "episodes"), ("task", 5 / 12, "episodes within")):
        found = score_alignments(
            [unfitted()], test, layers=("far", "far"), config=config, within=within
        )
        (score,) = select(found.scores, measure="recall_at_5")
        error = score.null.sd / score.null.draws**0.5
        assert score.null.mean == pytest.approx(chance, abs=5 * error)
        assert score.null.scheme.startswith(scheme) and score.within == (within or "")
        assert bool(select(found.scores, measure="infonce")) == (within is None)


def test_the_null_inside_groups_keeps_tasks_together():
    # Partners share nothing but their task.
    test = rows(64, 4)
    code = np.unique(test.index.label("task"), return_inverse=True)[1]
    side = np.eye(5, dtype=np.float32)[code]
    g = np.random.default_rng(0)
    noisy = [side + 0.1 * g.standard_normal(side.shape).astype(np.float32) for _ in range(2)]
    eye, zero = torch.eye(5), torch.zeros(5)
    same = LinearAlignment(eye, zero, eye, zero, FIT, Curve([1], [0.0], [0.0], 1))
    test = Paired({"far": noisy[0]}, {"far": noisy[1]}, test.index)
    over_all = score_alignments([same], test, layers=("far", "far"), config=JUDGE)
    inside = score_alignments([same], test, layers=("far", "far"), config=JUDGE, within="task")
    assert select(over_all.scores, measure="recall_at_5")[0].p_value == 0.01
    assert select(inside.scores, measure="recall_at_5")[0].p_value > 0.05


def test_replicates_leave_out_the_folds_of_the_rows():
    test = rows(30, 6)
    aligned = [unfitted(seed) for seed in (0, 1)]
    found = score_alignments(aligned, test, layers=("far", "far"), config=JUDGE)
    fold = folds(test.index.episode, within=test.index.label("task"), count=6, seed=0)
    tables = [a.similarity(test.x["far"], test.y["far"]) for a in aligned]
    recalls, bounds = [], []
    for number in range(6):
        kept = np.ix_(fold != number, fold != number)
        recalls.append(np.mean([recall_at_k(s[kept], k=5, gallery=16) for s in tables]))
        credits = [infonce_credit(s[kept], temperature=0.1).diagonal() for s in tables]
        bounds.append(np.mean(credits))
    assert found.replicates["recall_at_5", "far", "far"] == pytest.approx(recalls)
    assert found.replicates["infonce", "far", "far"] == pytest.approx(bounds)


def test_a_seed_fixes_null_and_folds_and_leaves_the_value_alone():
    test, found = rows(30, 6), []
    for seed in (0, 0, 1):
        config = msgspec.structs.replace(JUDGE, seed=seed)
        found.append(score_alignments([unfitted()], test, layers=("far", "far"), config=config))
    first, again, other = found
    assert again.scores == first.scores and again.replicates == first.replicates
    for one, two in zip(first.scores, other.scores, strict=True):
        assert one.value == two.value
        assert one.null.mean != two.null.mean
        assert one.interval != two.interval


def test_p_is_uniform_where_there_is_no_relation():
    config = RetrievalConfig(recall=(1,), gallery=8, draws=19, folds=2)
    found: dict[str, list[float]] = {"infonce": [], "recall_at_1": []}
    for seed in range(200):
        one = score_alignments(
            [unfitted(seed)],
            rows(12, seed),
            layers=("far", "far"),
            config=msgspec.structs.replace(config, seed=seed),
        )
        for score in one.scores:
            found[score.measure].append(score.p_value)
    for level in (0.1, 0.25, 0.5, 0.75):
        error = (level * (1 - level) / 200) ** 0.5
        share = np.mean(np.array(found["infonce"]) <= level + 1e-9)
        assert share == pytest.approx(level, abs=4 * error)
        # Few values are possible, so ties make it err to the safe side.
        assert np.mean(np.array(found["recall_at_1"]) <= level + 1e-9) < level + 4 * error


def test_what_cannot_be_judged_is_refused():
    test = rows(12, 0)
    with pytest.raises(DegenerateError, match="no alignments to judge; needed at least one fit"):
        score_alignments([], test, layers=("far", "far"), config=JUDGE)
    with pytest.raises(UnknownNameError, match="unknown label 'tusk'; did you mean 'task'"):
        score_alignments([unfitted()], test, layers=("far", "far"), config=JUDGE, within="tusk")
