"""All audits, in one pool; whatever goes wrong in one is a miss and not the end."""

import pickle

import pytest

from mirror_analysis.audit import AUDITS, run_audit
from mirror_analysis.audit import audits as table
from mirror_analysis.audit.checks import Job, judged, shown
from mirror_analysis.errors import DegenerateError, UnknownNameError
from mirror_analysis.parallel import serial

ORDER = []


def passes(name):
    ORDER.append(name)
    return [judged("first", name, 1.0, low=0.0), shown("first", f"{name} too", 2.0)]


def breaks():
    ORDER.append("breaks")
    raise DegenerateError("x is\n constant; add samples")


def planned(quick, seed):
    return [
        Job("first", "a", passes, {"name": "a"}, 1.0),
        Job("first", "b", passes, {"name": "b"}, 3.0 if quick else 0.5),
    ]


def broken(quick, seed):
    return [Job("second", "what broke", breaks, {}, 2.0)]


@pytest.fixture
def audits(monkeypatch):
    ORDER.clear()
    monkeypatch.setattr(
        table, "AUDITS", {"first": f"{__name__}:planned", "second": f"{__name__}:broken"}
    )


def test_long_jobs_begin_first_and_checks_come_in_their_order(audits):
    told = []
    found = run_audit(quick=True, executor=serial(), progress=lambda *steps: told.append(steps))
    assert ORDER == ["b", "breaks", "a"]
    assert [check.name for check in found] == ["a", "a too", "b", "b too", "what broke"]
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert all(check.seconds > 0 for check in found)


def test_an_error_is_a_miss_in_words(audits):
    *passed, missed = run_audit(executor=serial())
    assert all(check.passed is not False for check in passed)
    assert missed.passed is False and missed.measured is None and missed.group == "second"
    assert missed.note == "DegenerateError: x is constant; add samples"


def test_only_some(audits):
    assert {check.group for check in run_audit(only=["first"], executor=serial())} == {"first"}
    with pytest.raises(UnknownNameError, match="unknown audit 'frist'; did you mean 'first'"):
        run_audit(only=["frist"], executor=serial())


@pytest.mark.parametrize("name", AUDITS)
def test_every_audit_has_jobs_that_can_be_sent(name):
    quick, full = table._jobs(name, True, 0), table._jobs(name, False, 0)
    assert quick and len(full) >= len(quick)
    for jobs in (quick, full):
        assert {job.group for job in jobs} == {name}
        assert len({job.name for job in jobs}) == len(jobs)
        assert pickle.loads(pickle.dumps(jobs)) == jobs
    assert sum(job.cost for job in full) >= sum(job.cost for job in quick)


def test_the_table_is_sorted():
    assert list(AUDITS) == sorted(AUDITS)
