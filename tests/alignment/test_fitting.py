import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mirror_analysis.alignment import (
    AlignmentConfig,
    LinearAlignment,
    align,
    align_seeds,
    info_nce,
    recall_at_k,
)
from mirror_analysis.alignment.descent import _initial, rate
from mirror_analysis.alignment.linear import Curve
from mirror_analysis.alignment.standardising import standardise
from mirror_analysis.errors import (
    DefinitionError,
    DegenerateError,
    DeviceError,
    PairingError,
    ShapeError,
    UnknownNameError,
)
from mirror_analysis.features import FeatureKey, Features, Index

QUICK = AlignmentConfig(width=16, steps=60, batch=32, check_every=5, learning_rate=1e-2, patience=3)


def views(count: int, *, related: bool = True, noise: float = 0.0, seed: int = 0):
    """Two linear views of four latent numbers, or of four each."""
    g = np.random.default_rng(seed)
    maps = np.random.default_rng(99)  # the same for fit, validation and test
    z = g.standard_normal((count, 4))
    x = z @ maps.standard_normal((4, 9)) + maps.standard_normal(9)
    z = z if related else g.standard_normal((count, 4))
    y = z @ maps.standard_normal((4, 6)) + maps.standard_normal(6)
    return x + noise * g.standard_normal(x.shape), y + noise * g.standard_normal(y.shape)


def fitted(config=QUICK, seed=0, **options):
    fit, validation = views(100, seed=1, **options), views(40, seed=2, **options)
    return align(*fit, *validation, config=config, seed=seed)


def same(left, right, **tolerance) -> None:
    for name in ("x_weight", "x_bias", "y_weight", "y_bias"):
        torch.testing.assert_close(getattr(left, name), getattr(right, name), **tolerance)


def test_a_linear_relation_is_found_and_none_is_not_invented():
    config = AlignmentConfig(width=32, steps=300, batch=64, learning_rate=3e-3)
    test = views(64, seed=3)
    assert recall_at_k(fitted(config).similarity(*test)) > 0.97
    unrelated = fitted(config, related=False).similarity(*views(64, seed=3, related=False))
    assert recall_at_k(unrelated) < 5 / 64  # chance is 1 / 64


def test_seeds_in_one_batch_are_as_if_fitted_alone():
    # With noise the seeds stop at different updates.
    fit, validation = views(50, seed=1, noise=2.0), views(30, seed=2, noise=2.0)
    seeds = [0, 7, 8, 9]
    together = align_seeds(*fit, *validation, config=QUICK, seeds=seeds)
    alone = [align(*fit, *validation, config=QUICK, seed=seed) for seed in seeds]
    assert len({a.curve.chosen for a in alone}) > 1
    for one, other in zip(together, alone, strict=True):
        same(one, other, rtol=1e-4, atol=1e-5)
        assert (one.curve.step, one.curve.chosen) == (other.curve.step, other.curve.chosen)
        assert one.curve.validation == pytest.approx(other.curve.validation, rel=1e-4)


