"""The three policies against what LeRobot's own gave for the same weights and streams."""

import itertools

import numpy as np
import pytest
import torch
from drawn import drawn

from mirror_analysis.models.recording.hooks import first_tensor

TOLERANCE = 1e-5  # of float32, relative to the largest value
CASES = [
    *itertools.product(
        ["act"],
        [
            "one camera",
            "two cameras, environment, pre-norm",
            "no camera, ensembling",
            "dilated bottlenecks",
        ],
    ),
    *itertools.product(
        ["diffusion"],
        [
            "DDPM, one camera, crop",
            "DDIM, two cameras, an encoder each",
            "DDIM, two cameras, one encoder, resized",
            "DDPM, environment, fewer steps",
        ],
    ),
    *itertools.product(["vqbet"], ["at once", "one after the other"]),
]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: " ".join(case))
def case(request, kit, tmp_path_factory):
    kind, name = request.param
    given = kit.reference(kind)["cases"][name]
    defaults = {"VISUAL": "MEAN_STD", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"}
    defaults |= {"STATE": "MIN_MAX", "ACTION": "MIN_MAX"} if kind != "act" else {}
    defaults |= {"VISUAL": "IDENTITY"} if kind == "vqbet" else {}
    config = given["config"] | {"normalization_mapping": defaults}
    folder = kit.write_folder(tmp_path_factory.mktemp(kind) / "folder", kind, config)
    return kind, given, kit.loaded(folder)


def expected(given, name):
    return np.array(given["expected"][name]).reshape(given["shapes"][name])


def fix_chance(kind, model, *, acting=False):
    """The random numbers the original was given, in the order of the rows."""
    frames = 1 if acting else 8
    if kind == "diffusion":
        shape = model.network.chance(0).shape
        noise = torch.from_numpy(drawn("noise", (frames, *shape))) * 2**0.5
        left = itertools.cycle(noise)
    elif kind == "vqbet":
        left = itertools.cycle(torch.from_numpy(drawn("chance", (frames, 2))).abs() % 1)
    else:
        return
    model.network.chance = lambda seed: next(left)


def test_plans_are_the_original_ones(case, kit):
    kind, given, model = case
    fix_chance(kind, model)
    outputs = {}

    def hook(name):
        return lambda module, inputs, output: outputs.setdefault(name, []).append(
            first_tensor(output).double()
        )

    handles = [model.taps()[name].register_forward_hook(hook(name)) for name in given["layers"]]
    with torch.inference_mode():
        plan = model.forward_batch(kit.episodes(model)).flatten(0, 1).numpy()
    for handle in handles:
        handle.remove()
    for name, calls in given["layers"].items():
        assert len(outputs[name]) == len(calls), name
        for x, sums in zip(outputs[name], calls, strict=True):
            found = [x.sum(), x.square().sum(), x.abs().max()]
            scale = [x.abs().sum(), x.square().sum(), x.abs().max()]
            for value, total, wanted_sum in zip(found, scale, sums, strict=True):
                assert abs(float(value) - wanted_sum) < TOLERANCE * float(total), name
    wanted = expected(given, "plan")
    plan = plan[:, : wanted.shape[1]]
    assert plan.shape == wanted.shape
    assert np.abs(plan - wanted).max() < TOLERANCE * np.abs(wanted).max()
    assert np.ptp(wanted, axis=0).max() > 0.05  # it does depend on what is seen


def test_acts_as_the_original_does(case, kit):
    kind, given, model = case
    fix_chance(kind, model, acting=True)
    wanted = expected(given, "acted")
    steps = len(wanted)
    for _ in range(2):  # and again after a reset
        model.reset()
        worlds = kit.episodes(model, count=2, time=steps)
        for step in range(steps):
            now = {n: np.stack([w.stream(n)[step] for w in worlds]) for n in model.inputs}
            action = model.act(now)
            assert np.abs(action - wanted[step]).max() < TOLERANCE * np.abs(wanted).max(), step


@pytest.mark.parametrize("kind", ["act", "diffusion", "vqbet"])
def test_reads_all_that_the_original_writes(kind, kit, tmp_path):
    given = next(iter(kit.reference(kind)["cases"].values()))
    own = kit.write_folder(tmp_path / "own", kind, given["stored"])
    names = {n: tuple(shape) for n, shape in given["tensors"].items()}
    needed = kit.tensors(own, kind)
    assert {n: tuple(t.shape) for n, t in needed.items()}.items() <= names.items()
    training = {n: torch.zeros(shape) for n, shape in names.items() if n not in needed}
    published = kit.write_folder(tmp_path / "published", kind, given["stored"], more=training)
    model = kit.loaded(published)
    assert model.weights_sha256 == kit.loaded(own).weights_sha256
    assert model.facts["licence" if given["stored"].get("license") else "family"]
