"""Puts a trained model into the catalogue: its weights, and a definition with what was measured.

    python scripts/bundle.py WEIGHTS --episodes DIR --made-by "COMMAND" [--rollouts 20]

Observation models are measured on held-out episodes, plain and under nuisance; execution models in
closed loop, plain and under nuisance.
"""

from __future__ import annotations

import argparse
import json
import shutil
from datetime import date
from pathlib import Path

from mirror_analysis.episodes import Nuisance, apply_nuisance, load_episodes
from mirror_analysis.files.safetensors import read_safetensors
from mirror_analysis.models import load_model
from mirror_analysis.models.model import Model
from mirror_analysis.provenance import sha256_file
from mirror_analysis.recognition import recognise
from mirror_analysis.rollout import rollout

CATALOGUE = Path(__file__).resolve().parent.parent / "checkpoints"


def main() -> None:
    """Measures, copies, and writes the definition."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--episodes", required=True, help="held-out episodes")
    parser.add_argument("--made-by", required=True, help="the commands that made the weights")
    parser.add_argument("--rollouts", type=int, default=17, help="per task, on plain views")
    parser.add_argument("--disturbed", type=int, default=6, help="per task, under nuisance")
    parser.add_argument("--seed", type=int, default=404, help="of the roll-outs' environments")
    given = parser.parse_args()
    model = load_model(given.weights)
    measure = _recognition if model.role == "observation" else _success
    metrics = measure(model, given)
    file = CATALOGUE / "weights" / given.weights.name
    file.parent.mkdir(exist_ok=True)
    shutil.copyfile(given.weights, file)
    (CATALOGUE / f"{model.name}.toml").write_text(
        _definition(model, file, metrics, given.made_by), encoding="utf-8"
    )
    print(f"{model.name}: {metrics}")


def _recognition(model: Model, given: argparse.Namespace) -> dict[str, float]:
    plain = load_episodes(given.episodes)
    disturbed = apply_nuisance(plain, Nuisance())
    return {
        f"instruction accuracy, {condition}": _value(recognise(model, seen)[-1].value)
        for condition, seen in (("plain", plain), ("nuisance", disturbed))
    } | {"episodes": len(plain)}


def _success(model: Model, given: argparse.Namespace) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for condition, nuisance, episodes in (
        ("plain", None, given.rollouts),
        ("nuisance", Nuisance(), given.disturbed),
    ):
        if not episodes:
            continue
        scores = rollout(given.weights, episodes=episodes, seed=given.seed, nuisance=nuisance)
        metrics[f"closed-loop success, {condition}"] = _value(scores[-1].value)
        metrics[f"episodes, {condition}"] = scores[-1].n
        if nuisance is None:
            metrics |= {f"closed-loop success, {s.y}": _value(s.value) for s in scores[:-1]}
    return metrics


def _value(value: float | None) -> float:
    assert value is not None
    return round(value, 4)


def _definition(model: Model, file: Path, metrics: dict[str, float], made_by: str) -> str:
    _, header = read_safetensors(file)
    training = json.loads(header["training"])
    camera = model.cameras[0].partition(":")[2]
    does = {
        "observation": "Recognises 36 instructions of 18 Meta-World tasks",
        "execution": "Acts in 18 Meta-World tasks from pixels and proprioception",
    }[model.role]
    fields: dict[str, object] = {
        "name": model.name,
        "summary": f"{does}, camera {camera}, training seed {training['seed']}.",
        "role": model.role,
        "family": "reference",
        "file": f"weights/{file.name}",
        "sha256": sha256_file(file),
        "size_bytes": file.stat().st_size,
        "parameters": sum(p.numel() for p in model.module.parameters()),
        "seed": training["seed"],
        "license": "Apache-2.0",
        "source": made_by,
        "trained": date.fromisoformat(header["trained"]),
        "commit": header["commit"],
        "data": header["episodes"],
        "layers": [info.name for info in model.layers()],
        "inputs": list(model.inputs),
        "camera": camera,
    }
    lines = [f"{key} = {_toml(value)}" for key, value in fields.items()]
    table = [f"{json.dumps(key)} = {_toml(float(value))}" for key, value in metrics.items()]
    return "\n".join([*lines, "", "[metrics]", *table]) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    main()
