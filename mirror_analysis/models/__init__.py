"""Models that watch and models that act, read safely from whatever files they come in."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mirror_analysis.catalog import definition, names
from mirror_analysis.errors import MissingFileError
from mirror_analysis.lazy import lazy

if TYPE_CHECKING:
    from mirror_analysis.models.checkpoint import Checkpoint
    from mirror_analysis.models.model import Model

_PUBLIC = {"ExecutionModel": "model", "Input": "model", "LayerInfo": "model", "Model": "model"}
_PUBLIC |= {"ObservationModel": "model"}
__all__ = ["find_checkpoint", "load_model", *_PUBLIC]

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_HUB = re.compile(r"[\w.-]+/[\w.-]+(@[\w.-]+)?")


def load_model(
    source: str | Path,
    *,
    device: str = "cpu",
    family: str | None = None,
    calls: str = "last",
    trust: Collection[str] = (),
    options: Mapping[str, str] | None = None,
    include: Sequence[Path] = (),
) -> Model:
    """Loads a model from a local file or folder, by catalogue name, or by hub id.

    Args:
        source: a path; a name of the catalogue; a hub id such as "facebook/dinov2-base", with
            "@REVISION" after it where a certain one is meant; or "package.module:factory", a
            function of yours that gives a `torch.nn.Module`.
        device: such as "cpu" or "cuda"; used or refused, never replaced.
        family: the family to read it as; by content when None.
        calls: which call counts where a layer runs several times in one forward pass: "first",
            "last", "mean" or "step K".
        trust: checkpoints whose own code may run, each named exactly as in `source`.
        options: further settings of the family, such as {"frames": "16"}.
        include: folders with definitions of your own.

    Raises:
        UnknownNameError: if there is no such name, family or option.
        MissingFileError: if it looks like a file that is not there.
        ChecksumError: if weights are not the ones recorded.
        FormatError: if it is of no known family, or damaged.
        MissingDependencyError: if the family needs a package that is not installed.
        DeviceError: if the device is not there.

    Example:
        >>> load_model("runs/act/checkpoints/last/pretrained_model").layers()[0].name
        'backbone.layer1'
    """
    from mirror_analysis.models.checkpoint import Options
    from mirror_analysis.models.families import load, recognise
    from mirror_analysis.models.model import require_device

    target = require_device(device)
    chosen = Options(calls, str(source) in trust, dict(options or {}))
    if _FACTORY.fullmatch(str(source)):
        from mirror_analysis.models.module import from_factory

        return from_factory(str(source), options=chosen).to(target)
    checkpoint, name = find_checkpoint(source, include=include)
    found = recognise(checkpoint, only=family)
    model = load(checkpoint, name=name, family_name=found.family, options=chosen)
    model.facts = {"family": found.family, "recognised as": found.what, **model.facts}
    return model.to(target)


def find_checkpoint(source: str | Path, *, include: Sequence[Path] = ()) -> tuple[Checkpoint, str]:
    """Where a checkpoint lies, fetched first where it has to be, and what to call its model.

    Raises:
        UnknownNameError: if it is neither a file nor in the catalogue.
        MissingFileError: if it looks like a file that is not there.
        ChecksumError: if the bytes are not the ones recorded.
    """
    from mirror_analysis.models.checkpoint import Checkpoint

    path, text = Path(source), str(source)
    known = names("checkpoints", include)
    if path.is_file() or (path.is_dir() and text not in known):
        return Checkpoint(path), path.stem if path.is_file() else path.resolve().name
    if text in known or not (path.suffix or len(path.parts) > 1):
        from mirror_analysis.hub import checkpoint_file

        made = definition("checkpoints", text, include)
        return Checkpoint(checkpoint_file(text, include)), made.name
    # A hub id looks like a path of two parts; where the first is a folder here, a path is meant.
    if _HUB.fullmatch(text) and not path.parent.is_dir():
        from mirror_analysis.hub import fetch

        hub_id, _, revision = text.partition("@")
        return Checkpoint(fetch(hub_id, revision=revision or None)), hub_id.replace("/", "-")
    raise MissingFileError(
        f"no checkpoint at {path}; give a file or folder that is there, a name of `mirror list`,"
        " or a hub id such as facebook/dinov2-base"
    )


__getattr__, __dir__ = lazy(__name__, _PUBLIC)
