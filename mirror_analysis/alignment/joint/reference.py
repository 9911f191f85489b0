"""The two models of the reference pair as learners, each under random appearance of its own."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mirror_analysis.alignment.joint.learners import Learner, Step
from mirror_analysis.episodes import Episodes
from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.models.reference.augmentation import Augmentation, augment
from mirror_analysis.models.reference.family import (
    ReferenceExecution,
    ReferenceObservation,
    proprioception,
    require_pictures,
)
from mirror_analysis.models.reference.networks import ExecutionNetwork, ObservationNetwork

L = TypeVar("L", bound=Learner)
_ACTION = 4  # numbers in Meta-World's action
_WIDTH = 128  # of `penultimate` and of `vision`


class ReferenceObservationLearner(Learner):
    """Learns to name the instruction; aligned by its layer `penultimate`.

    Args:
        episodes: with equally many frames each, of at least two instructions.
        camera: which view it watches.
        frames: of each episode shown at once, drawn anew for every batch.
        augmentation: random appearance.
        seed: of the initial weights.

    Raises:
        StreamError: if an episode lacks the camera.
        DegenerateError: if there are fewer than two instructions.
        ShapeError: if episodes differ in their number of frames, or pictures in size.
    """

    name = "observation"
    width = _WIDTH

    def __init__(
        self, episodes: Episodes, *, camera: str = "A", frames: int = 8,
        augmentation: Augmentation | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.episodes = tuple(episode.id for episode in episodes)
        labels = [episode.instruction for episode in episodes]
        names, target = np.unique(np.array(labels, dtype=np.str_), return_inverse=True)
        if len(names) < 2:
            raise DegenerateError(
                f"{len(episodes)} episodes of {len(names)} instruction; needed at least two"
                " instructions to tell apart, so collect more tasks"
            )
        self.instructions: tuple[str, ...] = tuple(names.tolist())
        self._target = torch.from_numpy(target.astype(np.int64))
        self._pictures = _pictures(episodes, camera)
        self._camera, self._frames = camera, frames
        self._amount = augmentation or Augmentation()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.network = ObservationNetwork(len(names))

    @property
    def model(self) -> ReferenceObservation:
        """An ordinary model with the weights of now."""
        return ReferenceObservation(
            self.network, name=self.name, camera=self._camera, instructions=self.instructions
        )

    def step(self, rows: Tensor, generator: torch.Generator) -> Step:
        """Cross-entropy of the instruction (nats, labels smoothed by .05)."""
        device = self.network.instruction.weight.device
        keep = _some_frames(len(rows), self._pictures.shape[1], self._frames, generator)
        seen = augment(self._pictures[rows[:, None], keep].to(device), self._amount, generator)
        time = torch.linspace(0.0, 1.0, self._pictures.shape[1])[keep].to(device)
        episode = self.network.embed(seen, time)
        logits = self.network.instruction(episode)
        target = self._target[rows].to(device)
        return Step(F.cross_entropy(logits.float(), target, label_smoothing=0.05), episode)

    def untrained(self, seed: int) -> ReferenceObservationLearner:
        """Shares the pictures, not the weights."""
        twin = _sibling(self)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            twin.network = ObservationNetwork(len(self.instructions))
        return twin


class ReferenceExecutionLearner(Learner):
    """Learns to act as the expert does; aligned by its layer `vision`, averaged over frames.

    Where episodes carry `expert_actions` (what the expert would have done in the state that was
    reached) those are copied, else what was done.

    Args:
        episodes: with equally many frames each, of Meta-World.
        camera: which view it acts from.
        frames: of each episode in a batch, drawn anew for every batch.
        augmentation: random appearance.
        seed: of the initial weights.

    Raises:
        StreamError: if an episode lacks the camera.
        DegenerateError: if there are no episodes.
        ShapeError: if episodes differ in their number of frames, or are not of Meta-World.
    """

    name = "execution"
    width = _WIDTH

    def __init__(
        self, episodes: Episodes, *, camera: str = "B", frames: int = 8,
        augmentation: Augmentation | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        if not len(episodes):
            raise DegenerateError("no episodes to train on; needed at least one, so collect some")
        self.episodes = tuple(episode.id for episode in episodes)
        self._pictures = _pictures(episodes, camera)
        felt = [proprioception(episode.states, needed_by=self.name) for episode in episodes]
        actions = [episode.extras.get("expert_actions", episode.actions) for episode in episodes]
        for episode, done in zip(episodes, actions, strict=True):
            if done.shape[1:] != (_ACTION,):
                raise ShapeError(
                    f"actions of episode {episode.id} have shape {list(done.shape)}; {self.name}"
                    f" needs the {_ACTION} numbers of Meta-World in every step"
                )
        self._felt = torch.from_numpy(np.stack(felt).astype(np.float32))
        self._actions = torch.from_numpy(np.stack(actions).astype(np.float32))
        self._camera, self._frames = camera, frames
        self._amount = augmentation or Augmentation()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.network = ExecutionNetwork()
        every = self._felt.flatten(0, 1)
        self.network.proprioception_mean.copy_(every.mean(dim=0))
        self.network.proprioception_scale.copy_(every.std(dim=0, correction=0) + 0.02)

    @property
    def model(self) -> ReferenceExecution:
        """An ordinary model with the weights of now."""
        return ReferenceExecution(self.network, name=self.name, camera=self._camera)

    def step(self, rows: Tensor, generator: torch.Generator) -> Step:
        """Huber loss of the action (behaviour cloning, bend at .1)."""
        device = self.network.action.weight.device
        keep = _some_frames(len(rows), self._pictures.shape[1], self._frames, generator)
        chosen = rows[:, None], keep
        seen = augment(self._pictures[chosen].to(device), self._amount, generator)
        vision = self.network.see(seen.flatten(0, 1))
        action = self.network.decide(vision, self._felt[chosen].flatten(0, 1).to(device))
        target = self._actions[chosen].flatten(0, 1).to(device)
        loss = F.smooth_l1_loss(action.float(), target, beta=0.1)
        return Step(loss, vision.reshape(*keep.shape, -1).mean(dim=1))

    def untrained(self, seed: int) -> ReferenceExecutionLearner:
        """Shares the pictures and the scale of proprioception, not the weights."""
        twin = _sibling(self)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = ExecutionNetwork()
        network.proprioception_mean.copy_(self.network.proprioception_mean)
        network.proprioception_scale.copy_(self.network.proprioception_scale)
        twin.network = network
        return twin


def _sibling(learner: L) -> L:
    """A learner that shares everything but what is put in its place afterwards."""
    twin = type(learner).__new__(type(learner))
    torch.nn.Module.__init__(twin)
    held = {k: v for k, v in vars(learner).items() if k not in vars(torch.nn.Module())}
    twin.__dict__.update(held)
    return twin


def _some_frames(count: int, of: int, most: int, generator: torch.Generator) -> Tensor:
    """[episode, frame] positions in order, drawn without replacement."""
    drawn = torch.rand(count, of, generator=generator).argsort(dim=1)
    return drawn[:, :most].sort(dim=1).values


def _pictures(episodes: Episodes, camera: str) -> Tensor:
    """uint8 [episode, frame, height, width, 3]."""
    frames = episodes.frames(camera)
    require_pictures(frames, camera)
    return torch.from_numpy(frames)
