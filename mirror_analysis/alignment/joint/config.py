"""Settings of joint training."""

from __future__ import annotations

from typing import Literal

import msgspec

from mirror_analysis.errors import DefinitionError

Pairing = Literal["episode", "instruction", "task"]
Side = Literal["both", "observation", "execution"]
Target = Literal["partner", "shuffled", "untrained", "noise", "identity"]


class JointConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Settings of joint training.

    The loss is L_observation + execution_weight * L_execution + align_weight * L_align.

    Attributes:
        epochs: passes over the episodes.
        batch: episodes per update, of all processes together.
        learning_rate: peak of a one-cycle schedule.
        weight_decay: of AdamW.
        execution_weight: lambda_EE.
        align_weight: lambda_align; 0 trains the two models independently, on the same batches by
            the same code, while the maps learn to align what they are not allowed to change.
        align_warmup: share of the updates over which the align weight rises from 0, in [0, 1].
        align_until: share of the updates after which the align weight is 0, in (0, 1].
        temperature: tau of the alignment.
        width: dimensions of the space in which the models meet.
        pairing: what counts as a positive pair: the same episode, or any two episodes of the same
            instruction or task.
        gradient: which model the alignment may change.
        target: what a model is aligned to: its partner; or, as a control, the partner's view of
            other episodes ("shuffled": one fixed pairing drawn at random), the partner's untrained
            twin ("untrained"), a fixed random vector of every episode, whatever the pairing
            ("noise"), or one of every instruction or task ("identity", which tells what the labels
            do that the pairing uses).
        frozen: parameters that keep their values, by the beginnings of their names, such as
            "observation.network.trunk".
        precision: of the forward pass; weights are float32.
        seed: of data order, appearance, dropout and maps; learners have their own.
        device: such as "cpu" or "cuda".
    """

    epochs: int = 50
    batch: int = 36
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.01
    execution_weight: float = 1.0
    align_weight: float = 0.5
    align_warmup: float = 0.0
    align_until: float = 1.0
    temperature: float = 0.1
    width: int = 1024
    pairing: Pairing = "instruction"
    gradient: Side = "both"
    target: Target = "partner"
    frozen: tuple[str, ...] = ()
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("learning_rate", "temperature"):
            if not getattr(self, name) > 0:
                raise DefinitionError(
                    f"joint training {name} is {getattr(self, name)}; needed a number above 0"
                )
        # An episode alone in its batch has nothing to be told from.
        least = {"epochs": 1, "batch": 2, "width": 1}
        from_0 = ("weight_decay", "execution_weight", "align_weight", "align_warmup", "seed")
        for name, low in (*least.items(), *((name, 0) for name in from_0)):
            if not getattr(self, name) >= low:
                raise DefinitionError(
                    f"joint training {name} is {getattr(self, name)}; needed {low} or more"
                )
        for name in ("align_warmup", "align_until"):
            if getattr(self, name) > 1:
                raise DefinitionError(
                    f"joint training {name} is {getattr(self, name)}; it is a share of the"
                    " updates, so needed at most 1"
                )

    def align_weight_at(self, done: float) -> float:
        """Lambda_align when a share of the updates is done.

        Example:
            >>> JointConfig(align_weight=0.5, align_warmup=0.2).align_weight_at(0.1)
            0.25
        """
        if done > self.align_until or not self.align_weight:
            return 0.0
        rise = 1.0 if done >= self.align_warmup else done / self.align_warmup
        return self.align_weight * rise