def test_a_seed_fixes_the_fit_and_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = fitted(seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    same(fitted(seed=3), first, rtol=0, atol=0)
    assert not torch.equal(fitted(seed=4).x_weight, first.x_weight)


def test_the_update_that_is_best_on_validation_is_kept():
    fit, validation = views(40, seed=1, noise=2.0), views(40, seed=2, noise=2.0)
    aligned = align(*fit, *validation, config=QUICK)
    curve = aligned.curve
    best = int(np.argmin(curve.validation))
    assert curve.chosen == curve.step[best]
    assert best < len(curve.step) - 1  # it did overfit, and then
    assert len(curve.step) - 1 - best == QUICK.patience  # stopped
    kept = info_nce(
        aligned.embed_x(validation[0]),
        aligned.embed_y(validation[1]),
        temperature=QUICK.temperature,
    )
    assert float(kept) == pytest.approx(curve.validation[best], rel=1e-4)


def test_validation_is_looked_at_as_often_as_asked_and_at_the_end():
    config = AlignmentConfig(width=8, steps=12, batch=8, check_every=5)
    curve = fitted(config).curve
    assert curve.step == [5, 10, 12]
    assert len(curve.fit) == len(curve.validation) == 3


def test_the_last_batch_is_the_first_side_and_its_partners():
    # With one batch of all rows the loss does not depend on their order.
    config = AlignmentConfig(width=8, steps=1, batch=1000, learning_rate=1e-9)
    x, y = views(30, seed=1)
    curve = align(x, y, x, y, config=config).curve
    assert curve.fit == pytest.approx(curve.validation, rel=1e-4)


def test_standardisation_is_folded_in_exactly():
    x, _ = views(50, seed=1)
    x = 100 + x * np.geomspace(1, 20, 9)
    side = standardise(x, x[:10], name="x")
    g = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(9, 4, generator=g), torch.randn(4, generator=g)
    raw_weight, raw_bias = side.fold(weight, bias)
    raw = torch.from_numpy(x) @ raw_weight.double() + raw_bias.double()
    torch.testing.assert_close(raw, (side.fit @ weight + bias).double(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(side.fit.mean(0), torch.zeros(9), rtol=0, atol=1e-5)
    torch.testing.assert_close(side.fit.std(0, correction=0), torch.ones(9))
    torch.testing.assert_close(side.validation, side.fit[:10])
    folded = LinearAlignment(
        raw_weight, raw_bias, raw_weight, raw_bias, QUICK, Curve([1], [0.0], [0.0], 1)
    )
    unit = torch.nn.functional.normalize(side.fit @ weight + bias, dim=1)
    torch.testing.assert_close(folded.embed_x(x), unit, rtol=1e-3, atol=1e-4)


def test_the_unit_of_a_feature_does_not_matter():
    parts = [views(60, seed=1), views(30, seed=2), views(20, seed=3)]
    scale, shift = np.geomspace(0.5, 20, 9), np.linspace(-3, 3, 9)
    moved = [(x * scale + shift, y) for x, y in parts]
    plain = align(*parts[0], *parts[1], config=QUICK).similarity(*parts[2])
    changed = align(*moved[0], *moved[1], config=QUICK).similarity(*moved[2])
    np.testing.assert_allclose(changed, plain, atol=1e-3)


def test_a_nearly_dead_unit_is_not_blown_up():
    x, y = views(60, seed=1)
    x[:, 0] = 1e-9 * np.random.default_rng(0).standard_normal(60)
    side = standardise(x, x, name="x")
    assert float(side.fit[:, 0].abs().max()) < 1e-5
    x[:, 0] = 0.0
    assert torch.isfinite(align(x, y, x, y, config=QUICK).x_weight).all()


def test_what_cannot_be_fitted_is_refused():
    x, y = views(10)
    with pytest.raises(ShapeError, match="x has 10 fit and 5 validation rows but y has 9 and 5;"):
        align(x, y[:9], x[:5], y[:5])
    with pytest.raises(ShapeError, match=r"10 fit and 5 validation .* 10 and 4; pair"):
        align(x, y, x[:5], y[:4])
    with pytest.raises(ShapeError, match=r"y has shape \(10, 6\) and its validation \(5, 5\)"):
        align(x, y, x[:5], y[:5, :5])
    with pytest.raises(DegenerateError, match="1 fit and 5 validation pairs; a contrastive loss"):
        align(x[:1], y[:1], x[:5], y[:5])
    with pytest.raises(DegenerateError, match="10 fit and 1 validation pairs"):
        align(x, y, x[:1], y[:1])
    with pytest.raises(DegenerateError, match="no seeds to fit with; needed at least one"):
        align_seeds(x, y, x, y, seeds=[])


def test_constant_layers_and_nan_are_refused():
    x, y = views(10)
    constant = np.full((10, 3), 0.1)
    with pytest.raises(DegenerateError, match="x is constant over its 10 samples or not finite"):
        align(constant, y, constant, y)
    broken = y.copy()
    broken[3, 2] = np.nan
    with pytest.raises(DegenerateError, match=r"y is constant .* or not finite; choose another"):
        align(x, broken, x, y)
    with pytest.raises(DegenerateError, match=r"y is constant .* or not finite; choose another"):
        align(x, y, x, broken)


def test_a_fit_that_diverges_is_refused_not_returned_unfitted():
    config = AlignmentConfig(width=4, steps=6, check_every=3, learning_rate=1e30)
    x, y = views(10)
    text = r"not a number after 3 updates at a learning rate of 1e\+30; lower it"
    with pytest.raises(DegenerateError, match=text):
        align(x, y, x, y, config=config)


def test_rows_that_are_matched_wrongly_stay_at_chance():
    config = AlignmentConfig(width=32, steps=300, batch=64, learning_rate=3e-3)
    fit, validation = views(100, seed=1), views(40, seed=2)
    mixed = np.random.default_rng(0).permutation(100)
    found = align(fit[0], fit[1][mixed], *validation, config=config)
    assert recall_at_k(found.similarity(*views(64, seed=3))) < 6 / 64


# -- features and what counts as a partner --------------------------------------------------------


def features(count, *, seed, steps=1, noise=0.3):
    """Two models' features of episodes of six instructions; latents of an episode drift in time."""
    g, maps = np.random.default_rng(seed), np.random.default_rng(99)
    codes = maps.standard_normal((6, 4))
    kind = np.arange(count) % 6
    base = 2 * codes[kind] + g.standard_normal((count, 4))
    z = np.repeat(base, steps, 0) + 0.3 * g.standard_normal((count * steps, 4))
    ids = np.repeat([f"{seed}-{i}" for i in range(count)], steps)
    labels = {
        "instruction": np.repeat([f"do {k}" for k in kind], steps),
        "task": np.repeat([f"task {k % 2}" for k in kind], steps),
    }
    index = Index(ids, np.tile(np.arange(steps), count), labels)
    made = []
    for name, width in (("x", 9), ("y", 6)):
        values = z @ maps.standard_normal((4, width)) + noise * g.standard_normal((len(z), width))
        made.append(
            Features(FeatureKey(name, "0", name, "mean", "f"), values.astype(np.float32), index)
        )
    return made


def supcon(x, y, labels, temperature):
    """Khosla et al. 2020, eq. 2, in both directions, written slowly."""
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    total = 0.0
    for table in (x @ y.T / temperature, y @ x.T / temperature):
        for i, row in enumerate(table):
            log_share = row - np.log(np.exp(row).sum())
            total += -np.mean([log_share[j] for j in range(len(row)) if labels[j] == labels[i]])
    return total / 2 / len(x)


@pytest.mark.parametrize(("pairing", "batch"), [("instruction", 99), ("episode", 17), ("step", 9)])
def test_a_batch_counts_all_partners_in_it_as_positives(pairing, batch):
    x, y = features(12, seed=1, steps=3)
    held = features(6, seed=2, steps=2)
    config = AlignmentConfig(width=8, steps=1, batch=batch, learning_rate=1e-12, temperature=0.3)
    found = align(x, y, *held, pairing=pairing, config=config, seed=4)
    # The batch and the weights that the seed draws.
    g = [torch.Generator().manual_seed(4)]
    (w, b), (v, c) = _initial(9, 8, g), _initial(6, 8, g)
    rows = torch.randperm(36, generator=g[0])[:batch].numpy()
    labels = {"step": np.arange(36), "episode": x.index.episode}.get(pairing)
    labels = x.index.label("instruction") if labels is None else labels
    z = [
        ((side.values - side.values.mean(0)) / side.values.std(0)) @ weight[0].numpy()
        + bias[0].numpy()
        for side, weight, bias in ((x, w, b), (y, v, c))
    ]
    expected = supcon(z[0][rows], z[1][rows], labels[rows], 0.3)
    assert found.curve.fit[0] == pytest.approx(expected, rel=1e-4)
    labels = {"step": np.arange(12), "episode": held[0].index.episode}.get(pairing)
    labels = held[0].index.label("instruction") if labels is None else labels
    unit = found.embed_x(held[0].values).numpy(), found.embed_y(held[1].values).numpy()
    assert found.curve.validation[0] == pytest.approx(supcon(*unit, labels, 0.3), rel=1e-4)


def test_what_partners_share_is_what_is_found():
    x, y = features(120, seed=1, steps=2)
    test = features(60, seed=3)
    task = test[0].index.label("task")
    same_task = task[:, None] == task[None, :]
    config = AlignmentConfig(width=16, steps=100, batch=64, learning_rate=1e-2)
    tables = {
        name: align(x, y, pairing=name, config=config).similarity(*(s.values for s in test))
        for name in ("episode", "task")
    }
    by_task = {
        name: (table[same_task].mean() - table[~same_task].mean()) / table.std()
        for name, table in tables.items()
    }
    assert by_task["task"] > by_task["episode"] + 0.3
    recall = {name: recall_at_k(table) for name, table in tables.items()}
    assert recall["episode"] > 0.7 > 0.2 > recall["task"]


def test_labels_do_for_arrays_what_names_do_for_features():
    (x, y), held = features(12, seed=1), features(6, seed=2)
    by_name = align(x, y, *held, pairing="instruction", config=QUICK)
    labels = np.concatenate([x.index.label("instruction"), held[0].index.label("instruction")])
    arrays = [side.values for side in (x, y, *held)]
    same(align(*arrays, pairing=labels, config=QUICK), by_name, rtol=0, atol=0)
    same(align(*arrays, config=QUICK), align(x, y, *held, config=QUICK), rtol=0, atol=0)


def test_without_validation_rows_whole_episodes_of_every_task_are_held_out():
    x, y = features(30, seed=1, steps=3)
    found = align(x, y, config=QUICK)
    from mirror_analysis.alignment.pairing import hold_out, match

    fit, held = hold_out(match(x, y), 0.2)
    assert len(held) == 6 * 3 and not set(fit.episode) & set(held.episode)
    labels = np.concatenate([fit.episode, held.episode])
    again = align(fit.x, fit.y, held.x, held.y, pairing=labels, config=QUICK)
    same(found, again, rtol=0, atol=0)
    order = np.random.default_rng(0).permutation(90)
    same(align(x, y.take(order), config=QUICK), found, rtol=0, atol=0)


# -- temperature, schedule, seeds ------------------------------------------------------------------


def test_a_learned_temperature_is_learned_and_bounded():
    fit, validation = views(100, seed=1), views(40, seed=2)
    config = AlignmentConfig(
        width=16, steps=200, batch=32, learning_rate=0.1, learn_temperature=True, temperature=0.5
    )
    found = align(*fit, *validation, config=config)
    curve = found.curve
    assert len(curve.temperature) == len(curve.step)
    assert found.temperature == curve.temperature[curve.step.index(curve.chosen)] < 0.2
    assert min(curve.temperature) == pytest.approx(0.01, rel=1e-5)  # and not below
    kept = info_nce(
        found.embed_x(validation[0]), found.embed_y(validation[1]), temperature=found.temperature
    )
    held = curve.validation[curve.step.index(curve.chosen)]
    assert float(kept) == pytest.approx(held, rel=1e-3, abs=1e-5)
    # Where nothing is to be found the loss wants it warm.
    none = [views(n, seed=s, related=False) for n, s in ((100, 1), (40, 2))]
    slow = AlignmentConfig(
        width=16, steps=60, batch=99, learning_rate=1e-2, learn_temperature=True, temperature=0.02
    )
    assert align(*none[0], *none[1], config=slow).curve.temperature[-1] > 0.02
    assert not fitted().curve.temperature and fitted().temperature == 0.1


def test_a_seed_is_as_if_fitted_alone_with_everything_on():
    x, y = features(40, seed=1, steps=2, noise=2.0)
    config = AlignmentConfig(
        width=8, steps=60, batch=32, check_every=5, learning_rate=1e-2, patience=3,
        learn_temperature=True, schedule="cosine", warmup=7,
    )  # fmt: skip
    options = {"pairing": "instruction", "config": config}
    together = align_seeds(x, y, seeds=[0, 5, 6], **options)
    for seed, one in zip((0, 5, 6), together, strict=True):
        other = align(x, y, seed=seed, **options)
        same(one, other, rtol=1e-3, atol=1e-5)
        assert (one.curve.step, one.curve.chosen) == (other.curve.step, other.curve.chosen)
        assert one.curve.temperature == pytest.approx(other.curve.temperature, rel=1e-4)


def test_the_learning_rate_rises_and_falls_as_said():
    plain = AlignmentConfig(steps=10)
    assert {rate(step, plain) for step in range(1, 11)} == {1.0}
    config = AlignmentConfig(steps=12, warmup=4, schedule="cosine")
    rates = [rate(step, config) for step in range(1, 13)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[4:] == pytest.approx([(1 + np.cos(np.pi * k / 8)) / 2 for k in range(8)])
    assert rates[-1] > 0
    # An update is as large as its share: Adam's first one has the size of the learning rate.
    sizes = []
    for warmup in (0, 4):
        fit, validation = views(30, seed=1), views(30, seed=2)
        one = AlignmentConfig(width=4, steps=1, warmup=warmup, weight_decay=0.0, batch=30)
        start = AlignmentConfig(width=4, steps=1, weight_decay=0.0, batch=30, learning_rate=1e-12)
        moved, still = (align(*fit, *validation, config=c) for c in (one, start))
        sizes.append(float((moved.x_weight - still.x_weight).abs().max()))
    assert sizes[1] == pytest.approx(sizes[0] / 4, rel=1e-2)


PROGRAM = """
import sys
import torch
from torch import distributed
import test_fitting as test

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
for number, aligned in enumerate(test.shared_fits()):
    aligned.save(test.Path(folder) / f"{number}-{rank}.safetensors")
distributed.destroy_process_group()
"""


def shared_fits():
    """Two seeds with everything on, whose batches several processes may share."""
    x, y = features(20, seed=1, steps=2, noise=2.0)
    config = AlignmentConfig(
        width=8, steps=12, batch=16, check_every=4, learning_rate=1e-2, learn_temperature=True
    )
    return align_seeds(x, y, pairing="instruction", config=config, seeds=[0, 5])


def test_processes_that_share_batches_fit_what_one_process_fits(tmp_path):
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parents[1])])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(rank), str(tmp_path)],
            env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    for number, alone in enumerate(shared_fits()):
        first, second = (
            LinearAlignment.load(tmp_path / f"{number}-{rank}.safetensors") for rank in range(2)
        )
        same(first, second, rtol=0, atol=0)
        same(first, alone, rtol=1e-4, atol=1e-6)
        assert first.curve.fit == pytest.approx(alone.curve.fit, rel=1e-5)
        assert first.temperature == pytest.approx(alone.temperature, rel=1e-5)


