"""`mirror audit`: a table, every miss, and the exit code."""

import json

import pytest

from mirror_analysis.audit import audits
from mirror_analysis.audit.checks import Check, Job, judged, shown
from mirror_analysis.cli.auditing import wanted
from mirror_analysis.parallel import serial


def found(wrong):
    return [
        judged("known", "right", 0.25, low=0.2, high=0.3, note="200 draws"),
        judged("known", "wrong", 0.5 if wrong else 0.25, low=0.2, high=0.3),
        shown("known", "for the reader", 2.0),
    ]


def right(quick, seed):
    return [Job("known", "job", found, {"wrong": False})]


def missed(quick, seed):
    return [Job("known", "job", found, {"wrong": True})]


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.setattr("mirror_analysis.cli.auditing.processes", lambda workers: serial())
    monkeypatch.setattr(audits, "AUDITS", {"known": f"{__name__}:right"})


def test_all_right_is_0(mirror):
    shown = mirror("audit")
    assert shown.code == 0
    assert shown.out.splitlines()[0].split() == [
        "audit", "check", "measured", "wanted", "verdict", "note",
    ]  # fmt: skip
    assert "known  right           0.250     0.200 to 0.300  ok       200 draws" in shown.out
    assert shown.out.splitlines()[-1] == "2 checks, 0 missed, 1 shown"
    assert "auditing: 1/1" in shown.err


def test_a_miss_is_1_and_listed(mirror, monkeypatch):
    monkeypatch.setattr(audits, "AUDITS", {"known": f"{__name__}:missed"})
    shown = mirror("audit", "--quick")
    assert shown.code == 1
    listed = shown.out.split("missed:\n")[1]
    assert "wrong" in listed and "MISS" in listed and "right" not in listed
    assert shown.out.splitlines()[-1] == "2 checks, 1 missed, 1 shown"
    as_json = mirror("audit", "--json", "--only", "known")
    assert as_json.code == 1
    data = json.loads(as_json.out)
    assert data["missed"] == ["known: wrong"] and data["judged"] == 2
    assert data["checks"][1]["passed"] is False


def test_an_unknown_audit_is_a_fault(mirror):
    assert mirror("audit", "--only", "knwon").fault.startswith(
        "unknown audit 'knwon'; did you mean 'known'"
    )


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (None, None, ""),
        (0.2, None, "at least 0.200"),
        (None, 1e-6, "at most 1e-06"),
        (0.7073663, 0.7073664, "0.70736635 ± 5e-08"),
        (0.033, 0.069, "0.033 to 0.069"),
        (3.0, 3.0, "3.000"),
    ],
)
def test_bands_in_words(low, high, words):
    assert wanted(Check("g", "n", 0.0, low=low, high=high)) == words
