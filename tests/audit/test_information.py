"""Estimators that are off are caught."""

import pytest

from mirror_analysis.audit.information import exact, gaussian, neighbours
from mirror_analysis.information import gaussian as gaussian_module
from mirror_analysis.information import ksg as ksg_module
from mirror_analysis.information import tasks

TASK = "normal-bivariate-0.75"


def test_exact_values_are_the_published_ones(monkeypatch):
    assert all(check.passed for check in exact())
    wrong = dict(tasks.TASKS)
    wrong[TASK] = tasks.TASKS["uniform-additive-0.1"]
    monkeypatch.setattr(tasks, "TASKS", wrong)
    assert [check.name for check in exact() if not check.passed] == [f"exact, {TASK}"]


def test_an_unbiased_estimate_passes_and_a_biased_one_is_a_miss(monkeypatch):
    assert gaussian(TASK, 10, 0)[0].passed and neighbours(TASK, 5, 0)[0].passed
    for module, name, audit in (
        (gaussian_module, "gaussian_mi", gaussian),
        (ksg_module, "ksg_mi", neighbours),
    ):
        right = getattr(module, name)
        monkeypatch.setattr(module, name, lambda x, y, right=right: right(x, y) + 0.2)
        (check,) = audit(TASK, 10, 0)
        assert check.passed is False and check.measured > check.high


def test_draws_differ():
    (check,) = gaussian(TASK, 5, 0)
    assert check.high - check.low > 0
    assert check.measured != pytest.approx(gaussian(TASK, 5, 1)[0].measured, abs=1e-9)
