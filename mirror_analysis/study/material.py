"""Episodes and features of a study: collected once, extracted once, found again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, cached_property, partial
from pathlib import Path

from mirror_analysis import controls
from mirror_analysis.definitions import EpisodesSection
from mirror_analysis.episodes import Episode, Episodes
from mirror_analysis.episodes.nuisance import Nuisance, apply_nuisance
from mirror_analysis.errors import ShapeError, UnknownNameError
from mirror_analysis.extraction import extract
from mirror_analysis.features import Layers, Paired, pair
from mirror_analysis.models.model import Model
from mirror_analysis.models.reference.family import ReferenceExecution
from mirror_analysis.store import FeatureStore
from mirror_analysis.streams import resolve
from mirror_analysis.study.contrasts import Contrast, Raw, Source, contrasts

Progress = Callable[[str, int, int], None]
"""Called with (stage in words, done, total)."""


class Material:
    """What a study measures, by condition, source and seed.

    Args:
        episodes: with the labels split ("fit" or "test"), task and success.
        models: gives the trained model of a side ("x" or "y") and training seed.
        nuisance: of the condition "nuisance".
        store: folder where features are kept.
        device: where models run.
        progress: told of extraction.
        streams: side -> model input -> stream of the episodes, where names differ.

    Raises:
        StreamError: once a model is asked for that the episodes do not fit.
    """

    def __init__(
        self,
        episodes: Episodes,
        models: Callable[[str, int], Model],
        *,
        nuisance: Nuisance,
        store: Path,
        device: str,
        progress: Progress,
        streams: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self._given = streams or {}
        self.plain, self.model = episodes, models
        self._weights = cache(lambda model: model.weights_sha256)
        self._twin = cache(self._untrained)
        self.device = device
        self._nuisance, self._store, self._progress = nuisance, FeatureStore(store), progress
        self._layers: dict[tuple[str, str, str], Layers] = {}

    @cached_property
    def disturbed(self) -> Episodes:
        """The same episodes under nuisance of each view's own."""
        return apply_nuisance(self.plain, self._nuisance)

    def episodes(self, condition: str) -> Episodes:
        """Episodes of a condition, "plain" or "nuisance"."""
        return self.plain if condition == "plain" else self.disturbed

    def pair(self, contrast: Contrast, condition: str, seed: int, draw: int) -> Paired:
        """Both sides of a contrast over all episodes of a condition, rows matched."""
        x = self.layers("x", contrast.x, condition, seed, draw)
        y = self.layers("y", contrast.y, condition, seed, draw)
        return pair(x, y)

    def layers(self, side: str, source: Source, condition: str, seed: int, draw: int) -> Layers:
        """Features of one side, all layers."""
        episodes = self.episodes(condition)
        if source in ("trained", "untrained"):
            trained = source == "trained"
            model = self.model(side, seed) if trained else self._twin(side, seed, draw)
            # Two files may give their models the same name.
            return self._remember(
                model.name,
                condition,
                lambda: self._extract(model, side, condition),
                weights=self._weights(model),
            )
        if source == "pixels":
            (camera, *_) = self.cameras(side, seed)
            name = f"pixels {camera}"
            return self._remember(name, condition, lambda: controls.pixels(episodes, camera))
        if source == "input":
            given = list(self.streams(side, seed).values())
            vectors = [name for name in given if name != "instruction"]
            name = f"input {', '.join(vectors)}"
            return self._remember(name, condition, lambda: controls.inputs(episodes, vectors))
        if source == "task identity":
            return self._remember(source, condition, lambda: controls.identity(episodes, "task"))
        described = {
            "proprioception": controls.proprioception,
            "state": controls.state,
            "time": controls.time,
        }[source]
        return self._remember(source, condition, lambda: described(episodes))

    def streams(self, side: str, seed: int) -> dict[str, str]:
        """The stream of the episodes that each input of a side's model reads."""
        model = self.model(side, seed)
        return resolve(model.name, model.needs, self.plain.streams, self._given.get(side))

    def cameras(self, side: str, seed: int) -> tuple[str, ...]:
        """Cameras of the episodes that a side's model reads."""
        split = (stream.partition(":") for stream in self.streams(side, seed).values())
        return tuple(name for kind, _, name in split if kind == "camera")

    def contrasts(self, seed: int) -> tuple[Contrast, ...]:
        """What the episodes and models allow to be measured."""
        raw: dict[str, Raw] = {
            side: "pixels" if self.cameras(side, seed) else "input" for side in "xy"
        }
        given = [set(self.streams(side, seed).values()) - {"instruction"} for side in "xy"]
        every = contrasts(raw["x"], raw["y"], same_input=given[0] == given[1])
        return tuple(c for c in every if self.has(c.x, "x", seed) and self.has(c.y, "y", seed))

    def has(self, source: Source, side: str, seed: int) -> bool:
        """Whether models and episodes carry what a source is made from."""
        if source == "input":
            return bool(set(self.streams(side, seed).values()) - {"instruction"})
        if source not in ("state", "proprioception"):
            return True
        if source == "proprioception" and not any(
            isinstance(self.model(s, seed), ReferenceExecution) for s in "xy"
        ):
            return False
        if source == "state" and set(self.streams(side, seed).values()) == {"states"}:
            return False  # it is the model's whole input, and as such a control
        widths = {episode.states.shape[1] for episode in self.plain}
        if len(widths) != 1 or widths == {0}:
            return False
        try:
            if source == "proprioception":
                controls.proprioception(self.plain)
        except ShapeError:
            return False
        return True

    def _remember(
        self, name: str, condition: str, make: Callable[[], Layers], *, weights: str = ""
    ) -> Layers:
        key = name, weights, condition
        if key not in self._layers:
            self._layers[key] = make()
        return self._layers[key]

    def _untrained(self, side: str, seed: int, draw: int) -> Model:
        # Seeds of twins must differ between sides, training seeds and draws.
        return self.model(side, seed).untrained(10_000 * (side == "y") + 100 * (seed + 1) + draw)

    def _extract(self, model: Model, side: str, condition: str) -> Layers:
        stage = f"extracting {model.name} ({condition} views)"
        return extract(
            model,
            self.episodes(condition),
            device=self.device,
            streams=self._given.get(side),
            store=self._store,
            progress=lambda p: self._progress(stage, p.done, p.total),
        )


def require_layer(model: Model, name: str) -> None:
    """Makes sure that a model has a layer.

    Raises:
        UnknownNameError: if it has not.
    """
    known = [info.name for info in model.layers()]
    if name not in known:
        raise UnknownNameError(f"layer of {model.name}", name, known)


def collect_episodes(section: EpisodesSection, folder: Path, progress: Progress) -> Episodes:
    """The fit and test episodes a study asks for, collected or found again."""
    from mirror_analysis.episodes.metaworld import TASKS, collect

    parts: list[Episode] = []
    for split, seed, successes, failures in (
        ("fit", section.seed_fit, section.fit_successes, section.fit_failures),
        ("test", section.seed_test, section.test_successes, section.test_failures),
    ):
        parts += collect(
            folder / split,
            tasks=tuple(section.tasks) or tuple(TASKS),
            successes=successes,
            failures=failures,
            seed=seed,
            split=split,
            frames=section.frames,
            size=section.size,
            progress=partial(progress, f"collecting {split} episodes, by task"),
        )
    return Episodes(parts)
