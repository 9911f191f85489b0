"""One target decoded from all layers: predictions, their measure, and what no relation gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from mirror_analysis.features import Index
from mirror_analysis.inference import p_max, p_value, q_values
from mirror_analysis.probing import evidence
from mirror_analysis.probing.decoded import Decoded
from mirror_analysis.probing.folds import Fold
from mirror_analysis.probing.settings import Probe
from mirror_analysis.probing.targets import Target
from mirror_analysis.results import Null, Parameter, Score

# Draws whose measure is taken at once.
_BLOCK = 8


class Run:
    """One target decoded from all layers."""

    def __init__(
        self,
        name: str,
        layers: Mapping[str, NDArray[Any]],
        index: Index,
        target: Target,
        settings: Probe,
        folds: list[Fold],
        progress: Callable[[int, int], None] | None,
    ) -> None:
        self.name, self.layers, self.index = name, layers, index
        self.target, self.settings, self.folds, self.told = target, settings, folds, progress
        self.tested = np.sort(np.concatenate([fold.test for fold in folds]))
        tested = index.take(self.tested)
        self.held = "episode" if settings.held_out == "split" else settings.held_out
        self.unit = tested.episode if self.held == "episode" else tested.label(self.held)
        self.test_index = tested

    def decoded(self) -> Decoded:
        """All layers."""
        orders = self._orders()
        labelled = self.target.values[None]
        if orders is not None and self.settings.null == "refit":
            labelled = np.concatenate([labelled, self.target.values[orders]])
        predictions = self._predictions(labelled)
        values, nulls, scores = {}, {}, []
        replicates: dict[str, NDArray[np.float64]] = {}
        of_episodes, told = {}, {}
        groups = evidence.jackknife_groups(self.unit, self.settings.seed)
        episodes, episode = np.unique(self.test_index.episode, return_inverse=True)
        for layer, found in predictions.items():
            if found.constant is not None:
                continue
            parts = self._parts(found.values[:1, self.tested], labelled[:1])
            own = evidence.Parts(parts.over[0], parts.under[0], parts.inverted)
            values[layer] = float(own.value())
            replicates[layer] = own.replicates(groups)
            of_episodes[layer] = own.of_units(episode)
            told[layer] = self._named(found.values[0, self.tested])
            if orders is not None:
                nulls[layer] = self._null(found.values, labelled, orders)
        p_each, p_best, q_each = _corrected(values, nulls)
        for layer, found in predictions.items():
            score = self._score(layer, found.chosen)
            if layer not in values:
                reason = f"layer '{layer}' does not vary over the fit rows of fold {found.constant}"
                scores.append(msgspec.structs.replace(score, undefined=reason))
                continue
            interval = evidence.interval_of(
                values[layer], replicates[layer], score.n,
                share=self.target.kind == "classification", unit=self.held,
            )  # fmt: skip
            scores.append(
                msgspec.structs.replace(
                    score,
                    value=values[layer],
                    interval=interval,
                    null=self._as_null(nulls.get(layer)),
                    p_value=p_each.get(layer),
                    p_max=p_best.get(layer),
                    q_value=q_each.get(layer),
                )
            )
        return Decoded(
            tuple(scores), self.test_index, self._named(self.target.values[self.tested]), told,
            episodes, of_episodes, replicates,
        )  # fmt: skip

    def _predictions(self, labelled: NDArray[Any]) -> dict[str, Any]:
        from mirror_analysis.probing.nested import (
            knn_predictions,
            logistic_predictions,
            ridge_predictions,
        )

        classes = len(self.target.classes)
        if self.settings.estimator == "logistic":
            found = logistic_predictions(
                list(self.layers.values()), labelled[0], self.folds,
                classes=classes, probe=self.settings, told=self.told,
            )  # fmt: skip
            return dict(zip(self.layers, found, strict=True))
        out = {}
        for number, (layer, x) in enumerate(self.layers.items()):
            if self.settings.estimator == "ridge":
                out[layer] = ridge_predictions(x, labelled, self.folds, probe=self.settings)
            else:
                out[layer] = knn_predictions(
                    x, labelled, self.folds, classes=classes, probe=self.settings
                )
            if self.told is not None:
                self.told(number + 1, len(self.layers))
        return out

    def _orders(self) -> NDArray[np.int64] | None:
        """Orders of all rows for a null by refitting, of test rows for one by labels."""
        if self.settings.null == "chance":
            return None
        groups = []
        fold_of = np.full(len(self.index), -1)
        for number, fold in enumerate(self.folds):
            fold_of[fold.test] = number
        if self.settings.null == "labels" or self.settings.held_out == "split":
            # A test row trades with test rows of its fold, whatever the rest does.
            groups.append(fold_of)
        if self.settings.within:
            groups.append(self.index.label(self.settings.within))
        return evidence.orders(
            self.target.values,
            self.index.episode,
            groups,
            draws=self.settings.draws,
            seed=self.settings.seed,
        )

    def _parts(self, predicted: NDArray[Any], labelled: NDArray[Any]) -> evidence.Parts:
        center = np.empty(0)
        if self.target.kind == "regression":
            center = evidence.centers(labelled, self.folds)[:, self.tested]
        return evidence.parts_of(
            self.target, predicted, labelled[:, self.tested], center,
            balanced=self.settings.balanced,
        )  # fmt: skip

    def _null(
        self, predicted: NDArray[Any], labelled: NDArray[Any], orders: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        refit = self.settings.null == "refit"
        out = []
        for begin in range(0, len(orders), _BLOCK):
            part = slice(begin + 1, begin + 1 + _BLOCK)
            drawn = labelled[part] if refit else self.target.values[orders[begin : begin + _BLOCK]]
            guess = predicted[part] if refit else predicted[:1]
            out.append(self._parts(guess[:, self.tested], drawn).value())
        return np.concatenate(out)

    def _named(self, values: NDArray[Any]) -> NDArray[Any]:
        return np.array(self.target.classes)[values] if self.target.classes else values

    def _as_null(self, drawn: NDArray[np.float64] | None) -> Null:
        if drawn is None:
            what = "commonest class" if self.target.classes else "mean"
            return Null(self._chance(), 0.0, 0, f"{what} of the fit rows")
        scheme = "episodes" + (f" within {self.settings.within}" if self.settings.within else "")
        if self.settings.null == "refit":
            scheme += ", fitted again"
        else:
            scheme += " of a fold, predictions kept"
        return Null(float(drawn.mean()), float(drawn.std(ddof=1)), len(drawn), scheme)

    def _chance(self) -> float:
        """The measure of what knows no features."""
        if not self.target.classes:
            return 0.0
        guess = evidence.commonest(np.asarray(self.target.values), self.folds)
        return float(self._parts(guess[None, self.tested], self.target.values[None]).value()[0])

    def _score(self, layer: str, chosen: NDArray[np.float64]) -> Score:
        s, target = self.settings, self.target
        parameters: dict[str, Parameter] = {
            "estimator": s.estimator,
            "held_out": s.held_out,
            "folds": len(self.folds),
            "rows": len(self.tested),
            "features": self.layers[layer].shape[1],
        }
        if target.classes:
            parameters |= {"classes": len(target.classes), "chance": self._chance()}
        kind = "neighbours" if s.estimator == "knn" else "strength"
        parameters[kind] = float(np.median(chosen))
        measure = "probe_r2" if target.kind == "regression" else "probe_accuracy"
        if s.balanced and target.classes:
            measure = "probe_balanced_accuracy"
        note = ""
        if s.estimator != "knn" and len(grid := s.penalties(s.estimator)) > 1:
            edge = int(np.isin(chosen, [grid[0], grid[-1]]).sum())
            if 2 * edge > len(chosen):
                note = f"In {edge} of {len(chosen)} folds the strength chosen ends its grid."
        return Score(
            measure, None, x=self.name, y=target.name, n=len(np.unique(self.unit)),
            x_layer=layer, parameters=parameters, note=note,
        )  # fmt: skip


def _corrected(
    values: Mapping[str, float], nulls: Mapping[str, NDArray[np.float64]]
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """Own p of each layer, p over the maximum of layers, and false discovery rate."""
    if not nulls:
        return {}, {}, {}
    names = list(nulls)
    observed, drawn = np.array([values[n] for n in names]), np.stack(list(nulls.values()), axis=1)
    each = p_value(observed, drawn)
    return tuple(  # type: ignore[return-value]
        dict(zip(names, found.tolist(), strict=True))
        for found in (each, p_max(observed, drawn), q_values(each))
    )
