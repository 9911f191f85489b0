"""LeRobot policy folders: ACT, Diffusion Policy, VQ-BeT, SmolVLA, pi0; without lerobot itself."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mirror_analysis.errors import UnknownNameError

if TYPE_CHECKING:
    from mirror_analysis.models.checkpoint import Checkpoint, Options
    from mirror_analysis.models.model import Model

SUMMARY = "LeRobot policy folders: ACT, Diffusion Policy, VQ-BeT, SmolVLA, pi0"
OPTIONS: Mapping[str, str] = {
    "backbone": "folder with the tokenizer.json (and config.json) of the language model that"
    " SmolVLA or pi0 is built on (the policy's own)",
    "codes": "VQ-BeT picks its action codes 'sampled' by a fixed seed or the 'likeliest' (sampled)",
    "dataset": "whose normalisation statistics count, where there are several data sets",
    "normalise": "'required' statistics, 'partly' where there are some, or 'off' (required)",
    "processors": "processing steps that are not known: 'refuse' or 'ignore' (refuse)",
    "resize": "'yes' resizes pictures to the size the policy was trained on (no)",
    "seed": "of what is left to chance, from 1 on (1)",
    "steps": "denoising steps of Diffusion Policy (as its config says)",
}

# "type" of config.json -> module that has load(folder, name=, options=).
POLICIES = {
    "act": "mirror_analysis.models.lerobot.act",
    "diffusion": "mirror_analysis.models.lerobot.diffusion",
    "pi0": "mirror_analysis.models.lerobot.pi0",
    "smolvla": "mirror_analysis.models.lerobot.smolvla",
    "vqbet": "mirror_analysis.models.lerobot.vqbet",
}


def recognise(checkpoint: Checkpoint) -> str | None:
    """What it is, if it is a LeRobot policy folder or a training run that holds some."""
    from mirror_analysis.models.lerobot.folder import find

    folder = find(checkpoint)
    return None if folder is None else folder.summary


def load(checkpoint: Checkpoint, *, name: str, options: Options) -> Model:
    """Loads a policy; of a training run the last checkpoint.

    Args:
        checkpoint: the folder with `config.json`, or one above it.
        name: what to call the model.
        options: see OPTIONS.

    Raises:
        FormatError: if it is no such folder, damaged, or lacks normalisation statistics.
        UnknownNameError: if it is of a type that is not read, or an option has no such value.

    Example:
        >>> load(Checkpoint(Path("runs/act")), name="act", options=Options()).layers()[0].name
        'backbone.layer1'
    """
    from mirror_analysis.models.lerobot.folder import require

    folder = require(checkpoint)
    if folder.kind not in POLICIES:
        raise UnknownNameError("type of LeRobot policy", folder.kind, POLICIES)
    module = importlib.import_module(POLICIES[folder.kind])
    model: Model = module.load(folder, name=name, options=options)
    return model
