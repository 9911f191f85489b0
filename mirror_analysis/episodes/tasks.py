"""The Meta-World tasks that are used, and the instructions that their episodes carry out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import UnknownNameError


class Task(NamedTuple):
    """How an episode of a task is put into words.

    Attributes:
        phrase: what to do.
        coordinate: position in the environment's random vector of what tells two instructions
            apart; the vector is one or two points (x, y, z).
        midpoint: middle of the range that coordinate is drawn from, in metres. It is a property
            of the environment, never of the data.
        sides: words for below and above it, as the robot sees it: x grows to its right, y away
            from it.
    """

    phrase: str
    coordinate: int = 0
    midpoint: float = 0.0
    sides: tuple[str, str] = ("left", "right")


# Only tasks whose goal can be seen: reach, push, pick-place and plate-slide-back have an
# invisible one, which no policy can act upon from pictures.
TASKS: dict[str, Task] = {
    "button-press": Task("press the button"),
    "button-press-topdown": Task("press the button from above"),
    "coffee-button": Task("start the coffee machine"),
    "door-close": Task("close the door", midpoint=0.05),
    "door-open": Task("open the door", midpoint=0.05),
    "door-unlock": Task("unlock the door"),
    "drawer-close": Task("close the drawer"),
    "drawer-open": Task("open the drawer"),
    "faucet-close": Task("close the faucet"),
    "faucet-open": Task("open the faucet"),
    "handle-press": Task("press the handle down"),
    "handle-press-side": Task("press the sideways handle down", midpoint=-0.3),
    "handle-pull": Task("pull the handle up"),
    "handle-pull-side": Task("pull the sideways handle up", midpoint=-0.3),
    "lever-pull": Task("pull the lever up"),
    "plate-slide": Task("slide the plate into the goal", coordinate=3),
    "window-close": Task("close the window", 1, 0.825, ("near", "far")),
    "window-open": Task("open the window"),
}

_PLACES = {
    "left": "on the left",
    "right": "on the right",
    "near": "near the robot",
    "far": "far from the robot",
}


def find_task(name: str) -> Task:
    """The task of that name.

    Raises:
        UnknownNameError: if it is not in the table.
    """
    if name not in TASKS:
        raise UnknownNameError("task", name, TASKS)
    return TASKS[name]


def side(name: str, target: NDArray[np.float64]) -> str:
    """On which side of its range an episode's target lies.

    Args:
        name: task.
        target: the environment's random vector, metres.

    Returns:
        One of the two words of the task.
    """
    task = find_task(name)
    return task.sides[int(target[task.coordinate] >= task.midpoint)]


def instruction(name: str, side: str) -> str:
    """The words for a task on one of its sides.

    Example:
        >>> instruction("drawer-open", "left")
        'open the drawer on the left'
    """
    task = find_task(name)
    if side not in task.sides:
        raise UnknownNameError(f"side of {name}", side, task.sides)
    return f"{task.phrase} {_PLACES[side]}"
