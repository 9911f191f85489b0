"""Every family of checkpoints, and which of them a file or folder belongs to."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from mirror_analysis.errors import FormatError, UnknownNameError
from mirror_analysis.files.archives import Archive
from mirror_analysis.models.checkpoint import Checkpoint, Options

if TYPE_CHECKING:
    from mirror_analysis.models.model import Model

# Family -> module that has SUMMARY, OPTIONS, recognise(checkpoint) and load(checkpoint, ...).
# Where two recognise the same files, the first one reads them.
FAMILIES = {
    "arp": "mirror_analysis.models.arp.family",
    "lerobot": "mirror_analysis.models.lerobot",
    "openvla": "mirror_analysis.models.openvla.family",
    "perceptron": "mirror_analysis.models.perceptron",
    "robomimic": "mirror_analysis.models.robomimic.family",
    "sb3": "mirror_analysis.models.sb3.family",
    "reference": "mirror_analysis.models.reference.family",
    "trained": "mirror_analysis.models.trained",
    "exported": "mirror_analysis.models.graphs.exported",
    "onnx": "mirror_analysis.models.graphs.onnx",
    "tflite": "mirror_analysis.models.graphs.tflite",
    "torchscript": "mirror_analysis.models.graphs.torchscript",
    "viclip": "mirror_analysis.models.images.viclip",
    "open_clip": "mirror_analysis.models.images.open_clip",
    "timm": "mirror_analysis.models.images.timm",
    "transformers-text": "mirror_analysis.models.transformers.text",
    "transformers": "mirror_analysis.models.transformers.vision",
    "module": "mirror_analysis.models.module",
}


@runtime_checkable
class Family(Protocol):
    """What the module of a family has.

    Attributes:
        SUMMARY: one line.
        OPTIONS: further settings of `load`: name -> what it does, with its default.
    """

    SUMMARY: str
    OPTIONS: Mapping[str, str]
    recognise: Callable[[Checkpoint], str | None]
    load: Callable[..., Any]


@dataclass(frozen=True)
class Recognised:
    """Whose a checkpoint is.

    Attributes:
        family: a name of FAMILIES.
        what: what it is, in words, such as "VideoMAEModel with 12 blocks".
    """

    family: str
    what: str


def family(name: str) -> Family:
    """The module of a family.

    Raises:
        UnknownNameError: if there is no such family.
    """
    if name not in FAMILIES:
        raise UnknownNameError("family of checkpoints", name, FAMILIES)
    module: ModuleType = importlib.import_module(FAMILIES[name])
    return cast(Family, module)


def recognise(checkpoint: Checkpoint, *, only: str | None = None) -> Recognised:
    """The family a checkpoint belongs to, by what is in it and never by its name.

    Args:
        checkpoint: what lies on disk.
        only: the family to read it as, whether or not it knows such files; any when None.

    Raises:
        FormatError: if it is of none.
        UnknownNameError: if `only` is no family.
    """
    if only is not None:  # weights alone may say nothing of whose they are
        return Recognised(only, family(only).recognise(checkpoint) or "what it is said to be")
    for name in FAMILIES:
        what = family(name).recognise(checkpoint)
        if what is not None:
            return Recognised(name, what)
    _let_it_say(checkpoint)
    raise FormatError(
        f"{checkpoint.path} ({_kind(checkpoint)}) is of no known family; known are"
        f" {', '.join(FAMILIES)}; `mirror list families` says what each reads"
    )


def load(checkpoint: Checkpoint, *, name: str, family_name: str, options: Options) -> Model:
    """Loads a checkpoint with the loader of a family.

    Raises:
        UnknownNameError: if there is no such family, or it has no such option.
        MirrorError: whatever the loader finds wrong.
    """
    chosen = family(family_name)
    for option in options.values:
        if option not in chosen.OPTIONS:
            raise UnknownNameError(f"option of {family_name}", option, chosen.OPTIONS)
    return chosen.load(checkpoint, name=name, options=options)


def _let_it_say(checkpoint: Checkpoint) -> None:
    """Raises what is wrong with an archive or description, for which no family knew it."""
    if checkpoint.kind == "zip":
        with Archive(checkpoint.path):
            pass
    if checkpoint.has("config.json"):
        checkpoint.json("config.json")


def _kind(checkpoint: Checkpoint) -> str:
    if checkpoint.kind != "folder":
        return f"its bytes: {checkpoint.kind}"
    names = sorted(path.name for path in checkpoint.path.iterdir())
    listed = ", ".join(names[:6]) or "nothing"
    return f"a folder with {listed}" + (" and more" if len(names) > 6 else "")
