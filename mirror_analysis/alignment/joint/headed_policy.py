"""A model with the head that cloned behaviour on one of its layers, as a policy that acts."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mirror_analysis.alignment.joint.objectives.cloning import CloningHead
from mirror_analysis.errors import DefinitionError, ShapeError
from mirror_analysis.models.lerobot.plan import Plan
from mirror_analysis.models.model import EpisodeLike, ExecutionModel, LayerInfo, Model
from mirror_analysis.models.recording.live import run_live


@final
class HeadedPolicy(ExecutionModel):
    """Acts as the head on one layer of a model says.

    What the head draws depends on the seed and the steps since `reset` alone. A model that looks
    back is shown the last moments, as many as it was trained on.

    Args:
        model: with an axis of time in the layer; it may be one that watches.
        head: of `Regression`, `Discretised` or `Diffusion`, trained on that layer.
        layer: the layer.
        frames: moments that are shown to a model whose frames depend on one another.
        executed: actions of a plan that are taken before it plans again.
        seed: of what the head draws.

    Raises:
        DefinitionError: if there are no frames, or more actions are executed than planned.

    Example:
        >>> learner = LoadedLearner(load_model("dinov2-small"), episodes, layer="norm",
        ...                         objective=Diffusion(target=Target(horizon=8)))
        >>> ...  # training
        >>> policy = HeadedPolicy(learner.model, learner.head, layer="norm", executed=4)
        >>> play(environment, policy, seed=0).success
    """

    def __init__(
        self,
        model: Model,
        head: CloningHead,
        *,
        layer: str,
        frames: int = 8,
        executed: int = 1,
        seed: int = 0,
    ) -> None:
        if frames < 1 or not 1 <= executed <= head.target.horizon:
            raise DefinitionError(
                f"{frames} frames and {executed} actions of a plan of {head.target.horizon}; needed"
                " 1 or more frames, and 1 action up to the whole plan"
            )
        self.name, self.needs, self.framewise = model.name, model.needs, model.framewise
        self.frames_at_once, self.facts = model.frames_at_once, model.facts
        self.model, self.head, self.layer = model, head, layer
        self.frames, self.executed, self.seed = frames, executed, seed
        self.settings = {**model.settings, "head on": layer, "seed of the head": str(seed)}
        self.module = nn.ModuleDict({"network": model.module, "head": head})
        self.reset()

    def layers(self) -> list[LayerInfo]:
        """Those of the model."""
        return self.model.layers()

    def taps(self) -> Mapping[str, nn.Module]:
        """Those of the model."""
        return self.model.taps()

    def forward_batch(self, episodes: Sequence[EpisodeLike]) -> Tensor:
        """What is planned at every place, [episode, place, step, action] in the episodes' unit."""
        return self._planned(episodes, torch.Generator().manual_seed(self.seed))

    @torch.inference_mode()
    def act(self, now: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The action of this moment, [environment, action], within what was done in training.

        Raises:
            ShapeError: if the number of environments changed without a `reset`.
        """
        count = len(now[self.inputs[0]])
        if self._past and len(self._past[0][self.inputs[0]]) != count:
            raise ShapeError(
                f"{self.name} acts in {count} environments but began in"
                f" {len(self._past[0][self.inputs[0]])}; call reset() before their number changes"
            )
        self._past.append({name: np.asarray(now[name]) for name in self.inputs})
        self._step += 1
        if self._plan.empty:
            seen = [_Moments(self._past, i, self._step) for i in range(count)]
            self._plan.add(self._planned(seen, self._generator)[:, -1])
        action: NDArray[np.float32] = self.head.scale.within(self._plan.next()).cpu().numpy()
        return action

    def reset(self) -> None:
        """Forgets what was seen and planned; draws begin anew."""
        self.model.reset() if isinstance(self.model, ExecutionModel) else None
        self._past: deque[dict[str, NDArray[Any]]] = deque(
            maxlen=1 if self.framewise else self.frames
        )
        self._plan = Plan(self.executed)
        self._generator = torch.Generator().manual_seed(self.seed)
        self._step = 0

    def untrained(self, seed: int) -> HeadedPolicy:
        """The same policy with the weights of model and head drawn anew; it knows the units."""
        head = deepcopy(self.head)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for module in head.modules():
                if isinstance(module, nn.Linear | nn.LayerNorm):
                    module.reset_parameters()
        return HeadedPolicy(
            self.model.untrained(seed),
            head,
            layer=self.layer,
            frames=self.frames,
            executed=self.executed,
            seed=self.seed,
        )

    def _planned(self, seen: Sequence[EpisodeLike], generator: torch.Generator) -> Tensor:
        live = run_live(self.model, seen, layer=self.layer)
        if live.moments is None:
            raise ShapeError(
                f"layer '{self.layer}' of {self.name} gives one vector for a whole episode; acting"
                " needs one for every moment, so train a head on another layer"
            )
        return self.head.act(live.moments, generator)


class _Moments:
    """The last moments of one environment, as an episode."""

    id, instruction = "now", ""

    def __init__(self, past: Sequence[Mapping[str, NDArray[Any]]], row: int, step: int) -> None:
        self._past, self._row = past, row
        self.steps = np.arange(step - len(past), step)
        self.timestamps = self.steps.astype(np.float64)
        self.length = step
        words = past[-1].get("instruction")
        self.instruction = "" if words is None else str(words[row])

    def stream(self, name: str) -> NDArray[Any]:
        return np.stack([moment[name][self._row] for moment in self._past])
