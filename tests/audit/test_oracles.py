"""Known values are found again, and a wrong one is a miss."""

import copy

import numpy as np
import pytest

from mirror_analysis.audit import oracles
from mirror_analysis.audit.audits import checks_of
from mirror_analysis.audit.oracles import pair, reference, stacks, value


def row_of(measure, **settings):
    (row,) = (
        number
        for number, entry in enumerate(reference()["pair"]["values"])
        if entry["measure"] == measure
        and entry["settings"] == settings
        and entry.get("rows") is None
    )
    return row


def test_a_known_value_is_found_to_its_last_digit():
    (check,) = value(row_of("linear_cka"), 0)
    assert check.passed and check.measured == pytest.approx(0.70736637, abs=1e-8)
    assert check.high - check.low == pytest.approx(3e-8)
    assert check.name == "linear_cka, n = 1000"


def test_rows_are_normalised_where_the_value_says_so():
    number = next(i for i, e in enumerate(reference()["pair"]["values"]) if e.get("rows"))
    (check,) = value(number, 0)
    assert check.passed and check.measured == pytest.approx(0.70603775, abs=1e-8)


def test_a_wrong_value_is_a_miss(monkeypatch):
    wrong = copy.deepcopy(reference())
    row = row_of("linear_cka", debiased=False)
    wrong["pair"]["values"][row]["value"][0] += 1e-6
    monkeypatch.setattr(oracles, "reference", lambda: wrong)
    (check,) = value(row, 0)
    assert check.passed is False


def test_a_measure_that_moves_with_an_offset_is_a_miss(monkeypatch):
    from mirror_analysis import similarity

    def uncentred(x, y, *, debiased=True):
        cross, own_x, own_y = (np.square(a.T @ b).sum() for a, b in ((x, y), (x, x), (y, y)))
        return float(cross / np.sqrt(own_x * own_y))

    monkeypatch.setattr(similarity, "linear_cka", uncentred, raising=False)
    by_function = [check for check in oracles.offsets() if "compare" not in check.name]
    assert len(by_function) == 6
    assert not any(check.passed for check in by_function)


def test_linear_cka_does_not_move_with_an_offset():
    assert all(check.passed for check in oracles.offsets())


def test_unrelated_features_give_the_closed_form():
    found = oracles.unrelated([64])
    assert [check.passed for check in found] == [True, True, True]


def test_data_are_built_as_the_values_were():
    x, y = pair(1000)
    assert (x.shape, y.shape, x.dtype) == ((1000, 768), (1000, 512), np.float32)
    first, second = stacks(50, 3)
    assert list(first) == ["layer0", "layer1", "layer2"]
    assert first["layer2"].shape == (50, 768) and second["layer0"].shape == (50, 512)


def test_full_is_every_value_that_is_known():
    values = reference()["pair"]["values"]
    known = sum(v is not None for entry in values for v in entry["value"])
    full = [job for job in oracles.jobs(False, 0) if job.function is value]
    assert len(full) == known == 50
    assert all(
        job.arguments["place"] == 0 for job in oracles.jobs(True, 0) if job.function is value
    )


def test_an_unknown_measure_is_a_miss_and_names_itself(monkeypatch):
    wrong = copy.deepcopy(reference())
    wrong["pair"]["values"][0]["measure"] = "no_such_measure"
    monkeypatch.setattr(oracles, "reference", lambda: wrong)
    (check,) = checks_of(oracles.jobs(True, 0)[0])
    assert check.passed is False and "no_such_measure" in check.note
