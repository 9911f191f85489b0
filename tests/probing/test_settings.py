"""Settings out of range are refused in words."""

import pytest

from mirror_analysis.errors import DegenerateError, UnknownNameError
from mirror_analysis.probing import Probe


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"estimator": "svm"}, UnknownNameError, r"^unknown estimator 'svm'"),
        ({"held_out": "camera"}, UnknownNameError, r"^unknown held_out 'camera'"),
        ({"null": "rows"}, UnknownNameError, r"^unknown null of a probe 'rows'"),
        ({"folds": 1}, DegenerateError, r"^probe got folds 1; needed at least 2"),
        ({"draws": 0}, DegenerateError, r"^probe got draws 0; needed at least 1"),
        ({"strengths": (1.0, 0.0)}, DegenerateError, r"^probe got strengths \[1.0, 0.0\]; needed"),
        ({"neighbours": ()}, DegenerateError, r"^probe got neighbours \[\]; needed"),
        ({"tolerance": 0.0}, DegenerateError, r"^probe got tolerance 0.0; needed"),
    ],
    ids=["estimator", "held out", "null", "folds", "draws", "strengths", "neighbours", "tolerance"],
)
def test_errors(settings, error, words):
    with pytest.raises(error, match=words):
        Probe(**settings)


def test_penalties_run_from_strong_to_weak():
    assert Probe(strengths=(0.1, 10.0, 0.1)).penalties("ridge") == (10.0, 0.1)
    for estimator in ("logistic", "ridge"):
        grid = Probe().penalties(estimator)
        assert list(grid) == sorted(grid, reverse=True) and len(grid) >= 6
