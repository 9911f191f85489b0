"""The machine pickles are programs for, as far as they make data.

It differs from the one of the standard library in what it believes: no length is allocated before
that many bytes are seen, every operation is counted, keys are plain, and a name stands for what the
caller's table says or for nothing.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from mirror_analysis.files.inert import Named, Record
from mirror_analysis.files.places import shown

LONGEST_LINE = 4000  # digits or letters of a textual operation other than a string
_WORK = 10_000_000  # operations, and what constructors put together
_SLACK = 64 * 2**20  # bytes that constructors may copy beyond four times the pickle
_KEYS = (str, bytes, bool, float, complex, type(None), Record, Named)
_OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg", "_abcoll": "collections"}


class PickleFault(ValueError):
    """What a pickle does that is not allowed, or that it is cut or damaged."""


@dataclass(frozen=True)
class Constructor:
    """What a name of the allow list stands for: a function of ours, never the thing named."""

    kind: str
    build: Callable[[StackMachine, tuple[Any, ...]], Any]


@dataclass(eq=False)
class Pending:
    """An array or type whose content follows; nothing may refer to it before."""

    finish: Callable[[StackMachine, Any], Any]
    keys: list[int] = field(default_factory=list)


class StackMachine:
    """One pickle, read as data.

    Args:
        data: bytes with the pickle in them.
        start: where it starts.
        known: "module.Name" -> what stands for it: a `Constructor`, or a plain value.
        records: names that become inert records; they come before `known`.
        encoding: of the strings of Python 2: "ASCII", "latin1", "utf-8" or "bytes".
        persistent: what stands for a reference to something outside the pickle.
    """

    def __init__(
        self,
        data: bytes,
        *,
        start: int = 0,
        known: Mapping[str, object],
        records: Collection[str] = (),
        encoding: str = "ASCII",
        persistent: Callable[[object], object] | None = None,
    ) -> None:
        self.data = data
        self.at = start
        self.known = known
        self.records = records
        self.encoding = encoding
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.waiting = 0
        self.work = _WORK
        self.copies = 4 * len(data) + _SLACK

    def spend(self, work: int) -> None:
        """Counts what is put together.

        Raises:
            PickleFault: if it is more than any honest file needs.
        """
        self.work -= work
        if self.work < 0:
            raise PickleFault(f"more than {_WORK} operations or objects")

    def copy(self, size: int) -> None:
        """Counts bytes that are copied, since one string can be named many times.

        Raises:
            PickleFault: if they are many times the pickle.
        """
        self.copies -= size
        if self.copies < 0:
            raise PickleFault("it copies its own content again and again")

    # -- bytes ------------------------------------------------------------------------------

    def take(self, size: int) -> bytes:
        """The next bytes of the pickle."""
        end = self.at + size
        if size < 0 or end > len(self.data):
            raise PickleFault(f"it ends at byte {len(self.data)} where {size} more are needed")
        part = self.data[self.at : end]
        self.at = end
        return part

    def number(self, size: int, *, signed: bool = False) -> int:
        """The next bytes as a whole number."""
        return int.from_bytes(self.take(size), "little", signed=signed)

    def line(self, most: int = LONGEST_LINE) -> bytes:
        """The next bytes up to the end of the line."""
        end = self.data.find(b"\n", self.at, self.at + most + 1)
        if end < 0:
            raise PickleFault(f"a line at byte {self.at} does not end")
        part = self.data[self.at : end]
        self.at = end + 1
        return part

    # -- stack ------------------------------------------------------------------------------

    def push(self, value: object) -> None:
        """Puts a value on the stack."""
        self.stack.append(value)

    def pop(self) -> Any:
        """Takes the last value from the stack, but none from below the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise PickleFault(f"nothing is left to take at byte {self.at}")
        return self.stack.pop()

    def top(self) -> Any:
        """The last value on the stack, above the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise PickleFault(f"nothing is left to change at byte {self.at}")
        return self.stack[-1]

    def since_mark(self) -> list[Any]:
        """Takes all values above the last mark, and the mark."""
        if not self.marks:
            raise PickleFault(f"a mark is missing at byte {self.at}")
        place = self.marks.pop()
        items = self.stack[place:]
        del self.stack[place:]
        return items

    def put(self, key: int) -> None:
        """Keeps the last value for later use."""
        value = self.top()
        if isinstance(value, Pending):
            value.keys.append(key)
        self.memo[key] = value

    def get(self, key: int) -> None:
        """Puts a value that was kept on the stack."""
        if key not in self.memo:
            raise PickleFault(f"entry {key} is used before it is made")
        value = self.memo[key]
        if isinstance(value, Pending):
            raise PickleFault("an array or type that contains itself")
        self.push(value)

    # -- names ------------------------------------------------------------------------------

    def name(self, module: object, name: object) -> None:
        """Puts on the stack what a class or function stands for."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleFault("a name that is not text")
        kind = f"{_OLD_MODULES.get(module, module)}.{name}"
        if kind in self.records:
            self.push(Named(kind))
        elif kind in self.known:
            self.push(self.known[kind])
        else:
            raise PickleFault(f"it needs {shown(kind)}, which is not on the list of plain data")

    def call(self, function: object, arguments: object) -> object:
        """What a function of the allow list makes, or a record."""
        if not isinstance(arguments, tuple):
            raise PickleFault("arguments that are not a tuple")
        self.spend(10)
        if isinstance(function, Named):
            return Record(function.kind, arguments)
        if not isinstance(function, Constructor):
            raise PickleFault(f"it calls a value of type {type(function).__name__}")
        made = function.build(self, arguments)
        self.waiting += isinstance(made, Pending)
        return made

    def build(self) -> None:
        """Gives the last value its content: an array, a type, or a record."""
        state, target = self.pop(), self.top()
        if isinstance(target, Pending):
            self.spend(10)
            made = target.finish(self, state)
            self.waiting -= 1
            self.stack[-1] = made
            for key in target.keys:
                if self.memo.get(key) is target:
                    self.memo[key] = made
        elif isinstance(target, Record):
            slots: object = None
            if isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], dict | None):
                state, slots = state
            for part in (state, slots):
                self.set_fields(target, part)
        elif not isinstance(target, collections.OrderedDict):
            # The attributes of an ordered dict, such as the versions of a state dict, are left.
            raise PickleFault(f"it sets attributes of a value of type {type(target).__name__}")

    def set_fields(self, record: Record, state: object) -> None:
        """Keeps the attributes a record would have got."""
        if isinstance(state, dict) and all(isinstance(key, str | bytes) for key in state):
            self.spend(len(state))
            for key, value in state.items():
                if isinstance(key, bytes):
                    self.copy(len(key))
                    key = key.decode("latin1")
                record.fields[key] = value
        elif state is not None:
            record.fields["__state__"] = state

    # -- containers -------------------------------------------------------------------------

    def add_items(self, items: list[Any]) -> None:
        """Appends to the last value, a list, deque or record."""
        target = self.top()
        if isinstance(target, Record):
            target.items.extend(items)
        elif type(target) in (list, collections.deque):
            target.extend(items)
        else:
            raise PickleFault(f"it appends to a value of type {type(target).__name__}")

    def set_items(self, items: list[Any]) -> None:
        """Sets keys (even places) to values (odd places) of the last value, a dict or record."""
        if len(items) % 2:
            raise PickleFault("a key without a value")
        target = self.top()
        pairs = list(zip(items[::2], items[1::2], strict=True))
        if isinstance(target, Record):
            target.items.extend(pairs)
        elif type(target) in (dict, collections.OrderedDict):
            for key, value in pairs:
                target[plain_key(key)] = value
        else:
            raise PickleFault(f"it sets items of a value of type {type(target).__name__}")

    def text(self, data: bytes) -> str | bytes:
        """A string of Python 2."""
        if self.encoding == "bytes":
            return data
        try:
            return data.decode(self.encoding)
        except UnicodeDecodeError:
            raise PickleFault(
                f"a string of Python 2 that is not {self.encoding}; read it with encoding 'latin1'"
            ) from None


def plain_key(key: Any) -> Any:
    """The key itself, where hashing it is cheap whoever made it.

    Raises:
        PickleFault: if it is no plain value or short tuple of such.
    """
    parts = key if type(key) is tuple and len(key) <= 64 else (key,)
    for part in parts:
        # Integers beyond 64 bits can be chosen to collide.
        if not (type(part) in _KEYS or (type(part) is int and part.bit_length() <= 64)):
            raise PickleFault(f"a key of type {type(part).__name__}")
    return key
