"""Heads that cloned behaviour, acting."""

import numpy as np
import pytest
import torch
from tiny_models import MAKERS, STATES
from torch import nn

from mirror_analysis.alignment.joint.headed_policy import HeadedPolicy
from mirror_analysis.alignment.joint.objectives import Diffusion, Discretised, Regression, Target
from mirror_analysis.episodes.episode import Episode, Episodes
from mirror_analysis.errors import DefinitionError, ShapeError
from mirror_analysis.extraction import extract
from mirror_analysis.models.model import Input, LayerInfo, ObservationModel
from mirror_analysis.testing import check_model

G = np.random.default_rng(0)
NOW = [{"states": G.standard_normal((2, STATES)).astype(np.float32)} for _ in range(6)]


def episodes():
    steps = np.arange(20)
    return Episodes(
        Episode.from_frames(
            {}, id=str(i), task="t", instruction="i", success=True,
            states=G.standard_normal((20, STATES)).astype(np.float32),
            actions=G.standard_normal((20, 2)).astype(np.float32),
            timestamps=steps / 10, steps=steps, length=20,
        )
        for i in range(2)
    )  # fmt: skip


EPISODES = episodes()


def policy(folder, objective, **given):
    model = MAKERS["perceptron"](folder)
    return HeadedPolicy(model, objective.head(16, EPISODES, seed=1), layer="hidden1", **given)


def test_acts_as_the_head_on_the_layer(tmp_path):
    one = policy(tmp_path, Regression())
    hidden = one.model.module.hidden["hidden1"](torch.from_numpy(NOW[0]["states"]))
    predicted = one.head.act(hidden, torch.Generator())[:, 0]
    expected = one.head.scale.within(predicted).detach().numpy()
    np.testing.assert_allclose(one.act(NOW[0]), expected, atol=1e-6)
    assert one.inputs == ("states",) and one.role == "execution"


@pytest.mark.parametrize(
    "objective",
    [Regression(), Discretised(bins=4), Diffusion(steps=4, width=16, depth=1)],
    ids=lambda one: type(one).__name__,
)
def test_it_keeps_the_contract_of_models(objective, tmp_path):
    check_model(policy(tmp_path, objective))


def test_actions_stay_within_what_was_done_and_a_twin_has_another_head(tmp_path):
    one = policy(tmp_path, Regression())
    one.head.map.weight.data.mul_(1000)
    found = one.act(NOW[0])
    low, high = one.head.scale.low.numpy(), one.head.scale.high.numpy()
    assert ((found == low) | (found == high)).all()
    a, b, c = (one.untrained(seed).head for seed in (1, 1, 2))
    assert torch.equal(a.map.weight, b.map.weight)
    assert not torch.equal(a.map.weight, c.map.weight) and a.map.weight.abs().max() < 1
    assert torch.equal(a.scale.mean, one.head.scale.mean)


def test_features_are_those_of_the_model(tmp_path):
    one = policy(tmp_path, Regression())
    a, b = (extract(model, EPISODES) for model in (one, one.model))
    assert list(a) == list(b)
    for name in a:
        np.testing.assert_array_equal(a[name].values, b[name].values)
    planned = one.forward_batch(list(EPISODES))
    assert planned.shape == (2, 20, 1, 2)


def test_a_plan_is_executed_before_the_next_is_made(tmp_path):
    target = Target(horizon=4)
    each = policy(tmp_path, Regression(target=target))
    planned = policy(tmp_path, Regression(target=target), executed=3)
    plans = []
    for now in NOW:
        hidden = each.model.module.hidden["hidden1"](torch.from_numpy(now["states"]))
        plans.append(each.head.act(hidden, torch.Generator()))
    within = each.head.scale.within
    for i, now in enumerate(NOW):
        expected = within(plans[i][:, 0]).detach().numpy()
        np.testing.assert_allclose(each.act(now), expected, atol=1e-6)
        expected = within(plans[i // 3 * 3][:, i % 3]).detach().numpy()
        np.testing.assert_allclose(planned.act(now), expected, atol=1e-6)


def test_draws_depend_on_the_seed_and_the_steps_since_reset(tmp_path):
    objective = Diffusion(steps=4, width=16, depth=1)
    one, other = policy(tmp_path, objective), policy(tmp_path, objective, seed=1)
    first = [one.act(NOW[0]) for _ in range(2)]
    assert not np.array_equal(*first)
    one.reset()
    np.testing.assert_array_equal(one.act(NOW[0]), first[0])
    assert not np.array_equal(other.act(NOW[0]), first[0])


class Remembering(ObservationModel):
    """Its one layer is the running sum of what it has seen."""

    framewise = False

    def __init__(self, axes="episode time channel"):
        self.name, self.needs = "remembering", (Input("states", STATES), Input("instruction"))
        self.module = nn.ModuleDict({"layer": nn.Linear(STATES, STATES, bias=False)})
        self.module["layer"].weight.data.copy_(torch.eye(STATES))
        self.axes = axes

    def layers(self):
        return [LayerInfo("layer", STATES, self.axes)]

    def taps(self):
        return {"layer": self.module["layer"]}

    def forward_batch(self, episodes):
        self.seen = [(list(e.steps), e.length, e.instruction) for e in episodes]
        x = torch.from_numpy(np.stack([episode.stream("states") for episode in episodes]))
        x = x.cumsum(1)
        return self.module["layer"](x if "time" in self.axes else x[:, -1])

    def untrained(self, seed):
        raise NotImplementedError


def test_a_model_that_looks_back_is_shown_the_last_moments():
    model = Remembering()
    one = HeadedPolicy(model, Regression().head(STATES, EPISODES, seed=1), layer="layer", frames=3)
    for i, now in enumerate(NOW):
        action = one.act({**now, "instruction": np.array(["open", "close"])})
        last = NOW[max(0, i - 2) : i + 1]
        total = torch.from_numpy(np.sum([moment["states"] for moment in last], axis=0))
        expected = one.head.scale.within(one.head.act(total, torch.Generator())[:, 0])
        np.testing.assert_allclose(action, expected.detach().numpy(), atol=1e-5)
        steps = list(range(max(0, i - 2), i + 1))
        assert model.seen == [(steps, i + 1, "open"), (steps, i + 1, "close")]
    one.reset()
    one.act({**NOW[0], "instruction": np.array(["open", "close"])})
    assert model.seen[0] == ([0], 1, "open")


def test_what_cannot_act(tmp_path):
    head = Regression(target=Target(horizon=2)).head(STATES, EPISODES, seed=0)
    with pytest.raises(DefinitionError, match="8 frames and 3 actions of a plan of 2; needed 1 or"):
        HeadedPolicy(Remembering(), head, layer="layer", executed=3)
    with pytest.raises(DefinitionError, match="0 frames and 1 actions of a plan of 2"):
        HeadedPolicy(Remembering(), head, layer="layer", frames=0)
    whole = HeadedPolicy(Remembering("episode channel"), head, layer="layer")
    now = {**NOW[0], "instruction": np.array(["a", "b"])}
    with pytest.raises(ShapeError, match="layer 'layer' of remembering gives one vector for a who"):
        whole.act(now)
    one = policy(tmp_path, Regression())
    one.act(NOW[0])
    with pytest.raises(ShapeError, match="policy acts in 1 environments but began in 2; call res"):
        one.act({"states": NOW[0]["states"][:1]})
    one.reset()
    assert one.act({"states": NOW[0]["states"][:1]}).shape == (1, 2)
