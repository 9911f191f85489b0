"""Joining the processes that `torchrun` started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed


@contextmanager
def launched(device: str) -> Iterator[str]:
    """Inside, processes started by `torchrun` know each other; elsewhere nothing happens.

    Args:
        device: "cuda" means, of several processes, the accelerator of the local rank.

    Yields:
        The device of this process.

    Example:
        >>> with launched("cuda") as device:
        ...     train_jointly(u, e, labels, config=JointConfig(device=device))
    """
    if not (distributed.is_available() and distributed.is_torchelastic_launched()):
        yield device
        return
    own = f"cuda:{os.environ['LOCAL_RANK']}" if device == "cuda" else device
    if own.startswith("cuda"):
        torch.cuda.set_device(own)
    distributed.init_process_group("nccl" if own.startswith("cuda") else "gloo")
    try:
        yield own
    finally:
        distributed.destroy_process_group()
