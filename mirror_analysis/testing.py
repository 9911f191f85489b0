"""Contracts that plug-ins of other people can be held to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mirror_analysis.episodes.episode import Episode, Episodes
from mirror_analysis.errors import DegenerateError
from mirror_analysis.extraction import extract
from mirror_analysis.models.model import Input, Model
from mirror_analysis.similarity.measures import Layer, Measure, load_measure

_ROWS, _WIDTH = 60, 6

Matrix = NDArray[np.float64]


def check_measure(measure: str | Measure, *, seed: int = 0) -> None:
    """Holds a similarity measure to what it declares.

    Range, symmetry, each declared invariance, that a layer is as like itself as can be, that
    related layers stand above unrelated ones, chance where it is stated, that the null is the
    measure of permuted rows, and that a constant or too short layer is refused.

    Args:
        measure: a name out of `MEASURES`, or a measure.
        seed: of the random layers.

    Raises:
        AssertionError: naming the measure, what it declares and what it did.
        UnknownNameError: if there is no measure of that name.

    Example:
        >>> check_measure("linear_cka")
    """
    m = load_measure(measure)
    g = np.random.default_rng(seed)
    x = g.standard_normal((_ROWS, _WIDTH))
    y = x @ g.standard_normal((_WIDTH, 4)) + g.standard_normal((_ROWS, 4))
    value = _value(m, x, y)
    _expect(
        m.lowest - 1e-9 <= value <= m.highest + 1e-9,
        f"{m.name} declares the range [{m.lowest}, {m.highest}] but gave {value}",
    )
    own = _value(m, x, x)
    _expect(
        own > value, f"{m.name} of a layer with itself is {own}, not above {value} with another"
    )
    if m.symmetric:
        _same(m, "symmetry", value, _value(m, y, x))
    changes: dict[str, Callable[[Matrix], Matrix]] = {
        "rotation": lambda z: z @ np.linalg.qr(g.standard_normal((_WIDTH, _WIDTH)))[0],
        "scale": lambda z: 37.0 * z,
        "shift": lambda z: z + 100 * g.standard_normal(_WIDTH),
        "linear": lambda z: z @ (g.standard_normal((_WIDTH, _WIDTH)) + 3 * np.eye(_WIDTH)),
    }
    for name, change in changes.items():
        if name in m.invariances:
            _same(m, f"invariance to {name}", value, _value(m, change(x), y))
    order = g.permutation(_ROWS)
    _same(m, "independence of the order of rows", value, _value(m, x[order], y[order]))
    _check_null(m, x, y, g)
    for name, bad in {"constant": np.ones((_ROWS, 3)), "one-row": x[:1]}.items():
        try:
            given = _value(m, bad, y[: len(bad)])
        except DegenerateError:
            continue
        raise AssertionError(f"{m.name} gave {given} for a {name} layer; needed a DegenerateError")


def check_model(
    model: Model, *, pixels: tuple[int, int] = (64, 64), frames: int = 3, tolerance: float = 1e-4
) -> None:
    """Holds a model to what it declares, by running it over made-up episodes.

    Each declared layer runs and has its declared width; features are finite, the same when made
    again, and the same whichever episodes share a forward pass; pictures or states of another
    episode give other features; the model is left as it was found; its untrained twin has the same
    layers with other weights and other features, and the same seed gives the same twin.

    Args:
        model: what `load` of a family gave.
        pixels: (height, width) of the made-up pictures.
        frames: of each made-up episode.
        tolerance: relative to the largest value of a layer.

    Raises:
        AssertionError: naming the model, what it declares and what it did.

    Example:
        >>> check_model(load_model("reference-observation-s0"))
    """
    before = model.weights_sha256
    hooks = [len(module._forward_hooks) for module in model.module.modules()]
    names = [info.name for info in model.layers()]
    _expect(bool(names), f"{model.name} declares no layers")
    _expect(len(set(names)) == len(names), f"{model.name} declares a layer twice: {names}")
    _expect(
        set(names) <= set(model.taps()),
        f"{model.name} has no tap for {sorted(set(names) - set(model.taps()))}",
    )
    episodes = made_up(model.needs, count=3, pixels=pixels, frames=frames)
    whole, again = extract(model, episodes), extract(model, episodes)
    single = extract(model, episodes, batch_size=1)
    _expect(list(whole) == names, f"{model.name} declares {names} but gave {list(whole)}")
    for name, features in whole.items():
        size = float(np.abs(features.values).max()) or 1.0
        for what, other in (("made again", again), ("made one by one", single)):
            error = float(np.abs(other[name].values - features.values).max()) / size
            _expect(
                error <= tolerance,
                f"layer '{name}' of {model.name} {what} is off by {error:.2g} of its largest value",
            )
    last = whole[names[-1]].values
    _expect(
        bool(np.ptp(last, axis=0).any()),
        f"{model.name} gives every episode the same '{names[-1]}'; it does not see its inputs",
    )
    _expect(model.weights_sha256 == before, f"{model.name} changed its weights while it ran")
    _expect(
        [len(module._forward_hooks) for module in model.module.modules()] == hooks,
        f"{model.name} was left with hooks",
    )
    _check_twin(model, episodes, {name: f.values for name, f in whole.items()})


def _check_twin(model: Model, episodes: Episodes, trained: dict[str, NDArray[np.float32]]) -> None:
    twin, same = model.untrained(1), model.untrained(1)
    layers = [(i.name, i.width) for i in model.layers()]
    _expect(
        [(i.name, i.width) for i in twin.layers()] == layers,
        f"the untrained twin of {model.name} has other layers",
    )
    _expect(twin.name == f"{model.name}-untrained1", f"the twin is named '{twin.name}'")
    _expect(twin.inputs == model.inputs, f"the twin reads {twin.inputs}, not {model.inputs}")
    _expect(twin.weights_sha256 == same.weights_sha256, "one seed gave two different twins")
    _expect(
        twin.weights_sha256 not in (model.weights_sha256, model.untrained(2).weights_sha256),
        f"the untrained twin of {model.name} has its weights, or those of another seed",
    )
    found = extract(twin, episodes)
    _expect(
        any(not np.allclose(found[name].values, values) for name, values in trained.items()),
        f"the untrained twin of {model.name} has its features",
    )


def made_up(
    needs: Sequence[Input],
    *,
    count: int,
    pixels: tuple[int, int] = (64, 64),
    frames: int = 3,
    seed: int = 0,
) -> Episodes:
    """Episodes of noise that have just what a model needs.

    Args:
        needs: its inputs; a vector of any width gets 4 numbers.
        count: episodes.
        pixels: (height, width) of the pictures.
        frames: of each episode.
        seed: of the noise.
    """
    g = np.random.default_rng(seed)
    found = []
    for i in range(count):
        arrays: dict[str, NDArray[np.float32]] = {}
        pictures: dict[str, NDArray[np.uint8]] = {}
        for need in needs:
            kind, _, name = need.name.partition(":")
            if kind == "camera":
                # Pictures differ in brightness, too: noise alone looks alike to a network.
                low, high = sorted(g.integers(0, 256, 2).tolist())
                shape = (frames, *pixels, 3)
                pictures[name or "only"] = g.integers(low, high + 1, shape).astype(np.uint8)
            elif kind != "instruction":
                values = g.standard_normal((frames, need.width or 4)).astype(np.float32)
                arrays[name or kind] = values
        nothing = np.zeros((frames, 0), dtype=np.float32)
        found.append(
            Episode.from_frames(
                pictures,
                id=f"made-up-{i}",
                task="noise",
                instruction=("open the drawer", "close the door", "push the button")[i % 3],
                success=True,
                states=arrays.pop("states", nothing),
                actions=arrays.pop("actions", nothing),
                timestamps=np.arange(frames) / 10,
                steps=np.arange(frames),
                length=frames,
                extras=arrays,
            )
        )
    return Episodes(found)


def _check_null(m: Measure, x: Matrix, y: Matrix, g: np.random.Generator) -> None:
    a, b = _state(m, x), _state(m, y)
    orders = np.stack([g.permutation(_ROWS) for _ in range(200)])
    null = m.null([a], [b], torch.from_numpy(orders))
    shape = tuple(null.shape)
    _expect(shape == (200, 1, 1), f"{m.name}.null has shape {shape}; needed [draw, x, y]")
    draws = null[:, 0, 0].cpu().numpy()
    _same(m, "null of permuted rows", _value(m, x, y[orders[0]]), float(draws[0]))
    value = _value(m, x, y)
    _expect(
        value > float(np.quantile(draws, 0.99)),
        f"{m.name} gave {value} to related layers, not above the null of mean {draws.mean()}",
    )
    chance = m.chance(_ROWS)
    if chance is not None:
        error = 5 * float(draws.std()) / len(draws) ** 0.5
        _expect(
            abs(float(draws.mean()) - chance) < error,
            f"{m.name} declares chance {chance} but the null mean is {draws.mean()} ± {error}",
        )


def _state(m: Measure, values: Matrix) -> Any:
    return m.prepare(Layer("layer", torch.from_numpy(np.ascontiguousarray(values))))


def _value(m: Measure, x: Matrix, y: Matrix) -> float:
    return float(m.values([_state(m, x)], [_state(m, y)])[0, 0])


def _same(m: Measure, what: str, before: float, after: float) -> None:
    close = abs(before - after) <= 1e-7 * max(1.0, abs(before))
    _expect(close, f"{m.name} declares {what} but {before} became {after}")


def _expect(holds: bool, message: str) -> None:
    if not holds:
        raise AssertionError(message)
