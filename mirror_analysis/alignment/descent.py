"""Many contrastive fits as one: layers and seeds are a batch dimension, each as if fitted alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, distributed

from mirror_analysis.alignment.gathering import global_info_nce, world
from mirror_analysis.alignment.linear import AlignmentConfig, Curve, LinearAlignment
from mirror_analysis.alignment.losses import LinearMap, linear_info_nce
from mirror_analysis.alignment.standardising import Side
from mirror_analysis.errors import DegenerateError

_COLDEST = 0.01  # a logit is 100 at most (Radford et al. 2021)

Cell = tuple[int, int]
"""Numbers of a layer of x and of a layer of y."""


@dataclass(frozen=True, eq=False)
class Problems:
    """What is fitted together.

    Attributes:
        x: layers of the first model, all of one width, over the same rows.
        y: layers of the second.
        cells: the layer pairs that are fitted.
        positives: [sample] numbers of the rows to fit on, None for own partners only.
        validation_positives: [other] of the rows to validate on.
    """

    x: Sequence[Side]
    y: Sequence[Side]
    cells: Sequence[Cell]
    positives: Int[Tensor, " sample"] | None = None
    validation_positives: Int[Tensor, " other"] | None = None


@dataclass(frozen=True, eq=False)
class _Check:
    """What was seen at one look at the validation loss, [problem] each."""

    step: int
    fit: Tensor
    validation: Tensor
    temperature: Tensor | None


def descend(
    problems: Problems, *, config: AlignmentConfig, seeds: Sequence[int], device: torch.device
) -> list[list[LinearAlignment] | DegenerateError]:
    """Fits every cell with every seed by AdamW, and keeps the weights best on validation.

    A seed draws the same initial weights and the same batches in every cell, so that a cell does
    not depend on those beside it. Where `torch.distributed` is initialised each process takes its
    share of every batch, all processes see the loss of the whole batch and end with equal weights;
    rows of a batch beyond a multiple of their number are left out.

    Args:
        problems: what is fitted.
        config: settings.
        seeds: of initial weights and batches.
        device: where it runs.

    Returns:
        For each cell an alignment per seed, or why there is none.
    """
    fits = _Fits(problems, config, seeds, device)
    history = fits.run()
    kept = [tensor.cpu() for tensor in fits.kept]
    chosen = fits.chosen.int().tolist()
    found: list[list[LinearAlignment] | DegenerateError] = []
    for number, (x, y) in enumerate(problems.cells):
        own = range(number * len(seeds), (number + 1) * len(seeds))
        if not all(chosen[i] for i in own):
            found.append(
                DegenerateError(
                    "the fit diverged: its validation loss is not a number after"
                    f" {history[0].step} updates at a learning rate of {config.learning_rate};"
                    " lower it"
                )
            )
            continue
        found.append(
            [
                LinearAlignment(
                    *problems.x[x].fold(kept[0][i], kept[1][i, 0]),
                    *problems.y[y].fold(kept[2][i], kept[3][i, 0]),
                    config=config,
                    curve=_curve(history, i, chosen[i], config),
                )
                for i in own
            ]
        )
    return found


class _Fits:
    """The state of a descent; problem i is seed i modulo seeds of cell i over seeds."""

    def __init__(
        self,
        problems: Problems,
        config: AlignmentConfig,
        seeds: Sequence[int],
        device: torch.device,
    ) -> None:
        self._config, self._seeds, self._device = config, len(seeds), device
        self._cells = problems.cells
        self._x = [side.to(device) for side in problems.x]
        self._y = [side.to(device) for side in problems.y]
        self._at = [
            torch.tensor([cell[side] for cell in problems.cells], device=device) for side in (0, 1)
        ]
        self._positives, self._validation_positives = (
            None if p is None else p.to(device)
            for p in (problems.positives, problems.validation_positives)
        )
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.maps = [
            tensor.repeat(len(problems.cells), 1, 1).to(device).requires_grad_()
            for side in (self._x[0], self._y[0])
            for tensor in _initial(side.fit.shape[1], config.width, self._generators)
        ]
        count = len(problems.cells) * len(seeds)
        self._log_temperature = None
        if config.learn_temperature:
            start = torch.full((count,), math.log(max(config.temperature, _COLDEST)))
            self._log_temperature = start.to(device).requires_grad_()
        self.kept = [tensor.detach().clone() for tensor in self.maps]
        self.chosen = torch.zeros(count)

    def run(self) -> list[_Check]:
        """Descends, and gives what was seen on the way; `kept` and `chosen` are then decided."""
        config = self._config
        groups: list[dict[str, object]] = [
            {"params": self.maps, "weight_decay": config.weight_decay}
        ]
        if self._log_temperature is not None:
            groups.append({"params": [self._log_temperature], "weight_decay": 0.0})
        optimiser = torch.optim.AdamW(groups, config.learning_rate, fused=True)
        best = torch.full(self.chosen.shape, float("inf"))
        stale = torch.zeros(self.chosen.shape)
        history: list[_Check] = []
        for step in range(1, config.steps + 1):
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * rate(step, config)
            value = self._batch_loss()
            optimiser.zero_grad()
            value.sum().backward()  # type: ignore[no-untyped-call]
            self._average_gradients()
            optimiser.step()
            if self._log_temperature is not None:
                with torch.no_grad():
                    self._log_temperature.clamp_(min=math.log(_COLDEST))
            if step % config.check_every and step != config.steps:
                continue
            held = self._validation_loss()
            history.append(_Check(step, value.detach().cpu(), held, self._temperatures()))
            # A fit that has stopped keeps its weights whatever the others still do.
            better = (held < best) & (stale < config.patience)
            best = torch.where(better, held, best)
            self.chosen = torch.where(better, step, self.chosen)
            stale = torch.where(better, 0, stale + 1)
            here = better.to(self._device)
            for old, new in zip(self.kept, self.maps, strict=True):
                old[here] = new.detach()[here]
            if bool((stale >= config.patience).all()):
                break
        return history

    def _batch_loss(self) -> Float[Tensor, " problem"]:
        count = len(self._x[0].fit)
        batch = min(self._config.batch, count)
        drawn = torch.stack([torch.randperm(count, generator=g)[:batch] for g in self._generators])
        rank, size = world()
        share = batch // size
        drawn = drawn[:, rank * share : (rank + 1) * share] if size > 1 else drawn
        drawn = drawn.to(self._device)
        x = _taken(self._x, drawn, self._at[0])
        y = _taken(self._y, drawn, self._at[1])
        positives = None
        if self._positives is not None:
            positives = self._positives[drawn].repeat(len(self._cells), 1)
        if size > 1:
            return self._global_loss(x, y, positives)
        return self._loss(x, y, slice(None), positives)

    def _global_loss(
        self, x: Tensor, y: Tensor, positives: Tensor | None
    ) -> Float[Tensor, " problem"]:
        """The loss of the batch that all processes hold together."""
        x_map, x_bias, y_map, y_bias = self.maps
        x, y = x @ x_map + x_bias, y @ y_map + y_bias
        temperature = self._temperature(slice(None))
        return torch.stack(
            [
                global_info_nce(
                    x[i],
                    y[i],
                    temperature=temperature[i] if isinstance(temperature, Tensor) else temperature,
                    positives=None if positives is None else positives[i],
                )
                for i in range(len(x))
            ]
        )

    def _average_gradients(self) -> None:
        size = world().size
        if size == 1:
            return
        fitted = [*self.maps] + ([] if self._log_temperature is None else [self._log_temperature])
        for parameter in fitted:
            assert parameter.grad is not None
            distributed.all_reduce(parameter.grad)
            parameter.grad /= size

    @torch.no_grad()
    def _validation_loss(self) -> Float[Tensor, " problem"]:
        losses = []
        for number, (x, y) in enumerate(self._cells):
            own = slice(number * self._seeds, (number + 1) * self._seeds)
            x_rows, y_rows = (
                side.validation.expand(self._seeds, *side.validation.shape)
                for side in (self._x[x], self._y[y])
            )
            losses.append(self._loss(x_rows, y_rows, own, self._validation_positives))
        return torch.cat(losses).cpu()

    def _loss(
        self, x: Tensor, y: Tensor, own: slice, positives: Tensor | None
    ) -> Float[Tensor, " problem"]:
        x_map, x_bias, y_map, y_bias = (tensor[own] for tensor in self.maps)
        return linear_info_nce(
            x,
            y,
            LinearMap(x_map, x_bias[:, 0]),
            LinearMap(y_map, y_bias[:, 0]),
            temperature=self._temperature(own),
            positives=positives,
        )

    def _temperature(self, own: slice) -> float | Tensor:
        if self._log_temperature is None:
            return self._config.temperature
        return self._log_temperature[own].exp()

    def _temperatures(self) -> Tensor | None:
        if self._log_temperature is None:
            return None
        return self._log_temperature.detach().exp().cpu()


def _taken(
    sides: Sequence[Side], drawn: Int[Tensor, "seed batch"], at: Int[Tensor, " cell"]
) -> Float[Tensor, "problem batch feature"]:
    """The drawn rows of each cell's layer, seeds running fastest."""
    if len(sides) == 1 == len(at):
        return sides[0].fit[drawn]
    return torch.stack([side.fit[drawn] for side in sides])[at].flatten(0, 1)


