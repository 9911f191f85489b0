"""The operations of a pickle that make data, and the loop that follows them."""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable

from mirror_analysis.errors import MirrorError
from mirror_analysis.files.inert import Record
from mirror_analysis.files.stack_machine import (
    LONGEST_LINE,
    Pending,
    PickleFault,
    StackMachine,
    plain_key,
)

_STOP = ord(".")


def run(machine: StackMachine) -> object:
    """The object a pickle makes; the machine's `at` is then where the pickle ended.

    Raises:
        PickleFault: if it is refused, cut or damaged.
    """
    # Whatever a damaged pickle does to the values it has made, it did not make a pickle.
    try:
        while True:
            machine.spend(1)
            code = machine.take(1)[0]
            if code == _STOP:
                if machine.waiting or machine.marks or len(machine.stack) != 1:
                    raise PickleFault("it stops before its object is made")
                return machine.stack[0]
            operation = OPERATIONS.get(code)
            if operation is None:
                raise PickleFault(f"operation {bytes([code])!r} at byte {machine.at - 1}")
            operation(machine)
    except (PickleFault, MirrorError):
        raise
    except Exception as error:
        raise PickleFault(f"{type(error).__name__} at byte {machine.at}: {error}") from None


def _decimal(machine: StackMachine) -> None:
    line = machine.line()
    machine.push({b"00": False, b"01": True}.get(line) if line in (b"00", b"01") else int(line))


def _long(machine: StackMachine, size: int) -> None:
    if size > LONGEST_LINE:
        raise PickleFault(f"a number of {size} bytes")
    machine.push(machine.number(size, signed=True))


def _quoted(machine: StackMachine) -> None:
    line = machine.line(len(machine.data)).strip()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in b"'\"":
        raise PickleFault("a string without quotes")
    machine.push(machine.text(codecs.escape_decode(line[1:-1])[0]))


def _utf8(machine: StackMachine, size: int) -> None:
    machine.push(machine.take(size).decode("utf-8", "surrogatepass"))


def _mark(machine: StackMachine) -> None:
    machine.marks.append(len(machine.stack))


def _pop(machine: StackMachine) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.pop()


def _duplicate(machine: StackMachine) -> None:
    if isinstance(machine.top(), Pending):
        raise PickleFault("an array or type that contains itself")
    machine.push(machine.top())


def _tuple(machine: StackMachine, count: int) -> None:
    machine.push(tuple(reversed([machine.pop() for _ in range(count)])))


def _dict(machine: StackMachine) -> None:
    items = machine.since_mark()
    machine.push({})
    machine.set_items(items)


def _set(machine: StackMachine, kind: type) -> None:
    machine.push(kind(plain_key(item) for item in machine.since_mark()))


def _add(machine: StackMachine) -> None:
    items, target = machine.since_mark(), machine.top()
    if isinstance(target, Record):
        target.items.extend(items)
    elif type(target) is set:
        target.update(plain_key(item) for item in items)
    else:
        raise PickleFault(f"it adds to a value of type {type(target).__name__}")


def _set_item(machine: StackMachine) -> None:
    value, key = machine.pop(), machine.pop()
    machine.set_items([key, value])


def _global(machine: StackMachine) -> None:
    module, name = machine.line().decode("utf-8"), machine.line().decode("utf-8")
    machine.name(module, name)


def _stack_global(machine: StackMachine) -> None:
    name, module = machine.pop(), machine.pop()
    machine.name(module, name)


def _reduce(machine: StackMachine) -> None:
    arguments, function = machine.pop(), machine.pop()
    machine.push(machine.call(function, arguments))


def _new_with_names(machine: StackMachine) -> None:
    named, arguments, function = machine.pop(), machine.pop(), machine.pop()
    made = machine.call(function, arguments)
    if named:
        if not isinstance(made, Record) or not isinstance(named, dict):
            raise PickleFault("named arguments")
        machine.set_fields(made, named)
    machine.push(made)


