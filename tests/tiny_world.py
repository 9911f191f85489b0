"""A small world that needs no simulator: drawn episodes, two small models, a study over them.

Tasks differ in the colour of a square, instructions in the side it is on, episodes in where
exactly it is. The camera A sees it as it is, the camera B turned and on another ground.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import torch

from mirror_analysis.definitions import StudyDefinition
from mirror_analysis.episodes import Episode, Episodes
from mirror_analysis.episodes.arrays import ArraysWriter
from mirror_analysis.models.reference.family import ReferenceExecution, ReferenceObservation, save
from mirror_analysis.models.reference.networks import ExecutionNetwork, ObservationNetwork

TASKS = ("push", "pull")
TIME = 3
COLOURS = {"push": (230, 60, 60), "pull": (60, 90, 230), "lift": (60, 200, 90)}


def episode(
    task: str, number: int, *, split: str | None = "fit", success: bool = True, size: int = 64,
    cameras: Sequence[str] = ("A", "B"), states: int = 39,
) -> Episode:  # fmt: skip
    """One episode; the same arguments always give the same."""
    words = f"{task} {number} {split} {success}"
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(words.encode()).digest()[:8]))
    side = ("left", "right")[number % 2]
    across, up = rng.uniform(0.05, 0.3) + 0.5 * (side == "right"), rng.uniform(0.1, 0.7)
    steps = np.arange(TIME) * 10 + int(rng.integers(5))
    pictures = np.full((TIME, size, size, 3), 90, dtype=np.uint8)
    body = rng.normal(0.0, 0.05, (TIME, states)).astype(np.float32)
    for t in range(TIME):
        x, y = int(across * size), int((up + 0.05 * t) * size)
        pictures[t, y : y + size // 6, x : x + size // 6] = COLOURS[task]
        body[t, :3] += (across, up, 0.1 * t)
    seen = {
        "A": pictures,
        "B": np.where(pictures == 90, 150, pictures).astype(np.uint8).transpose(0, 2, 1, 3),
    }
    name = f"{task}-{split or 'any'}-{'won' if success else 'lost'}-{number:03d}"
    return Episode.from_frames(
        {camera: np.ascontiguousarray(seen[camera]) for camera in cameras},
        id=name,
        task=task,
        instruction=f"{task} the square on the {side}",
        success=success,
        states=body,
        actions=np.zeros((TIME, 4), dtype=np.float32),
        timestamps=steps / 10,
        steps=steps,
        length=int(steps[-1]) + 1 + int(rng.integers(9)),
        labels={} if split is None else {"split": split},
        extras={"expert_actions": rng.normal(0.0, 0.3, (TIME, 4)).astype(np.float32)},
    )


def episodes(
    *, tasks: Sequence[str] = TASKS, fit: int = 12, test: int = 8, fit_failures: int = 4,
    test_failures: int = 6,
) -> Episodes:  # fmt: skip
    """So many of each kind per task, with the label split."""
    counts = {
        ("fit", True): fit,
        ("fit", False): fit_failures,
        ("test", True): test,
        ("test", False): test_failures,
    }
    return Episodes(
        episode(task, number, split=split, success=success)
        for (split, success), count in counts.items()
        for task in tasks
        for number in range(count)
    )


def written(folder: Path, chosen: Episodes | Sequence[Episode]) -> Path:
    """The same on disk."""
    writer = ArraysWriter(folder)
    for one in chosen:
        writer.add(one)
    return folder


def observation(seed: int = 0, name: str = "") -> ReferenceObservation:
    """An observation model of random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(1000 + seed)
        network = ObservationNetwork(2 * len(TASKS)).eval()
    instructions = [f"{task} the square on the {side}" for task in TASKS for side in ("l", "r")]
    return ReferenceObservation(
        network, name=name or f"watcher-s{seed}", camera="A", instructions=instructions
    )


def execution(seed: int = 0, name: str = "") -> ReferenceExecution:
    """An execution model of random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(2000 + seed)
        network = ExecutionNetwork().eval()
    return ReferenceExecution(network, name=name or f"actor-s{seed}", camera="B")


def model(side: str, seed: int) -> ReferenceObservation | ReferenceExecution:
    """The trained model of a side, as a study asks for it."""
    return observation(seed) if side == "x" else execution(seed)


def definition(**sections: dict[str, object]) -> StudyDefinition:
    """A study small enough for a test; keywords replace keys of a section."""
    table: dict[str, dict[str, object]] = {
        "models": {
            "x": "watcher", "y": "actor", "seeds": [0], "x_layer": "penultimate",
            "y_layer": "vision", "untrained_draws": 1,
        },
        "episodes": {
            "source": "metaworld", "tasks": [], "fit_successes": 12, "fit_failures": 4,
            "test_successes": 8, "test_failures": 6, "frames": TIME, "size": 64, "seed_fit": 1,
            "seed_test": 2,
        },
        "nuisance": {
            "gain_low": 0.8, "gain_high": 1.2, "offset_low": -10.0, "offset_high": 10.0,
            "shift": 2, "seed": 7,
        },
        "alignment": {
            "width": 16, "temperature": 0.1, "learning_rate": 1e-2, "weight_decay": 1e-2,
            "batch": 16, "steps": 5, "patience": 2, "probe_seeds": [0],
        },
        "measures": {
            "names": ["linear_cka", "mutual_knn"], "k": 3, "variance": 0.99, "draws": 19,
            "folds": 4, "gallery": 8, "recall": [1, 5], "grids": [], "alignment_grids": [],
        },
        "maps": {"methods": [], "perplexity": 5.0, "neighbors": 3},
    }  # fmt: skip
    for name, changes in sections.items():
        table[name] = table[name] | changes
    head = {"name": "tiny", "title": "Tiny", "summary": "A small study.", "question": "Alike?"}
    return msgspec.convert({**head, **table}, StudyDefinition)


def include(folder: Path, study: StudyDefinition | None = None) -> Path:
    """A folder of definitions: checkpoints watcher-s0 and actor-s0, and the study tiny."""
    place = folder / "checkpoints"
    (place / "weights").mkdir(parents=True)
    for made in (observation(), execution()):
        file = f"weights/{made.name}.safetensors"
        save(made, place / file, provenance={"by": "the tests"})
        data = (place / file).read_bytes()
        entry = {
            "name": made.name,
            "summary": "A small model.",
            "role": made.role,
            "family": "reference",
            "file": file,
            "sha256": hashlib.sha256(data).hexdigest(),
            "size_bytes": len(data),
            "parameters": sum(p.numel() for p in made.module.parameters()),
            "seed": 0,
            "license": "Apache-2.0",
            "source": "the tests",
            "commit": "",
            "data": "none",
            "metrics": {"accuracy": 0.25},
            "layers": [info.name for info in made.layers()],
            "inputs": list(made.inputs),
            "camera": made.camera,
        }
        text = toml(entry).replace("[metrics]", "trained = 2024-01-02\n[metrics]")
        (place / f"{made.name}.toml").write_text(text)
    (folder / "reports").mkdir()
    table = msgspec.to_builtins(study or definition())
    (folder / "reports" / f"{table['name']}.toml").write_text(toml(table))
    return folder


def toml(table: dict[str, object]) -> str:
    """A table of values, lists and one level of tables as TOML."""
    plain = {k: v for k, v in table.items() if not isinstance(v, dict)}
    inner = {k: v for k, v in table.items() if isinstance(v, dict) and v}
    lines = [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in plain.items()]
    for name, values in inner.items():
        lines += [f"[{name}]"]
        lines += [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in values.items()]
    return "\n".join(lines) + "\n"
