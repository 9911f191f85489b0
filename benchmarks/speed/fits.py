"""Contrastive fits to be timed, their floor, and the plain loop beside them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE, _RATE = 0.1, 1e-3
_HELD = 512  # validation rows, looked at once


def products(
    *, x: np.ndarray, y: np.ndarray, width: int, batch: int, updates: int
) -> Callable[[], float]:
    """The floor: see `benchmarks/training.py`."""
    batch = min(batch, len(x))
    a, b = torch.from_numpy(x[:batch]), torch.from_numpy(y[:batch])
    v, w = torch.randn(a.shape[1], width), torch.randn(b.shape[1], width)
    za, zb = torch.empty(batch, width), torch.empty(batch, width)
    logits = torch.empty(batch, batch)
    of_za, of_zb = torch.empty_like(za), torch.empty_like(zb)
    of_v, of_w = torch.empty_like(v), torch.empty_like(w)

    def work() -> float:
        for _ in range(updates):
            torch.mm(a, v, out=za)
            torch.mm(b, w, out=zb)
            torch.mm(za, zb.T, out=logits)
            torch.mm(logits, zb, out=of_za)
            torch.mm(logits.T, za, out=of_zb)
            torch.mm(a.T, of_za, out=of_v)
            torch.mm(b.T, of_zb, out=of_w)
        return float(of_v[0, 0] + of_w[0, 0])

    return work


def aligned(
    *, x: np.ndarray, y: np.ndarray, width: int, batch: int, updates: int
) -> Callable[[], list[float]]:
    """A whole call of `align`: standardising, updates, one look at validation, folding."""
    from mirror_analysis.alignment import AlignmentConfig, align

    config = AlignmentConfig(
        width=width, batch=batch, steps=updates, check_every=updates, learning_rate=_RATE,
        temperature=TEMPERATURE,
    )  # fmt: skip

    def work() -> list[float]:
        found = align(x, y, x[:_HELD], y[:_HELD], config=config)
        assert found.curve is not None
        return found.curve.fit

    return work


def updated(
    *, x: np.ndarray, y: np.ndarray, width: int, batch: int, updates: int, plain: bool
) -> Callable[[], list[float]]:
    """Updates alone on data that is ready: with our loss, or by a loop that builds the logits."""
    from mirror_analysis.alignment.descent import _initial
    from mirror_analysis.alignment.losses import LinearMap, linear_info_nce
    from mirror_analysis.alignment.standardising import standardise

    a, b = (standardise(side, side[:_HELD], name="").fit for side in (x, y))
    batch = min(batch, len(a))

    def built(rows: Tensor, maps: list[Tensor]) -> Tensor:
        v, c, w, d = maps
        za, zb = (F.normalize(z, dim=1) for z in (a[rows] @ v + c, b[rows] @ w + d))
        logits = za @ zb.T / TEMPERATURE
        target = torch.arange(len(rows))
        return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2

    def ours(rows: Tensor, maps: list[Tensor]) -> Tensor:
        v, c, w, d = maps
        return linear_info_nce(
            a[rows], b[rows], LinearMap(v, c), LinearMap(w, d), temperature=TEMPERATURE
        )

    loss = built if plain else ours

    def work() -> list[float]:
        generator = torch.Generator().manual_seed(0)
        drawn = [t for s in (a, b) for t in _initial(s.shape[1], width, [generator])]
        maps = [
            (t[0] if number % 2 == 0 else t[0, 0]).requires_grad_()
            for number, t in enumerate(drawn)
        ]
        optimiser = torch.optim.AdamW(maps, _RATE, fused=True)
        value = torch.zeros(())
        for _ in range(updates):
            value = loss(torch.randperm(len(a), generator=generator)[:batch], maps)
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
        return [float(value.detach())]

    return work


def grid(
    *,
    x_layers: np.ndarray,
    y_layers: np.ndarray,
    width: int,
    steps: int,
    together: bool,
    alone: int = 0,
    device: str = "cpu",
) -> Callable[[], list[float]]:
    """All layer pairs by `align_many`, or `alone` of them (all when 0) by `align`, one by one."""
    from mirror_analysis.alignment import AlignmentConfig, align, align_many
    from mirror_analysis.features import Index, Paired

    held = max(2, min(_HELD, x_layers.shape[1] // 4))
    index = Index(np.array([str(i) for i in range(x_layers.shape[1])]),
                  np.zeros(x_layers.shape[1], np.int64), {})  # fmt: skip
    sides = ({str(i): layer for i, layer in enumerate(side)} for side in (x_layers, y_layers))
    whole = Paired(*sides, index)
    rows = np.arange(len(index))
    fit, validation = whole.take(rows[held:]), whole.take(rows[:held])
    config = AlignmentConfig(width=width, steps=steps, patience=steps)
    memory = (1 << 28) if device == "cpu" else (32 << 30)

    def one_by_one() -> list[float]:
        pairs = [(a, b) for a in fit.x for b in fit.y]
        return [
            align(fit.x[a], fit.y[b], validation.x[a], validation.y[b], config=config,
                  device=device).curve.validation[-1]  # type: ignore[union-attr]
            for a, b in pairs[: alone or None]
        ]  # fmt: skip

    def all_at_once() -> list[float]:
        found = dict(align_many(fit, validation, config=config, device=device, memory=memory))
        return [found[a, b][0].curve.validation[-1] for a in fit.x for b in fit.y]  # type: ignore

    return all_at_once if together else one_by_one
