"""Trains the two models of the reference pair, each alone, each under a nuisance of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from mirror_analysis.episodes import Episodes
from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.models.model import require_device
from mirror_analysis.models.reference.augmentation import Augmentation, augment
from mirror_analysis.models.reference.family import (
    ReferenceExecution,
    ReferenceObservation,
    proprioception,
    require_pictures,
)
from mirror_analysis.models.reference.networks import (
    ExecutionNetwork,
    ObservationNetwork,
)

Progress = Callable[[int, int, float], None]
"""Called with (updates done, updates in all, mean loss of late)."""


class TrainingConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of a training run.

    Attributes:
        epochs: passes over the episodes (observation) or frames (execution).
        batch: episodes or frames per update.
        learning_rate: peak of a one-cycle schedule.
        weight_decay: of AdamW.
        frames: frames of an episode shown at once to the observation model.
        gain: range of the random factor per colour channel.
        offset: range of the random grey level added per colour channel, in 0 to 255.
        shift: largest random displacement in pixels.
        noise: standard deviation of pixel noise after normalisation.
        seed: of weights, order and nuisance.
        device: such as "cpu" or "cuda".
    """

    epochs: int
    batch: int
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.02
    frames: int = 8
    gain: tuple[float, float] = (0.5, 1.5)
    offset: tuple[float, float] = (-45.0, 45.0)
    shift: int = 5
    noise: float = 0.05
    seed: int = 0
    device: str = "cpu"

    @property
    def augmentation(self) -> Augmentation:
        """Its random appearance."""
        return Augmentation(self.gain, self.offset, self.shift, self.noise)


OBSERVATION = TrainingConfig(epochs=30, batch=32)
EXECUTION = TrainingConfig(epochs=14, batch=128, weight_decay=1e-3)
_ACTION = 4  # numbers in Meta-World's action


def train_observation(
    episodes: Episodes,
    *,
    camera: str = "A",
    name: str = "observation",
    config: TrainingConfig = OBSERVATION,
    progress: Progress | None = None,
) -> ReferenceObservation:
    """Trains an observation model to name the instruction of the episodes.

    Args:
        episodes: with equally many frames each; at least two instructions.
        camera: which view it watches.
        name: what to call the model.
        config: settings.
        progress: called after every update.

    Raises:
        StreamError: if an episode lacks the camera.
        DegenerateError: if there are fewer than two instructions.
        ShapeError: if episodes differ in their number of frames, or pictures in size.
        DeviceError: if the device is not there.
    """
    require_device(config.device)
    labels = episodes.labels()["instruction"] if len(episodes) else np.array([])
    instructions, target = np.unique(labels, return_inverse=True)
    if len(instructions) < 2:
        raise DegenerateError(
            f"{len(episodes)} episodes of {len(instructions)} instruction; needed at least two"
            " instructions to tell apart, so collect more tasks"
        )
    frames = episodes.frames(camera)
    require_pictures(frames, camera)
    network = fit_observation(frames, target.astype(np.int64), config=config, progress=progress)
    return ReferenceObservation(
        network.cpu(), name=name, camera=camera, instructions=instructions.tolist()
    )


def train_execution(
    episodes: Episodes,
    *,
    camera: str = "B",
    name: str = "execution",
    config: TrainingConfig = EXECUTION,
    progress: Progress | None = None,
) -> ReferenceExecution:
    """Trains an execution model to act as the expert does in the episodes.

    Where episodes carry `expert_actions` (what the expert would have done in the state that was
    reached) those are copied, else what was done.

    Args:
        episodes: with equally many frames each, of Meta-World.
        camera: which view it acts from.
        name: what to call the model.
        config: settings.
        progress: called after every update.

    Raises:
        StreamError: if an episode lacks the camera.
        DegenerateError: if there are no episodes.
        ShapeError: if episodes differ in their number of frames, or are not of Meta-World.
        DeviceError: if the device is not there.
    """
    require_device(config.device)
    if not len(episodes):
        raise DegenerateError("no episodes to train on; needed at least one, so collect some")
    frames = episodes.frames(camera)
    require_pictures(frames, camera)
    felt = [proprioception(episode.states, needed_by=name) for episode in episodes]
    actions = [episode.extras.get("expert_actions", episode.actions) for episode in episodes]
    for episode, done in zip(episodes, actions, strict=True):
        if done.shape[1:] != (_ACTION,):
            raise ShapeError(
                f"actions of episode {episode.id} have shape {list(done.shape)}; {name} needs the"
                f" {_ACTION} numbers of Meta-World in every step"
            )
    network = fit_execution(
        frames.reshape(-1, *frames.shape[2:]),
        np.concatenate(felt),
        np.concatenate(actions).astype(np.float32),
        config=config,
        progress=progress,
    )
    return ReferenceExecution(network.cpu(), name=name, camera=camera)


