"""The reference pair as models: their layers, what they read, and their files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mirror_analysis.errors import FormatError, ShapeError
from mirror_analysis.files.safetensors import read_header, read_safetensors, write_safetensors
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.model import (
    EpisodeLike,
    ExecutionModel,
    Input,
    LayerInfo,
    ObservationModel,
)
from mirror_analysis.models.reference.networks import (
    PICTURE,
    TRUNK,
    ExecutionNetwork,
    ObservationNetwork,
    normalise,
)

SUMMARY = "safetensors files of the bundled pair, and what `mirror train` writes"
OPTIONS: Mapping[str, str] = {}
FORMAT = "mirror-analysis reference 1"
# Hand position (metres) and gripper opening, now and one step before, in Meta-World's state.
PROPRIOCEPTION = np.array([0, 1, 2, 3, 18, 19, 20, 21])
_STATE = 39  # numbers in Meta-World's state


def proprioception(states: NDArray[np.float32], *, needed_by: str) -> NDArray[np.float32]:
    """What a policy feels of Meta-World's state.

    Args:
        states: [sample, 39].
        needed_by: who needs it, for the words of the error.

    Returns:
        [sample, 8] hand position (metres) and gripper opening, now and one step before.

    Raises:
        ShapeError: if the states are of something else.
    """
    if states.shape[-1] != _STATE:
        raise ShapeError(
            f"states have {states.shape[-1]} numbers; {needed_by} needs the {_STATE} of"
            " Meta-World, so give it episodes of that simulator"
        )
    return states[:, PROPRIOCEPTION]


def require_pictures(frames: NDArray[np.uint8], camera: str) -> None:
    """Makes sure that [..., height, width, 3] pictures are of the size of the reference pair.

    Raises:
        ShapeError: if they are not.
    """
    height, width = frames.shape[-3:-1]
    if (height, width) != (PICTURE, PICTURE):
        raise ShapeError(
            f"camera {camera} has frames of {height} x {width} pixels; the reference pair needs"
            f" {PICTURE} x {PICTURE}, so collect with --size {PICTURE}"
        )


class ReferenceObservation(ObservationModel):
    """Recognises the instruction of an episode from one camera."""

    module: ObservationNetwork

    def __init__(
        self, network: ObservationNetwork, *, name: str, camera: str, instructions: Sequence[str]
    ) -> None:
        self.name = name
        self.camera = camera
        self.instructions = tuple(instructions)
        self.needs = (Input(f"camera:{camera}"),)
        self.module = network

    def layers(self) -> list[LayerInfo]:
        """Four convolutions, one vector a frame, the frames together, the episode, the logits."""
        return [
            *_trunk_layers(),
            LayerInfo("frame", 128, "episode*time channel", "vector of a frame"),
            LayerInfo("temporal", 128, "episode time channel", "transformer over frames"),
            LayerInfo("penultimate", 128, "episode channel", "vector of the episode"),
            LayerInfo("instruction", len(self.instructions), "episode channel", "logits"),
        ]

    def taps(self) -> Mapping[str, nn.Module]:
        """Layer name -> module."""
        network = self.module
        return {name: network.trunk[name] for name in TRUNK} | {
            name: getattr(network, name)
            for name in ("frame", "temporal", "penultimate", "instruction")
        }

    def forward_batch(self, episodes: Sequence[EpisodeLike]) -> Tensor:
        """Logits [episode, instruction]."""
        frames = _frames(episodes, self.camera, self.device)
        count = frames.shape[1]
        time = torch.linspace(0.0, 1.0, count, device=self.device).expand(len(episodes), count)
        return self.module(frames, time)

    def untrained(self, seed: int) -> ReferenceObservation:
        """The same network before its first update."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = ObservationNetwork(len(self.instructions))
        return ReferenceObservation(
            network.to(self.device).eval(),
            name=f"{self.name}-untrained{seed}",
            camera=self.camera,
            instructions=self.instructions,
        )


