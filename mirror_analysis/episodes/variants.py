"""Other looks of the simulator's scene: from elsewhere, of another robot, in another room."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import numpy as np

from mirror_analysis.episodes.rendering import View
from mirror_analysis.episodes.robot import ARM, FINGERS, HAND, carried
from mirror_analysis.errors import DefinitionError, UnknownNameError

Colour = tuple[float, float, float]
"""Red, green and blue, each in [0, 1]; on wood and stone, what the texture is multiplied by."""

_RANGES = {
    "azimuth": (-90.0, 90.0),
    "elevation": (-40.0, 30.0),
    "zoom": (0.5, 2.0),
    "arm": (1.0, 2.0),
    "hand": (1.0, 2.0),
    "lamps": (0.0, 3.0),
    "headlight": (0.0, 3.0),
}
_COLOURS = ("robot", "fingers", "table", "room")


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a scene looks different from the plain one; what happens in it stays the same.

    Larger parts of the robot are drawn larger around their own centres, so that the hand stays
    where it is and touches what it touches; smaller ones would come apart at the joints.

    Attributes:
        azimuth: degrees that every camera moves around its point, -90 to 90.
        elevation: degrees it rises, -40 to 30; more looks less steeply down.
        zoom: factor by which it comes nearer, 0.5 to 2.
        robot: colour of the links of the arm and the gripper, which are red.
        fingers: colour of both fingers, which are white and cyan.
        arm: factor on the links of the arm as they are drawn, 1 to 2.
        hand: the same of the wrist, the gripper and the fingers.
        table: what the colour of the table is multiplied by.
        room: what the colours of the floor and the wall around the table are multiplied by.
        lamps: factor on the brightness of the three lamps of the scene, 0 to 3.
        headlight: the same of the light at the camera.

    Raises:
        DefinitionError: if a number is out of its range.

    Example:
        >>> Variant(zoom=1.25, table=(0.35, 0.35, 0.45))
    """

    azimuth: float = 0.0
    elevation: float = 0.0
    zoom: float = 1.0
    robot: Colour | None = None
    fingers: Colour | None = None
    arm: float = 1.0
    hand: float = 1.0
    table: Colour | None = None
    room: Colour | None = None
    lamps: float = 1.0
    headlight: float = 1.0

    def __str__(self) -> str:
        own = [
            name for name in self.__struct_fields__ if getattr(self, name) != getattr(PLAIN, name)
        ]
        return ", ".join(f"{name} {getattr(self, name)}" for name in own) or "plain"

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            if not low <= getattr(self, name) <= high:
                raise DefinitionError(
                    f"variant {name} is {getattr(self, name)}; needed {low:g} to {high:g}"
                )
        for name in _COLOURS:
            if any(not 0.0 <= part <= 1.0 for part in getattr(self, name) or ()):
                raise DefinitionError(
                    f"variant {name} is {getattr(self, name)}; needed red, green and blue of 0 to 1"
                )


PLAIN = Variant()
"""The look of the scene as it is."""

# Views were chosen so that of every task the thing that is worked on fills 38 pixels of 64 x 64
# or more in both cameras. The arm may hide the part of it that moves, as it does in plain views.
VARIANTS: dict[str, Variant] = {
    "camera-far": Variant(zoom=0.8),
    "camera-high": Variant(elevation=-10.0),
    "camera-low": Variant(elevation=8.0),
    "camera-near": Variant(zoom=1.2),
    "camera-side": Variant(azimuth=-15.0),
    "embodiment-blue": Variant(robot=(0.1, 0.2, 0.6)),
    "embodiment-gray": Variant(robot=(0.35, 0.35, 0.38), fingers=(0.1, 0.1, 0.1)),
    "embodiment-large": Variant(arm=1.15, hand=1.4),
    "light-camera": Variant(lamps=0.0, headlight=1.5),
    "light-dim": Variant(lamps=0.6, headlight=0.6),
    "room-orange": Variant(room=(0.9, 0.6, 0.4)),
    "table-dark": Variant(table=(0.35, 0.35, 0.45)),
    "table-green": Variant(table=(0.5, 1.0, 0.6)),
}
"""Name -> look; the first word says what is different."""


def find_variant(name: str) -> Variant:
    """The variant of that name.

    Raises:
        UnknownNameError: if it is not in the table.
    """
    if name not in VARIANTS:
        raise UnknownNameError("variant", name, VARIANTS)
    return VARIANTS[name]


def moved(view: View, variant: Variant) -> View:
    """Where a camera stands under a variant."""
    return view._replace(
        azimuth=view.azimuth + variant.azimuth,
        elevation=view.elevation + variant.elevation,
        distance=view.distance / variant.zoom,
    )


def dressed(model: Any, variant: Variant) -> Any:
    """A copy of a scene that looks as a variant says, to draw from the data of the original.

    The physics goes on with the original: meshes take part in collisions, so changing them
    there would change what happens.

    Args:
        model: mujoco.MjModel of a Meta-World task.
        variant: the look.
    """
    drawn = copy.copy(model)
    arm, hand = carried(model, ARM), carried(model, HAND)
    bodies = {
        name: np.isin(model.geom_bodyid, [model.body(body).id for body in of])
        for name, of in (("fingers", FINGERS), ("table", ("tablelink",)),
                         ("room", ("world", "RetainingWall")))
    }  # fmt: skip
    bodies["robot"] = arm & (model.geom_dataid >= 0)
    for name in _COLOURS:
        if getattr(variant, name) is not None:
            drawn.geom_rgba[bodies[name], :3] = getattr(variant, name)
    for part, factor in ((arm & ~hand, variant.arm), (hand, variant.hand)):
        for extent in (drawn.geom_size, drawn.geom_rbound, drawn.geom_aabb):
            extent[part] *= factor
        meshes = model.geom_dataid[part]
        for mesh in np.unique(meshes[meshes >= 0]):
            first = model.mesh_vertadr[mesh]
            drawn.mesh_vert[first : first + model.mesh_vertnum[mesh]] *= factor
    drawn.light_diffuse[:] *= variant.lamps
    drawn.vis.headlight.diffuse[:] *= variant.headlight
    drawn.vis.headlight.ambient[:] *= variant.headlight
    return drawn
