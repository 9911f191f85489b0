import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from mirror_analysis.errors import DegenerateError, PairingError
from mirror_analysis.generalisation.few_shot import FewShotConfig, few_shot_curve
from mirror_analysis.generalisation.few_shot_points import curve_frame, few_shot_gain
from mirror_analysis.generalisation.few_shot_probes import Classifier
from mirror_analysis.generalisation.judging import Subject
from mirror_analysis.generalisation.parts import Parts, Rows


def gaussians(index, rng, *, pool=40, test=100, distance=2.0, width=5, classes=2):
    """Classes of unit noise whose means are `distance` apart."""

    def rows(count, prefix):
        truth = np.repeat(np.arange(classes), count)
        values = rng.standard_normal((classes * count, width))
        values[np.arange(len(values)), truth] += distance / np.sqrt(2)
        labels = {"which": np.array(["a", "b", "c", "d"])[truth]}
        return Rows(values, index(len(values), prefix, **labels))

    return Parts(rows(pool - pool // 4, "f"), rows(pool // 4, "v"), rows(test, "t"))


def exact_centroid_accuracy(distance, width, shots):
    """P(right) of the nearest of two centroids of `shots` unit Gaussians each, exactly.

    With D the difference of the centroids and M their mean, independent of each other, a row x
    is told right where (x - M) . D > 0, x - M of mean delta / 2 and variance 1 + 1 / (2 shots), D
    of mean delta and variance 2 / shots. Scaled to unit variance the product is a difference of
    two independent noncentral chi squares, and the share of one of two of them is a mixture of
    beta distributions.
    """
    a = distance / 2 / np.sqrt(1 + 1 / (2 * shots))
    b = distance / np.sqrt(2 / shots)
    plus, minus = (a + b) ** 2 / 2, (a - b) ** 2 / 2
    i = np.arange(int(plus) + 40)
    share = stats.beta.sf(0.5, width / 2 + i[:, None], width / 2 + i[None, :])
    return stats.poisson.pmf(i, plus / 2) @ share @ stats.poisson.pmf(i, minus / 2)


def test_the_formula_itself():
    rng = np.random.default_rng(0)
    shots, width, distance, n = 3, 4, 2.0, 80_000
    delta = np.zeros(width)
    delta[0] = distance
    x = rng.standard_normal((n, width)) + delta
    own = delta + rng.standard_normal((n, width)) / np.sqrt(shots)
    other = rng.standard_normal((n, width)) / np.sqrt(shots)
    near = np.square(x - own).sum(axis=1) < np.square(x - other).sum(axis=1)
    assert exact_centroid_accuracy(distance, width, shots) == pytest.approx(near.mean(), abs=0.006)
    # Known centroids: Phi of half the distance.
    assert exact_centroid_accuracy(2.0, 4, 400) == pytest.approx(stats.norm.cdf(1.0), abs=2e-3)


def test_accuracy_is_that_of_estimated_centroids(index):
    rng = np.random.default_rng(1)
    config = FewShotConfig(
        shots=(1, 2, 5, 10), draws=40, classifier=Classifier(scaled=False), null_draws=9
    )
    exact = [exact_centroid_accuracy(2.0, 5, k) for k in (1, 2, 5, 10)]
    errors, widths = [], []
    for _ in range(16):
        curve = few_shot_curve([gaussians(index, rng, pool=20, test=1000)], "which", config=config)
        errors.append([p.score.value - e for p, e in zip(curve, exact, strict=True)])
        widths.append([p.score.interval.high - p.score.value for p in curve])
    errors, widths = np.array(errors), np.array(widths)
    assert np.abs(errors.mean(axis=0)).max() < 0.025
    # Of 64 intervals 61 should hold; they err to the wide side.
    assert (np.abs(errors) <= widths).sum() >= 58
    # And are not wide for nothing: over 200 worlds the errors have sd .030, .027, .018 and .013.
    assert (widths.mean(axis=0) < [0.080, 0.078, 0.066, 0.053]).all()


def test_all_labelled_episodes_are_those_of_scikit_learn(index):
    rng = np.random.default_rng(2)
    parts = gaussians(index, rng, classes=4)
    both, test = parts.labelled, parts.test
    mean, scale = both.values.mean(axis=0), both.values.std(axis=0)
    x, t = (both.values - mean) / scale, (test.values - mean) / scale
    y = both.index.label("which")
    oracles = {
        "centroid": NearestCentroid(),
        "knn": KNeighborsClassifier(1),
        "logistic": LogisticRegression(C=1 / (0.1 * len(x)), max_iter=1000),
    }
    for kind, oracle in oracles.items():
        config = FewShotConfig(
            shots=("all",), classifier=Classifier(kind, strengths=(0.1,)),
            null_draws=9,
        )  # fmt: skip
        (point,) = few_shot_curve([parts], "which", config=config)
        expected = oracle.fit(x, y).score(t, test.index.label("which"))
        assert point.score.value == pytest.approx(expected, abs=0.006), kind
        assert point.score.parameters["labelled"] == 160
        assert point.score.parameters["shots"] == 40 and point.score.parameters["all"] is True


def test_one_shot_of_two_classes_is_the_nearest_row_whatever_the_probe(index):
    rng = np.random.default_rng(3)
    parts = gaussians(index, rng)
    values = []
    for classifier in (
        Classifier("centroid"),
        Classifier("knn", neighbours=7),
        Classifier("logistic", strengths=(0.01,)),
        Classifier("logistic"),
    ):
        config = FewShotConfig(shots=(1,), draws=10, classifier=classifier, null_draws=9)
        (point,) = few_shot_curve([parts], "which", config=config)
        values.append(point.by_draw[0])
    for other in values[1:]:
        assert other == pytest.approx(values[0], abs=0.011)


def test_the_strength_is_chosen_inside_the_shots(index):
    # Much noise, few rows: a probe that always takes the weakest penalty does worse.
    rng = np.random.default_rng(4)
    parts = gaussians(index, rng, width=12)
    found = {}
    for name, strengths in {"weak": (1e-6,), "chosen": (1e-6, 1.0), "strong": (1.0,)}.items():
        config = FewShotConfig(
            shots=(8,), draws=12, classifier=Classifier("logistic", strengths=strengths),
            null_draws=9,
        )  # fmt: skip
        found[name] = few_shot_curve([parts], "which", config=config)[0].score.value
    assert found["strong"] > found["weak"] + 0.02
    assert found["chosen"] > found["weak"] + 0.02


def test_curves_rise_and_start_above_chance(index):
    rng = np.random.default_rng(5)
    parts = [gaussians(index, np.random.default_rng(s), classes=4, distance=3.0) for s in (6, 6)]
    other = gaussians(index, rng, classes=4, distance=3.0)
    parts[1] = Parts(*(
        Rows(b.values, a.index)
        for a, b in zip((parts[0].fit, parts[0].validation, parts[0].test),
                        (other.fit, other.validation, other.test), strict=True)
    ))  # fmt: skip
    curve = few_shot_curve(
        parts, "which", subject=Subject(x="observation", stage="after"),
        config=FewShotConfig(draws=10, null_draws=99),
    )  # fmt: skip
    values = [point.score.value for point in curve]
    assert values == sorted(values) and values[0] > 0.4
    assert [p.score.parameters["shots"] for p in curve] == [1, 2, 5, 10, 40]
    for point in curve:
        assert point.score.null.mean == pytest.approx(0.25, abs=0.02)
        assert point.score.p_value == 0.01
        assert point.score.parameters["seeds"] == 2 and "2 seeds" in point.score.interval.method
        assert point.score.x == "observation" and point.score.stage == "after"
        assert point.values.shape == (2,)


def test_the_same_shots_make_differences_narrow(index):
    rng = np.random.default_rng(7)
    before = gaussians(index, rng, classes=3)
    noisy = Parts(*(
        Rows(rows.values + 0.6 * rng.standard_normal(rows.values.shape), rows.index)
        for rows in (before.fit, before.validation, before.test)
    ))  # fmt: skip
    config = FewShotConfig(draws=20, null_draws=9)
    a, b = (few_shot_curve([p], "which", config=config) for p in (before, noisy))
    gains = few_shot_gain(a, b)
    for gain, left, right in zip(gains, a, b, strict=True):
        assert gain.score.value == pytest.approx(left.score.value - right.score.value)
        assert gain.score.role == "difference" and gain.score.null is None
        one = left.score.interval.high - left.score.interval.low
        both = gain.score.interval.high - gain.score.interval.low
        assert both < 1.2 * one
    nothing = few_shot_gain(a, a)
    assert all(g.score.value == 0 and g.score.interval.high > 0.003 for g in nothing)


def test_a_tidy_frame(index):
    rng = np.random.default_rng(8)
    config = FewShotConfig(shots=(1, 5, 60, "all"), draws=5, null_draws=9)
    curve = few_shot_curve([gaussians(index, rng)], "which", config=config)
    assert curve[2].score.value is None
    assert curve[2].score.undefined == (
        "'which' a has 40 labelled episodes; 60 shots with an interval need 61"
    )
    table = curve_frame({"frozen": curve, "gain": few_shot_gain(curve, curve)})
    assert table.columns.tolist() == [
        "curve", "shots", "all", "labelled", "value", "low", "high", "chance", "n", "role",
    ]  # fmt: skip
    assert table["shots"].tolist() == [1, 5, 40] * 2
    assert table["labelled"].tolist() == [2, 10, 80] * 2
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()


def test_rare_classes_count_as_much_in_balanced_accuracy(index):
    rng = np.random.default_rng(9)
    parts = gaussians(index, rng, distance=3.0)
    common = parts.test.index.label("which") == "a"
    kept = common | (np.arange(len(common)) % 10 == 0)
    parts = Parts(parts.fit, parts.validation, parts.test.take(kept))
    config = FewShotConfig(shots=("all",), metric="balanced_accuracy", null_draws=99)
    (point,) = few_shot_curve([parts], "which", config=config)
    told = NearestCentroid()
    both = parts.labelled
    mean, scale = both.values.mean(axis=0), both.values.std(axis=0)
    told.fit((both.values - mean) / scale, both.index.label("which"))
    truth = parts.test.index.label("which")
    right = told.predict((parts.test.values - mean) / scale) == truth
    expected = (right[truth == "a"].mean() + right[truth == "b"].mean()) / 2
    assert point.score.value == pytest.approx(expected)
    assert point.score.null.mean == pytest.approx(0.5, abs=0.03)


def test_what_makes_no_curve_is_refused(index):
    rng = np.random.default_rng(10)
    parts = gaussians(index, rng)
    with pytest.raises(DegenerateError, match="no features to show shots of"):
        few_shot_curve([], "which")
    seen = parts.labelled.index.label("which") == "a"
    one = Parts(parts.fit.take(seen[:60]), parts.validation.take(seen[60:]), parts.test)
    with pytest.raises(DegenerateError, match="all 40 labelled episodes have 'which' a;"):
        few_shot_curve([one], "which")
    three = gaussians(index, rng, classes=3)
    mixed = Parts(parts.fit, parts.validation, three.test)
    with pytest.raises(DegenerateError, match="'which' is c in a test episode but in no labell"):
        few_shot_curve([mixed], "which")
    flat = Parts(*(Rows(np.ones((len(r), 3)), r.index)
                   for r in (parts.fit, parts.validation, parts.test)))  # fmt: skip
    with pytest.raises(DegenerateError, match="features are constant over the 80 labelled rows"):
        few_shot_curve([flat], "which")
    with pytest.raises(PairingError, match="training seeds have different episodes"):
        few_shot_curve([parts, gaussians(index, rng, pool=44)], "which")
    config = FewShotConfig(shots=(1,), draws=3, null_draws=9)
    a = few_shot_curve([parts], "which", config=config)
    b = few_shot_curve([parts], "which", config=FewShotConfig(shots=(2,), draws=3, null_draws=9))
    with pytest.raises(PairingError, match="after has 1 points and before 2"):
        few_shot_gain(a, [*a, *b])
    with pytest.raises(PairingError, match="make both with the same settings"):
        few_shot_gain(a, b)
    other = Rows(parts.test.values, index(200, "u", which=parts.test.index.label("which")))
    c = few_shot_curve([Parts(parts.fit, parts.validation, other)], "which", config=config)
    with pytest.raises(PairingError, match="from the same episodes"):
        few_shot_gain(a, c)