@pytest.mark.parametrize("device", ["cuda"])
def test_a_gpu_gives_what_the_processor_gives(device):
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    fit, validation = views(100, seed=1, noise=1.0), views(40, seed=2, noise=1.0)
    config = AlignmentConfig(width=16, steps=20, batch=32, check_every=5)
    found = align(*fit, *validation, config=config, device=device)
    same(found, align(*fit, *validation, config=config), rtol=1e-2, atol=1e-4)


def test_rows_that_do_not_fit_together_are_refused():
    (x, y), held = features(12, seed=1), features(6, seed=2)
    with pytest.raises(PairingError, match="x has validation rows but y has none; give both, or"):
        align(x, y, held[0])
    with pytest.raises(PairingError, match="y has validation rows but x has none"):
        align(x, y, None, held[1])
    with pytest.raises(PairingError, match="arrays with labels of their own need validation rows"):
        align(x.values, y.values, pairing=np.arange(12) // 2)
    with pytest.raises(
        ShapeError, match=r"pairing has shape \(12,\); needed one label for each of"
    ):
        align(*(s.values for s in (x, y, *held)), pairing=np.arange(12) // 2)
    with pytest.raises(UnknownNameError, match="unknown label 'instructions'; did you mean 'instr"):
        align(x, y, pairing="instructions")
    with pytest.raises(DeviceError, match="device 'tpu' was asked for but is not there"):
        align(x, y, device="tpu")
    with pytest.raises(DegenerateError, match="every row is a partner of every other"):
        align(*(s.values for s in (x, y, x, y)), pairing=np.ones(24))
    with pytest.raises(
        DefinitionError, match=r"alignment held_out is 1\.0; needed a share between"
    ):
        AlignmentConfig(held_out=1.0)
