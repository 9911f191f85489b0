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
from mirror_analysis.alignment.fitting import _standardise
from mirror_analysis.alignment.linear import Curve
from mirror_analysis.errors import DegenerateError, ShapeError

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
    side = _standardise(x, x[:10], "x")
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
    side = _standardise(x, x, "x")
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
