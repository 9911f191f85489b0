"""A LeRobot policy as an execution model: streams in, layers recorded, actions out."""

from __future__ import annotations

import copy
import hashlib
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mirror_analysis.errors import ShapeError
from mirror_analysis.models.checkpoint import Options
from mirror_analysis.models.lerobot.folder import ACTION, PolicyFolder
from mirror_analysis.models.lerobot.network import Network
from mirror_analysis.models.lerobot.plan import Plan
from mirror_analysis.models.lerobot.scaling import Scaling
from mirror_analysis.models.lerobot.statistics import Statistics, read_statistics
from mirror_analysis.models.lerobot.weights import read_network
from mirror_analysis.models.model import EpisodeLike, ExecutionModel, Input, LayerInfo
from mirror_analysis.models.preparation import Preparation

_PIXELS = 2**25  # of all cameras in one forward pass


class LeRobotPolicy(ExecutionModel):
    """A policy that plans several actions from what it saw in the last frames.

    Frames of the past are stored frames of the episode; before the first one it is repeated, as
    LeRobot's queues do. Where something is left to chance, the random numbers of a frame depend
    on the episode's id and the frame's step alone, so that features do not depend on which
    episodes are run together; when it acts, they depend on the number of the environment and
    the steps since `reset`.

    Args:
        network: in evaluation mode.
        folder: what it reads and gives.
        scaling: LeRobot's name of a feature -> how it is normalised.
        name: what to call it.
        rebuild: a network of this architecture with weights drawn anew.
        calls: rule for layers that run several times.
        seed: of what is left to chance.
        resize: whether pictures of another size are resized, not refused.
        prefix: where the network is in the module, as in LeRobot's names of weights.
        needs: the streams it reads.
        facts: what its files say of it.
        settings: whatever else decides its features.
    """

    def __init__(
        self,
        network: Network,
        *,
        folder: PolicyFolder,
        scaling: Mapping[str, Scaling],
        name: str,
        rebuild: Callable[[], Network],
        calls: str,
        seed: int,
        resize: bool,
        prefix: str,
        needs: tuple[Input, ...],
        facts: Mapping[str, str],
        settings: Mapping[str, str],
    ) -> None:
        self.name, self.needs = name, needs
        self.folder, self.resize, self.seed, self.calls = folder, resize, seed, calls
        self.facts, self.settings = facts, settings
        self.framewise = network.history == 1
        pixels = sum(view.shape[-1] * view.shape[-2] for view in folder.views)
        self.frames_at_once = max(1, min(512, _PIXELS // max(pixels, 1)))
        self.network, self.prefix = network, prefix
        self.scaling = dict(scaling)
        # Statistics are part of the digest of the weights, since they change what comes out.
        self.module = nn.ModuleDict(
            {prefix: network, "normalisation": nn.ModuleList(self.scaling.values())}
        )
        self._structure = network.structure(calls=calls)
        self._rebuild = rebuild
        self.reset()

    def layers(self) -> list[LayerInfo]:
        """What is seen, how it is joined, and the actions, in forward order."""
        return list(self._structure.layers)

    def taps(self) -> Mapping[str, nn.Module]:
        """Layer name -> module."""
        return self._structure.taps

    def forward_batch(self, episodes: Sequence[EpisodeLike]) -> Tensor:
        """What is planned at every frame, [episode, time, step, action] in the robot's units."""
        streams = {
            name: np.concatenate([episode.stream(name) for episode in episodes])
            for name in self.inputs
        }
        seeds = [
            _seed(self.seed, episode.id, int(step))
            for episode in episodes
            for step in episode.steps
        ]
        time = len(seeds) // len(episodes)
        back = torch.arange(1 - self.network.history, 1)
        within = (torch.arange(time)[:, None] + back).clamp(min=0)
        past = (torch.arange(len(episodes)) * time)[:, None, None] + within
        planned = self._planned(streams, past.flatten(0, 1), seeds)
        return planned.reshape(len(episodes), time, *planned.shape[1:])

    @torch.inference_mode()
    def act(self, now: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The action of this moment, [environment, action] in the robot's units.

        Raises:
            ShapeError: if the number of environments changed without a `reset`, or pictures are
                of another size.
        """
        count = len(now[self.inputs[0]])
        if self._past and len(self._past[0][self.inputs[0]]) != count:
            raise ShapeError(
                f"{self.name} acts in {count} environments but began in"
                f" {len(self._past[0][self.inputs[0]])}; call reset() before their number changes"
            )
        self._past.append({name: now[name] for name in self.inputs})
        while len(self._past) < self.network.history:
            self._past.append(self._past[0])
        if self._plan.empty:
            streams = {
                name: np.concatenate([moment[name] for moment in self._past])
                for name in self.inputs
            }
            # Frames lie one moment after the other, all environments in each.
            past = torch.arange(len(self._past) * count).view(-1, count).T
            seeds = [_seed(self.seed, f"environment {i}", self._steps) for i in range(count)]
            self._plan.add(self._planned(streams, past, seeds))
        self._steps += 1
        action: NDArray[np.float32] = self._plan.next().cpu().numpy()
        return action

    def reset(self) -> None:
        """Forgets what was seen and planned; random numbers begin anew."""
        self._past: deque[dict[str, NDArray[Any]]] = deque(maxlen=self.network.history)
        self._plan = Plan(self.network.executed, self.network.ensemble)
        self._steps = 0

    def untrained(self, seed: int) -> LeRobotPolicy:
        """The same architecture, drawn as LeRobot draws it, with the same normalisation.

        A backbone that was trained on photographs before is drawn at random too.
        """
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = self._rebuild().eval().requires_grad_(False)
        return LeRobotPolicy(
            network.to(self.device),
            folder=self.folder,
            scaling=copy.deepcopy(self.scaling),
            name=f"{self.name}-untrained{seed}",
            rebuild=self._rebuild,
            calls=self.calls,
            seed=self.seed,
            resize=self.resize,
            prefix=self.prefix,
            needs=self.needs,
            facts=self.facts,
            settings=self.settings,
        )

    def _planned(
        self, streams: Mapping[str, NDArray[Any]], past: Tensor, seeds: Sequence[int]
    ) -> Tensor:
        seen = {
            key: self.scaling[key](self._numbers(key, name, streams[name]))
            for key, name in self.folder.streams.items()
        }
        drawn = [self.network.chance(seed) for seed in seeds]
        chances = [chance for chance in drawn if chance is not None]
        chance = torch.stack(chances).to(self.device) if chances else None
        planned = self.network(seen, past.to(self.device), chance)
        found: Tensor = self.scaling[ACTION].inverse(planned)
        return found

    def _numbers(self, key: str, name: str, stream: NDArray[Any]) -> Tensor:
        """A stream as LeRobot's data loader gives it: pictures [frame, 3, height, width] 0 to 1."""
        feature = self.folder.inputs[key]
        if feature.kind != "VISUAL":
            if stream.shape[1:] != feature.shape:
                raise ShapeError(
                    f"{name} has the shape {stream.shape[1:]} per frame; {self.name} needs"
                    f" {feature.shape}, its {key}"
                )
            return torch.from_numpy(stream.astype(np.float32)).to(self.device)
        size = feature.shape[1:]
        if stream.shape[1:3] == size:
            pictures = torch.from_numpy(np.ascontiguousarray(stream)).to(self.device)
            return pictures.permute(0, 3, 1, 2).to(torch.float32) / 255
        if not self.resize:
            raise ShapeError(
                f"{name} has frames of {stream.shape[1]} x {stream.shape[2]} pixels; {self.name}"
                f" was trained on {size[0]} x {size[1]}, so give it such pictures or say"
                " resize=yes"
            )
        height, width = size
        black = Preparation(size=(height, width), mean=(0.0,) * 3, std=(1.0,) * 3)
        return black(stream).to(self.device)


def load_policy(
    folder: PolicyFolder,
    build: Callable[[], Network],
    *,
    name: str,
    options: Options,
    prefix: str,
    unused: re.Pattern[str],
    facts: Mapping[str, str],
    settings: Mapping[str, str] | None = None,
) -> LeRobotPolicy:
    """Loads the weights and statistics of a policy whose network is known.

    Args:
        folder: where they lie.
        build: its network, with weights drawn anew.
        name: what to call it.
        options: see the OPTIONS of the family.
        prefix: what the names of its weights begin with, up to a dot.
        unused: names, without the prefix, of tensors that only training takes.
        facts: what is known of it.
        settings: what decides its features, besides what every policy has.

    Raises:
        FormatError: if weights or statistics are missing, damaged or of something else.
        UnknownNameError: if an option has no such value.
    """
    rule = options.choice("normalise", "required", ("required", "partly", "off"))
    strange = options.choice("processors", "refuse", ("refuse", "ignore"))
    resize = options.choice("resize", "no", ("no", "yes"))
    seed = options.count("seed", 1)
    network, buffers = read_network(folder, build, prefix=prefix, unused=unused)
    dataset = options.text("dataset")
    statistics = read_statistics(folder, buffers, dataset=dataset, strange=strange)
    features = {key: folder.inputs[key] for key in folder.streams} | {ACTION: folder.action}
    scaling = {
        key: statistics.scaling(feature, folder, rule=rule) for key, feature in features.items()
    }
    modes = ", ".join(f"{key} {part.mode}" for key, part in scaling.items())
    chance = network.chance(0) is not None
    repeated = {info.calls for info in network.structure(calls=options.calls).layers} - {"only"}
    return LeRobotPolicy(
        network,
        folder=folder,
        scaling=scaling,
        name=name,
        rebuild=build,
        calls=options.calls,
        seed=seed,
        resize=resize == "yes",
        prefix=prefix,
        needs=_needs(folder, statistics),
        facts={
            "family": "LeRobot",
            **facts,
            "normalisation": f"{modes}; statistics of {statistics.source}",
            **_stated(folder),
        },
        settings={
            "normalisation": modes + (f", data set {dataset}" if dataset else ""),
            "pictures": "resized" if resize == "yes" else "as they are",
            **({"frames": f"{network.history}, stored ones"} if network.history > 1 else {}),
            **({"seed": str(seed)} if chance else {}),
            **({"calls": options.calls} if repeated else {}),
            **(settings or {}),
        },
    )


def _needs(folder: PolicyFolder, statistics: Statistics) -> tuple[Input, ...]:
    """Its inputs, with the names they had in the data it was trained on."""
    keys = list(folder.streams)
    notes = [statistics.renamed.get(key, "") for key in keys]
    return tuple(
        msgspec.structs.replace(need, note=f"{need.note}, trained on {note}") if note else need
        for need, note in zip(folder.needs, notes, strict=True)
    )


def _stated(folder: PolicyFolder) -> dict[str, str]:
    """Licence and data set, where the files name them."""
    found = {}
    licence = folder.config.get("license")
    if isinstance(licence, str):
        found["licence"] = licence
    if folder.checkpoint.has("train_config.json"):
        dataset = folder.checkpoint.json("train_config.json").get("dataset")
        trained = dataset.get("repo_id") if isinstance(dataset, dict) else None
        if isinstance(trained, str):
            found["trained on"] = trained
    return found


def _seed(seed: int, name: str, step: int) -> int:
    digest = hashlib.sha256(f"{seed} {name} {step}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
