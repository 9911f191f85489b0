"""When a policy plans anew, and what it does in between: action queues, temporal ensembling."""

from __future__ import annotations

from collections import deque
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor


@final
class Plan:
    """The actions that are planned, for several environments at once.

    Args:
        executed: actions that are taken before a new plan is asked for.
        ensemble: coefficient m of temporal ensembling (Zhao et al., 2023, algorithm 2): an action
            is the mean of what all earlier plans have for this moment, with weights exp(-m i)
            and i = 0 for the oldest; None for none, and then plans follow one another.
    """

    def __init__(self, executed: int, ensemble: float | None = None) -> None:
        self.executed, self.ensemble = executed, ensemble
        self._queue: deque[Tensor] = deque()
        self._plans: deque[Tensor] = deque()

    @property
    def empty(self) -> bool:
        """Whether a new plan is needed before the next action."""
        return self.ensemble is not None or not self._queue

    def add(self, plan: Float[Tensor, "environment step action"]) -> None:
        """Takes a new plan in, which begins now."""
        if self.ensemble is None:
            self._queue.extend(plan[:, : self.executed].unbind(1))
            return
        self._plans.append(plan)
        # A plan that is as old as it is long has nothing to say any more.
        while len(self._plans) > plan.shape[1]:
            self._plans.popleft()

    def next(self) -> Float[Tensor, "environment action"]:
        """The action of this moment."""
        if self.ensemble is None:
            return self._queue.popleft()
        count = len(self._plans)
        said = torch.stack([plan[:, count - 1 - i] for i, plan in enumerate(self._plans)])
        weights = torch.exp(-self.ensemble * torch.arange(count, device=said.device))
        return (weights[:, None, None] * said).sum(0) / weights.sum()
