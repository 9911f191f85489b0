"""Averages and differences are what numpy makes of the parts by hand."""

import msgspec
import numpy as np
import pytest
import tiny_world as world

from mirror_analysis.inference.estimate import Estimate, excess, independent_difference
from mirror_analysis.results import Comparison, Interval, Null, Score, select
from mirror_analysis.study.contrasts import PAIR, contrasts
from mirror_analysis.study.parts import Part
from mirror_analysis.study.plan import pieces
from mirror_analysis.study.summary import UNTRAINED, summarise

FOLDS = 5
DEFINITION = world.definition(
    models={"seeds": [0, 1, 2], "untrained_draws": 2}, measures={"grids": [PAIR]}
)
BY_KEY = {contrast.key: contrast for contrast in contrasts()}


def comparison(g, names, layers, within):
    scores, replicates = [], {}
    for name in names:
        for x_layer, y_layer in layers:
            value, p = float(g.normal()), float(g.uniform(0.01, 1))
            replicates[name, x_layer, y_layer] = (value + g.normal(0, 0.1, FOLDS)).tolist()
            scores.append(
                Score(
                    name,
                    value,
                    x="x",
                    y="y",
                    n=9,
                    x_layer=x_layer,
                    y_layer=y_layer,
                    interval=Interval(value - 1, value + 1),
                    null=Null(float(g.normal()), float(g.uniform()), 19, "episodes"),
                    p_value=p,
                    p_max=min(1.0, 2 * p),
                    parameters={"k": 3},
                    within=within,
                )
            )
    return Comparison(tuple(scores), replicates)


def made_parts(definition=DEFINITION, conditions=("plain", "nuisance")):
    g = np.random.default_rng(0)
    made = {}
    for piece in pieces(definition, contrasts(), conditions):
        networks = [
            side in ("trained", "untrained") for side in (piece.contrast.x, piece.contrast.y)
        ]
        layers = [("penultimate" if networks[0] else "told", "vision" if networks[1] else "told")]
        similar = piece.kind == "similarity"
        if similar and piece.contrast.key == PAIR:
            layers.append(("conv1", "conv2"))
        names = ["linear_cka"] if similar else ["recall_at_1"]
        within = comparison(g, names, layers, "task")
        made[piece] = Part(comparison(g, names, layers, ""), within)
    return made


@pytest.fixture(scope="module")
def parts():
    return made_parts()


@pytest.fixture(scope="module")
def scores(parts):
    return summarise(parts, DEFINITION).scores


def cells(parts, contrast, measure, condition, within="", layer="penultimate"):
    """Every score of a contrast at one pair of layers, with its replicates, by seed."""
    found = {}
    for piece, part in parts.items():
        where = piece.outcome or piece.condition
        if piece.outcome and piece.condition == "plain":
            where += " (plain)"
        if piece.contrast.key != contrast or where != condition:
            continue
        half = part.within if within else part.overall
        for s in half.scores:
            if s.measure == measure and s.x_layer in ("told", layer):
                r = half.replicates[s.measure, s.x_layer, s.y_layer]
                found.setdefault(piece.seed, []).append((s, r))
    return found


def estimate(parts, contrast, measure, condition, within=""):
    by_seed = cells(parts, contrast, measure, condition, within)
    values = [np.mean([s.value for s, _ in draws]) for draws in by_seed.values()]
    replicates = [np.mean([r for _, r in draws], axis=0) for draws in by_seed.values()]
    return Estimate(np.array(values), np.array(replicates))


def one(scores, **fields) -> Score:
    found = select(scores, **fields)
    assert len(found) == 1, (fields, len(found))
    return found[0]


def reachable(interval, measure):
    """A share cannot be below 0."""
    low = max(interval.low, 0.0) if measure == "recall_at_1" else interval.low
    return msgspec.structs.replace(interval, low=low)


@pytest.mark.parametrize("contrast", [c.key for c in contrasts()])
@pytest.mark.parametrize("condition", ["plain", "nuisance"])
def test_means_over_draws_then_seeds(parts, scores, contrast, condition):
    for measure, within in (("recall_at_1", ""), ("recall_at_1", "task"), ("linear_cka", "task")):
        if measure == "linear_cka" and BY_KEY[contrast].shuffle:
            continue
        by_seed = cells(parts, contrast, measure, condition, within)
        draws = 2 if BY_KEY[contrast].draws else 1
        assert [len(found) for found in by_seed.values()] == [draws] * 3
        place = {"comparison": contrast, "measure": measure, "condition": condition,
                 "within": within, "role": BY_KEY[contrast].role}  # fmt: skip
        place |= {"x_layer": "penultimate"} if contrast == PAIR else {}
        averaged = one(scores, seed=None, **place)
        everything = [s for found in by_seed.values() for s, _ in found]
        assert averaged.value == pytest.approx(np.mean([s.value for s in everything]))
        assert averaged.p_value == max(s.p_value for s in everything)
        assert averaged.p_max == max(s.p_max for s in everything)
        assert averaged.null.mean == pytest.approx(np.mean([s.null.mean for s in everything]))
        assert averaged.null.sd == pytest.approx(np.mean([s.null.sd for s in everything]))
        assert averaged.null.draws == 19
        expected = estimate(parts, contrast, measure, condition, within)
        assert averaged.interval == reachable(expected.interval(), measure)
        for i, (seed, found) in enumerate(by_seed.items()):
            single = one(scores, seed=seed, **place)
            assert single.value == pytest.approx(np.mean([s.value for s, _ in found]))
            if draws == 1:
                assert single.interval == found[0][0].interval
            else:
                alone = Estimate(expected.values[i : i + 1], expected.replicates[i : i + 1])
                assert single.interval == reachable(alone.interval(), measure)


