"""Which values of a stored graph are its layers, and what they are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor

from mirror_analysis.models.model import LayerInfo

# What a layer may pass through and still be the same layer.
_ABSORBED_BY = {
    "weighted": ("activation", "norm", "bias", "sum"),
    "bias": ("activation", "norm", "sum"),
    "norm": ("activation",),
    "sum": ("activation",),
    "activation": ("activation",),
    "pool": (),
}


@final
@dataclass(frozen=True)
class Operation:
    """One operation of a graph.

    Attributes:
        kind: "weighted" (convolutions, matrix products with weights, recurrent cells), "bias",
            "norm", "activation", "sum" (of two computed values), "pool", or "other".
        inputs: names of the values it takes.
        output: name of the value it gives.
        scope: where it stands in the network, such as ("blocks", "0", "mlp").
        word: the operation in a word, such as "relu".
        channels: the channel axis of what it gives: 1, -1, 0 for the same as its input, None
            where it cannot be told.
    """

    kind: str
    inputs: tuple[str, ...]
    output: str
    scope: tuple[str, ...]
    word: str
    channels: int | None = 0


@final
@dataclass(frozen=True)
class Site:
    """A value of a graph that may be a layer.

    Attributes:
        value: its name in the graph.
        scope: where it stands in the network.
        word: the operation that gives it.
        channels: its channel axis, 1 or -1; 0 where nothing is known.
        output: whether it is what the whole network gives.
    """

    value: str
    scope: tuple[str, ...]
    word: str
    channels: int = 0
    output: bool = False


def sites(operations: Sequence[Operation], outputs: Sequence[str]) -> list[Site]:
    """The values at which one layer ends and the next begins, in order.

    A weighted operation together with its bias, norm and activation is one layer, and so is the
    sum that closes a residual block, a norm that stands alone, and a pooling. What the network
    gives is always among them.

    Args:
        operations: in an order they can run in.
        outputs: names of the values the network gives.
    """
    takers: dict[str, list[str]] = {}
    channels: dict[str, int] = {}
    for operation in operations:
        for name in operation.inputs:
            takers.setdefault(name, []).append(operation.kind)
        known = (channels[name] for name in operation.inputs if channels.get(name))
        own = operation.channels
        channels[operation.output] = next(known, 0) if own == 0 else own or 0
    found = []
    for operation in operations:
        given = operation.output in outputs
        absorbing = _ABSORBED_BY.get(operation.kind)
        next_ = takers.get(operation.output, [])
        absorbed = absorbing is None or (next_ and all(kind in absorbing for kind in next_))
        if given or not absorbed:
            axis = channels[operation.output]
            found.append(Site(operation.output, operation.scope, operation.word, axis, given))
    return found


def axes(shape: Sequence[int], *, rows: int, channels: int, by_frame: bool) -> str | None:
    """The axes of a value in the words of `LayerInfo`; None where it has no rows or no words.

    Args:
        shape: of the value.
        rows: that the network was given.
        channels: the channel axis, 1 or -1; 0 where nothing is known.
        by_frame: whether a row is a frame, or a whole episode.

    Example:
        >>> axes((2, 64, 7, 7), rows=2, channels=1, by_frame=True)
        'episode*time channel height width'
    """
    if len(shape) < 2 or shape[0] != rows or 0 in shape:
        return None
    first = channels == 1 or (channels == 0 and len(shape) > 3)
    inner = {
        2: "channel",
        3: "channel token" if first else "token channel",
        4: "channel height width" if first else "height width channel",
        5: "channel time height width" if first else "time height width channel",
    }.get(len(shape))
    if inner is None or (by_frame and len(shape) == 5):
        return None
    return ("episode*time " if by_frame else "episode ") + inner


def layer(name: str, site: Site, value: Tensor, *, rows: int, by_frame: bool, calls: str
          ) -> LayerInfo | None:  # fmt: skip
    """The layer a value is; None where it cannot be one."""
    words = axes(tuple(value.shape), rows=rows, channels=site.channels, by_frame=by_frame)
    if words is None or not value.is_floating_point():
        return None
    width = value.shape[words.split().index("channel")]
    return LayerInfo(name, width, words, site.word, calls)


def choose(found: Sequence[Site], most: int) -> list[Site]:
    """At most so many of the sites, what the network gives among them.

    All where they are few enough; else the last of every part of the network, at the greatest
    depth of its scopes at which there are few enough; else sums, poolings and what the network
    gives; else evenly spaced ones.

    Args:
        found: in forward order.
        most: how many, at least 1.
    """
    if len(found) <= most:
        return list(found)
    deepest = max(len(site.scope) for site in found)
    for depth in range(deepest, 0, -1):
        last: dict[tuple[str, ...], int] = {}
        for i, site in enumerate(found):
            last[site.scope[:depth]] = i
        kept = {*last.values(), *(i for i, site in enumerate(found) if site.output)}
        if 1 < len(kept) <= most:
            return [_cut(found[i], depth) for i in sorted(kept)]
    ends = [s for s in found if s.output or s.word in ("add", "ADD", "Add") or "ool" in s.word]
    if 1 < len(ends) <= most:
        return ends
    if most == 1:
        return [found[-1]]
    spaced = {round(i * (len(found) - 1) / (most - 1)) for i in range(most)}
    return [found[i] for i in sorted(spaced)]


def _cut(site: Site, depth: int) -> Site:
    return Site(site.value, site.scope[:depth], site.word, site.channels, site.output)


def named(chosen: Sequence[Site], outputs: Mapping[str, str]) -> list[str]:
    """Readable names, each once: the place in the network without what all places share.

    Args:
        chosen: in forward order.
        outputs: value -> the network's own name for it.
    """
    placed = [site.scope for site in chosen if site.scope and site.value not in outputs]
    shared = 0
    while (
        len(placed) > 1
        and all(len(scope) > shared + 1 for scope in placed)
        and len({scope[shared] for scope in placed}) == 1
        and not any(scope[shared + 1].isdigit() for scope in placed)
    ):
        shared += 1
    short = [".".join(site.scope[shared:]) or ".".join(site.scope) for site in chosen]
    times = Counter(name for name, s in zip(short, chosen, strict=True) if s.value not in outputs)
    found: list[str] = []
    for name, site in zip(short, chosen, strict=True):
        word = site.word.lower()
        if site.value in outputs:
            name = outputs[site.value]
        elif not name:
            name = word
        elif times[name] > 1:
            name = f"{name}.{word}"
        base, count = name, 1
        while name in found:
            count += 1
            name = f"{base}{count}" if not base[-1].isdigit() else f"{base}_{count}"
        found.append(name)
    return found
