"""Tells the axes of a layer's output from the sizes it has for inputs of two sizes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

Shape = tuple[int, ...]

_PLACES = {0: [], 1: ["token"], 2: ["height", "width"], 3: ["time", "height", "width"]}


def axes_of(
    shapes: tuple[Shape, Shape],
    inputs: tuple[tuple[int, int], tuple[int, int]],
    *,
    clip: int = 0,
    widths: Collection[int] = (),
    channels_last: bool = False,
) -> str | None:
    """The axes of an output, as `LayerInfo` words them.

    What changes with the episodes, with the frames or with both is told by how it changed. Of the
    axes that stay, the first or the last is the channel: the one as wide as the layer's own
    weights, else the one of a map that is unlike height and width where these are equal.

    Args:
        shapes: of the output in two runs.
        inputs: (episodes, time) of the two runs; their products differ too.
        clip: frames the network takes however many there are; 0 where it takes all.
        widths: sizes of the layer's own vectors of weights.
        channels_last: where a map's channels are if nothing else tells.

    Returns:
        None where an axis is none of these, such as windows folded into the batch.

    Example:
        >>> axes_of(((6, 17, 32), (3, 17, 32)), ((2, 3), (3, 1)))
        'episode*time token channel'
    """
    first, second = shapes
    if len(first) != len(second) or not 2 <= len(first) <= 5:
        return None
    found = [_changed(pair, inputs, clip) for pair in zip(first, second, strict=True)]
    words = [word for word in found if word is not None]
    free = [i for i, word in enumerate(words) if not word]
    if len(words) < len(found) or not free or sum(w.startswith("episode") for w in words) != 1:
        return None
    if any(words.count(word) > 1 for word in ("time", "token")):
        return None
    at = next(i for i, word in enumerate(words) if word.startswith("episode"))
    behind = [i for i in free if i > at]
    if not behind:
        return None
    channel = behind[_channel([first[i] for i in behind], widths, channels_last)]
    free.remove(channel)
    words[channel] = "channel"
    if free and "token" in words and "time" not in words:
        words[words.index("token")] = "time"  # strided over frames, and not all there is
    names = _PLACES.get(len(free), []) if "token" not in words else []
    if len(names) != len(free) or ("time" in names and {"time", "episode*time"} & set(words)):
        return None
    for i, name in zip(free, names, strict=True):
        words[i] = name
    return " ".join(words) if {"token", "time"}.issuperset(words[:at]) else None


def _changed(
    sizes: tuple[int, int], inputs: tuple[tuple[int, int], tuple[int, int]], clip: int
) -> str | None:
    """What an axis is by how its size changed: "" where it did not, None where nothing fits."""
    (episodes, time), (others, times) = inputs
    if sizes[0] == sizes[1]:
        return ""
    if sizes == (episodes, others):
        return "episode"
    if sizes in ((episodes * time, others * times), (episodes * clip, others * clip)):
        return "episode*time"
    if sizes == (time, times):
        return "time"
    per_episode = sizes[0] * others == sizes[1] * episodes
    per_frame = sizes[0] * others * times == sizes[1] * episodes * time
    return None if per_episode or per_frame else "token"


def _channel(sizes: Sequence[int], widths: Collection[int], channels_last: bool) -> int:
    """Which of the axes that stay is the channel."""
    last = len(sizes) - 1
    fitting = {i for i in (0, last) if sizes[i] in widths}
    if len(fitting) == 1:
        return fitting.pop()
    if last < 2:
        return last
    if sizes[0] == sizes[1] != sizes[last]:
        return last
    if sizes[last] == sizes[last - 1] != sizes[0]:
        return 0
    return last if channels_last else 0
