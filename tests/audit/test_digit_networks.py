"""Layers of trained networks find their counterparts, and deleted components are felt."""

import numpy as np
import pytest
import torch

from mirror_analysis import comparison
from mirror_analysis.audit import deletion, identification
from mirror_analysis.audit.digit_networks import digits, train


@pytest.fixture(scope="module")
def network():
    return train(0, epochs=2)


@pytest.fixture
def once(monkeypatch, network):
    """Every seed gives the same network, turned by a permutation of its features."""

    def turned(seed, *, epochs):
        g = np.random.default_rng(seed)
        return type(network)(
            tuple(h[:, g.permutation(h.shape[1])] for h in network.layers), network.pooled, 0.95
        )

    for module in (identification, deletion):
        monkeypatch.setattr(module, "train", turned)


def test_training_is_repeatable_and_leaves_the_global_seed_alone(network):
    before = torch.get_rng_state()
    assert network.accuracy > 0.5 and len(network.layers) == len(network.pooled) == 6
    assert torch.equal(torch.get_rng_state(), before)
    pictures, labels, learnt = digits()
    assert len(pictures) == len(labels) == 1797 and learnt == 1200
    assert network.layers[0].shape == (1797, 32 * 64) and network.pooled[5].shape == (1797, 64)


def test_layers_of_equal_networks_are_identified(once):
    checks = identification.identify(("linear_cka", "svcca"), 2, 1, 0)
    by_name = {check.name: check for check in checks}
    assert by_name["linear_cka: layers identified"].measured == 1
    assert by_name["linear_cka: layers identified"].passed
    assert "12 layers, chance 0.17" in by_name["linear_cka: layers identified"].note
    assert by_name["svcca: layers identified"].passed is None


def test_a_measure_that_tells_no_layers_apart_is_a_miss(once, monkeypatch):
    right = comparison.compare

    def shuffled(x, y, **options):
        names = list(y)
        return right(x, dict(zip(names, [y[n] for n in reversed(names)], strict=True)), **options)

    monkeypatch.setattr(comparison, "compare", shuffled)
    checks = identification.identify(("linear_cka", "svcca"), 2, 1, 0)
    assert next(c for c in checks if c.name == "linear_cka: layers identified").passed is False


def test_components_are_deleted_from_the_last_and_probed(network):
    reduced = deletion._reduced(network.pooled[3], (1, 8))
    (one, poor), (_, better), (whole, best) = reduced
    assert poor < better <= best + 0.02 and best > 0.8
    assert np.linalg.matrix_rank(one - one.mean(axis=0)) == 1
    centred = network.pooled[3].astype(np.float64)
    centred -= centred.mean(axis=0)
    assert whole == pytest.approx(centred[1200:], abs=1e-9)


def test_dissimilarity_is_ranked_against_lost_accuracy(once, monkeypatch):
    monkeypatch.setattr(
        deletion, "_MEASURES", {"linear_cka": {}, "linear_cka, biased": {"debiased": False}}
    )
    monkeypatch.setattr(deletion, "_HIGHER", ("linear_cka, biased",))
    checks = {c.name: c for c in deletion.delete(1, (3,), (1, 3, 6, 10), 0)}
    assert checks["linear_cka: Spearman, lost accuracy"].measured > 0.8
    above = checks["linear_cka, biased: Spearman above linear_cka"]
    assert above.low == 0 and above.measured == pytest.approx(0, abs=0.3)
    assert "Kendall" in checks["linear_cka, biased: Spearman, lost accuracy"].note