def test_scores_say_what_they_are_of(scores):
    score = one(scores, comparison="untrained-trained", measure="linear_cka", within="task",
                condition="plain", seed=1, role="control")  # fmt: skip
    assert (score.x, score.y) == ("observation-untrained", "execution")
    assert (score.x_layer, score.y_layer) == ("penultimate", "vision")
    assert score.parameters == {"k": 3, "comparison": "untrained-trained"}
    pixels = select(scores, comparison="trained-pixels", role="control")[0]
    assert (pixels.y, pixels.y_layer) == ("pixels", "")


def test_only_declared_layers_are_told_by_seed_and_subtracted(scores):
    grid = select(scores, x_layer="conv1")
    assert {s.seed for s in grid} == {None}
    assert {(s.measure, s.role, s.condition) for s in grid} == {
        ("linear_cka", "pair", "plain"),
        ("linear_cka", "pair", "nuisance"),
    }
    assert all(s.x_layer in ("", "penultimate") for s in select(scores, role="difference"))


def test_differences_are_the_pair_less_each_other_contrast(parts, scores):
    for condition in ("plain", "nuisance"):
        for within in ("", "task"):
            pair = estimate(parts, PAIR, "recall_at_1", condition, within)
            place = {"measure": "recall_at_1", "condition": condition, "within": within}
            rest = {c.key for c in contrasts()} - {PAIR}
            found = select(scores, role="difference", **place)
            assert {s.parameters["against"] for s in found} == rest | {"best control"}
            controls = {}
            for key in rest:
                delta = pair - estimate(parts, key, "recall_at_1", condition, within)
                score = one(scores, role="difference", against=key, **place)
                assert score.value == pytest.approx(delta.mean)
                assert score.interval.low == pytest.approx(delta.interval().low)
                assert score.seed is score.p_value is score.p_max is score.null is None
                if BY_KEY[key].role == "control":
                    controls[key] = estimate(parts, key, "recall_at_1", condition, within)
            best, value, interval = excess(pair, controls)
            score = one(scores, role="difference", against="best control", **place)
            assert score.parameters["best"] == best
            assert score.value == pytest.approx(value)
            assert score.interval.low == pytest.approx(interval.low)


@pytest.mark.parametrize("ending", ["", " (plain)"])
def test_outcomes_are_subtracted_as_independent(parts, scores, ending):
    won, lost, twins_won, twins_lost = (
        estimate(parts, key, "recall_at_1", f"{outcome}{ending}")
        for key in (PAIR, UNTRAINED)
        for outcome in ("success", "failure")
    )
    place = {"condition": f"success-failure{ending}", "measure": "recall_at_1", "within": ""}
    for key, a, b in ((PAIR, won, lost), (UNTRAINED, twins_won, twins_lost)):
        value, interval = independent_difference(a, b)
        score = one(scores, comparison=key, against="failure", **place)
        assert score.value == pytest.approx(value)
        assert score.interval.high == pytest.approx(interval.high)
    value, interval = independent_difference(won - twins_won, lost - twins_lost)
    double = one(scores, comparison=PAIR, against=UNTRAINED, **place)
    assert double.value == pytest.approx(value)
    assert double.interval.low == pytest.approx(interval.low)
    assert double.role == "difference"


def test_no_best_control_of_one_outcome(scores):
    against = {s.parameters["against"] for s in select(scores, condition="success")
               if s.role == "difference"}  # fmt: skip
    assert against == {UNTRAINED}


def changed(parts, contrast, change):
    """Parts with the first draw of a contrast's alignments changed."""
    out = dict(parts)
    for piece, part in parts.items():
        if piece.kind == "alignment" and piece.contrast.key == contrast and piece.draw == 0:
            out[piece] = msgspec.structs.replace(part, overall=change(part.overall))
    return out


def test_what_is_not_defined_stays_so_and_is_not_subtracted(parts):
    def undefine(found):
        bare = [
            msgspec.structs.replace(s, value=None, interval=None, null=None, undefined="constant")
            for s in found.scores
        ]
        return Comparison(tuple(bare), {})

    made = summarise(changed(parts, UNTRAINED, undefine), DEFINITION).scores
    place = {"measure": "recall_at_1", "condition": "plain", "within": ""}
    score = one(made, comparison=UNTRAINED, role="control", seed=None, **place)
    assert (score.value, score.undefined) == (None, "constant")
    against = {s.parameters["against"] for s in select(made, role="difference", **place)}
    assert UNTRAINED not in against and "best control" in against


def test_a_mean_without_replicates_is_still_the_mean(parts):
    bare = changed(parts, UNTRAINED, lambda found: Comparison(found.scores, {}))
    made = summarise(bare, DEFINITION).scores
    place = {"measure": "recall_at_1", "condition": "plain", "within": ""}
    score = one(made, comparison=UNTRAINED, role="control", seed=None, **place)
    everything = cells(parts, UNTRAINED, "recall_at_1", "plain")
    expected = np.mean([s.value for found in everything.values() for s, _ in found])
    assert score.value == pytest.approx(expected)
    assert score.interval is None
    assert not select(made, against=UNTRAINED, role="difference", **place)


def test_one_of_anything_is_passed_on_as_it_is():
    definition = world.definition(episodes={"test_failures": 0})
    made = made_parts(definition, ["plain"])
    scores = summarise(made, definition).scores
    for piece, part in made.items():
        if piece.kind == "alignment":
            place = {"comparison": piece.contrast.key, "measure": "recall_at_1", "within": ""}
            for seed in (0, None):
                score = one(scores, seed=seed, role=piece.contrast.role, **place)
                first = part.overall.scores[0]
                assert (score.value, score.interval) == (first.value, first.interval)
