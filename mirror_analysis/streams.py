"""Which stream of the episodes each input of a model reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mirror_analysis.errors import DefinitionError, StreamError, UnknownNameError

if TYPE_CHECKING:
    from mirror_analysis.models.model import Input

Shapes = Mapping[str, tuple[int, ...]]
"""Stream -> shape per frame, () where it is not known before reading."""


def parse(pairs: Iterable[str]) -> dict[str, str]:
    """Reads "camera:top=camera:front" and the like.

    Returns:
        Model input -> stream of the episodes.

    Raises:
        DefinitionError: if one is not of that form, or an input is named twice.
    """
    found: dict[str, str] = {}
    for text in pairs:
        name, equals, stream = text.partition("=")
        if not (name and equals and stream):
            raise DefinitionError(
                f"--map '{text}' is no pair; needed MODEL_INPUT=EPISODE_STREAM, such as"
                " camera:top=camera:front"
            )
        if name in found:
            raise DefinitionError(f"--map names the input '{name}' twice; give it once")
        found[name] = stream
    return found


def resolve(
    model: str, needs: Sequence[Input], has: Shapes, given: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The stream of the episodes that each input of a model reads.

    An input reads the stream it is mapped to, else the stream of its own name, and "camera"
    the only camera there is. Nothing else is guessed.

    Args:
        model: name of the model, for the words of an error.
        needs: its inputs.
        has: streams of the episodes.
        given: input -> stream, as the user maps them.

    Returns:
        Input -> stream, in the order of the needs.

    Raises:
        UnknownNameError: if the map names an input the model has not, or a stream the episodes
            have not.
        StreamError: if an input is left without a stream, or a vector has another width; the
            error lists what the model needs, what the episodes have and the map that would fit.

    Example:
        >>> resolve("m", [Input("camera"), Input("states", 17)],
        ...         {"camera:track": (), "states": (17,)})
        {'camera': 'camera:track', 'states': 'states'}
    """
    names = [need.name for need in needs]
    given = given or {}
    for name, stream in given.items():
        if name not in names:
            raise UnknownNameError(f"input of {model}", name, names)
        if stream not in has:
            raise UnknownNameError("stream of the episodes", stream, has)
    cameras = [stream for stream in has if stream.startswith("camera:")]
    found: dict[str, str] = {}
    for need in needs:
        if need.name in given:
            found[need.name] = given[need.name]
        elif need.name in has:
            found[need.name] = need.name
        elif need.name == "camera" and len(cameras) == 1:
            found["camera"] = cameras[0]
    wrong = list(_misfits(needs, has, found))
    if wrong:
        raise StreamError(_words(model, needs, has, found, wrong))
    return found


def _misfits(needs: Sequence[Input], has: Shapes, found: Mapping[str, str]) -> Iterator[str]:
    for need in needs:
        stream = found.get(need.name)
        if stream is None:
            many = need.name == "camera" and any(s.startswith("camera:") for s in has)
            yield f"{need.name} could be any of several cameras" if many else f"no {need.name}"
        elif _kind(need.name) != _kind(stream):
            yield f"{need.name} is {_kind(need.name)} but {stream} is {_kind(stream)}"
        elif need.width is not None and has[stream] not in ((), (need.width,)):
            yield f"{stream} has {has[stream][0]} numbers where {need.name} has {need.width}"


def _words(
    model: str, needs: Sequence[Input], has: Shapes, found: Mapping[str, str], wrong: Sequence[str]
) -> str:
    needed = ", ".join(_described(n.name, n.width) + (f" ({n.note})" if n.note else "")
                       for n in needs)  # fmt: skip
    there = ", ".join(_described(s, shape[0] if shape else None) for s, shape in has.items())
    fitting = _fitting(needs, has, found)
    mend = (
        "map them: " + " ".join(f"--map '{name}={stream}'" for name, stream in fitting.items())
        if fitting
        else "no stream of the episodes would fit, so give it other episodes"
    )
    return (
        f"{model} does not fit the episodes: {'; '.join(wrong)}. It needs {needed}; the episodes"
        f" have {there or 'none of these'}; {mend}"
    )


def _fitting(needs: Sequence[Input], has: Shapes, found: Mapping[str, str]) -> dict[str, str]:
    """A map for the inputs that lack a stream, where one of their kind and width is there."""
    chosen: dict[str, str] = {}
    taken = {s for n in needs if (s := found.get(n.name)) and not list(_misfits([n], has, found))}
    for need in needs:
        if need.name in found and not list(_misfits([need], has, found)):
            continue
        free = [
            stream
            for stream, shape in has.items()
            if stream not in taken
            and _kind(stream) == _kind(need.name)
            and (need.width is None or not shape or shape == (need.width,))
        ]
        if not free:
            return {}
        chosen[need.name] = free[0]
        taken.add(free[0])
    return chosen


def _kind(name: str) -> str:
    word = name.partition(":")[0]
    return {"camera": "a camera", "instruction": "words"}.get(word, "a vector")


def _described(name: str, width: int | None) -> str:
    return name if width is None else f"{name} [{width}]"
