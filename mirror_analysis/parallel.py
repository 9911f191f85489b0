"""Doing one thing to many items: in this process, or in several."""

from __future__ import annotations

import os
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import TypeVar, final

from mirror_analysis.errors import DeviceError, MirrorError
from mirror_analysis.provenance import available_threads

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[int, int], None]
"""Called with (items done, items in all) after each item."""

_NAMES = reprlib.Repr()
_NAMES.maxstring = _NAMES.maxother = 120
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class Executor(ABC):
    """Where work is done; what comes out does not depend on it."""

    @abstractmethod
    def map(
        self, function: Callable[[T], R], items: Iterable[T], progress: Progress | None = None
    ) -> list[R]:
        """What the function gives for every item, in the order of the items.

        Raises:
            MirrorError: of the class the function raised, with the item named in its message.
            Exception: any other the function raised, with the item named in a note.
        """


def serial() -> Executor:
    """Works in this process, one item after the other."""
    return _Serial()


def processes(workers: int | None = None) -> Executor:
    """Works in processes of one thread each; functions and items must be picklable.

    Args:
        workers: how many; as many as there are usable cores when not given.

    Raises:
        DeviceError: if fewer than one is asked for.
    """
    if workers is not None and workers < 1:
        cores = available_threads()
        raise DeviceError(f"{workers} workers asked for; needed 1 or more (usable cores: {cores})")
    return _Processes(workers or available_threads())


@final
class _Serial(Executor):
    def map(
        self, function: Callable[[T], R], items: Iterable[T], progress: Progress | None = None
    ) -> list[R]:
        todo = list(items)
        work = ((i, partial(_guarded, function, item)) for i, item in enumerate(todo))
        return _gather(work, todo, progress)


@final
class _Processes(Executor):
    def __init__(self, workers: int) -> None:
        self._workers = workers

    def map(
        self, function: Callable[[T], R], items: Iterable[T], progress: Progress | None = None
    ) -> list[R]:
        todo = list(items)
        workers = max(1, min(self._workers, len(todo)))
        # Spawn, since a fork of a process that runs threads (torch does) may hang.
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            # Workers inherit these at their start and read them when they load numpy or torch.
            with _environment(dict.fromkeys(_THREADS, "1")):
                place = {pool.submit(_guarded, function, item): i for i, item in enumerate(todo)}
            try:
                finished = ((place[future], future.result) for future in as_completed(place))
                return _gather(finished, todo, progress)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


class _Fault:
    """A MirrorError on its way home; some take several arguments, so pickle cannot remake them."""

    def __init__(self, error: MirrorError) -> None:
        self.kind, self.message = type(error), str(error)


def _guarded(function: Callable[[T], R], item: T) -> R | _Fault:
    try:
        return function(item)
    except MirrorError as error:
        return _Fault(error)


def _gather(
    finished: Iterator[tuple[int, Callable[[], R | _Fault]]],
    items: list[T],
    progress: Progress | None,
) -> list[R]:
    """Outcomes in the order of the items, told of in the order they come."""
    found: dict[int, R] = {}
    for i, result in finished:
        name = " ".join(_NAMES.repr(items[i]).split())
        try:
            outcome = result()
        except Exception as error:
            error.add_note(f"item: {name}")
            raise
        if isinstance(outcome, _Fault):
            raise outcome.kind.__new__(outcome.kind, f"{outcome.message} (item {name})")
        found[i] = outcome
        if progress is not None:
            progress(len(found), len(items))
    return [found[i] for i in range(len(items))]


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            os.environ.pop(name)
        os.environ.update({name: before[name] for name in values if name in before})