def _initial(
    features: int, width: int, generators: Sequence[torch.Generator]
) -> list[Float[Tensor, "seed _ width"]]:
    """Weights [seed, feature, width] and biases [seed, 1, width] as torch's Linear draws them."""
    bound = features**-0.5
    draws = [torch.rand(features + 1, width, generator=g) * 2 * bound - bound for g in generators]
    both = torch.stack(draws)
    return [both[:, :-1].clone(), both[:, -1:].clone()]


def rate(step: int, config: AlignmentConfig) -> float:
    """The share of the learning rate at an update, counted from 1, in (0, 1].

    It rises linearly to 1 at the last update of the warm-up; after that it stays, or falls as half
    a cosine that reaches 0 one update after the last.

    Example:
        >>> [rate(step, AlignmentConfig(steps=4, schedule="cosine")) for step in (1, 3)]
        [1.0, 0.5]
    """
    if step <= config.warmup:
        return step / config.warmup
    if config.schedule == "constant":
        return 1.0
    left = config.steps - config.warmup
    return 0.5 * (1 + math.cos(math.pi * (step - config.warmup - 1) / max(left, 1)))


def _curve(history: Sequence[_Check], number: int, chosen: int, config: AlignmentConfig) -> Curve:
    steps = [check.step for check in history]
    own = history[: steps.index(chosen) + config.patience + 1]  # other fits may have gone on
    return Curve(
        steps[: len(own)],
        [float(check.fit[number]) for check in own],
        [float(check.validation[number]) for check in own],
        chosen,
        [float(c.temperature[number]) for c in own if c.temperature is not None],
    )