def fit_observation(
    frames: NDArray[np.uint8],
    instruction: NDArray[np.int64],
    *,
    config: TrainingConfig,
    progress: Progress | None = None,
) -> ObservationNetwork:
    """Trains an observation network to name the instruction of an episode.

    Args:
        frames: [episode, frame, height, width, 3] grey levels of one camera, evenly spaced.
        instruction: [episode] class numbers from 0.
        config: settings.
        progress: called after every update.
    """
    generator = torch.Generator().manual_seed(config.seed)
    with _global_seed(config.seed):
        network = ObservationNetwork(int(instruction.max()) + 1).to(config.device)
    pictures, target = torch.from_numpy(frames), torch.from_numpy(instruction)
    time = torch.linspace(0.0, 1.0, frames.shape[1])

    def loss(rows: Tensor) -> Tensor:
        keep = torch.rand(len(rows), frames.shape[1], generator=generator).argsort(dim=1)
        keep = keep[:, : config.frames].sort(dim=1).values
        shown = pictures[rows[:, None], keep].to(config.device)
        seen = augment(shown, config.augmentation, generator)
        logits = network(seen, time[keep].to(config.device))
        return F.cross_entropy(logits, target[rows].to(config.device), label_smoothing=0.05)

    with _global_seed(config.seed):
        _optimise(network, loss, len(frames), config, generator, progress)
    return network


def fit_execution(
    frames: NDArray[np.uint8],
    proprioception: NDArray[np.float32],
    actions: NDArray[np.float32],
    *,
    config: TrainingConfig,
    progress: Progress | None = None,
) -> ExecutionNetwork:
    """Trains an execution network to act as the expert would (behaviour cloning).

    Args:
        frames: [sample, height, width, 3] grey levels of one camera.
        proprioception: [sample, 8] hand position and gripper opening now and one step before.
        actions: [sample, action] what the expert would do there.
        config: settings.
        progress: called after every update.
    """
    generator = torch.Generator().manual_seed(config.seed)
    with _global_seed(config.seed):
        network = ExecutionNetwork(actions.shape[1], proprioception.shape[1]).to(config.device)
    network.proprioception_mean.copy_(torch.from_numpy(proprioception.mean(axis=0)))
    network.proprioception_scale.copy_(torch.from_numpy(proprioception.std(axis=0) + 0.02))
    pictures, felt = torch.from_numpy(frames), torch.from_numpy(proprioception)
    target = torch.from_numpy(actions)

    def loss(rows: Tensor) -> Tensor:
        shown = pictures[rows][:, None].to(config.device)
        seen = augment(shown, config.augmentation, generator)[:, 0]
        action = network(seen, felt[rows].to(config.device))
        return F.smooth_l1_loss(action, target[rows].to(config.device), beta=0.1)

    with _global_seed(config.seed):
        _optimise(network, loss, len(frames), config, generator, progress)
    return network


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Initial weights and dropout draw from the global generator, which is given back as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    order = torch.randperm(count, generator=generator)
    size = min(size, count)
    for start in range(0, count - size + 1, size):
        yield order[start : start + size]


def _optimise(
    network: nn.Module,
    loss: Callable[[Tensor], Tensor],
    count: int,
    config: TrainingConfig,
    generator: torch.Generator,
    progress: Progress | None,
) -> None:
    optimiser = torch.optim.AdamW(
        network.parameters(), config.learning_rate, weight_decay=config.weight_decay
    )
    total = config.epochs * max(1, count // config.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total)
    network.train()
    done, mean = 0, float("nan")
    for _ in range(config.epochs):
        for rows in _batches(count, config.batch, generator):
            value = loss(rows)
            optimiser.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            done += 1
            mean = value.item() if done == 1 else 0.98 * mean + 0.02 * value.item()
            if progress is not None:
                progress(done, total, mean)
    network.eval()
