"""Trains a model that watches and a model that acts together, each on its task, and aligns them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed

from mirror_analysis.alignment.gathering import World, world
from mirror_analysis.alignment.joint.config import JointConfig
from mirror_analysis.alignment.joint.learners import Learner, Step
from mirror_analysis.alignment.joint.state import Progressed, load_state, save_state
from mirror_analysis.alignment.joint.targets import Meeting, Targets, pair_labels, partners
from mirror_analysis.alignment.linear import AlignmentConfig, Curve, LinearAlignment
from mirror_analysis.errors import DefinitionError, DegenerateError, PairingError
from mirror_analysis.models.model import require_device, weights_digest

Progress = Callable[[int, int, float], None]
"""Called with (updates done, updates in all, mean loss of late)."""

_APART = 1_000_003  # between the seeds of two processes
_GENERATORS = ("order", "observation", "execution", "observation twin", "execution twin")


class JointCurve(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a run went: means over the updates of each pass.

    Attributes:
        update: updates done at the end of each pass.
        observation: loss of the observation task.
        execution: loss of the execution task, not weighed.
        alignment: InfoNCE in nats, not weighed.
        align_weight: lambda_align in the last update of each pass.
    """

    update: list[int] = []
    observation: list[float] = []
    execution: list[float] = []
    alignment: list[float] = []
    align_weight: list[float] = []


@dataclass(frozen=True, eq=False)
class Joint:
    """Two models trained together; it exists only trained.

    Attributes:
        observation: the learner that watches, its model ready for use.
        execution: the learner that acts.
        alignment: the maps that were trained along with them; None where the models were not
            aligned to each other but to something else.
        curve: how the run went.
        config: settings of the run.
    """

    observation: Learner
    execution: Learner
    alignment: LinearAlignment | None
    curve: JointCurve
    config: JointConfig