def _instance(machine: StackMachine) -> None:
    _global(machine)
    function = machine.pop()
    machine.push(machine.call(function, tuple(machine.since_mark())))


def _object(machine: StackMachine) -> None:
    function, *arguments = machine.since_mark()
    machine.push(machine.call(function, tuple(arguments)))


def _outside(machine: StackMachine, key: object) -> None:
    if machine.persistent is None:
        raise PickleFault("it refers to something outside the pickle")
    machine.spend(10)
    machine.push(machine.persistent(key))


def _empty(kind: Callable[[], object], work: int) -> Callable[[StackMachine], None]:
    def operation(machine: StackMachine) -> None:
        machine.spend(work)
        machine.push(kind())

    return operation


# By their codes in Python's pickletools; those that extend or leave the pickle are not there.
OPERATIONS: dict[int, Callable[[StackMachine], None]] = {
    ord(code): operation
    for code, operation in {
        "(": _mark,
        "0": _pop,
        "1": lambda m: m.since_mark() and None,
        "2": _duplicate,
        "F": lambda m: m.push(float(m.line())),
        "G": lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
        "I": _decimal,
        "J": lambda m: m.push(m.number(4, signed=True)),
        "K": lambda m: m.push(m.number(1)),
        "M": lambda m: m.push(m.number(2)),
        "L": lambda m: m.push(int(m.line().rstrip(b"L"))),
        "N": lambda m: m.push(None),
        "P": lambda m: _outside(m, m.line().decode("ascii")),
        "Q": lambda m: _outside(m, m.pop()),
        "R": _reduce,
        "S": _quoted,
        "T": lambda m: m.push(m.text(m.take(m.number(4, signed=True)))),
        "U": lambda m: m.push(m.text(m.take(m.number(1)))),
        "V": lambda m: m.push(m.line(len(m.data)).decode("raw-unicode-escape")),
        "X": lambda m: _utf8(m, m.number(4)),
        "a": lambda m: m.add_items([m.pop()]),
        "b": StackMachine.build,
        "c": _global,
        "d": _dict,
        "e": lambda m: m.add_items(m.since_mark()),
        "g": lambda m: m.get(int(m.line())),
        "h": lambda m: m.get(m.number(1)),
        "i": _instance,
        "j": lambda m: m.get(m.number(4)),
        "l": lambda m: m.push(m.since_mark()),
        "o": _object,
        "p": lambda m: m.put(int(m.line())),
        "q": lambda m: m.put(m.number(1)),
        "r": lambda m: m.put(m.number(4)),
        "s": _set_item,
        "t": lambda m: m.push(tuple(m.since_mark())),
        "u": lambda m: m.set_items(m.since_mark()),
        "]": _empty(list, 1),
        ")": _empty(tuple, 0),
        "}": _empty(dict, 1),
        "\x80": lambda m: m.take(1) and None,
        "\x81": _reduce,
        "\x85": lambda m: _tuple(m, 1),
        "\x86": lambda m: _tuple(m, 2),
        "\x87": lambda m: _tuple(m, 3),
        "\x88": lambda m: m.push(True),
        "\x89": lambda m: m.push(False),
        "\x8a": lambda m: _long(m, m.number(1)),
        "\x8b": lambda m: _long(m, m.number(4)),
        "B": lambda m: m.push(m.take(m.number(4))),
        "C": lambda m: m.push(m.take(m.number(1))),
        "\x8c": lambda m: _utf8(m, m.number(1)),
        "\x8d": lambda m: _utf8(m, m.number(8)),
        "\x8e": lambda m: m.push(m.take(m.number(8))),
        "\x8f": _empty(set, 4),
        "\x90": _add,
        "\x91": lambda m: _set(m, frozenset),
        "\x92": _new_with_names,
        "\x93": _stack_global,
        "\x94": lambda m: m.put(len(m.memo)),
        "\x95": lambda m: m.take(8) and None,
        "\x96": lambda m: m.push(bytearray(m.take(m.number(8)))),
    }.items()
}
