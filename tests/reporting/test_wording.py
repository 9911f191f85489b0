import pytest

from mirror_analysis.reporting import wording
from mirror_analysis.results import Interval, Score


def score(value: float | None, interval: Interval | None = None, **fields: object) -> Score:
    base = {"measure": "rsa", "value": value, "x": "a", "y": "b", "n": 9, "interval": interval}
    return Score(**{**base, **fields})


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.1234, "0.123"), (-0.1234, "−0.123"), (-0.0001, "0.000"), (0.0, "0.000"), (None, "–")],
)
def test_number_has_a_true_minus_and_no_negative_zero(value: float | None, text: str) -> None:
    assert wording.number(value) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.5, "0.50"), (0.051, "0.051"), (0.0005, "0.0005"), (1e-9, "< 0.0001"), (None, "–")],
)
def test_probability_is_never_zero(p: float | None, text: str) -> None:
    assert wording.probability(p) == text


def test_stars_are_strict() -> None:
    given = (None, 0.05, 0.049, 0.01, 0.009, 0.001, 0.0009)
    assert [wording.stars(p) for p in given] == ["", "", "*", "*", "**", "**", "***"]


def test_spoken_says_why_there_is_no_number() -> None:
    assert wording.spoken(None) == "not measured"
    assert wording.spoken(score(None, undefined="constant")) == "not defined (constant)"
    assert wording.spoken(score(0.5)) == "0.50"
    assert wording.spoken(score(0.5, Interval(-0.1, 1.0))) == "0.50 (−0.10 to 1.00)"


def test_intervals_and_units_gather_what_differs() -> None:
    scores = [
        score(0.5, Interval(0, 1, 0.95, "jackknife")),
        score(0.5, Interval(0, 1, 0.95, "bootstrap"), n=12),
        score(0.5, Interval(0, 1, 0.9)),
        score(0.5),
    ]
    assert wording.intervals(scores) == "90% intervals and 95% intervals (bootstrap; jackknife)"
    assert wording.units(scores) == "n = 9–12 episodes"
    assert wording.intervals([score(0.5)]) == wording.units([]) == ""


def test_labels_keep_what_they_do_not_know() -> None:
    assert wording.measure_axis("infonce") == "InfoNCE (nats)"
    assert wording.measure_axis("my_measure") == "my_measure"
    assert wording.comparison_label("trained-task identity") == "trained – task identity"
    assert wording.condition_label("success-failure (plain)") == "successes − failures (plain)"
    assert wording.condition_label("rain") == "rain"


def test_listing_joins_once_each() -> None:
    assert wording.listing(["a"]) == "a"
    assert wording.listing(["a", "b", "a", "c"]) == "a, b and c"


def test_differences_carry_their_sign() -> None:
    values = (0.0171, -0.0871, 0.0, 0.0001, -0.0001)
    assert [wording.signed(v) for v in values] == ["+0.017", "−0.087", "0.000", "0.000", "0.000"]


def test_units_are_called_episodes() -> None:
    given = Interval(0, 1, 0.95, "jackknife over 16 groups of units, least over 6 controls")
    words = "95% intervals (jackknife over 16 groups of episodes, least over 6 controls)"
    assert wording.intervals([score(0.5, given)]) == words
    assert wording.of_episodes("communities of units") == "communities of episodes"


def test_names_of_findings_become_words() -> None:
    assert wording.finding_label("excess-cka-within-task") == "Excess CKA within task"
