"""First weights of a head, drawn from a seed without touching the global generator's state."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)


def drawn(build: Callable[[], M], seed: int) -> M:
    """A module whose first weights depend on the seed alone.

    Args:
        build: makes it.
        seed: of its weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()
