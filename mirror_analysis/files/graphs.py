"""What a pickle made, looked at as a whole: a tree of bounded depth and size."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from mirror_analysis.files.inert import Record
from mirror_analysis.files.pickled_tensors import Storage, StorageKind
from mirror_analysis.files.stack_machine import Constructor, Pending, PickleFault

_DEEPEST = 100
_SIZE = 50_000_000
_DICTS = (dict, collections.OrderedDict)
_LISTS = (list, tuple, collections.deque)
_LEAVES = (Constructor, Pending, Storage, StorageKind)


def check_graph(root: object) -> None:
    """Refuses what would take whoever walks through it without end.

    An object held in several places counts as often as a walk would come by: thirty lists, each
    holding the next one twice, are a thousand million.

    Raises:
        PickleFault: if something contains itself, is nested deeper than 100, is too large in
            this sense, or is a class in the place of a value.
    """
    done: dict[int, tuple[int, int]] = {}  # id -> height, size
    path = [_Step(root)]
    above = {id(root)}
    while path:
        step = path[-1]
        for child in step.children:
            if isinstance(child, _LEAVES):
                raise PickleFault(f"the class {getattr(child, 'kind', 'of an array')} as a value")
            if not _holds(child):
                step.size += 1
            elif id(child) in done:
                step.add(*done[id(child)])
            elif id(child) in above:
                raise PickleFault("a value that contains itself")
            elif len(path) >= _DEEPEST:
                raise PickleFault(f"values nested deeper than {_DEEPEST}")
            else:
                above.add(id(child))
                path.append(_Step(child))
                break
        else:
            path.pop()
            above.discard(id(step.value))
            done[id(step.value)] = (step.height, step.size)
            if path:
                path[-1].add(step.height, step.size)
        if step.height + len(path) > 2 * _DEEPEST or step.size > _SIZE:
            raise PickleFault(f"values nested deeper than {_DEEPEST}, or one many times in another")


class _Step:
    def __init__(self, value: Any) -> None:
        self.value = value
        self.children = _children(value)
        self.height = 1
        self.size = 1

    def add(self, height: int, size: int) -> None:
        self.height = max(self.height, height + 1)
        self.size += size
        if self.height > _DEEPEST:
            raise PickleFault(f"values nested deeper than {_DEEPEST}")


def _holds(value: object) -> bool:
    kind = type(value)
    return kind in _LISTS or kind in _DICTS or kind is Record or _is_objects(value)


def _is_objects(value: object) -> bool:
    return type(value) is np.ndarray and value.dtype.hasobject


def _children(value: Any) -> Iterator[Any]:
    children: Iterable[Any] = (value,) if isinstance(value, _LEAVES) else ()
    if type(value) in _LISTS:
        children = value
    elif type(value) in _DICTS:
        children = value.values()
    elif type(value) is Record:
        children = (value.arguments, value.fields, value.items)
    elif _is_objects(value):
        children = value.ravel()
    return iter(children)
