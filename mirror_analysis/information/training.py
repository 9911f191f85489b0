"""Fits a critic on training units, stopping where validation is best."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.errors import DegenerateError
from mirror_analysis.information import objectives
from mirror_analysis.information.config import EstimatorConfig
from mirror_analysis.information.critics import Critic, make_critic
from mirror_analysis.information.evaluation import Objective

Progress = Callable[[int, int], None]
Rows = Sequence[NDArray[np.int64]]

# Scores held at a time while a critic is evaluated.
_BLOCK = 2**20


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained critic.

    Attributes:
        critic: with the weights of the chosen update.
        chosen: that update, counted from 1.
    """

    critic: Critic
    chosen: int


def fit_critic(
    name: str,
    objective: Objective,
    x: Float32[Tensor, "sample x_feature"],
    y: Float32[Tensor, "sample y_feature"],
    units: Rows,
    validation: Sequence[Int64[Tensor, " pair"]],
    *,
    config: EstimatorConfig,
    seed: int,
    progress: Callable[[int], None],
) -> Fitted:
    """Trains one critic; every batch holds one row of each of its units.

    Args:
        name: of the critic.
        objective: what is maximised.
        x: standardised rows, of all units.
        y: the same.
        units: rows of each training unit.
        validation: rows of score matrices that say when to stop.
        config: settings.
        seed: of initial weights and batches, the same on every device.
        progress: called with the updates done.

    Raises:
        UnknownNameError: if there is no such critic.
        DegenerateError: if the fit diverges.
    """
    critic = make_critic(name, (x.shape[1], y.shape[1]), config, seed=seed).to(x.device)
    optimiser = torch.optim.AdamW(
        critic.parameters(), config.rate(name), weight_decay=config.weight_decay
    )
    generator = torch.Generator().manual_seed(seed)
    draw = _Batches(units, config.batch, generator)
    log_average: Tensor | None = None
    best, chosen, stale, kept = -math.inf, 0, 0, copy.deepcopy(critic.state_dict())
    for step in range(1, config.steps + 1):
        rows = draw().to(x.device)
        scores = critic(x[rows], y[rows])
        if objective == "mine":
            value = objectives.log_partition(scores).detach()
            old = value if log_average is None else log_average
            log_average = objectives.moving_average(old, value, config.average_rate)
            gain = objectives.mine(scores, log_average)
        else:
            gain = getattr(objectives, objective)(scores)
        optimiser.zero_grad()
        (-gain).backward()  # type: ignore[no-untyped-call]
        # One batch with a large exponential must not throw the weights away.
        torch.nn.utils.clip_grad_norm_(critic.parameters(), 1.0)
        optimiser.step()
        if step % config.check_every and step != config.steps:
            continue
        progress(step)
        held = _held_out(critic, objective, x, y, validation)
        if held > best:
            best, chosen, stale = held, step, 0
            kept = copy.deepcopy(critic.state_dict())
        else:
            stale += 1
        if stale >= config.patience:
            break
    if not chosen:
        raise DegenerateError(
            f"the critic diverged: its validation bound is not finite after {step} updates at a"
            f" learning rate of {config.rate(name)}; lower it, or choose inputs='normal_scores' if"
            " features have heavy tails"
        )
    critic.load_state_dict(kept)
    return Fitted(critic.eval(), chosen)


def score_matrix(
    critic: Critic,
    x: Float32[Tensor, "x_sample x_feature"],
    y: Float32[Tensor, "y_sample y_feature"],
) -> Float64[Tensor, "x_sample y_sample"]:
    """All scores as float64, made in blocks of rows."""
    with torch.no_grad():
        blocks = torch.split(x, max(1, _BLOCK // len(y)))
        return torch.cat([critic(block, y) for block in blocks]).double()


def standardise(
    values: Float64[Tensor, "sample feature"],
    fit: Int64[Tensor, " fit"],
    *,
    name: str,
    inputs: str,
) -> Float32[Tensor, "sample kept"]:
    """Features on one scale, by the training rows alone.

    Args:
        values: all rows.
        fit: numbers of the training rows.
        name: what to call it in an error.
        inputs: "standard" or "normal_scores", as in the settings.

    Returns:
        Float32, without the features that are constant over the training rows.

    Raises:
        DegenerateError: if every feature is.
    """
    known = values[fit]
    mean, spread = known.mean(dim=0), known.std(dim=0, correction=0)
    kept = spread > 1e-12 * known.abs().amax(dim=0)
    if not bool(kept.any()):
        raise DegenerateError(
            f"{name} is constant over its {len(fit)} training samples;"
            " choose a layer that responds to the input"
        )
    if inputs == "normal_scores":
        columns = [_normal_scores(values[:, i], known[:, i]) for i in torch.nonzero(kept).flatten()]
        return torch.stack(columns, dim=1).float()
    # A nearly dead feature must not be blown up to the size of the others.
    spread = spread[kept].clamp_min(0.01 * float(spread[kept].mean()))
    return ((values[:, kept] - mean[kept]) / spread).float()


def _normal_scores(values: Tensor, known: Tensor) -> Tensor:
    """Through the distribution function of the known values, linear between them."""
    points, counts = torch.unique(known, return_counts=True)
    shares = (counts.cumsum(0) - counts.double() / 2) / len(known)
    upper = torch.searchsorted(points, values.contiguous()).clamp(1, len(points) - 1)
    low, high = points[upper - 1], points[upper]
    part = ((values - low) / (high - low)).clamp(0, 1)  # beyond the known values their ends
    return torch.special.ndtri(torch.lerp(shares[upper - 1], shares[upper], part))


def _held_out(
    critic: Critic, objective: Objective, x: Tensor, y: Tensor, validation: Sequence[Tensor]
) -> float:
    # MINE climbs Donsker-Varadhan; only its gradient is another.
    score = getattr(objectives, "donsker_varadhan" if objective == "mine" else objective)
    values = [float(score(score_matrix(critic, x[rows], y[rows]))) for rows in validation]
    return math.fsum(values) / len(values)


class _Batches:
    """Draws some units without repeats and one row of each."""

    def __init__(self, units: Rows, batch: int, generator: torch.Generator) -> None:
        self._rows = torch.from_numpy(np.concatenate(units))
        sizes = torch.tensor([len(rows) for rows in units])
        self._sizes, self._starts = sizes, sizes.cumsum(0) - sizes
        self._batch, self._generator = min(batch, len(units)), generator

    def __call__(self) -> Int64[Tensor, " pair"]:
        chosen = torch.randperm(len(self._sizes), generator=self._generator)[: self._batch]
        share = torch.rand(len(chosen), generator=self._generator, dtype=torch.float64)
        within = (share * self._sizes[chosen]).long()
        return self._rows[self._starts[chosen] + within]
