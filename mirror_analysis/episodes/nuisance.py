"""Appearance that differs between episodes and views for no reason: colour, exposure, position."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from mirror_analysis.episodes.episode import Episode, Episodes
from mirror_analysis.errors import DefinitionError, ShapeError


class Nuisance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the appearance of an episode may be off.

    Attributes:
        gain: range of the factor on a colour channel; one draw per channel.
        offset: range of what is added, in grey levels; one draw for all three channels,
            as a change of exposure would be.
        shift: largest move of the picture in pixels, each way, down and across.
        seed: of all draws.

    Raises:
        DefinitionError: if a range is empty or the shift negative.
    """

    gain: tuple[float, float] = (0.55, 1.45)
    offset: tuple[float, float] = (-40.0, 40.0)
    shift: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in (("gain", self.gain), ("offset", self.offset)):
            if not low <= high:
                raise DefinitionError(f"nuisance {name} is ({low}, {high}); needed low <= high")
        if self.gain[0] < 0:
            raise DefinitionError(f"nuisance gain starts at {self.gain[0]}; needed 0 or more")
        if self.shift < 0:
            raise DefinitionError(f"nuisance shift is {self.shift} pixels; needed 0 or more")


class NuisanceDraw(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is done to the pictures of one episode from one camera.

    Attributes:
        gain: factor of red, green and blue.
        offset: grey levels added to all three.
        shift: pixels moved down and to the right; negative is up and to the left.
    """

    gain: tuple[float, float, float]
    offset: float
    shift: tuple[int, int]


def draw(nuisance: Nuisance, episode_id: str, camera: str) -> NuisanceDraw:
    """The draw of one episode and camera.

    It depends on the three arguments alone, so neither the order nor the number of episodes
    matters, and two cameras of one episode are as independent as two episodes.
    """
    name = f"{nuisance.seed}\0{episode_id}\0{camera}".encode()
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name).digest()))
    red, green, blue = rng.uniform(*nuisance.gain, size=3).tolist()
    offset = float(rng.uniform(*nuisance.offset))
    down, right = rng.integers(-nuisance.shift, nuisance.shift, size=2, endpoint=True).tolist()
    return NuisanceDraw((red, green, blue), offset, (down, right))


def jitter(frames: NDArray[np.uint8], draw: NuisanceDraw) -> NDArray[np.uint8]:
    """Recoloured and moved pictures: value' = clip(round(gain x value + offset), 0, 255).

    What a move uncovers repeats the nearest row or column: wrapping around would show the far
    edge where it never is, and black would tell a network how far the picture was moved.

    Args:
        frames: [time, height, width, 3] uint8.
        draw: what to do to all of them.

    Returns:
        New pictures of the same shape.

    Raises:
        ShapeError: if frames are not such pictures.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise ShapeError(
            f"frames are {frames.dtype} {list(frames.shape)}; needed uint8 [time, height, width, 3]"
        )
    down, right = draw.shift
    rows = np.clip(np.arange(frames.shape[1]) - down, 0, frames.shape[1] - 1)
    columns = np.clip(np.arange(frames.shape[2]) - right, 0, frames.shape[2] - 1)
    moved = frames[:, rows][:, :, columns]
    # 256 possible values: a table is exact and several times faster than arithmetic on pixels.
    levels = np.arange(256)[:, None] * np.array(draw.gain) + draw.offset
    table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return np.stack([table[moved[..., c], c] for c in range(3)], axis=-1)


def apply_nuisance(episodes: Episodes, nuisance: Nuisance) -> Episodes:
    """The same episodes under independent appearance nuisance in every episode and camera.

    Pictures are changed when they are read. Ids stay, so rows still pair; digests and the
    fingerprint change.

    Example:
        >>> seen = apply_nuisance(episodes, Nuisance(seed=1))
    """
    settings = msgspec.json.encode(nuisance)
    return Episodes([_disturbed(episode, nuisance, settings) for episode in episodes])


def _disturbed(episode: Episode, nuisance: Nuisance, settings: bytes) -> Episode:
    digest = hashlib.sha256(episode.digest.encode() + b"\0" + settings).hexdigest()
    # A partial, unlike a closure, can be sent to another process.
    return replace(episode, digest=digest, loader=partial(_read, episode, nuisance))


def _read(episode: Episode, nuisance: Nuisance, camera: str) -> NDArray[np.uint8]:
    return jitter(episode.frames(camera), draw(nuisance, episode.id, camera))
