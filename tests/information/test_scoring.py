import math

import numpy as np
import pytest

from mirror_analysis.errors import DefinitionError, DegenerateError, ShapeError, UnknownNameError
from mirror_analysis.information import TASKS, gaussian_mi, information_score, ksg_mi

X, Y = TASKS["normal-bivariate-0.75"].sample(300, 0)


@pytest.mark.parametrize(
    ("measure", "function"), [("gaussian_mi", gaussian_mi), ("ksg_mi", ksg_mi)]
)
def test_value_is_that_of_the_function_with_null_and_interval(measure, function):
    score = information_score(X, Y, measure=measure, draws=39)
    assert score.value == pytest.approx(function(X, Y), abs=1e-12)
    assert score.measure == measure and score.n == 300
    assert score.interval.low < score.value < score.interval.high
    assert score.interval.low < 0.413339 < score.interval.high
    assert score.p_value == 1 / 40 and score.null.draws == 39
    assert abs(score.null.mean) < 0.03
    assert score == information_score(X, Y, measure=measure, draws=39)


def test_settings_reach_the_measure():
    found = information_score(X, Y, measure="ksg_mi", draws=1, settings={"k": 7, "algorithm": 2})
    assert found.value == pytest.approx(ksg_mi(X, Y, k=7, algorithm=2), abs=1e-12)
    assert found.parameters == {"k": 7, "algorithm": 2, "correction": "none"}
    plain = information_score(X, Y, draws=1, settings={"correct": False})
    assert plain.value == pytest.approx(gaussian_mi(X, Y, correct=False), abs=1e-12)


def test_intervals_cover_and_p_values_are_even():
    g = np.random.default_rng(0)
    covered, ps, trials = 0, [], 30
    for _ in range(trials):
        x, e, other = (g.standard_normal((80, 1)) for _ in range(3))
        interval = information_score(x, 0.75 * x + math.sqrt(1 - 0.5625) * e, draws=1).interval
        covered += interval.low <= 0.413339 <= interval.high
        ps.append(information_score(x, other, draws=19).p_value)
    # 99.9 % bands of 30 draws at 95 % and at one half.
    assert covered >= 23
    assert 6 <= sum(p <= 0.5 for p in ps) <= 24


def test_rows_of_a_unit_do_not_count_as_evidence():
    g = np.random.default_rng(1)
    x, y = (
        np.repeat(g.standard_normal((30, 3)), 6, axis=0) + 0.05 * g.standard_normal((180, 3))
        for _ in range(2)
    )
    by_row = information_score(x, y, draws=99)
    by_unit = information_score(x, y, draws=99, units=np.repeat(np.arange(30), 6))
    assert by_row.p_value == 0.01 and by_row.value > 0.1
    assert by_unit.p_value > 0.03 and abs(by_unit.value) < 0.1
    assert by_unit.n == 30 and by_unit.parameters["correction"] == "shuffled units"
    shrunk = information_score(x, y, draws=9, settings={"shrinkage": "oas"})
    assert shrunk.null.mean == pytest.approx(0, abs=1e-12)


def test_says_what_is_wrong():
    with pytest.raises(UnknownNameError, match="unknown measure 'ksg'; did you mean 'ksg_mi'"):
        information_score(X, Y, measure="ksg")
    with pytest.raises(DefinitionError, match="ksg_mi has no setting kk here; needed some of algo"):
        information_score(X, Y, measure="ksg_mi", settings={"kk": 3})
    with pytest.raises(DegenerateError, match="information_score got draws 0; needed at least 1"):
        information_score(X, Y, draws=0)
    with pytest.raises(ShapeError, match="units have between 1 and 299 rows"):
        information_score(X, Y, units=[0] + [1] * 299)
