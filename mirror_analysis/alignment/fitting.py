"""Fits the two linear maps, several seeds at once, stopping on validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.alignment.linear import AlignmentConfig, Curve, LinearAlignment
from mirror_analysis.alignment.losses import info_nce
from mirror_analysis.errors import DegenerateError, ShapeError

Matrix = NDArray[np.floating]


def align(
    x: Matrix,
    y: Matrix,
    x_validation: Matrix,
    y_validation: Matrix,
    *,
    config: AlignmentConfig | None = None,
    seed: int = 0,
) -> LinearAlignment:
    """Fits two linear layers by bidirectional InfoNCE, stopping where validation is best.

    Row i of x and row i of y are a positive pair.

    Args:
        x: [sample, x_feature] of the first model.
        y: [sample, y_feature] of the second model.
        x_validation: [other sample, x_feature]; the validation pairs choose the step.
        y_validation: [other sample, y_feature].
        config: settings; None takes the defaults.
        seed: of initial weights and batches.

    Raises:
        ShapeError: if rows or columns do not fit.
        DegenerateError: if there are fewer than two pairs, a side is constant or not finite, or
            the fit diverges.

    Example:
        >>> aligned = align(x[:300], y[:300], x[300:360], y[300:360])
        >>> cosines = aligned.similarity(x_test, y_test)
    """
    return align_seeds(x, y, x_validation, y_validation, config=config, seeds=[seed])[0]


def align_seeds(
    x: Matrix,
    y: Matrix,
    x_validation: Matrix,
    y_validation: Matrix,
    *,
    config: AlignmentConfig | None = None,
    seeds: Sequence[int],
) -> list[LinearAlignment]:
    """`align` for several seeds as one batched problem; each result is as if fitted alone."""
    config = config or AlignmentConfig()
    if not seeds:
        raise DegenerateError("no seeds to fit with; needed at least one")
    if len(x) != len(y) or len(x_validation) != len(y_validation):
        raise ShapeError(
            f"x has {len(x)} fit and {len(x_validation)} validation rows but y has {len(y)}"
            f" and {len(y_validation)}; pair() them first"
        )
    if min(len(x), len(x_validation)) < 2:
        raise DegenerateError(
            f"{len(x)} fit and {len(x_validation)} validation pairs; a contrastive loss needs"
            " at least 2 of each, so collect more episodes"
        )
    x_side = _standardise(x, x_validation, "x")
    y_side = _standardise(y, y_validation, "y")
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    parameters = [
        _initial(side.fit.shape[1], config.width, generators) for side in (x_side, y_side)
    ]
    flat = [tensor for pair in parameters for tensor in pair]
    kept, curves = _optimise(x_side, y_side, flat, config, generators)
    return [
        LinearAlignment(
            *x_side.fold(kept[0][i], kept[1][i, 0]),
            *y_side.fold(kept[2][i], kept[3][i, 0]),
            config=config,
            curve=curve,
        )
        for i, curve in enumerate(curves)
    ]


@dataclass(frozen=True, eq=False)
class _Side:
    fit: Float[Tensor, "sample feature"]
    validation: Float[Tensor, "other feature"]
    mean: Float[Tensor, " feature"]
    scale: Float[Tensor, " feature"]

    def fold(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """The same map for features that are not standardised."""
        raw = (weight.double() / self.scale[:, None]).float()
        # From the rounded weights, so that their rounding does not move all rows together.
        shift = self.mean @ raw.double()
        return raw.contiguous(), (bias.double() - shift).float().contiguous()


def _standardise(fit: Matrix, validation: Matrix, side: str) -> _Side:
    if fit.ndim != 2 or validation.ndim != 2 or fit.shape[1] != validation.shape[1]:
        raise ShapeError(
            f"{side} has shape {fit.shape} and its validation {validation.shape};"
            " needed [sample, feature] with equal features"
        )
    values = torch.as_tensor(np.asarray(fit, dtype=np.float64))
    held = torch.as_tensor(np.asarray(validation, dtype=np.float64))
    mean, scale = values.mean(dim=0), values.std(dim=0, correction=0)
    finite = bool(torch.isfinite(values).all() and torch.isfinite(held).all())
    if not finite or float(scale.max()) == 0.0:
        raise DegenerateError(
            f"{side} is constant over its {len(fit)} samples or not finite; choose another layer"
        )
    # A nearly dead unit must not be blown up to the size of the others.
    scale = scale.clamp_min(0.01 * float(scale.mean()))
    return _Side(((values - mean) / scale).float(), ((held - mean) / scale).float(), mean, scale)


def _initial(features: int, width: int, generators: list[torch.Generator]) -> list[Tensor]:
    """Weights [seed, feature, width] and biases [seed, 1, width] as torch's Linear draws them."""
    bound = features**-0.5
    draws = [torch.rand(features + 1, width, generator=g) * 2 * bound - bound for g in generators]
    both = torch.stack(draws)
    return [both[:, :-1].clone(), both[:, -1:].clone()]


def _optimise(
    x: _Side,
    y: _Side,
    parameters: list[Tensor],
    config: AlignmentConfig,
    generators: list[torch.Generator],
) -> tuple[list[Tensor], list[Curve]]:
    for tensor in parameters:
        tensor.requires_grad_()
    optimiser = torch.optim.AdamW(
        parameters, config.learning_rate, weight_decay=config.weight_decay, fused=True
    )
    count, batch = len(x.fit), min(config.batch, len(x.fit))
    kept = [tensor.detach().clone() for tensor in parameters]
    best = torch.full((len(generators),), float("inf"))
    chosen, stale = torch.zeros(len(generators)), torch.zeros(len(generators))
    history: list[tuple[int, Tensor, Tensor]] = []

    def loss(x_rows: Tensor, y_rows: Tensor) -> Tensor:
        x_map, x_bias, y_map, y_bias = parameters
        return info_nce(
            x_rows @ x_map + x_bias, y_rows @ y_map + y_bias, temperature=config.temperature
        )

    for step in range(1, config.steps + 1):
        rows = torch.stack([torch.randperm(count, generator=g)[:batch] for g in generators])
        value = loss(x.fit[rows], y.fit[rows])
        optimiser.zero_grad()
        value.sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step % config.check_every and step != config.steps:
            continue
        with torch.no_grad():
            held = loss(x.validation, y.validation)
        history.append((step, value.detach(), held))
        # A seed that has stopped keeps its weights whatever the others still do.
        better = (held < best) & (stale < config.patience)
        best, chosen = torch.where(better, held, best), torch.where(better, step, chosen)
        stale = torch.where(better, 0, stale + 1)
        for old, new in zip(kept, parameters, strict=True):
            old[better] = new.detach()[better]
        if bool((stale >= config.patience).all()):
            break
    return kept, [_curve(history, i, int(chosen[i]), config) for i in range(len(generators))]


def _curve(
    history: list[tuple[int, Tensor, Tensor]], seed: int, chosen: int, config: AlignmentConfig
) -> Curve:
    if not chosen:
        raise DegenerateError(
            f"the fit diverged: its validation loss is not a number after {history[0][0]} updates"
            f" at a learning rate of {config.learning_rate}; lower it"
        )
    steps = [step for step, _, _ in history]
    own = history[: steps.index(chosen) + config.patience + 1]  # other seeds may have gone on
    return Curve(
        steps[: len(own)],
        [float(fit[seed]) for _, fit, _ in own],
        [float(held[seed]) for _, _, held in own],
        chosen,
    )
