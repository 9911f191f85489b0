"""What the inputs of a stored graph are: pictures, clips, vectors, or windows of past vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.errors import DefinitionError, FormatError, ShapeError
from mirror_analysis.models.checkpoint import Options
from mirror_analysis.models.model import Input, Role
from mirror_analysis.models.preparation import IMAGENET_MEAN, IMAGENET_STD, Preparation
from mirror_analysis.models.structure.discovery import evenly_spaced

Kind = Literal["picture", "clip", "vector", "window", "sequence"]

OPTIONS = {
    "role": "observation or execution, where the inputs do not tell (pictures watch, vectors act)",
    "size": "height,width of pictures where the file leaves them free (224,224)",
    "mean": "red,green,blue subtracted after scaling (the file's own, else as the facts say)",
    "std": "red,green,blue divided by after that (the file's own, else as the facts say)",
    "scale": "what a byte of a picture is multiplied by first (1/255)",
    "layout": "order of the axes of pictures: NCHW, NHWC, NTCHW, NCTHW or NTHWC (by the 3 colours)",
    "frames": "frames of a clip or window where the file leaves them free (16 seen, 1 acted on)",
    "action": "which of the actions given for one moment counts: first or last (first)",
    "layers": "most layers recorded (32)",
}
_LAYOUTS = ("NCHW", "NHWC", "NTCHW", "NCTHW", "NTHWC")
_FLOATS = ("float16", "float32", "float64", "bfloat16")
_BYTES = ("uint8", "int8")
_MOST = 2**28  # numbers in one row of an input
_LARGEST = 2**16  # of an axis: pixels, frames, numbers


@final
@dataclass(frozen=True)
class Port:
    """One input of a graph.

    Attributes:
        name: as the graph has it.
        shape: of its axes, the batch first; None where free.
        dtype: such as "float32".
        scale: of quantised values: real = scale * (stored - zero); 0 where not quantised.
        zero: the stored value that means 0.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    scale: float = 0.0
    zero: int = 0


@final
@dataclass(frozen=True)
class Reading:
    """How one input of a graph is read from the stream of an episode.

    Attributes:
        port: the input.
        need: the stream.
        kind: "picture" and "vector" are one frame a row; "window" the frames up to and with this
            one, the first repeated where there are too few; "clip" frames evenly spaced over the
            episode, and "sequence" all its frames, are one row an episode.
        layout: letters of the axes, such as "NCHW"; "ND" and "NTD" for vectors.
        frames: of a clip or window.
        prepare: for pictures.
    """

    port: Port
    need: Input
    kind: Kind
    layout: str
    frames: int = 0
    prepare: Preparation | None = None

    @property
    def by_frame(self) -> bool:
        """Whether each frame is a row of its own."""
        return self.kind in ("picture", "vector", "window")

    def rows(self, stream: NDArray[Any]) -> Tensor:
        """What the graph takes for one episode, [row, ...] float32 of real values.

        Args:
            stream: [time, ...] of the episode.

        Raises:
            ShapeError: if a vector has another width.
        """
        if self.kind == "clip":
            return self._laid_out(
                self._prepared(stream[evenly_spaced(len(stream), self.frames)])[None]
            )
        x = self._prepared(stream)
        if self.kind == "sequence":
            return x[None]
        if self.kind == "window":
            past = torch.arange(len(x))[:, None] + torch.arange(1 - self.frames, 1)[None]
            x = x[past.clamp(min=0)]
        return self._laid_out(x)

    def now(self, past: Sequence[NDArray[Any]]) -> Tensor:
        """What the graph takes at this moment of several environments, [environment, ...].

        Args:
            past: [environment, ...] of every moment up to this one, at most `frames` of them.
        """
        if self.kind != "window":
            return self._laid_out(self._prepared(past[-1]))
        filled = [*[past[0]] * (self.frames - len(past)), *past]
        return self._laid_out(torch.stack([self._prepared(moment) for moment in filled], dim=1))

    def made_up(self, rows: int, generator: torch.Generator) -> Tensor:
        """Numbers of the right shape, to learn what the graph does with them."""
        height, width = (self.prepare.pixels if self.prepare else None) or (0, 0)
        sizes = {"N": rows, "C": 3, "H": height, "W": width, "T": self.frames or 4}
        sizes["D"] = self.need.width or 0
        x = torch.rand([sizes[letter] for letter in self.layout], generator=generator)
        if self.port.dtype == "uint8" and not self.port.scale:
            x = (x * 255).round()
        return 2 * x - 1 if self.layout.endswith("D") else x

    def _prepared(self, values: NDArray[Any]) -> Tensor:
        if self.prepare is not None:
            return self.prepare(values)
        x = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        if x.ndim != 2 or x.shape[1] != self.need.width:
            raise ShapeError(
                f"{self.need.name} is {list(x.shape)}; input '{self.port.name}' needs"
                f" {self.need.width} numbers a frame"
            )
        return x

    def _laid_out(self, x: Tensor) -> Tensor:
        if self.prepare is None:
            return x
        before = "NTCHW" if x.ndim == 5 else "NCHW"
        return x.permute([before.index(letter) for letter in self.layout]).contiguous()

    def __str__(self) -> str:
        shape = "x".join("?" if n is None else str(n) for n in self.port.shape)
        frames = f" of {self.frames} frames" if self.frames else ""
        return f"{self.port.name} [{shape}] {self.port.dtype}: {self.kind}{frames}, {self.layout}"


