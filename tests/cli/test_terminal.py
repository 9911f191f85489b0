"""Data on stdout, progress on stderr, faults as one line."""

import errno
import json
import os

import pytest

from mirror_analysis.cli import terminal
from mirror_analysis.cli.terminal import emit, faults, progress, table
from mirror_analysis.errors import FormatError
from mirror_analysis.results import Score


def stopped(error, capsys):
    with pytest.raises(SystemExit) as end, faults():
        raise error
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return end.value.code, err.strip()


def test_a_fault_is_one_line_however_it_was_written(capsys):
    error = FormatError("a file\n  is broken;\tmend it")
    assert stopped(error, capsys) == (1, "error: a file is broken; mend it")


def test_the_system_says_no(capsys):
    code, line = stopped(PermissionError(errno.EACCES, os.strerror(errno.EACCES), "a/b"), capsys)
    assert (code, line) == (
        1, "error: a/b: Permission denied; name a place that can be read and written",
    )  # fmt: skip
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert stopped(full, capsys)[1].startswith("error: No space left on device; name a place")


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(130)])
def test_stopping_says_how_to_go_on(capsys, end):
    assert stopped(end, capsys) == (130, "stopped; the same command goes on from here")


def test_other_ends_and_bugs_pass(capsys):
    with pytest.raises(SystemExit) as end, faults():
        raise SystemExit(2)
    assert end.value.code == 2
    with pytest.raises(ZeroDivisionError), faults():
        print(1 / 0)
    assert capsys.readouterr() == ("", "")


def test_an_interrupted_command_exits_130(mirror, monkeypatch):
    def interrupt(*words):
        raise KeyboardInterrupt

    monkeypatch.setattr("mirror_analysis.cli.listing.listing", interrupt)
    shown = mirror("list")
    assert shown == (130, "", "stopped; the same command goes on from here\n")


def test_data_is_json_or_text(capsys):
    score = Score("linear_cka", 0.5, x="a", y="b", n=3)
    emit({"scores": [score]}, as_json=True, text="words")
    assert json.loads(capsys.readouterr().out)["scores"][0]["value"] == 0.5
    emit({"scores": [score]}, as_json=False, text="words")
    assert capsys.readouterr() == ("words\n", "")


def test_a_table_is_aligned():
    rows = [{"name": "short", "value": 0.12345, "n": 3}, {"name": "a longer one", "value": None}]
    assert table(rows, ["name", "value", "n"]).splitlines() == [
        "name          value  n",
        "short         0.123  3",
        "a longer one  –      –",
    ]


def test_progress_is_lines_where_there_is_no_screen(capsys, monkeypatch):
    clock = {"now": 0.0}
    monkeypatch.setattr(terminal.time, "monotonic", lambda: clock["now"])
    with progress() as report:
        for clock["now"], done in ((0.0, 0), (1.0, 1), (50.0, 50), (59.0, 59), (100.0, 100)):
            report("working", done, 100)
        # What was there at the start took no time, so it says nothing of the rest.
        for clock["now"], done in ((110.0, 60), (120.0, 80), (125.0, 90), (126.0, 100)):
            report("more", done, 100)
        report("nothing to do", 0, 0)
    assert capsys.readouterr() == (
        "",
        "working: 0/100, 0 s\nworking: 50/100, 50 s, about 50 s left\nworking: 100/100, 100 s\n"
        "more: 60/100, 0 s\nmore: 80/100, 10 s, about 10 s left\nmore: 100/100, 16 s\n"
        "nothing to do: 0/0, 0 s\n",
    )


def test_progress_is_a_bar_on_a_screen(capsys, monkeypatch):
    monkeypatch.setattr(terminal.sys.stderr, "isatty", lambda: True)
    with progress() as report:
        report("working", 0, 4)
        report("working", 4, 4)
        report("more", 1, 2)
    out, err = capsys.readouterr()
    assert out == "" and "working" in err and "4/4" in err and "1/2" in err
