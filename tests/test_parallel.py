"""What comes out does not depend on where it was done, and a fault names its item."""

import os
from pathlib import Path

import pytest

from mirror_analysis.errors import DeviceError, UnknownNameError
from mirror_analysis.parallel import processes, serial
from mirror_analysis.provenance import available_threads

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
EXECUTORS = [pytest.param(serial, id="serial"), pytest.param(lambda: processes(2), id="processes")]


def square(number):
    return number * number


def fault(path):
    if path.name == "bad":
        raise UnknownNameError("layer", "conv9", ["conv1"])
    return path.name


def crash(number):
    if number == 2:
        raise ZeroDivisionError("by zero")
    return number


def surroundings(_):
    return os.getpid(), [os.environ.get(name) for name in THREADS]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_results_keep_the_order_and_progress_counts(executor):
    seen = []
    found = executor().map(square, (n for n in (3, 1, 2)), lambda *counts: seen.append(counts))
    assert found == [9, 1, 4]
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("executor", EXECUTORS)
def test_nothing_to_do_gives_nothing(executor):
    assert executor().map(square, []) == []


@pytest.mark.parametrize("executor", EXECUTORS)
def test_fault_keeps_its_class_and_names_its_item(executor):
    items = [Path("good"), Path("bad")]
    with pytest.raises(UnknownNameError) as caught:
        executor().map(fault, items)
    assert str(caught.value) == (
        "unknown layer 'conv9'; did you mean 'conv1'? (known: conv1)"
        f" (item {type(items[0]).__name__}('bad'))"
    )


@pytest.mark.parametrize("executor", EXECUTORS)
def test_other_exceptions_carry_a_note(executor):
    with pytest.raises(ZeroDivisionError, match="by zero") as caught:
        executor().map(crash, [1, 2, 3])
    assert caught.value.__notes__ == ["item: 2"]


def test_a_long_item_is_named_in_one_short_line():
    with pytest.raises(TypeError) as caught:
        serial().map(square, ["line\n" * 1000])
    (note,) = caught.value.__notes__
    assert "\n" not in note
    assert len(note) < 150


def test_workers_are_other_processes_of_one_thread(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    ((pid, threads),) = processes(1).map(surroundings, [0])
    assert pid != os.getpid()
    assert threads == ["1"] * len(THREADS)
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


def test_workers_default_to_the_usable_cores():
    assert processes()._workers == available_threads()


def test_no_workers_is_refused():
    with pytest.raises(DeviceError, match=r"^0 workers asked for; needed 1 or more \(usable cor"):
        processes(0)
