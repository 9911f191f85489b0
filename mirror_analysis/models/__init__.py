"""Models that watch and models that act, read safely from their files."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirror_analysis.catalog import definition, names, weights
from mirror_analysis.errors import MissingFileError
from mirror_analysis.lazy import lazy

if TYPE_CHECKING:
    from mirror_analysis.models.model import Model

# Family -> the function (path, *, name, sha256) -> Model that reads it.
FAMILIES = {"reference": "mirror_analysis.models.reference:load"}

_PUBLIC = {"ExecutionModel": "model", "LayerInfo": "model", "Model": "model"}
_PUBLIC |= {"ObservationModel": "model"}
__all__ = ["FAMILIES", "load_model", *_PUBLIC]


def load_model(source: str | Path, *, device: str = "cpu", include: Sequence[Path] = ()) -> Model:
    """Loads a model by catalogue name or from a local file.

    Args:
        source: such as "reference-observation-s0" or "runs/observation.safetensors".
        device: such as "cpu" or "cuda"; used or refused, never replaced.
        include: folders with definitions of your own.

    Raises:
        UnknownNameError: if it is neither a file nor in the catalogue.
        MissingFileError: if it looks like a file that is not there.
        ChecksumError: if bundled weights are not the ones recorded.
        FormatError: if the file is of no known family.
        DeviceError: if the device is not there.
    """
    from mirror_analysis.models.model import require_device

    target = require_device(device)
    path = Path(source)
    if path.is_file():
        # One family so far; recognition by content will choose among several.
        model = _reader("reference")(path, name=path.stem, sha256=None)
    elif str(source) in names("checkpoints", include) or not (path.suffix or len(path.parts) > 1):
        made = definition("checkpoints", str(source), include)
        file = weights(made.name, include)
        model = _reader(made.family)(file, name=made.name, sha256=made.sha256)
    else:
        raise MissingFileError(
            f"no checkpoint at {path}; give a file that is there, or a name of `mirror list`"
        )
    return model.to(target)


def _reader(family: str) -> Any:
    module, name = FAMILIES[family].split(":")
    return getattr(importlib.import_module(module), name)


__getattr__, __dir__ = lazy(__name__, _PUBLIC)
