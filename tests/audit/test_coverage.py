"""Intervals that miss the truth are caught."""

from dataclasses import dataclass

import numpy as np
import pytest

from mirror_analysis.audit import coverage
from mirror_analysis.audit.coverage import Latent, covered
from mirror_analysis.similarity import linear_cka
from mirror_analysis.similarity.cka import LinearCKA


@dataclass(frozen=True)
class Sure(LinearCKA):
    """Its value hardly changes without a fold, so its intervals are too narrow."""

    def leave_out(self, x, y, folds):
        import torch

        (value,) = self.values(x, y)[0].tolist()
        steps = torch.linspace(-1e-3, 1e-3, int(folds.max()) + 1, dtype=torch.float64)
        return (value + steps)[:, None, None]


def test_honest_intervals_cover():
    expected, closed = covered("linear_cka", 60, 40, 0)
    assert expected.passed and closed.passed
    assert "of the width wanted" in expected.note


def test_intervals_that_are_too_narrow_are_a_miss():
    found = covered(Sure(), 60, 40, 0)
    assert [check.passed for check in found] == [False, False]
    assert "a first 40 gave" in found[0].note


def test_the_closed_form_is_what_many_rows_give():
    model = Latent.make()
    x, y = model.draw(np.random.default_rng(0), 40_000)
    assert linear_cka(x, y) == pytest.approx(model.linear_cka, abs=0.01)
    assert 0.2 < model.linear_cka < 0.9


def test_no_interval_is_an_error(monkeypatch):
    monkeypatch.setattr(Latent, "draw", lambda self, rng, rows: (np.ones((rows, 2)),) * 2)
    with pytest.raises(Exception, match="constant"):
        covered("linear_cka", 20, 5, 0)


def test_quick_is_a_part_of_full():
    quick, full = coverage.jobs(True, 0), coverage.jobs(False, 0)
    assert {job.arguments["measure"] for job in quick} <= {j.arguments["measure"] for j in full}
