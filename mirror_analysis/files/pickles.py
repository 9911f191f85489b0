"""Pickles, read as data: nothing in them is run."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from mirror_analysis.errors import FormatError
from mirror_analysis.files.graphs import check_graph
from mirror_analysis.files.inert import Named, Record
from mirror_analysis.files.pickle_operations import run
from mirror_analysis.files.pickled_arrays import known_values
from mirror_analysis.files.pickled_tensors import known_tensors
from mirror_analysis.files.places import contents, name_of, reason
from mirror_analysis.files.stack_machine import PickleFault, StackMachine

__all__ = ["Named", "Record", "pickle_names", "read_pickle"]

_ENCODINGS = ("ASCII", "latin1", "utf-8", "bytes")


def read_pickle(
    source: Path | bytes,
    *,
    records: Collection[str] = (),
    encoding: str = "ASCII",
    most: int = 2**31,
) -> object:
    """What a pickle holds, where it is made of plain values, arrays and tensors.

    On the list are the containers and plain values of Python, ordered and default dicts (the
    latter as a dict), deques, numpy arrays, scalars and types of every version, and tensors of
    torch, parameters as tensors. A class or function named in `records` is not imported either:
    its objects come back as `Record`, it itself as `Named`. Anything else is refused, and so is
    what takes more than ten million operations, contains itself, or nests deeper than 100.

    Args:
        source: a file, or its bytes.
        records: names such as "rlbench.demo.Demo"; a name says nothing about safety, since
            nothing is ever called.
        encoding: of the strings of Python 2, "ASCII", "latin1", "utf-8" or "bytes".
        most: bytes it may hold.

    Raises:
        MissingFileError: if there is no such file.
        FormatError: if it is no pickle, damaged, or needs a name that is not on the list.

    Example:
        >>> demo = read_pickle(Path("low_dim_obs.pkl"), records=["rlbench.demo.Demo", ...])
        >>> demo.kind, len(demo.fields["_observations"])
        ('rlbench.demo.Demo', 120)
    """
    if encoding not in _ENCODINGS:
        raise FormatError(f"encoding '{encoding}' is not one of {', '.join(_ENCODINGS)}")
    data = contents(source, "a pickle", most=most)
    machine = StackMachine(
        data,
        known=known_values() | known_tensors(),
        records=frozenset(records),
        encoding=encoding,
    )
    try:
        value = run(machine)
        check_graph(value)
    except PickleFault as fault:
        raise FormatError(refusal(name_of(source), fault)) from None
    return value


def refusal(name: str, fault: PickleFault) -> str:
    """The message for a pickle that is not read."""
    return (
        f"{name} is not a pickle of plain data: {reason(fault)}; needed numbers, text, arrays and"
        " tensors, so save those where it was made"
    )


def pickle_names(source: Path | bytes, *, most: int = 2**31) -> tuple[str, ...]:
    """Every class and function a pickle mentions, as "module.Name", without reading it.

    Args:
        source: a file, or its bytes.
        most: bytes it may hold.

    Raises:
        MissingFileError: if there is no such file.
        FormatError: if it is no pickle.

    Example:
        >>> pickle_names(Path("door-v0.pickle"))[0]
        'builtins.getattr'
    """
    names = AllBut()
    data = contents(source, "a pickle", most=most)
    machine = StackMachine(
        data, known={}, records=names, encoding="latin1", persistent=lambda key: None
    )
    try:
        run(machine)
    except PickleFault as fault:
        raise FormatError(refusal(name_of(source), fault)) from None
    return tuple(sorted(names.asked))


class AllBut(Collection[str]):
    """A collection that has every name but some, and keeps those it was asked for."""

    def __init__(self, names: Collection[str] = ()) -> None:
        self.names = names
        self.asked: set[str] = set()

    def __contains__(self, name: object) -> bool:
        self.asked.add(str(name))
        return name not in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.asked)

    def __len__(self) -> int:
        return len(self.asked)
