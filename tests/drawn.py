"""Weights that two implementations can draw alike, from name and shape alone."""

import hashlib

import numpy as np


def drawn(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Float32 values of a tensor: normal, scaled by its fan-in, positive for a variance."""
    digest = hashlib.sha256(f"{seed} {name} {tuple(shape)}".encode()).digest()
    g = np.random.default_rng(np.frombuffer(digest[:16], dtype=np.uint32))
    values = g.standard_normal(shape)
    if name.endswith(("running_var", "std", "scale")):
        return (0.5 + np.abs(values)).astype(np.float32)
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 100
    return (values / np.sqrt(max(fan_in, 1))).astype(np.float32)
