"""The rows of the training benchmark at tiny size, in this process."""

import importlib

import numpy as np
import pytest
import torch

from benchmarks import training
from benchmarks.speed import cuda
from benchmarks.speed.record import Row, Timing, Turn


def values(plan):
    """What every side computes."""
    arrays = plan.arrays()
    found = {}
    for side in plan.sides:
        module, _, name = side.make.partition(":")
        make = getattr(importlib.import_module(module), name)
        found[side.name] = make(**{a: arrays[a] for a in side.arrays}, **side.settings)()
    return found


@pytest.mark.parametrize("name", sorted(training.ROWS))
def test_sides_that_are_compared_compute_the_same(name):
    plan = training.ROWS[name](training.TINY)
    names = {side.name for side in plan.sides}
    assert plan.name == name
    for aim in plan.aims:
        assert {*aim.of, *aim.to} <= names
    found = values(plan)
    for side in plan.sides:
        if side.like:
            np.testing.assert_allclose(found[side.name], found[side.like], rtol=1e-4)
    assert np.isfinite(found[plan.sides[0].name]).all()


def test_memory_is_judged_as_a_ratio():
    def row(*peaks):
        names = ("ours, one update", "plain loop")
        timings = [
            Timing(n, "ours", "", "", 1.0, [Turn(1.0, 1.0, 0.0)], peak, None, None, "")
            for n, peak in zip(names, peaks, strict=True)
        ]
        return Row("memory", "", False, "", "", False, 1.0, timings, [])

    (check,) = training.with_memory(row(50.0, 1000.0)).checks
    assert (check.measured, check.met) == (0.05, True)
    (check,) = training.with_memory(row(500.0, 1000.0)).checks
    assert check.met is False
    (check,) = training.with_memory(row(None, None)).checks
    assert check.met is None and "cannot be read" in check.missing


@pytest.mark.parametrize("name", sorted(training.GPU))
def test_what_needs_a_gpu_is_marked_where_there_is_none(name, monkeypatch):
    plan = training.GPU[name](training.Sizes())
    assert plan.name == name and all(check.aim is not None for check in plan.checks)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    row = cuda.run(plan, quick=False)
    for check in row.checks:
        assert check.measured is None and check.missing.startswith("not measured: no CUDA")
