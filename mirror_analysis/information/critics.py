"""Critics: what scores a row of x with a row of y; torch modules from rows to a score matrix.

Every critic has one learned `offset` added to all scores. Bounds that compare scores (`infonce`,
`donsker_varadhan`) do not see it; `nwj` and the Jensen-Shannon objective cannot do without.
Initial weights come from the generator handed in, never from the global one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

from mirror_analysis.errors import UnknownNameError
from mirror_analysis.information.config import EstimatorConfig


class Critic(nn.Module, ABC):
    """Scores every row of x with every row of y."""

    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(()))

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "x_sample x_feature"], y: Float[Tensor, "y_sample y_feature"]
    ) -> Float[Tensor, "x_sample y_sample"]:
        """The score matrix, true pairs on its diagonal where the rows are paired."""


class SeparableLinear(Critic):
    """Cosine of two linear maps over a temperature: the alignment of frozen models as a critic.

    `cos(T_x x, T_y y) / temperature`: scores lie within 1/temperature of the offset, so its
    bounds stay below 2 / temperature whatever the information.
    """

    def __init__(
        self, features: tuple[int, int], config: EstimatorConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.x_map, self.y_map = (_linear(f, config.width, generator) for f in features)
        self.temperature = config.temperature

    def forward(
        self, x: Float[Tensor, "x_sample x_feature"], y: Float[Tensor, "y_sample y_feature"]
    ) -> Float[Tensor, "x_sample y_sample"]:
        """Cosines over the temperature."""
        a = nn.functional.normalize(self.x_map(x), dim=-1)
        b = nn.functional.normalize(self.y_map(y), dim=-1)
        return a @ b.T / self.temperature + self.offset


class InnerProduct(Critic):
    """Inner product of two linear maps, without normalisation: a bilinear form of low rank."""

    def __init__(
        self, features: tuple[int, int], config: EstimatorConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.x_map, self.y_map = (_linear(f, config.width, generator) for f in features)

    def forward(
        self, x: Float[Tensor, "x_sample x_feature"], y: Float[Tensor, "y_sample y_feature"]
    ) -> Float[Tensor, "x_sample y_sample"]:
        """Inner products of the images."""
        return self.x_map(x) @ self.y_map(y).T + self.offset


class Bilinear(Critic):
    """`x' W y`; the objective of every bound is concave in it, so seeds hardly differ."""

    def __init__(
        self, features: tuple[int, int], config: EstimatorConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(features))

    def forward(
        self, x: Float[Tensor, "x_sample x_feature"], y: Float[Tensor, "y_sample y_feature"]
    ) -> Float[Tensor, "x_sample y_sample"]:
        """The bilinear form."""
        return x @ self.weight @ y.T + self.offset


class Quadratic(Bilinear):
    """`x' W y + x' A x + a' x + y' B y + b' y`: holds the log density ratio of any Gaussian."""

    def __init__(
        self, features: tuple[int, int], config: EstimatorConfig, generator: torch.Generator
    ) -> None:
        super().__init__(features, config, generator)
        self.x_form, self.y_form = (nn.Parameter(torch.zeros(f + 1, f)) for f in features)

    def forward(
        self, x: Float[Tensor, "x_sample x_feature"], y: Float[Tensor, "y_sample y_feature"]
    ) -> Float[Tensor, "x_sample y_sample"]:
        """The bilinear form and both quadratic forms."""
        x_alone, y_alone = ((v @ f[:-1] + f[-1]).mul(v).sum(dim=1) for v, f in self._forms(x, y))
        return super().forward(x, y) + x_alone[:, None] + y_alone

    def _forms(self, x: Tensor, y: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
        return (x, self.x_form), (y, self.y_form)


class SeparableMLP(Critic):
    """Inner product of two networks of two hidden layers, without normalisation."""

    def __init__(
        self, features: tuple[int, int], config: EstimatorConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.x_map, self.y_map = (
            nn.Sequential(
                _linear(f, config.hidden, generator),
                nn.ReLU(),
                _linear(config.hidden, config.hidden, generator),
                nn.ReLU(),
                _linear(config.hidden, config.width, generator),
            )
            for f in features
        )

    def forward(
        self, x: Float[Tensor, "x_sample x_feature"], y: Float[Tensor, "y_sample y_feature"]
    ) -> Float[Tensor, "x_sample y_sample"]:
        """Inner products of the images."""
        return self.x_map(x) @ self.y_map(y).T + self.offset


class MLP(Critic):
    """A network of two hidden layers on both rows together (the joint or concatenated critic).

    It can hold any ratio, and costs a pass for every pair of the batch instead of every row.
    """

    def __init__(
        self, features: tuple[int, int], config: EstimatorConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.split = features[0]
        self.first = _linear(sum(features), config.hidden, generator)
        self.second = _linear(config.hidden, config.hidden, generator)
        self.last = _linear(config.hidden, 1, generator)

    def forward(
        self, x: Float[Tensor, "x_sample x_feature"], y: Float[Tensor, "y_sample y_feature"]
    ) -> Float[Tensor, "x_sample y_sample"]:
        """The network's output for every pair."""
        weight = self.first.weight
        # The first layer is a sum of both sides, so it runs once per row and not once per pair.
        a, b = x @ weight[:, : self.split].T, y @ weight[:, self.split :].T + self.first.bias
        hidden = relu(self.second(relu(a[:, None] + b)))
        return self.last(hidden).squeeze(-1) + self.offset


CRITICS: dict[str, type[Critic]] = {
    "bilinear": Bilinear,
    "inner_product": InnerProduct,
    "mlp": MLP,
    "quadratic": Quadratic,
    "separable_linear": SeparableLinear,
    "separable_mlp": SeparableMLP,
}
"""Name -> class."""


def make_critic(
    name: str, features: tuple[int, int], config: EstimatorConfig, *, seed: int
) -> Critic:
    """A critic with initial weights, on the CPU; the same seed gives the same weights.

    Args:
        name: one of `CRITICS`.
        features: of x and of y.
        config: widths and temperature.
        seed: of the initial weights.

    Raises:
        UnknownNameError: if there is none of that name.
    """
    if name not in CRITICS:
        raise UnknownNameError("critic", name, CRITICS)
    make: Callable[..., Critic] = CRITICS[name]
    return make(features, config, torch.Generator().manual_seed(seed))


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
    bound = inputs**-0.5
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return layer