@final
@dataclass(frozen=True)
class Plan:
    """How a graph is used.

    Attributes:
        role: whether it watches or acts.
        readings: one per input.
        facts: what was taken from the file and what was assumed, for people.
    """

    role: Role
    readings: tuple[Reading, ...]
    facts: dict[str, str]


def plan(
    ports: Sequence[Port],
    options: Options,
    *,
    where: str,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
    said: str = "",
) -> Plan:
    """Finds out what a graph's inputs are, by their shapes and what the user says.

    Inputs of 4 axes are pictures and of 5 clips, of 2 a vector per frame and of 3 a window of
    vectors. Graphs of pictures or windows alone watch; any with a plain vector act.

    Args:
        ports: the inputs, without any that is memory.
        options: those of `OPTIONS`.
        where: the file, for the words of errors.
        mean: of pictures, where neither file nor user says; after scaling bytes to [0, 1].
        std: the same.
        said: why mean and std are these, where the file says them.

    Raises:
        FormatError: if an input is none of these.
        DefinitionError: if an option does not fit the file.
    """
    if not ports:
        raise FormatError(f"{where} has no inputs; needed pictures or vectors to run it on")
    watches = not any(len(port.shape) == 2 for port in ports)
    role: Role = "observation" if watches else "execution"
    if options.text("role"):
        chosen = options.choice("role", role, ("observation", "execution"))
        role = "observation" if chosen == "observation" else "execution"
    pictures = [port for port in ports if len(port.shape) in (4, 5)]
    facts = {"role": f"{role}, " + ("as asked" if options.text("role") else "by its inputs")}
    readings = []
    for port in ports:
        if port in pictures:
            name = "camera" if len(pictures) == 1 else f"camera:{port.name}"
            how, words = _preparation(port, options, where, mean, std, said)
            facts["normalisation"] = words
            readings.append(_picture(port, name, role, options, where, how))
        else:
            name = "states" if len(ports) - len(pictures) == 1 else f"array:{port.name}"
            readings.append(_vector(port, name, role, options, where))
    if len({reading.by_frame for reading in readings}) > 1:
        raise FormatError(
            f"{where} takes single frames and whole clips at once"
            f" ({'; '.join(map(str, readings))}); needed one or the other"
        )
    facts["inputs"] = "; ".join(map(str, readings))
    return Plan(role, tuple(readings), facts)


def _vector(port: Port, name: str, role: Role, options: Options, where: str) -> Reading:
    axes = len(port.shape)
    width = port.shape[-1] if port.shape else None
    numbers = port.dtype in _FLOATS or port.scale
    if axes not in (2, 3) or not numbers or not width or width > _MOST:
        raise FormatError(
            f"input '{port.name}' of {where} is {port.dtype} {_shown(port.shape)}; needed pictures"
            " (4 axes), clips (5), or vectors of known width (2 axes, or 3 with time) of"
            " floating-point numbers"
        )
    need = Input(name, width, f"input '{port.name}'")
    if axes == 2:
        return Reading(port, need, "vector", "ND")
    if port.shape[1] is None and role == "observation" and not options.text("frames"):
        return Reading(port, need, "sequence", "NTD")
    return Reading(port, need, "window", "NTD", _frames(port, port.shape[1], options, where, 1))


def _picture(
    port: Port, name: str, role: Role, options: Options, where: str, prepare: Preparation
) -> Reading:
    layout = _layout(port, options, where)
    need = Input(name, note=f"input '{port.name}', pictures of any size")
    if len(layout) == 4:
        return Reading(port, need, "picture", layout, 0, prepare)
    frames = _frames(port, port.shape[layout.index("T")], options, where, 16)
    kind: Kind = "clip" if role == "observation" else "window"
    return Reading(port, need, kind, layout, frames, prepare)


