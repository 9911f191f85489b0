"""What a model is here: named layers, the streams it reads, a forward pass over whole episodes."""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from mirror_analysis.errors import DefinitionError, DeviceError, ShapeError

Role = Literal["observation", "execution"]

_CALLS = re.compile(r"only|first|last|mean|step [1-9][0-9]{0,5}")
_STREAM = re.compile(r"camera|states|actions|instruction|(camera|array):.+")
_AXES = ("episode", "episode*time", "time", "channel", "height", "width", "token")


class LayerInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One layer and how its raw output is laid out.

    The axes are words, in the order of the output's axes: `episode` or `episode*time` (frames
    folded into the batch, time running fastest), `channel`, and what else there is. Only `token`
    and `time` may stand before the episode:

    | output | axes |
    | --- | --- |
    | convolution on single frames | `episode*time channel height width` |
    | convolution on clips | `episode channel time height width` |
    | a vector per frame | `episode*time channel` or `episode time channel` |
    | tokens of single frames | `episode*time token channel` |
    | tokens of whole clips | `episode token channel` |
    | the same where a transformer wants tokens first | `token episode channel` |
    | a vector per episode | `episode channel` |

    Attributes:
        name: such as "conv3"; unique within the model.
        width: size of the channel axis.
        axes: the layout, as above.
        kind: what it is, for people, such as "convolution".
        calls: which call counts when one forward pass runs the layer several times, as in
            diffusion or in generating tokens: "first", "last", the "mean" of all, or "step K",
            counted from 1; "only" makes a second call an error.
        prefix: leading tokens that stand for no place, such as a class token and registers.
        frames: of each episode that the layer sees, where the model takes so many of them
            however many there are; 0 for all.

    Raises:
        ShapeError: if the axes are not words of the table, or there is a prefix without tokens.
        DefinitionError: if the rule for repeated calls is none of these.
    """

    name: str
    width: int
    axes: str
    kind: str = ""
    calls: str = "only"
    prefix: int = 0
    frames: int = 0

    def __post_init__(self) -> None:
        words = self.axes.split()
        unknown = [word for word in words if word not in _AXES]
        plain = [part for word in words for part in word.split("*")]
        if (
            unknown
            or len(set(plain)) != len(plain)
            or "episode" not in plain
            or "channel" not in words
            or not {"token", "time"}.issuperset(words[: plain.index("episode")])
            or ("height" in words) != ("width" in words)
        ):
            raise ShapeError(
                f"layer '{self.name}' has the axes '{self.axes}'; needed 'episode' or"
                " 'episode*time' with nothing but token or time before it, then 'channel' and any"
                " of time, height and width, token, each once"
            )
        if self.prefix < 0 or (self.prefix and "token" not in words):
            raise ShapeError(
                f"layer '{self.name}' has a prefix of {self.prefix} tokens on the axes"
                f" '{self.axes}'; needed 0 or more, and tokens"
            )
        require_calls(self.calls)


class Input(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One stream of an episode that a model reads, under the model's own name for it.

    Attributes:
        name: "camera" for the one view there is, "camera:NAME" for a certain one, "states",
            "actions", "instruction", or "array:NAME" for any other vector per frame.
        width: numbers in a vector; None for any, and for pictures and words.
        note: what it is, for people, such as "joint angles (radians)".

    Raises:
        DefinitionError: if the name is none of these.
    """

    name: str
    width: int | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if not _STREAM.fullmatch(self.name):
            raise DefinitionError(
                f"model input '{self.name}' is no stream; needed camera, camera:NAME, states,"
                " actions, instruction or array:NAME"
            )


def require_calls(rule: str) -> str:
    """The rule for repeated calls of a layer, if it is one.

    Raises:
        DefinitionError: if it is not.
    """
    if not _CALLS.fullmatch(rule):
        raise DefinitionError(
            f"'{rule}' does not say which call of a layer counts; needed only, first, last, mean"
            " or 'step K' with K from 1"
        )
    return rule


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

    def stream(self, name: str) -> NDArray[Any]:
        """[time, ...] one of the model's inputs, by the model's name for it.

        Pictures are uint8 [time, height, width, 3], vectors float32 [time, number].
        """
        ...


class Model(ABC):
    """A network with named layers that runs over whole episodes.

    Attributes:
        name: such as "reference-observation-s0".
        role: whether it watches or acts.
        needs: the streams it reads.
        module: the network; its parameters are the model's weights.
        framewise: whether each frame's layers depend on that frame alone, so that a long
            episode may be run in parts.
        frames_at_once: frames of all episodes of one forward pass, so that it fits the memory,
            where nobody says how many episodes share one.
        settings: everything but the weights that changes the features, such as how pictures are
            prepared and which call of a layer counts; name -> value.
        facts: what its files say of it, for people: family, architecture, licence and so on.
    """

    role: ClassVar[Role]
    name: str
    needs: tuple[Input, ...]
    module: torch.nn.Module
    framewise: bool = False
    frames_at_once: int = 512
    settings: Mapping[str, str] = MappingProxyType({})
    facts: Mapping[str, str] = MappingProxyType({})

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the streams it reads."""
        return tuple(need.name for need in self.needs)

    @property
    def cameras(self) -> tuple[str, ...]:
        """The views it reads, as inputs: "camera" or "camera:NAME"."""
        return tuple(name for name in self.inputs if name.partition(":")[0] == "camera")

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
    def act(self, now: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """What to do now, in several environments at once.

        Args:
            now: input name -> [environment, ...] of this moment: pictures uint8 [environment,
                height, width, 3], vectors float32 [environment, number], words [environment].

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
