"""Planted signals are found, nothing is found where there is none, and what cannot be is said."""

import numpy as np
import pytest

from mirror_analysis.errors import DegenerateError, PairingError, UnknownNameError
from mirror_analysis.features import FeatureKey, Features, Index, Paired, Split
from mirror_analysis.inference import Estimate
from mirror_analysis.probing import Probe, decode, gain, probe

FEW = {"strengths": (1.0, 0.01), "draws": 39}


def layers(index, **values):
    return {
        name: Features(FeatureKey("model", "0", name, "mean", "e"), v.astype(np.float32), index)
        for name, v in values.items()
    }


def world(episodes=120, steps=1, tasks=6, seed=0, signal=1.0):
    """Rows whose layer "much" tells the class well, "some" a little and "none" not at all."""
    rng = np.random.default_rng(seed)
    task = np.arange(episodes) % tasks
    won = rng.permutation(np.arange(episodes) // tasks % 2 == 0)
    index = Index(
        np.array([f"e{i:03d}" for i in range(episodes)]).repeat(steps),
        np.tile(np.arange(steps), episodes),
        {
            "task": np.array([f"t{t}" for t in task]).repeat(steps),
            "won": won.repeat(steps),
            "height": (won + 0.5 * rng.normal(size=episodes)).repeat(steps),
            "phase": np.tile(np.arange(steps) % 2, episodes),
        },
    )
    rows = episodes * steps
    told = np.where(won, 1.0, -1.0).repeat(steps)[:, None] * np.array([1.0, -1.0, 0, 0, 0])
    noise = lambda: rng.normal(size=(rows, 5))  # noqa: E731
    return layers(index, none=noise(), some=noise() + 0.35 * told * signal, much=noise() + told)


def test_a_planted_signal_is_found_where_it_is():
    found = decode(world(), "won", settings=Probe(**FEW))
    none, some, much = found.scores
    assert [s.x_layer for s in found.scores] == ["none", "some", "much"]
    assert much.value > some.value > 0.55 and much.value > 0.85
    assert much.p_value == much.p_max == 1 / 40 and none.p_value > 0.05
    assert none.interval.low < 0.5 < none.interval.high < much.interval.low
    assert found.best is much
    assert (much.measure, much.x, much.y, much.n, much.split) == (
        "probe_accuracy", "model", "won", 120, "test",
    )  # fmt: skip
    assert much.null.mean == pytest.approx(0.5, abs=0.05)
    assert much.null.scheme == "episodes of a fold, predictions kept"
    assert much.parameters | {"strength": 0} == {
        "estimator": "logistic", "held_out": "episode", "folds": 5, "rows": 120, "features": 5,
        "classes": 2, "chance": 0.5, "strength": 0,
    }  # fmt: skip


def test_the_bayes_rate_of_two_normal_classes_is_reached():
    found = probe(world(1200), "won", settings=Probe(**FEW))
    # Classes at distance 2 sqrt(2) under unit noise: right with probability Phi(sqrt(2)).
    assert found[2].value == pytest.approx(0.9214, abs=0.02)
    assert found[2].interval.low < 0.9214 < found[2].interval.high


@pytest.mark.parametrize("estimator", ["logistic", "knn", "ridge"])
def test_p_values_are_right_where_there_is_no_relation(estimator):
    """Over unrelated data sets p is at most .1 in about a tenth, over the best of 2 layers too."""
    own, best = [], []
    settings = Probe(estimator=estimator, strengths=(0.1,), neighbours=(5,), draws=19, folds=3)
    target = "height" if estimator == "ridge" else "won"
    for seed in range(40):
        rng = np.random.default_rng(seed)
        drawn = world(30, seed=seed)
        index = drawn["none"].index
        drawn = layers(index, **{n: rng.normal(size=(30, 4)) for n in ("a", "b")})
        scores = probe(drawn, target, settings=settings)
        own += [s.p_value for s in scores]
        best.append(min(s.p_max for s in scores))
    # Binomial bounds at 3 standard deviations (own p of layers share their labels).
    assert np.mean(np.array(own) <= 0.1) == pytest.approx(0.1, abs=0.11)
    assert np.mean(np.array(best) <= 0.1) == pytest.approx(0.1, abs=0.15)


def test_labels_that_tasks_give_away_are_no_finding_within_tasks():
    """A layer that knows the task and no more, and a side that depends on the task."""
    rng = np.random.default_rng(1)
    task = np.arange(120) % 6
    side = np.where(rng.random(120) < np.where(task < 3, 0.8, 0.2), "left", "right")
    index = Index(
        np.array([f"e{i}" for i in range(120)]), np.zeros(120, dtype=np.int64),
        {"task": task.astype(str), "side": side},
    )  # fmt: skip
    drawn = layers(index, x=np.eye(6)[task] + 0.1 * rng.normal(size=(120, 6)))
    free = probe(drawn, "side", settings=Probe(**FEW))[0]
    within = probe(drawn, "side", settings=Probe(**FEW, within="task"))[0]
    assert free.p_value == 1 / 40 and free.null.mean < 0.6
    assert within.p_value > 0.05 and within.null.mean > 0.65
    assert within.null.scheme == "episodes within task of a fold, predictions kept"


def test_held_out_tasks_are_the_units():
    score = probe(world(), "won", settings=Probe(**FEW, held_out="task"))[2]
    assert (score.n, score.parameters["folds"]) == (6, 5)
    assert score.interval.method.endswith("jackknife over 6 groups of 6 tasks")


def test_quantities_are_told_up_to_what_is_noise():
    found = decode(world(600), "height", settings=Probe(draws=39))
    none, _, much = found.scores
    assert much.measure == "probe_r2" and "classes" not in much.parameters
    assert none.value == pytest.approx(0.0, abs=0.03) and none.p_value > 0.05
    # Of variance 1/4 + 1/4 the features tell what they tell of won: R² = .5 * correlation².
    assert 0.25 < much.value < 0.4 and much.interval.low > 0.2
    assert much.null.scheme == "episodes, fitted again"
    both = probe(world(), ["height", "won"], settings=Probe(draws=39))[2]
    assert both.y == "height+won" and both.value > much.value


def test_steps_of_an_episode_are_one_unit():
    drawn = world(60, steps=4)
    score = probe(drawn, "won", settings=Probe(**FEW))[2]
    assert (score.n, score.parameters["rows"]) == (60, 240)
    phase = probe(drawn, "phase", settings=Probe(**FEW))[2]
    assert phase.value < 0.65 and phase.n == 60
    # All episodes have the same phases: trading them changes nothing, so nothing is found.
    assert phase.p_value == 1.0


def test_balanced_accuracy_of_the_commonest_class_is_one_over_classes():
    drawn = world(100)
    index = drawn["none"].index
    rare = np.where(np.arange(100) < 15, "rare", "common")
    index = Index(index.episode, index.step, {**index.labels, "rare": rare})
    drawn = layers(index, none=drawn["none"].values)
    plain = probe(drawn, "rare", settings=Probe(**FEW))[0]
    balanced = probe(drawn, "rare", settings=Probe(**FEW, balanced=True))[0]
    assert plain.value > 0.8 and plain.parameters["chance"] == 0.85
    assert balanced.measure == "probe_balanced_accuracy"
    assert balanced.value < 0.65 and balanced.parameters["chance"] == 0.5


def test_chance_is_named_where_nothing_is_permuted():
    score = probe(world(), "won", settings=Probe(strengths=(0.1,), null="chance"))[2]
    assert score.p_value is None and score.p_max is None
    assert (score.null.draws, score.null.scheme) == (0, "commonest class of the fit rows")
    score = probe(world(), "height", settings=Probe(null="chance"))[2]
    assert (score.null.mean, score.null.scheme) == (0.0, "mean of the fit rows")


def test_a_constant_layer_is_undefined_and_the_others_are_not():
    drawn = world()
    index = drawn["none"].index
    drawn = layers(index, flat=np.full((120, 3), 2.5), much=drawn["much"].values)
    found = decode(drawn, "won", settings=Probe(**FEW))
    flat, much = found.scores
    assert flat.value is None and flat.interval is None and flat.p_value is None
    assert flat.undefined == "layer 'flat' does not vary over the fit rows of fold 0"
    assert found.best is much and "flat" not in found.predicted
    alone = decode(layers(index, flat=np.ones((120, 2))), "won", settings=Probe(**FEW))
    with pytest.raises(DegenerateError, match=r"^no layer has a value: layer 'flat' does not"):
        _ = alone.best
    with pytest.raises(UnknownNameError, match=r"^unknown layer with a value 'flat'"):
        alone.estimate("flat")


def test_predictions_and_episodes_say_what_the_score_says():
    found = decode(world(60, steps=2), "won", settings=Probe(**FEW))
    for score in found.scores:
        right = found.predicted[score.x_layer] == found.truth
        assert score.value == pytest.approx(right.mean())
        assert score.value == pytest.approx(found.of_episodes[score.x_layer].mean())
    assert found.episodes.tolist() == sorted(set(found.index.episode.tolist()))
    first = found.index.episode == found.episodes[0]
    assert found.of_episodes["much"][0] == (found.predicted["much"] == found.truth)[first].mean()


def split_of(drawn, parts):
    paired = Paired(
        {n: f.values for n, f in drawn.items()}, {n: -f.values for n, f in drawn.items()},
        drawn["none"].index,
    )  # fmt: skip
    return Split(*(paired.take(part) for part in parts))


def test_a_split_is_fitted_chosen_and_tested_on_its_parts():
    drawn = world(200)
    parts = np.split(np.arange(200), [90, 120])
    score = probe(split_of(drawn, parts), "won", settings=Probe(**FEW))[2]
    assert (score.n, score.x, score.parameters["held_out"], score.parameters["folds"]) == (
        80, "x", "split", 1,
    )  # fmt: skip
    other = probe(split_of(drawn, parts), "won", settings=Probe(**FEW), side="y")[2]
    assert other.value == score.value and other.x == "y"
    labelled = drawn["none"].index
    names = np.repeat(["fit", "validation", "test"], [90, 30, 80])
    labelled = Index(labelled.episode, labelled.step, {**labelled.labels, "split": names})
    same = layers(labelled, **{n: f.values for n, f in drawn.items()})
    settings = Probe(**FEW, held_out="split")
    assert probe(same, "won", settings=settings)[2].value == score.value


def test_errors():
    drawn = world(30)
    with pytest.raises(UnknownNameError, match=r"^unknown label 'loss'"):
        probe(drawn, "loss")
    with pytest.raises(UnknownNameError, match=r"^unknown estimator for classification 'ridge'"):
        probe(drawn, "won", settings=Probe(estimator="ridge"))
    with pytest.raises(UnknownNameError, match=r"^unknown side 'z'"):
        probe(drawn, "won", side="z")
    with pytest.raises(PairingError, match=r"^probe got no layers"):
        probe({}, "won")
    with pytest.raises(DegenerateError, match=r"^6 of 6 classes of 'task' \(first 't0'\) have all"):
        probe(drawn, "task", settings=Probe(held_out="task"))
    other = drawn["some"].take(np.arange(29, -1, -1))
    with pytest.raises(PairingError, match=r"^layer 'some' has other rows than the first layer"):
        probe({**drawn, "some": other}, "won")
    index = drawn["none"].index
    torn = Index(index.episode, index.step, {**index.labels, "instruction": np.arange(30)})
    torn = Index(np.repeat(index.episode[:15], 2), torn.step, torn.labels)
    with pytest.raises(DegenerateError, match=r"^rows of one episode have several values of 'inst"):
        probe(layers(torn, x=drawn["none"].values), "won", settings=Probe(held_out="instruction"))
    parts = split_of(drawn, np.split(np.arange(30), [10, 20]))
    uneven = Split(parts.fit, parts.validation, Paired({}, parts.test.y, parts.test.index))
    with pytest.raises(PairingError, match=r"^the parts of the split have layers \['none', 'some'"):
        probe(uneven, "won")


def test_a_single_features_is_one_layer():
    assert [s.x_layer for s in probe(world()["much"], "won", settings=Probe(**FEW))] == ["much"]


def test_gains_are_paired():
    before, after = (decode(world(signal=s), "won", settings=Probe(**FEW)) for s in (0.3, 1.0))
    differences = gain(after, before)
    assert [d.x_layer for d in differences] == ["none", "some", "much"]
    for difference, a, b in zip(differences, after.scores, before.scores, strict=True):
        assert difference.value == pytest.approx(a.value - b.value)
        assert (difference.role, difference.x) == ("difference", "model less model")
        assert difference.null is None and difference.p_value is None
    none, some, much = differences
    assert none.value == much.value == 0.0
    # The same fits on the same rows: what is common cancels altogether.
    assert none.interval.low == none.interval.high == 0.0
    assert some.interval.low < some.value < some.interval.high
    assert some.interval.method == "jackknife over 32 groups of 120 units, paired"


def test_gains_over_training_seeds_and_episodes():
    runs = [
        [decode(world(seed=s, signal=g), "won", settings=Probe(**FEW)) for s in (1, 2, 3)]
        for g in (1.0, 0.0)
    ]
    after, before = (Estimate.over_seeds([d.estimate("some") for d in of]) for of in runs)
    found = after - before
    values = [a.scores[1].value - b.scores[1].value for a, b in zip(*runs, strict=True)]
    assert found.mean == pytest.approx(np.mean(values))
    assert found.interval().low < found.mean < found.interval().high


def test_gains_match_layers_by_place_where_names_differ():
    first = decode(world(60), "won", settings=Probe(**FEW))
    renamed = {f"u{n}": f for n, f in world(60).items()}
    second = decode(
        layers(renamed["unone"].index, **{n: f.values for n, f in renamed.items()}), "won",
        settings=Probe(**FEW),
    )  # fmt: skip
    assert [d.value for d in gain(first, second)] == [0.0, 0.0, 0.0]


def test_runs_that_cannot_be_subtracted():
    first = decode(world(60), "won", settings=Probe(**FEW))
    with pytest.raises(PairingError, match=r"^the runs were tested on 60 and 30 rows"):
        gain(first, decode(world(30), "won", settings=Probe(**FEW)))
    with pytest.raises(PairingError, match=r"^the runs were tested on 60 and 60 rows that are not"):
        gain(first, decode(world(60), "task", settings=Probe(**FEW)))
    with pytest.raises(PairingError, match=r"^the runs have 3 and 1 layers; needed as many"):
        gain(first, decode(world(60)["much"], "won", settings=Probe(**FEW)))
    with pytest.raises(PairingError, match=r"with estimator logistic meets .* with knn; decode"):
        gain(first, decode(world(60), "won", settings=Probe(estimator="knn", draws=19)))


def test_progress_is_told():
    told = []
    probe(world(30), "won", settings=Probe(**FEW), progress=lambda *t: told.append(t))
    assert told[-1] == (15, 15)
    probe(world(30), "height", settings=Probe(**FEW), progress=lambda *t: told.append(t))
    assert told[-3:] == [(1, 3), (2, 3), (3, 3)]


def test_a_strength_at_the_end_of_its_grid_is_noted():
    score = probe(world(), "won", settings=Probe(strengths=(1e-4, 1e-5), draws=19))[0]
    assert score.note == "In 5 of 5 folds the strength chosen ends its grid."
