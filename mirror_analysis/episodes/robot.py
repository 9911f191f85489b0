"""Which parts of a Meta-World scene are the robot's, and whether its hand touches anything."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

ARM = "right_arm_base_link"
"""Body that carries the arm."""

HAND = "right_l6"
"""Body that carries the wrist, the gripper and the fingers."""

FINGERS = ("rightpad", "leftpad")


def carried(model: Any, body: str) -> NDArray[np.bool_]:
    """Which shapes of a scene a body carries, its own and those of the bodies mounted on it.

    Args:
        model: mujoco.MjModel.
        body: its name.

    Returns:
        [geom].
    """
    found = np.zeros(model.nbody, dtype=np.bool_)
    found[model.body(body).id] = True
    for number, parent in enumerate(model.body_parentid):  # a parent's number is never larger
        found[number] |= found[parent]
    return found[model.geom_bodyid]


def touches(model: Any, data: Any) -> bool:
    """Whether the hand touches anything that can move: never the table, nor the robot itself.

    Touching is an active contact of the physics engine: two shapes nearer than the engine's
    margin, at most 2 mm, so that they push each other.

    Args:
        model: mujoco.MjModel of a Meta-World task.
        data: mujoco.MjData, forwarded.
    """
    hand, arm = carried(model, HAND), carried(model, ARM)
    # Bodies without a joint between themselves and the world are welded to body 0.
    things = (model.body_weldid[model.geom_bodyid] != 0) & ~arm
    first, second = data.contact.geom.T
    return bool(((hand[first] & things[second]) | (hand[second] & things[first])).any())
