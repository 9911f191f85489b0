import pytest
import torch

from mirror_analysis.models.lerobot.scaling import NEEDED, Scaling

X = torch.tensor([[1.0, -2.0, 5.0]])
LOW, HIGH = torch.tensor([-1.0, 0.5, 2.0]), torch.tensor([3.0, 1.5, 8.0])


@pytest.mark.parametrize("mode", NEEDED)
def test_the_inverse_undoes_it(mode):
    scaling = Scaling(mode, LOW, HIGH)
    assert torch.allclose(scaling.inverse(scaling(X)), X, atol=1e-5)


def test_mean_and_deviation():
    assert torch.allclose(Scaling("MEAN_STD", LOW, HIGH)(X), (X - LOW) / HIGH)


@pytest.mark.parametrize("mode", ["MIN_MAX", "QUANTILES", "QUANTILE10"])
def test_bounds_become_minus_one_and_one(mode):
    scaling = Scaling(mode, LOW, HIGH)
    assert torch.allclose(scaling(torch.stack([LOW, HIGH])), torch.tensor([[-1.0], [1.0]]))


def test_identity_has_nothing_to_say():
    assert torch.equal(Scaling("IDENTITY", LOW, HIGH)(X), X)


@pytest.mark.parametrize("added", [False, True])
def test_a_feature_without_range_is_its_lower_bound(added):
    scaling = Scaling("MIN_MAX", LOW, LOW, added=added)
    assert torch.equal(scaling(LOW), torch.full((3,), -1.0))
    assert torch.allclose(scaling.inverse(torch.zeros(3)), LOW)


def test_a_feature_without_deviation_stays_finite():
    assert Scaling("MEAN_STD", LOW, torch.zeros(3))(X).isfinite().all()


def test_epsilon_is_added_in_the_old_style_only():
    small = LOW + 1e-6
    old, new = (Scaling("MIN_MAX", LOW * 0, small - LOW, added=a)(LOW) for a in (True, False))
    assert not torch.allclose(old, new, rtol=1e-3)
    assert torch.allclose(old, 2 * LOW / ((small - LOW) + 1e-8) - 1)


def test_statistics_are_no_parameters():
    assert not list(Scaling("MEAN_STD", LOW, HIGH).parameters())
    assert set(Scaling("MEAN_STD", LOW, HIGH).state_dict()) == {"low", "high"}
