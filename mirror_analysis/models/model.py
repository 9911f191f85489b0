"""What a model is here: named layers, the streams it reads, a forward pass over whole episodes."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Protocol, runtime_checkable

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from mirror_analysis.errors import DeviceError, ShapeError

Role = Literal["observation", "execution"]
Calls = Literal["only", "first", "last", "mean"]

_AXES = ("episode", "episode*time", "time", "channel", "height", "width", "token")


class LayerInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One layer and how its raw output is laid out.

    The axes are words, in the order of the output's axes; the first is `episode` or
    `episode*time` (frames folded into the batch, time running fastest), one is `channel`:

    | output | axes |
    | --- | --- |
    | convolution on single frames | `episode*time channel height width` |
    | convolution on clips | `episode channel time height width` |
    | a vector per frame | `episode*time channel` or `episode time channel` |
    | tokens of single frames | `episode*time token channel` |
    | tokens of whole clips | `episode token channel` |
    | a vector per episode | `episode channel` |

    Attributes:
        name: such as "conv3"; unique within the model.
        width: size of the channel axis.
        axes: the layout, as above.
        kind: what it is, for people, such as "convolution".
        calls: which call counts when one forward pass runs the layer several times; "only"
            makes a second call an error.

    Raises:
        ShapeError: if the axes are not words of the table.
    """

    name: str
    width: int
    axes: str
    kind: str = ""
    calls: Calls = "only"

    def __post_init__(self) -> None:
        words = self.axes.split()
        unknown = [word for word in words if word not in _AXES]
        plain = [part for word in words for part in word.split("*")]
        if (
            unknown
            or len(set(plain)) != len(plain)
            or words[:1] not in (["episode"], ["episode*time"])
            or "channel" not in words
            or ("height" in words) != ("width" in words)
        ):
            raise ShapeError(
                f"layer '{self.name}' has the axes '{self.axes}'; needed 'episode' or"
                " 'episode*time' first, then 'channel' and any of time, height and width, token,"
                " each once"
            )


@runtime_checkable
class EpisodeLike(Protocol):
    """What a model may read of an episode; time is the number of stored frames."""

    @property
    def id(self) -> str:
        """Name of the episode, unique in its collection."""
        ...

    @property
    def instruction(self) -> str:
        """What was asked for, in words."""
        ...

    @property
    def length(self) -> int:
        """Environment steps the whole episode took."""
        ...

    @property
    def steps(self) -> NDArray[np.int64]:
        """[time] environment step of each frame."""
        ...

    @property
    def timestamps(self) -> NDArray[np.float64]:
        """[time] seconds from the start of the episode."""
        ...

    @property
    def states(self) -> NDArray[np.float32]:
        """[time, state] what the body feels."""
        ...

    @property
    def actions(self) -> NDArray[np.float32]:
        """[time, action] taken after seeing the frame of the same position."""
        ...

    def frames(self, camera: str) -> NDArray[np.uint8]:
        """[time, height, width, 3] what one camera saw."""
        ...


class Model(ABC):
    """A network with named layers that runs over whole episodes.

    Attributes:
        name: such as "reference-observation-s0".
        role: whether it watches or acts.
        inputs: the streams it reads: "camera:NAME", "states", "actions" or "instruction".
        module: the network; its parameters are the model's weights.
    """

    role: ClassVar[Role]
    name: str
    inputs: tuple[str, ...]
    module: torch.nn.Module

    @property
    def weights_sha256(self) -> str:
        """Digest of the weights as they are now, so that trained-on weights get a new one."""
        return weights_digest(self.module)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        tensor = next(iter(self.module.state_dict().values()), None)
        return torch.device("cpu") if tensor is None else tensor.device

    def to(self, device: torch.device) -> Model:
        """Moves the weights, as `torch.nn.Module.to` does, and returns the model itself."""
        self.module.to(device)
        return self

    @abstractmethod
    def layers(self) -> list[LayerInfo]:
        """The layers in forward order."""

    @abstractmethod
    def taps(self) -> Mapping[str, torch.nn.Module]:
        """Layer name -> the module whose output is that layer."""

    @abstractmethod
    def forward_batch(self, episodes: Sequence[EpisodeLike]) -> torch.Tensor | None:
        """Runs once over all frames of a batch of episodes, on the model's device.

        Args:
            episodes: all with the same number of frames.

        Returns:
            The model's own output, [episode, ...], where it has one.
        """

    @abstractmethod
    def untrained(self, seed: int) -> Model:
        """The same architecture with weights drawn anew, named "<name>-untrained<seed>"."""


class ObservationModel(Model):
    """A model that watches."""

    role = "observation"


class ExecutionModel(Model):
    """A model that acts."""

    role = "execution"

    @abstractmethod
    def act(
        self, frames: Mapping[str, NDArray[np.uint8]], states: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """What to do now, in several environments at once.

        Args:
            frames: camera -> [environment, height, width, 3] seen now.
            states: [environment, state] felt now.

        Returns:
            [environment, action], in the unit of the episodes' actions.
        """

    def reset(self) -> None:
        """Forgets what was seen before; called at the start of roll-outs."""
        return None


def weights_digest(module: torch.nn.Module) -> str:
    """The sha256 of all parameters and buffers: names, types, shapes and bytes, in name order.

    Returns:
        64 hexadecimal digits, the same on every device.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def require_device(name: str) -> torch.device:
    """The device asked for, or an error; never another one.

    Args:
        name: such as "cpu", "cuda" or "cuda:1".

    Raises:
        DeviceError: if there is no such device here.
    """
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DeviceError(
            f"device '{name}' was asked for but is not there ({reason}); ask for 'cpu', or run"
            " where it is"
        ) from None
    return device
