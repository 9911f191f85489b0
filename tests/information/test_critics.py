import numpy as np
import pytest
import torch

from mirror_analysis.errors import UnknownNameError
from mirror_analysis.information import CRITICS, EstimatorConfig
from mirror_analysis.information.critics import make_critic

CONFIG = EstimatorConfig(width=4, hidden=8)
each_critic = pytest.mark.parametrize("name", sorted(CRITICS))


def rows(seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(5, 3, generator=g), torch.randn(7, 2, generator=g)


def awake(name, seed=0):
    """A critic whose weights are not 0."""
    critic = make_critic(name, (3, 2), CONFIG, seed=seed)
    g = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=g)
    return critic


@each_critic
def test_scores_every_x_with_every_y_by_themselves(name):
    critic, (x, y) = awake(name), rows()
    matrix = critic(x, y).detach()
    assert matrix.shape == (5, 7)
    for i in range(5):
        for j in range(7):
            alone = critic(x[i : i + 1], y[j : j + 1]).detach()
            assert float(alone) == pytest.approx(float(matrix[i, j]), abs=1e-5)
    assert float(matrix.std()) > 0.01


@each_critic
def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_one_alone(name):
    before = torch.random.get_rng_state()
    first, again = (make_critic(name, (3, 2), CONFIG, seed=1).state_dict() for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    if name not in ("bilinear", "quadratic"):  # these start from 0
        other = make_critic(name, (3, 2), CONFIG, seed=2).state_dict()
        assert any(not torch.equal(first[key], other[key]) for key in first)


@each_critic
def test_every_parameter_can_learn(name):
    critic, (x, y) = awake(name), rows()
    (critic(x, y) ** 2).sum().backward()
    for key, parameter in critic.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, key


def test_separable_linear_is_a_cosine_over_the_temperature():
    critic, (x, y) = awake("separable_linear"), rows()
    a = (x @ critic.x_map.weight.T + critic.x_map.bias).detach().numpy()
    b = (y @ critic.y_map.weight.T + critic.y_map.bias).detach().numpy()
    cosine = (a @ b.T) / np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    expected = cosine / 0.1 + float(critic.offset.detach())
    assert critic(x, y).detach().numpy() == pytest.approx(expected, abs=1e-4)


def test_quadratic_holds_the_log_ratio_of_a_gaussian():
    critic = make_critic("quadratic", (1, 1), CONFIG, seed=0)
    rho = 0.6
    with torch.no_grad():
        critic.weight.fill_(rho / (1 - rho**2))
        for form in (critic.x_form, critic.y_form):
            form[0] = -(rho**2) / (2 * (1 - rho**2))
        critic.offset.fill_(-0.5 * np.log(1 - rho**2))
    x, y = torch.tensor([[0.3], [-1.2]]), torch.tensor([[0.9], [2.0]])
    joint = torch.distributions.MultivariateNormal(
        torch.zeros(2), torch.tensor([[1, rho], [rho, 1]])
    )
    normal = torch.distributions.Normal(0.0, 1.0)
    for i in range(2):
        for j in range(2):
            ratio = joint.log_prob(torch.cat([x[i], y[j]])) - normal.log_prob(x[i])
            ratio = float(ratio - normal.log_prob(y[j]))
            assert float(critic(x, y).detach()[i, j]) == pytest.approx(ratio, abs=1e-5)


def test_bilinear_is_a_form_of_both_rows():
    critic, (x, y) = awake("bilinear"), rows()
    expected = torch.einsum("if,fg,jg->ij", x, critic.weight, y) + critic.offset
    assert torch.allclose(critic(x, y), expected, atol=1e-5)


def test_mlp_is_a_network_of_both_rows_put_end_to_end():
    critic, (x, y) = awake("mlp"), rows()
    both = torch.cat([x[2], y[4]])
    hidden = torch.relu(critic.second(torch.relu(critic.first(both))))
    expected = float((critic.last(hidden) + critic.offset).detach())
    assert float(critic(x, y).detach()[2, 4]) == pytest.approx(expected, abs=1e-5)


def test_says_what_is_wrong():
    with pytest.raises(UnknownNameError, match="unknown critic 'bilinaer'; did you mean 'bilinea"):
        make_critic("bilinaer", (3, 2), CONFIG, seed=0)
