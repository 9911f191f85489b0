"""Lets torchvision be imported beside a torch that its compiled operators were not built for."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_held: list[Any] = []  # the library unregisters its operators when it is collected


@cache
def ensure_torchvision() -> None:
    """Declares torchvision's operators where its own cannot load; call it before importing it.

    The wheel of torchvision is built for a torch with CUDA. Beside a torch without CUDA its
    operators do not load, its import fails, and with it that of transformers and timm. Declared
    but not defined, they let everything be imported that never calls them, and a call says so.
    """
    import torch

    if importlib.util.find_spec("torchvision") is None or torch.version.cuda is not None:
        return
    library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for schema in _OPERATORS:
        try:
            library.define(schema)
        except RuntimeError:  # already there: the real operators loaded
            continue
    _held.append(library)
