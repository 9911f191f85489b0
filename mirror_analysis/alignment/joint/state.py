"""Where a training run stands, on disk, so that it goes on as if it had never stopped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from mirror_analysis.errors import StoreError
from mirror_analysis.files.safetensors import read_safetensors, write_safetensors

STATE = "state.safetensors"
"""The file of the only process, or the first; others have their number in the name."""

_FORMAT = "mirror-analysis joint training 1"


def state_file(folder: Path, rank: int) -> Path:
    """Where a process keeps its state."""
    return folder / (STATE if not rank else f"state.{rank}.safetensors")


class Progressed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of a run beside its tensors.

    Attributes:
        identity: digest of settings, episodes and initial weights: a state of another run is
            never gone on with.
        epochs: passes done.
        curve: losses so far, as the run keeps them.
    """

    identity: str
    epochs: int
    curve: msgspec.Raw


def save_state(
    folder: Path,
    modules: Mapping[str, torch.nn.Module],
    optimiser: torch.optim.Optimizer,
    generators: Mapping[str, torch.Generator],
    *,
    progressed: Progressed,
    device: torch.device,
    rank: int = 0,
) -> None:
    """Writes everything that decides how a run goes on, whole or not at all."""
    tensors = {f"module/{name}/{key}": value for name, module in modules.items()
               for key, value in module.state_dict().items()}  # fmt: skip
    for number, kept in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser/{number}/{key}": value for key, value in kept.items()}
    tensors |= {f"generator/{name}": g.get_state() for name, g in generators.items()}
    tensors["global/cpu"] = torch.get_rng_state()
    if device.type == "cuda":
        tensors["global/cuda"] = torch.cuda.get_rng_state(device)
    text = msgspec.json.encode(progressed).decode()
    write_safetensors(state_file(folder, rank), tensors, {"format": _FORMAT, "progressed": text})


def load_state(
    folder: Path,
    modules: Mapping[str, torch.nn.Module],
    optimiser: torch.optim.Optimizer,
    generators: Mapping[str, torch.Generator],
    *,
    identity: str,
    device: torch.device,
    rank: int = 0,
) -> Progressed | None:
    """Puts everything as it was when the state was saved; None where there is none.

    Raises:
        StoreError: if the state is of another run.
        FormatError: if the file is damaged.
    """
    path = state_file(folder, rank)
    if not path.is_file():
        return None
    tensors, header = read_safetensors(path)
    if header.get("format") != _FORMAT:
        raise StoreError(f"{path} is no state of joint training; move it or train elsewhere")
    progressed = msgspec.json.decode(header["progressed"], type=Progressed)
    if progressed.identity != identity:
        raise StoreError(
            f"{path} is of a run with other settings, episodes or initial weights; train into"
            " another folder, or remove it to start over"
        )
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        parts.setdefault(kind, {})[rest] = value
    for name, module in modules.items():
        own = {k.removeprefix(f"{name}/"): v for k, v in parts["module"].items()
               if k.startswith(f"{name}/")}  # fmt: skip
        module.load_state_dict(own)
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in parts.get("optimiser", {}).items():
        number, _, key = name.partition("/")
        state.setdefault(int(number), {})[key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    for name, generator in generators.items():
        generator.set_state(parts["generator"][name])
    torch.set_rng_state(parts["global"]["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(parts["global"]["cuda"], device)
    return progressed
