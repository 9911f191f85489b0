"""Pictures other than the plain ones: what a policy is shown, and what that condition is called."""

from __future__ import annotations

from typing import NamedTuple

from mirror_analysis.episodes.nuisance import Nuisance
from mirror_analysis.episodes.variants import PLAIN, VARIANTS, Variant, find_variant

Appearance = Nuisance | Variant | str
"""Nuisance, drawn anew for each episode; or one look for all, itself or by name (`VARIANTS`)."""

PLAIN_CONDITION = "plain"


class Look(NamedTuple):
    """What pictures of a roll-out look like.

    Attributes:
        condition: "plain", "nuisance", or the name of the variant; what it is made of where it
            has no name, such as "zoom 1.25".
        nuisance: changes of the pictures, if any.
        variant: how the scene is drawn, if not as it is.
    """

    condition: str = PLAIN_CONDITION
    nuisance: Nuisance | None = None
    variant: Variant | None = None


def look_of(appearance: Appearance | None) -> Look:
    """What an appearance does to the pictures; None and the variant that changes nothing, nothing.

    Raises:
        UnknownNameError: if there is no variant of that name.

    Example:
        >>> look_of("camera-side").condition, look_of(Nuisance()).condition
        ('camera-side', 'nuisance')
    """
    if isinstance(appearance, Nuisance):
        return Look("nuisance", nuisance=appearance)
    variant = find_variant(appearance) if isinstance(appearance, str) else appearance
    if variant is None or variant == PLAIN:
        return Look()
    named = (name for name, other in VARIANTS.items() if other == variant)
    return Look(next(named, str(variant)), variant=variant)
