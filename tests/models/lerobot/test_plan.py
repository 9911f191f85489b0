import torch

from mirror_analysis.models.lerobot.plan import Plan


def plans(count, steps=4):
    g = torch.Generator().manual_seed(0)
    return torch.randn(count, 2, steps, 3, generator=g)


def test_a_plan_is_followed_before_the_next_one():
    given = plans(2)
    plan = Plan(executed=3)
    found = []
    for t in range(6):
        if plan.empty:
            assert t in (0, 3)
            plan.add(given[t // 3])
        found.append(plan.next())
    assert torch.equal(torch.stack(found[:3], 1), given[0][:, :3])
    assert torch.equal(torch.stack(found[3:], 1), given[1][:, :3])
    assert plan.empty


def test_ensembling_is_the_weighted_mean_of_what_plans_say_of_now():
    given, m = plans(9), 0.3
    plan = Plan(executed=1, ensemble=m)
    for t in range(9):
        assert plan.empty  # it asks for a plan at every moment
        plan.add(given[t])
        # Plans of the last four moments reach this far, the oldest first.
        said = [given[s][:, t - s] for s in range(max(0, t - 3), t + 1)]
        weights = [torch.tensor(-m * i).exp() for i in range(len(said))]
        wanted = sum(w * x for w, x in zip(weights, said, strict=True)) / sum(weights)
        assert torch.allclose(plan.next(), wanted, atol=1e-6)


def test_a_negative_coefficient_prefers_new_plans():
    old, new = torch.zeros(1, 2, 1), torch.ones(1, 2, 1)
    plan = Plan(executed=1, ensemble=-3.0)
    plan.add(old)
    plan.next()
    plan.add(new)
    assert plan.next().item() > 0.9
