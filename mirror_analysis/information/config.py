"""Settings of the estimators that train a critic."""

from __future__ import annotations

from typing import Literal

import msgspec

from mirror_analysis.errors import DefinitionError


class EstimatorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a critic is built, trained and evaluated.

    Attributes:
        width: dimensions of the shared space of separable critics.
        hidden: units of each hidden layer of network critics.
        temperature: of "separable_linear".
        batch: units per update, one row of each; all of them when there are fewer.
        steps: updates at most.
        check_every: updates between two looks at validation.
        patience: looks without improvement before stopping.
        learning_rate: of AdamW; None takes 3e-3 for critics of linear maps and 5e-4 for networks.
        weight_decay: of AdamW.
        validation: share of the units that choose when to stop.
        test: share of the units the value comes from, and nothing else does.
        seeds: one training each; they draw initial weights and batches.
        split_seed: of the draw of validation and test units, the same for all seeds.
        tau: clip of "smile".
        average_rate: of the moving average of "mine".
        evaluation_batch: units in one score matrix of the test at most.
        inputs: "standard": mean 0 and variance 1; "normal_scores": each feature through its
            empirical distribution to a normal one, which keeps heavy tails from ruling. Both
            from training rows only, and neither changes the information.
    """

    width: int = 64
    hidden: int = 128
    temperature: float = 0.1
    batch: int = 256
    steps: int = 2000
    check_every: int = 50
    patience: int = 10
    learning_rate: float | None = None
    weight_decay: float = 1e-2
    validation: float = 0.15
    test: float = 0.25
    seeds: tuple[int, ...] = (0, 1, 2)
    split_seed: int = 0
    tau: float = 5.0
    average_rate: float = 0.05
    evaluation_batch: int = 2048
    inputs: Literal["standard", "normal_scores"] = "standard"

    def __post_init__(self) -> None:
        for name in ("temperature", "learning_rate", "tau"):
            number = getattr(self, name)
            if number is not None and not number > 0:
                raise DefinitionError(f"estimator {name} is {number}; needed a number above 0")
        least = {"width": 1, "hidden": 1, "batch": 2, "steps": 1, "check_every": 1, "patience": 1}
        for name, low in (*least.items(), ("weight_decay", 0), ("evaluation_batch", 8)):
            if not getattr(self, name) >= low:
                raise DefinitionError(
                    f"estimator {name} is {getattr(self, name)}; needed {low} or more"
                )
        for name in ("validation", "test", "average_rate"):
            if not 0 < getattr(self, name) < 1:
                raise DefinitionError(
                    f"estimator {name} is {getattr(self, name)}; needed a share between 0 and 1"
                )
        if self.validation + self.test >= 1:
            raise DefinitionError(
                f"estimator validation {self.validation} and test {self.test} leave nothing to"
                " train on; needed less than 1 together"
            )
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise DefinitionError(
                f"estimator seeds are {list(self.seeds)}; needed at least one, and none twice"
            )
        if self.inputs not in ("standard", "normal_scores"):
            raise DefinitionError(
                f"estimator inputs is '{self.inputs}'; needed 'standard' or 'normal_scores'"
            )

    def rate(self, critic: str) -> float:
        """The learning rate for a critic of that name."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 5e-4 if critic.endswith("mlp") else 3e-3
