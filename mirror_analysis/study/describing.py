"""What a result says of itself besides its numbers: names, data, seeds, checksums, notes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from mirror_analysis.definitions import StudyDefinition
from mirror_analysis.models.model import Model
from mirror_analysis.models.reference.family import ReferenceExecution
from mirror_analysis.models.reference.networks import TRUNK
from mirror_analysis.study.contrasts import Contrast
from mirror_analysis.study.material import Material


def display_names(definition: StudyDefinition, material: Material) -> dict[str, str]:
    """What to call either side, such as "observation model (reference-observation)"."""
    x, y = _first(definition, material)
    names = {
        "x": f"{x.role} model ({definition.models.x})",
        "y": f"{y.role} model ({definition.models.y})",
    }
    if names["x"] != names["y"]:
        return names
    return {"x": f"first {names['x']}", "y": f"second {names['y']}"}


def as_it_ran(definition: StudyDefinition, *, collected: bool) -> dict[str, object]:
    """The definition as plain values, without what it says of episodes and seeds that were given.

    Args:
        definition: of the study.
        collected: whether episodes and models are the ones it describes.
    """
    table: dict[str, object] = msgspec.to_builtins(definition)
    if not collected:
        table.pop("episodes")
        models = msgspec.to_builtins(definition.models)
        table["models"] = {key: value for key, value in models.items() if key != "seeds"}
    return table


def seeds(definition: StudyDefinition, *, collected: bool) -> dict[str, list[int]]:
    """Every seed by purpose."""
    known = {
        "alignment": list(definition.alignment.probe_seeds),
        "nuisance": [definition.nuisance.seed],
    }
    if collected:
        known |= {
            "training": list(definition.models.seeds),
            "fit episodes": [definition.episodes.seed_fit],
            "test episodes": [definition.episodes.seed_test],
        }
    return known


def inputs(definition: StudyDefinition, material: Material) -> dict[str, str]:
    """Digests of the weights of every model and of the episodes; no two share a name."""
    found: dict[str, str] = {}
    for side in "xy":
        for seed in definition.models.seeds:
            model = material.model(side, seed)
            taken = found.get(model.name, model.weights_sha256) != model.weights_sha256
            found[f"second {model.name}" if taken else model.name] = model.weights_sha256
    return found | {"episodes": material.plain.fingerprint}


def data(material: Material) -> dict[str, object]:
    """How many episodes of which kind, of which tasks."""
    labels = material.plain.labels()
    counts: dict[str, object] = {}
    for split in ("fit", "test"):
        for outcome, won in (("successes", True), ("failures", False)):
            # As in the fit: whatever is not tested on is fitted on.
            chosen = (labels["split"] == "test") == (split == "test")
            mask = chosen & (labels["success"].astype(bool) == won)
            counts[f"{split} {outcome}"] = int(mask.sum())
    ids = "\n".join(sorted(episode.id for episode in material.plain))
    return counts | {
        "tasks": sorted(set(labels["task"].tolist())),
        "instructions": len(set(labels["instruction"].tolist())),
        "episode ids sha256": hashlib.sha256(ids.encode()).hexdigest(),
    }


def nuisance(definition: StudyDefinition, material: Material) -> str:
    """What nuisance is and whom it reaches, in words."""
    if _shared_cameras(definition, material):
        return "nuisance in the one view that both see"
    models = _first(definition, material)
    seeing = [m.name for m, side in zip(models, "xy", strict=True)
              if material.cameras(side, definition.models.seeds[0])]  # fmt: skip
    if len(seeing) == 1:
        return f"nuisance in the view of {seeing[0]}, the only one that sees"
    return "independent nuisance in the two views"


def _shared_cameras(definition: StudyDefinition, material: Material) -> list[str]:
    x, y = (material.cameras(side, definition.models.seeds[0]) for side in "xy")
    return [camera for camera in x if camera in y]


def notes(
    definition: StudyDefinition, material: Material, contrasts: Sequence[Contrast]
) -> list[str]:
    """What a reader must know, one sentence or two each.

    Args:
        definition: of the study.
        material: episodes and models.
        contrasts: those that were measured.
    """
    m = definition.models
    by_role = {
        role: ", ".join(c.key for c in contrasts if c.role == role)
        for role in ("control", "reference")
    }
    made = [
        f"The layer pair {m.x_layer} and {m.y_layer} was chosen before looking."
        + "".join(
            _felt(model, layer)
            for model, layer in zip(
                _first(definition, material), (m.x_layer, m.y_layer), strict=True
            )
        ),
        "Matched controls see what the declared layers see and have not learned both sides of what"
        f" is compared: {by_role['control']}. The excess is taken over the largest of them.",
        "References are told what those layers would have to find out from pixels, such as the"
        " exact state, or are the trained pair with its fit pairs mixed; they set the scale:"
        f" {by_role['reference']}.",
        "Numbers without a training seed are means over training seeds, initialisations and seeds"
        " of the fit; their p is the largest of those averaged.",
        "Intervals hold for new episodes; with several training seeds, for new seeds too.",
    ]
    if _shared_cameras(definition, material):
        made.append(
            f"Both models read the camera {', '.join(_shared_cameras(definition, material))}, so"
            " nuisance is the same for both and may itself be what they agree on."
        )
    for side, model in zip("xy", _first(definition, material), strict=True):
        streams = material.streams(side, m.seeds[0])
        if not material.cameras(side, m.seeds[0]):
            made.append(
                f"{model.name} reads no camera but {', '.join(streams.values())}: its control in"
                " place of pixels is the mean of these, and nuisance of pictures does not reach it."
            )
        elif len(material.cameras(side, m.seeds[0])) > 1:
            made.append(
                f"{model.name} reads several cameras; its pixels are those of"
                f" {material.cameras(side, m.seeds[0])[0]}."
            )
        renamed = [f"{name} reads {to}" for name, to in streams.items() if name != to]
        if renamed:
            made.append(f"Of the inputs of {model.name}, {', '.join(renamed)}.")
    if definition.episodes.test_failures:
        made.append(
            "Where models were trained on successes only, as the reference pair was, failures are"
            " also less familiar to them; the difference of differences does not tell the two"
            " apart."
        )
    if len(m.seeds) == 1:
        made.append(
            "There is one checkpoint of each model: intervals know nothing of how training seeds"
            " differ."
        )
    return made


def _first(definition: StudyDefinition, material: Material) -> tuple[Model, Model]:
    seed = definition.models.seeds[0]
    return material.model("x", seed), material.model("y", seed)


def _felt(model: Model, layer: str) -> str:
    if not isinstance(model, ReferenceExecution):
        return ""
    if layer in (*TRUNK, "vision"):
        return f" The layer {layer} of {model.name} has seen pixels only: proprioception joins" + (
            " after it."
        )
    return f" The layer {layer} of {model.name} has proprioception in it, too."