class ReferenceExecution(ExecutionModel):
    """Acts from one camera and the feeling of its own hand."""

    module: ExecutionNetwork
    framewise = True

    def __init__(self, network: ExecutionNetwork, *, name: str, camera: str) -> None:
        self.name = name
        self.camera = camera
        self.needs = (Input(f"camera:{camera}"), Input("states", _STATE))
        self.module = network

    def layers(self) -> list[LayerInfo]:
        """Four convolutions, the picture as a vector, three layers with proprioception, action."""
        return [
            *_trunk_layers(),
            LayerInfo("vision", 128, "episode*time channel", "vector of a frame"),
            *(
                LayerInfo(f"hidden{i}", 256, "episode*time channel", "vision and proprioception")
                for i in (1, 2, 3)
            ),
            LayerInfo("action", 4, "episode*time channel", "action"),
        ]

    def taps(self) -> Mapping[str, nn.Module]:
        """Layer name -> module."""
        network = self.module
        return {name: network.trunk[name] for name in TRUNK} | {
            name: getattr(network, name)
            for name in ("vision", "hidden1", "hidden2", "hidden3", "action")
        }

    def forward_batch(self, episodes: Sequence[EpisodeLike]) -> Tensor:
        """Actions [episode, time, action]."""
        frames = _frames(episodes, self.camera, self.device)
        felt = torch.cat([self._proprioception(episode.stream("states")) for episode in episodes])
        return self.module(frames.flatten(0, 1), felt).unflatten(0, frames.shape[:2])

    @torch.inference_mode()
    def act(self, now: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The action of this moment in [-1, 1], [environment, 4]."""
        frames = now[f"camera:{self.camera}"]
        require_pictures(frames, self.camera)
        picture = normalise(torch.from_numpy(frames)).to(self.device)
        action = self.module(picture, self._proprioception(now["states"]))
        return action.clamp(-1.0, 1.0).cpu().numpy()

    def untrained(self, seed: int) -> ReferenceExecution:
        """The same network before its first update; it knows the scale of its proprioception."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = ExecutionNetwork()
        network.proprioception_mean.copy_(self.module.proprioception_mean)
        network.proprioception_scale.copy_(self.module.proprioception_scale)
        return ReferenceExecution(
            network.to(self.device).eval(), name=f"{self.name}-untrained{seed}", camera=self.camera
        )

    def _proprioception(self, states: NDArray[np.float32]) -> Tensor:
        felt = proprioception(states, needed_by=self.name)
        return torch.from_numpy(felt.astype(np.float32)).to(self.device)


Reference = ReferenceObservation | ReferenceExecution


def save(model: Reference, path: Path, *, provenance: Mapping[str, str]) -> None:
    """Writes a model as one safetensors file that `load` takes back.

    Args:
        model: what to write.
        path: such as "observation.safetensors".
        provenance: how it was made, kept in the file's header.
    """
    header = {"format": FORMAT, "role": model.role, "camera": model.camera, **provenance}
    if isinstance(model, ReferenceObservation):
        header["instructions"] = json.dumps(model.instructions)
    write_safetensors(path, model.module.state_dict(), header)


def recognise(checkpoint: Checkpoint) -> str | None:
    """What it is, if it is a safetensors file that `save` wrote."""
    if checkpoint.kind != "safetensors":
        return None
    header = read_header(checkpoint.path)[1]
    if header.get("format") != FORMAT:
        return None
    return f"{header.get('role', 'a')} model of the reference pair"


def load(checkpoint: Checkpoint, *, name: str, options: Options) -> Reference:
    """Reads a model of the reference family.

    Args:
        checkpoint: the safetensors file.
        name: what to call it.
        options: none that matters here.

    Raises:
        FormatError: if it is not of this family or damaged.
    """
    path = checkpoint.path
    tensors, header = read_safetensors(path)
    if header.get("format") != FORMAT:
        raise FormatError(
            f"{path} has the format '{header.get('format', '')}'; needed '{FORMAT}', which"
            " `mirror train` writes"
        )
    try:
        camera, role = header["camera"], header["role"]
        network: ObservationNetwork | ExecutionNetwork
        if role == "observation":
            instructions = [str(text) for text in json.loads(header["instructions"])]
            network = ObservationNetwork(len(instructions))
        elif role == "execution":
            network = ExecutionNetwork()
        else:
            raise FormatError(f"{path} says its role is '{role}'; needed observation or execution")
        network.load_state_dict(tensors)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise FormatError(f"{path} is damaged ({reason}); train it again or copy it anew") from None
    network.eval()
    if isinstance(network, ObservationNetwork):
        return ReferenceObservation(network, name=name, camera=camera, instructions=instructions)
    return ReferenceExecution(network, name=name, camera=camera)


def _trunk_layers() -> list[LayerInfo]:
    return [
        LayerInfo(name, channels, "episode*time channel height width", "convolution")
        for name, channels in TRUNK.items()
    ]


def _frames(episodes: Sequence[EpisodeLike], camera: str, device: torch.device) -> Tensor:
    stack = [episode.stream(f"camera:{camera}") for episode in episodes]
    for frames in stack:
        require_pictures(frames, camera)
    return normalise(torch.from_numpy(np.stack(stack)).to(device))