def _frames(port: Port, fixed: int | None, options: Options, where: str, default: int) -> int:
    asked = options.count("frames", fixed or default)
    if fixed is not None and asked != fixed:
        raise DefinitionError(
            f"option frames is {asked} but input '{port.name}' of {where} takes {fixed}; leave it"
            " out"
        )
    if asked > _LARGEST:
        raise DefinitionError(f"{asked} frames at once are too many; needed at most {_LARGEST}")
    return asked


def _layout(port: Port, options: Options, where: str) -> str:
    fitting = [
        layout
        for layout in _LAYOUTS
        if len(layout) == len(port.shape) and port.shape[layout.index("C")] in (3, None)
    ]
    if options.text("layout"):
        asked = options.choice("layout", "", _LAYOUTS)
        fitting = [layout for layout in fitting if layout == asked]
    sure = [layout for layout in fitting if port.shape[layout.index("C")] == 3]
    if not fitting:
        raise FormatError(
            f"input '{port.name}' of {where} has the shape {_shown(port.shape)}; needed pictures"
            " with an axis of 3 colours, laid out as one of " + ", ".join(_LAYOUTS)
        )
    return (sure or fitting)[0]


def _preparation(
    port: Port,
    options: Options,
    where: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    said: str,
) -> tuple[Preparation, str]:
    layout = _layout(port, options, where)
    size = _size(port, layout, options, where)
    asked = [name for name in ("mean", "std", "scale") if options.text(name)]
    scale = options.number("scale", 1 / 255)
    if asked:
        means = _colours(options, "mean", mean if "scale" not in asked else (0.0,))
        stds = _colours(options, "std", std if "scale" not in asked else (1.0,))
        if any(value == 0 for value in stds):
            raise DefinitionError("option std holds 0; needed numbers to divide by")
        return Preparation(size=size, scale=scale, mean=means, std=stds), "as asked with options"
    plain = ((0.0,) * 3, (1.0,) * 3)
    if port.scale:
        zero = port.zero + (128 if port.dtype == "int8" else 0)
        prepare = Preparation(
            size=size, scale=port.scale, offset=-zero * port.scale, mean=plain[0], std=plain[1]
        )
        return prepare, "bytes as they are, as the quantisation of the file's input takes them"
    if port.dtype in _BYTES:
        prepare = Preparation(size=size, scale=1.0, mean=plain[0], std=plain[1])
        return prepare, "bytes as they are, as the file's input takes them"
    prepare = Preparation(size=size, scale=scale, mean=mean, std=std)
    words = said or (
        "ASSUMED, for the file does not say: scaled to [0, 1], mean"
        f" {_joined(mean)}, std {_joined(std)}; options mean, std and scale say otherwise"
    )
    return prepare, words


def _size(port: Port, layout: str, options: Options, where: str) -> tuple[int, int]:
    fixed = port.shape[layout.index("H")], port.shape[layout.index("W")]
    asked = options.numbers("size", ())
    if len(asked) == 1:
        asked = asked * 2
    if asked and (len(asked) != 2 or any(n != int(n) or not 0 < n <= _LARGEST for n in asked)):
        raise DefinitionError(
            f"option size is '{options.text('size')}'; needed height,width in pixels"
        )
    wanted = tuple(int(n) for n in asked) or (224, 224)
    height, width = (f or n for f, n in zip(fixed, wanted, strict=True))
    if asked and (height, width) != wanted:
        raise DefinitionError(
            f"option size is {wanted[0]},{wanted[1]} but input '{port.name}' of {where} takes"
            f" {height} x {width}; leave it out"
        )
    if height * width * 3 > _MOST:
        raise FormatError(
            f"input '{port.name}' of {where} takes pictures of {height} x {width}; needed at most"
            f" {_MOST} numbers a row"
        )
    return height, width


def _colours(options: Options, name: str, default: tuple[float, ...]) -> tuple[float, ...]:
    found = options.numbers(name, default)
    if len(found) not in (1, 3):
        raise DefinitionError(
            f"option {name} is '{options.text(name)}'; needed one number or three, for red, green"
            " and blue"
        )
    return found if len(found) == 3 else found * 3


def _joined(numbers: tuple[float, ...]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


def _shown(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("?" if n is None else str(n) for n in shape) + "]"