def train_jointly(
    observation: Learner,
    execution: Learner,
    labels: Mapping[str, NDArray[np.generic]],
    *,
    config: JointConfig,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> Joint:
    """Minimises L_observation + lambda_EE L_execution + lambda_align L_align.

    L_align is the bidirectional InfoNCE of the two representations after one linear map each.
    The maps see it with weight 1, for a weight would not change what AdamW does to them; so at
    lambda_align = 0 they are those of spontaneous alignment, and the two models come out as if
    the other did not exist: on the same batches, pictures and dropout as at any other weight.

    Where `torch.distributed` is initialised, each process takes its part of every batch; the loss
    is that of the whole batch, and all processes end with the same weights.

    Args:
        observation: a learner; it is trained in place.
        execution: a learner on the same episodes, in the same order; it is trained in place.
        labels: name -> [episode], those that `config.pairing` may name.
        config: settings.
        folder: where the state is kept after every pass, so that the same call goes on where it
            was stopped; None to keep nothing.
        progress: called after every update.

    Raises:
        PairingError: if the learners are not on the same episodes.
        DefinitionError: if `frozen` names no parameter, or all.
        DegenerateError: if there are fewer episodes than one batch, a batch cannot be divided
            among the processes, or the loss is not finite.
        UnknownNameError: if there is no such label to pair by.
        StoreError: if the folder holds the state of another run.
        DeviceError: if the device is not there.

    Source:
        Embodied Representation Alignment with Mirror Neurons (2025), section 4.

    Example:
        >>> watches = ReferenceObservationLearner(episodes)
        >>> acts = ReferenceExecutionLearner(episodes)
        >>> joint = train_jointly(watches, acts, episodes.labels(), config=JointConfig())
        >>> joint.observation.model.role
        'observation'
    """
    device = require_device(config.device)
    _require_same_episodes(observation, execution, config)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(config.seed)
        run = _Run(observation, execution, labels, config, device)
        # Again, since the number of maps differs between targets and dropout must not.
        torch.manual_seed(config.seed + _APART * run.world.rank)
        curve = run.all(folder, progress)
    return Joint(observation, execution, run.alignment(curve), curve, config)


class _Run:
    def __init__(
        self, observation: Learner, execution: Learner,
        labels: Mapping[str, NDArray[np.generic]], config: JointConfig, device: torch.device,
    ) -> None:  # fmt: skip
        count = len(observation.episodes)
        self.config, self.device, self.count = config, device, count
        self.world = _divided(config)
        self.observation, self.execution = observation, execution
        self.groups = pair_labels(labels, config=config, episodes=count)
        self.partner = partners(count, config=config)
        self.targets = Targets(observation, execution, self.groups, config=config)
        self.modules: dict[str, torch.nn.Module] = {
            "observation": observation, "execution": execution, "targets": self.targets,
        }  # fmt: skip
        self.identity = _identity(self.modules, observation.episodes, self.groups, config)
        for module in self.modules.values():
            module.to(device).train()
        trained = _trained(self.modules, config)
        self.parameters = trained
        self.optimiser = torch.optim.AdamW(
            trained, config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.generators = {
            name: torch.Generator().manual_seed(config.seed * len(_GENERATORS) + i)
            for i, name in enumerate(_GENERATORS)
        }
        for name in _GENERATORS[1:]:  # the order is one for all processes, appearance is not
            generator = self.generators[name]
            generator.manual_seed(generator.initial_seed() + _APART * self.world.rank)
        self.per_epoch = count // config.batch
        self.total = config.epochs * self.per_epoch

    def all(self, folder: Path | None, progress: Progress | None) -> JointCurve:
        """Every pass that is still to be made."""
        curve, done = JointCurve(), 0
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            kept = load_state(
                folder, self.modules, self.optimiser, self.generators,
                identity=self.identity, device=self.device, rank=self.world.rank,
            )  # fmt: skip
            if kept is not None:
                curve, done = msgspec.json.decode(kept.curve, type=JointCurve), kept.epochs
        for epoch in range(done, self.config.epochs):
            curve = self._pass(epoch, curve, progress)
            if folder is not None:
                told = msgspec.Raw(msgspec.json.encode(curve))
                save_state(
                    folder, self.modules, self.optimiser, self.generators,
                    progressed=Progressed(self.identity, epoch + 1, told), device=self.device,
                    rank=self.world.rank,
                )  # fmt: skip
        for module in self.modules.values():
            module.eval()
        return curve

    def _pass(self, epoch: int, curve: JointCurve, progress: Progress | None) -> JointCurve:
        order = torch.randperm(self.count, generator=self.generators["order"])
        losses, size, weight = torch.zeros(3), self.config.batch, 0.0
        share = size // self.world.size
        for i in range(self.per_epoch):
            done = epoch * self.per_epoch + i
            for group in self.optimiser.param_groups:
                group["lr"] = self.config.learning_rate * one_cycle(done / self.total)
            weight = self.config.align_weight_at(done / self.total)
            start = i * size + self.world.rank * share
            parts = self._update(order[start : start + share], weight)
            if not bool(torch.isfinite(parts).all()):
                raise DegenerateError(
                    f"the loss is not finite in update {done + 1} of {self.total} (observation"
                    f" {parts[0]:g}, execution {parts[1]:g}, alignment {parts[2]:g}); lower the"
                    f" learning rate of {self.config.learning_rate:g}"
                )
            losses += parts
            if progress is not None:
                progress(done + 1, self.total, float(losses[0] / (i + 1)))
        u, e, align = (losses / self.per_epoch).tolist()
        return JointCurve(
            [*curve.update, (epoch + 1) * self.per_epoch], [*curve.observation, u],
            [*curve.execution, e], [*curve.alignment, align], [*curve.align_weight, weight],
        )  # fmt: skip

    def _update(self, rows: Tensor, weight: float) -> Tensor:
        """One update; the three losses."""
        config, generators = self.config, self.generators
        partner = self.partner[rows]
        low = config.precision != "float32"
        dtype = torch.bfloat16 if low else torch.float32
        with torch.autocast(self.device.type, dtype, enabled=low):
            watched = self.observation.step(rows, generators["observation"])
            acted = self.execution.step(partner, generators["execution"])
            u = _weighed(watched, weight if config.gradient != "execution" else 0.0)
            e = _weighed(acted, weight if config.gradient != "observation" else 0.0)
            positives = None if self.groups is None else self.groups[rows].to(self.device)
            align = self.targets(u, e, rows, positives, generators)
        total = watched.loss + config.execution_weight * acted.loss + align
        self.optimiser.zero_grad()
        total.backward()
        told = torch.stack([watched.loss, acted.loss, align]).detach()
        if self.world.size > 1:
            _average([told, *(p.grad for p in self.parameters if p.grad is not None)])
        self.optimiser.step()
        return told.cpu()

    def alignment(self, curve: JointCurve) -> LinearAlignment | None:
        """The trained maps between the two models."""
        if self.config.target != "partner":
            return None
        meeting = self.targets.meetings["partner"]
        assert isinstance(meeting, Meeting)
        x, x_bias, y, y_bias = (
            tensor.detach().float().cpu().contiguous().clone()
            for side in (meeting.x, meeting.y)
            for tensor in (side.weight.T, side.bias)
        )
        settings = AlignmentConfig(
            width=self.config.width, temperature=self.config.temperature,
            learning_rate=self.config.learning_rate, weight_decay=self.config.weight_decay,
            batch=self.config.batch, steps=self.total,
        )  # fmt: skip
        fit = Curve(curve.update, curve.alignment, [], self.total)
        return LinearAlignment(x, x_bias, y, y_bias, config=settings, curve=fit)


def _average(tensors: Sequence[Tensor]) -> None:
    """Puts the mean over all processes into each tensor, in one message."""
    together = torch.cat([tensor.flatten() for tensor in tensors])
    distributed.all_reduce(together)
    together /= world().size
    means = torch.split(together, [tensor.numel() for tensor in tensors])
    for tensor, mean in zip(tensors, means, strict=True):
        tensor.copy_(mean.view_as(tensor))


def _divided(config: JointConfig) -> World:
    """The processes among which batches are divided."""
    here = world()
    if config.batch % here.size:
        raise DegenerateError(
            f"a batch of {config.batch} episodes cannot be divided among {here.size} processes;"
            f" use a multiple of {here.size}"
        )
    return here


def _weighed(step: Step, weight: float) -> Tensor:
    """The representation as it is, through which the gradient comes back times the weight."""
    held = step.representation.detach()
    return held if not weight else held + weight * (step.representation - held)


def one_cycle(done: float) -> float:
    """Share of the peak learning rate when a share of the updates is done.

    From 1/25 up to 1 in the first three tenths, then down to nearly 0, along cosines (Smith and
    Topin, 2018). A function of the position alone, so that a resumed run needs no memory of it.

    Example:
        >>> one_cycle(0.3)
        1.0
    """
    low, rise = 1 / 25, 0.3
    if done < rise:
        return low + (1 - low) * (1 - math.cos(math.pi * done / rise)) / 2
    return (1 + math.cos(math.pi * (done - rise) / (1 - rise))) / 2


def _trained(modules: Mapping[str, torch.nn.Module], config: JointConfig) -> list[Tensor]:
    """Parameters to be trained; those that are frozen lose their gradient."""
    named = {f"{owner}.{name}": p for owner, module in modules.items()
             for name, p in module.named_parameters()}  # fmt: skip
    for prefix in config.frozen:
        found = [p for name, p in named.items() if name == prefix or name.startswith(f"{prefix}.")]
        if not found:
            shown = ", ".join(sorted({name.rpartition(".")[0] for name in named}))
            raise DefinitionError(
                f"frozen part '{prefix}' is no parameter or module; there are {shown}"
            )
        for parameter in found:
            parameter.requires_grad_(False)
    return [p for p in named.values() if p.requires_grad]


def _require_same_episodes(observation: Learner, execution: Learner, config: JointConfig) -> None:
    if observation.episodes != execution.episodes:
        raise PairingError(
            f"the learners are on {len(observation.episodes)} and {len(execution.episodes)}"
            " episodes that are not the same in the same order; give both the same episodes"
        )
    if len(observation.episodes) < config.batch:
        raise DegenerateError(
            f"{len(observation.episodes)} episodes are fewer than a batch of {config.batch};"
            " lower the batch or collect more"
        )


def _identity(
    modules: Mapping[str, torch.nn.Module], episodes: tuple[str, ...], groups: Tensor | None,
    config: JointConfig,
) -> str:  # fmt: skip
    digest = hashlib.sha256(msgspec.json.encode([config, list(episodes)]))
    digest.update(b"" if groups is None else groups.numpy().tobytes())
    for module in modules.values():
        digest.update(weights_digest(module).encode())
    return digest.hexdigest()
