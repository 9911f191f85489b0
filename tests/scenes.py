"""Synthetic episodes as Meta-World's would be: two cameras, 39 numbers of state, 4 of action."""

from __future__ import annotations

from typing import Any

import numpy as np

from mirror_analysis.episodes.episode import Episode, Episodes


def episode(number: int, *, time: int = 3, size: int = 64, **changes: Any) -> Episode:
    """Noise in every stream; its own for every number."""
    g = np.random.default_rng(number)
    fields: dict[str, Any] = {
        "id": f"episode {number}",
        "task": ("push", "pull")[number % 2],
        "instruction": ("push the cup", "pull the cup")[number % 2],
        "success": number % 3 == 0,
        "states": g.standard_normal((time, 39)).astype(np.float32),
        "actions": g.uniform(-1, 1, (time, 4)).astype(np.float32),
        "timestamps": np.arange(time) / 10,
        "steps": np.arange(time) * 10 + number,
        "length": 60 + number,
        "labels": {"side": ("left", "right")[number // 2 % 2], "seed": number},
    }
    cameras = changes.pop("cameras", ("A", "B"))
    frames = {c: g.integers(0, 256, (time, size, size, 3), dtype=np.uint8) for c in cameras}
    return Episode.from_frames(changes.pop("frames", frames), **fields | changes)


def episodes(count: int, **changes: Any) -> Episodes:
    """So many of them, the same changes made to all."""
    return Episodes([episode(number, **changes) for number in range(count)])
