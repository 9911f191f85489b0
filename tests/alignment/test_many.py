import msgspec
import numpy as np
import pytest

from mirror_analysis.alignment import AlignmentConfig, align_many, align_seeds, recall_at_k
from mirror_analysis.alignment import many as module
from mirror_analysis.alignment.descent import descend
from mirror_analysis.errors import DegenerateError, DeviceError, UnknownNameError
from mirror_analysis.features import Index, Paired

CONFIG = AlignmentConfig(width=8, steps=20, batch=16, check_every=4, patience=2, learning_rate=1e-2)
TENSORS = ("x_weight", "x_bias", "y_weight", "y_bias")


def rows(count: int, seed: int) -> Paired:
    """Three layers a side, of two widths, which know more and less of what both sides share."""
    g, maps = np.random.default_rng(seed), np.random.default_rng(99)
    z = g.standard_normal((count, 4))
    layers = []
    for widths in ((7, 5, 7), (6, 6, 9)):
        side = {}
        for number, width in enumerate(widths):
            mixed = z @ maps.standard_normal((4, width))
            noise = (0.2, 1.0, 3.0)[number] * g.standard_normal((count, width))
            side[f"layer{number}"] = (mixed + noise).astype(np.float32)
        layers.append(side)
    ids = np.array([f"{seed}-{i}" for i in range(count)])
    task = np.array([f"task {i % 5}" for i in range(count)])
    return Paired(*layers, Index(ids, np.zeros(count, np.int64), {"task": task}))


FIT, HELD = rows(60, 1), rows(30, 2)


@pytest.mark.parametrize(
    ("pairing", "changes"),
    [
        ("episode", {"learning_rate": 0.1, "steps": 40}),
        ("task", {"learn_temperature": True, "schedule": "cosine"}),
    ],
    ids=["episode", "task"],
)
def test_every_pair_is_as_if_fitted_alone(pairing, changes):
    config = msgspec.structs.replace(CONFIG, **changes)
    found = dict(align_many(FIT, HELD, pairing=pairing, config=config, seeds=[0, 3]))
    assert sorted(found) == [(f"layer{i}", f"layer{j}") for i in range(3) for j in range(3)]
    chosen = set()
    labels = np.concatenate([part.index.label("task") for part in (FIT, HELD)])
    for (a, b), fits in found.items():
        parts = (FIT.x[a], FIT.y[b], HELD.x[a], HELD.y[b])
        alone = align_seeds(
            *parts, pairing=labels if pairing == "task" else "step", config=config, seeds=[0, 3]
        )
        for one, other in zip(fits, alone, strict=True):
            for name in TENSORS:
                np.testing.assert_allclose(
                    getattr(one, name), getattr(other, name), rtol=1e-3, atol=1e-5
                )
            assert (one.curve.step, one.curve.chosen) == (other.curve.step, other.curve.chosen)
            assert one.curve.validation == pytest.approx(other.curve.validation, rel=1e-4)
            chosen.add(one.curve.chosen)
    if pairing == "episode":
        assert len(chosen) > 1  # so that some had stopped while others went on


def test_pairs_of_equal_widths_run_together_within_the_memory(monkeypatch):
    sizes = []

    def counted(problems, **options):
        sizes.append(len(problems.cells))
        return descend(problems, **options)

    monkeypatch.setattr(module, "descend", counted)
    whole = dict(align_many(FIT, HELD, config=CONFIG))
    # Widths 7 and 5 meet 6 and 9: 2 x 2, 2 x 1, 1 x 2 and 1 x 1 layers.
    assert sorted(sizes) == [1, 2, 2, 4]
    sizes.clear()
    least = dict(align_many(FIT, HELD, config=CONFIG, memory=1))
    assert sizes == [1] * 9
    for layers, (one,) in whole.items():
        for name in TENSORS:
            np.testing.assert_allclose(
                getattr(one, name), getattr(least[layers][0], name), rtol=1e-3, atol=1e-5
            )
    x, y = FIT.x["layer0"], FIT.y["layer0"]
    held = HELD.x["layer0"], HELD.y["layer0"]
    sides = [module.standardise(*both, name="") for both in zip((x, y), held, strict=True)]
    each = module.bytes_of_fit(*sides, CONFIG)
    sizes.clear()
    list(align_many(FIT, HELD, config=CONFIG, memory=3 * each, seeds=[0]))
    assert max(sizes) in (2, 3)


def test_pairs_come_as_they_are_fitted(monkeypatch):
    calls = []
    monkeypatch.setattr(module, "descend", lambda *a, **k: (calls.append(1), descend(*a, **k))[1])
    fits = align_many(FIT, HELD, config=CONFIG, memory=1)
    assert calls == []
    next(fits)
    assert len(calls) == 1


def test_better_layers_are_found_better():
    config = msgspec.structs.replace(CONFIG, steps=150, patience=50)
    found = dict(align_many(rows(200, 1), HELD, config=config))
    test = rows(64, 3)
    recall = {
        layers: recall_at_k(fits[0].similarity(test.x[layers[0]], test.y[layers[1]]))
        for layers, fits in found.items()
    }
    assert recall["layer0", "layer0"] > 0.6 > 0.2 > recall["layer2", "layer2"]


def test_a_layer_that_cannot_be_fitted_is_told_and_stops_no_other():
    parts = []
    for part in (FIT, HELD):
        x = {**part.x, "layer1": np.full_like(part.x["layer1"], 2.0)}
        parts.append(Paired(x, part.y, part.index))
    for layers, fits in align_many(*parts, config=CONFIG):
        if layers[0] == "layer1":
            assert isinstance(fits, DegenerateError)
            assert "x is constant over its 60 samples" in str(fits)
        else:
            assert len(fits) == 1
    hot = msgspec.structs.replace(CONFIG, learning_rate=1e30)
    for _, fits in align_many(FIT, HELD, config=hot):
        assert isinstance(fits, DegenerateError) and "the fit diverged" in str(fits)


def test_what_cannot_be_fitted_at_all_is_refused_at_once():
    with pytest.raises(DegenerateError, match="no seeds to fit with; needed at least one"):
        align_many(FIT, HELD, seeds=[])
    with pytest.raises(DegenerateError, match="60 fit and 1 validation pairs; a contrastive loss"):
        align_many(FIT, HELD.take(np.arange(1)))
    with pytest.raises(UnknownNameError, match="unknown label 'tusk'; did you mean 'task'"):
        align_many(FIT, HELD, pairing="tusk")
    with pytest.raises(DeviceError, match="device 'tpu' was asked for but is not there"):
        align_many(FIT, HELD, device="tpu")
