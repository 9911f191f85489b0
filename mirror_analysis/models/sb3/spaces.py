"""What an agent sees and does, from the words in which Stable-Baselines3 files say it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import FormatError

Kind = Literal["vector", "index"]

_ENTRY = re.compile(r"'([^'\\]+)'\s*[:,]\s*(Box|Discrete|MultiDiscrete|MultiBinary)\(")
_NEXT = re.compile(r"\)\s*\)?\s*,\s*\(?'")
_SIZES = re.compile(r"\((\d+(?:,\s*\d+)*,?)\)")
_NUMBER = re.compile(r"-?(?:inf|\d+\.?\d*(?:e[+-]?\d+)?)")
_MOST = 2**20  # characters of a description that are looked at


@dataclass(frozen=True)
class Seen:
    """One observation, or one entry of a dictionary of them.

    Attributes:
        key: its name in the dictionary; "" where there is only one.
        shape: as the environment gives it; () for a choice.
        choices: of a choice, how many there are; 0 for numbers.
    """

    key: str
    shape: tuple[int, ...]
    choices: int = 0

    @property
    def width(self) -> int:
        """Numbers of the flat vector a network gets of it."""
        return self.choices or math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class Done:
    """What an agent does.

    Attributes:
        kind: numbers in a box, one or several choices, or switches.
        width: numbers of an action.
        low: [action] lowest of a box; empty for the rest.
        high: [action] highest of a box; empty for the rest.
        choices: of each choice, how many there are.
    """

    kind: Literal["box", "choice", "choices", "switches"]
    width: int
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    choices: tuple[int, ...] = ()


def observations(space: Mapping[str, Any], name: str) -> tuple[Seen, ...]:
    """What the agent sees, dictionaries in the order in which their parts are joined.

    Args:
        space: the readable fields of the `observation_space`.
        name: whose, for the words of an error.

    Raises:
        FormatError: if it is of a kind that is not read.
    """
    kind = _kind(space)
    if kind == "Dict":
        text = str(space.get("spaces", ""))[:_MOST]
        found = tuple(_entry(m.group(1), m.group(2), text[m.end() - 1 :])
                      for m in _ENTRY.finditer(text))  # fmt: skip
        if not found:
            raise FormatError(
                f"{name} sees a dictionary whose parts it does not name in words; save it with a"
                " newer Stable-Baselines3"
            )
        return found
    if kind == "Discrete":
        return (Seen("", (), _whole(space, "n", name)),)
    shape = _shape(space)
    if kind in ("Box", "MultiBinary") and shape:
        return (Seen("", shape),)
    raise FormatError(
        f"{name} sees a {kind or 'nameless'} space; needed a Box, a Discrete, a MultiBinary or a"
        " Dict of them"
    )


def actions(space: Mapping[str, Any], name: str) -> Done:
    """What the agent does; see `observations`.

    Raises:
        FormatError: if it is of a kind that is not read, or its limits are not there.
    """
    kind, none = _kind(space), np.zeros(0, dtype=np.float32)
    if kind == "Box":
        width = math.prod(_shape(space))
        low, high = (_limits(space, end, width, name) for end in ("low", "high"))
        return Done("box", width, low, high)
    if kind == "Discrete":
        return Done("choice", 1, none, none, (_whole(space, "n", name),))
    if kind == "MultiDiscrete":
        counts = tuple(int(word) for word in re.findall(r"\d{1,18}", str(space.get("nvec", ""))))
        if counts:
            return Done("choices", len(counts), none, none, counts)
    if kind == "MultiBinary":
        return Done("switches", _whole(space, "n", name), none, none)
    raise FormatError(
        f"{name} acts in a {kind or 'nameless'} space; needed a Box, Discrete, MultiDiscrete or"
        " MultiBinary one"
    )


def last_is_a_share(space: Mapping[str, Any]) -> bool:
    """Whether only the last number seen is bounded, in [0, 1], as the time that is left is."""
    low = _NUMBER.findall(str(space.get("low", ""))[:_MOST])
    high = _NUMBER.findall(str(space.get("high", ""))[:_MOST])
    if len(low) < 2 or len(low) != len(high):
        return False
    free = all(word == "-inf" for word in low[:-1]) and all(word == "inf" for word in high[:-1])
    return free and (float(low[-1]), float(high[-1])) == (0.0, 1.0)


def _kind(space: Mapping[str, Any]) -> str:
    found = re.search(r"(\w+)'>", str(space.get(":type:", ""))[:200])
    return found.group(1) if found else ""


def _shape(space: Mapping[str, Any]) -> tuple[int, ...]:
    text = str(space.get("_shape", space.get("shape", "")))[:200]
    return tuple(int(word) for word in re.findall(r"\d{1,18}", text))


def _entry(key: str, kind: str, rest: str) -> Seen:
    """One part of a dictionary, from "(-1.0, 1.0, (3,), float32), ..." on."""
    end = _NEXT.search(rest)
    words = rest[: end.start()] if end else rest
    numbers = [int(word) for word in re.findall(r"\d{1,18}", words)]
    if kind == "Discrete":
        return Seen(key, (), numbers[0] if numbers else 0)
    sizes = _SIZES.findall(words)
    if kind == "Box" and sizes:
        return Seen(key, tuple(int(word) for word in re.findall(r"\d{1,18}", sizes[-1])))
    if kind == "MultiBinary" and numbers:
        return Seen(key, (math.prod(numbers),))
    raise FormatError(
        f"the observation '{key}' is a {kind} that is not read; needed a Box, Discrete or"
        " MultiBinary one"
    )


def _limits(space: Mapping[str, Any], end: str, width: int, name: str) -> NDArray[np.float32]:
    words = _NUMBER.findall(str(space.get(end, ""))[:_MOST])
    if width == 0 or len(words) != width:
        raise FormatError(
            f"{name} has {width} numbers in an action but says {len(words)} {end} ends of them in"
            " words; save it with a newer Stable-Baselines3"
        )
    return np.array([float(word) for word in words], dtype=np.float32)


def _whole(space: Mapping[str, Any], field: str, name: str) -> int:
    found = re.search(r"-?\d{1,18}", str(space.get(field, "")))
    if found is None:
        raise FormatError(
            f"{name} does not say how many choices there are ({field}); save it with a newer"
            " Stable-Baselines3"
        )
    return int(found.group())
