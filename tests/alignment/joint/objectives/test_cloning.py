"""Ways of cloning behaviour, against their formulas written out."""

import numpy as np
import pytest
import torch

from mirror_analysis.alignment.joint.objectives import (
    Diffusion,
    Discretised,
    Regression,
    Shown,
    Target,
)
from mirror_analysis.alignment.joint.objectives.binning import Bins
from mirror_analysis.alignment.joint.objectives.denoising import cosine_kept
from mirror_analysis.alignment.joint.objectives.scaling import ActionScale
from mirror_analysis.episodes.episode import Episode, Episodes
from mirror_analysis.errors import (
    DefinitionError,
    DegenerateError,
    HookError,
    ShapeError,
    StreamError,
)
from mirror_analysis.models.lerobot.noise import Schedule
from mirror_analysis.models.recording.live import Live

WIDTH, ACTION = 3, 2


def episode(number, time=6, action=ACTION, **extras):
    g = np.random.default_rng(number)
    steps = np.arange(time)
    return Episode.from_frames(
        {}, id=str(number), task="t", instruction="i", success=True,
        states=np.zeros((time, 1), np.float32),
        actions=(g.standard_normal((time, action)) * 3 + 1).astype(np.float32),
        timestamps=steps / 10, steps=steps, length=time, extras=extras,
    )  # fmt: skip


def episodes(count=3, time=6, **given):
    return Episodes([episode(i, time, **given) for i in range(count)])


def shown(of, frames, *, moments=None, output=None, places=None):
    frames = np.asarray(frames)
    places = np.arange(frames.shape[1]) if places is None else np.asarray(places)
    representation = torch.zeros(len(of), WIDTH)
    return Shown(Live(representation, moments, places, output), list(of), frames)


def moments(count=3, places=2):
    g = torch.Generator().manual_seed(3)
    return torch.randn(count, places, WIDTH, generator=g).requires_grad_()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


FRAMES = [[0, 5], [2, 3], [4, 5]]


def test_scale_is_that_of_the_episodes_and_comes_back():
    actions = np.concatenate([e.actions for e in episodes()])
    scale = ActionScale(actions)
    found = scale(torch.from_numpy(actions)).double().numpy()
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(found.std(0), 1, atol=1e-6)
    back = scale.inverse(scale(torch.from_numpy(actions)))
    np.testing.assert_allclose(back.numpy(), actions, atol=1e-6)
    assert torch.equal(scale.within(torch.full((2,), 99.0)), scale.high)
    np.testing.assert_array_equal(scale.low.numpy(), actions.min(0))


def test_a_number_that_never_changes_has_scale_one():
    actions = np.array([[0.1, 1.0], [0.1, 3.0]], dtype=np.float32)
    scale = ActionScale(actions)
    assert scale.scale.tolist() == [1.0, 1.0]
    assert scale(torch.tensor([0.6, 2.0])).tolist() == pytest.approx([0.5, 0.0])


@pytest.mark.parametrize("error", ["mse", "smooth_l1"])
def test_regression_is_the_mean_error_of_what_counts(error):
    valid = [np.array([1, 1, 1, 0, 1, 1], np.float32)[:, None] for _ in range(3)]
    of = Episodes([episode(i, valid=valid[i]) for i in range(3)])
    target = Target(horizon=3, valid="array:valid")
    head = Regression(target=target, error=error, beta=0.4).head(WIDTH, of, seed=1)
    x = moments()
    predicted = head.act(x, generator()).detach().double().numpy()
    every = np.concatenate([e.actions for e in of]).astype(np.float64)
    spread, errors = every.std(0), []
    for i, row in enumerate(FRAMES):
        for j, frame in enumerate(row):
            for k in range(3):
                if frame + k > 5 or not valid[i][frame + k]:
                    continue
                d = np.abs(predicted[i, j, k] - of[i].actions[frame + k]) / spread
                if error == "mse":
                    errors.append((d**2).mean())
                else:
                    errors.append(np.where(d < 0.4, d**2 / 0.8, d - 0.2).mean())
    loss = head(shown(of, FRAMES, moments=x), generator())
    assert len(errors) == 11
    assert loss.item() == pytest.approx(np.mean(errors), rel=1e-5)
    loss.backward()
    assert x.grad[0, 1].abs().sum() > 0  # of the last frame, its own action counts


def test_regression_where_nothing_counts_is_nothing():
    of = Episodes([episode(0, valid=np.zeros((6, 1), np.float32))])
    head = Regression(target=Target(valid="array:valid")).head(WIDTH, of, seed=0)
    x = moments(1)
    loss = head(shown(of, [[0, 1]], moments=x), generator())
    loss.backward()
    assert loss.item() == 0 and not x.grad.any()


def test_regression_of_the_models_own_output():
    of = episodes()
    head = Regression(source="output", error="mse").head(WIDTH, of, seed=0)
    assert not list(head.parameters())
    done = np.stack([e.actions[f] for e, f in zip(of, np.array(FRAMES), strict=True)])
    output = torch.from_numpy(done).requires_grad_()
    assert head(shown(of, FRAMES, output=output), generator()).item() == pytest.approx(0, abs=1e-12)
    off = (torch.from_numpy(done) + 2 * head.scale.scale).requires_grad_()
    assert head(shown(of, FRAMES, output=off), generator()).item() == pytest.approx(4, rel=1e-5)
    # A plan of several actions, of which only the first is asked for.
    plan = torch.stack([torch.from_numpy(done), torch.zeros(3, 2, 2)], dim=2).requires_grad_()
    assert head(shown(of, FRAMES, output=plan), generator()).item() == pytest.approx(0, abs=1e-12)
    with pytest.raises(DefinitionError, match="there is no map from a layer; ask the model to act"):
        head.act(moments(), generator())


def test_outputs_that_are_no_actions():
    of = episodes()
    head = Regression(source="output").head(WIDTH, of, seed=0)

    def given(*shape):
        return shown(of, FRAMES, output=torch.zeros(shape, requires_grad=True))

    with pytest.raises(ShapeError, match=r"gives \[3, 5\] for 2 frames; needed \[episode, time"):
        head(given(3, 5), generator())
    with pytest.raises(ShapeError, match="its output has 7 numbers where the actions of the"):
        head(given(3, 2, 7), generator())
    longer = Regression(source="output", target=Target(horizon=4)).head(WIDTH, of, seed=0)
    with pytest.raises(ShapeError, match="plans 3 actions at once but a horizon of 4 is trained"):
        longer(given(3, 2, 3, 2), generator())


def test_moments_are_matched_with_the_frames_they_have_seen():
    of = episodes()
    head = Regression().head(WIDTH, of, seed=0)
    frames = [[0, 1, 4, 5]] * 3
    target, there = head.targets(shown(of, frames, moments=moments(), places=[1, 3]))
    expected = head.scale(torch.from_numpy(np.stack([e.actions[[1, 5]] for e in of])))
    assert torch.equal(target[:, :, 0], expected) and bool(there.all())


def test_another_stream_can_be_cloned():
    expert = np.arange(12, dtype=np.float32).reshape(6, 2)
    of = Episodes([episode(i, expert_actions=expert) for i in range(3)])
    head = Regression(target=Target(stream="array:expert_actions")).head(WIDTH, of, seed=0)
    np.testing.assert_allclose(head.scale.mean.numpy(), expert.mean(0))
    target, _ = head.targets(shown(of, FRAMES, moments=moments()))
    back = head.scale.inverse(target)[:, :, 0].numpy()
    np.testing.assert_allclose(back, expert[np.array(FRAMES)], atol=1e-5)


def test_episodes_without_what_is_cloned():
    with pytest.raises(StreamError, match=r"vectors 'array:wish' with one width .*: states, act"):
        Regression(target=Target(stream="array:wish")).head(WIDTH, episodes(), seed=0)
    mixed = Episodes([episode(0), episode(1, action=3)])
    with pytest.raises(StreamError, match="vectors 'actions' with one width"):
        Discretised().head(WIDTH, mixed, seed=0)
    with pytest.raises(DegenerateError, match="no episodes to take actions of"):
        Diffusion().head(WIDTH, Episodes([]), seed=0)
    with pytest.raises(StreamError, match="not every episode has 'array:valid', which says where"):
        Regression(target=Target(valid="array:valid")).head(WIDTH, episodes(), seed=0)
    head = Regression().head(WIDTH, episodes(), seed=0)
    with pytest.raises(HookError, match="one vector for a whole episode; cloning behaviour needs"):
        head(shown(episodes(), FRAMES), generator())


def test_uniform_bins_come_back_to_half_a_bin():
    g = np.random.default_rng(0)
    actions = g.uniform([-2, 5], [1, 9], (2000, 2)).astype(np.float32)
    bins = Bins(actions, bins=16, spread="uniform", outside=0.0)
    x = torch.from_numpy(actions)
    width = np.ptp(actions, axis=0) / 16
    error = (bins.decode(bins.encode(x)) - x).abs().double().numpy()
    assert (error <= width / 2 * (1 + 1e-5)).all()
    assert (error.max(0) > 0.45 * width).all()  # and no better: the bound is the bound
    far = torch.tensor([[-99.0, 99.0]])
    assert bins.encode(far).tolist() == [[0, 15]]
    # The middle of a bin is its own code.
    every = bins.centres.T
    assert torch.equal(bins.encode(every), torch.arange(16)[:, None].expand(16, 2))


def test_a_number_on_an_edge_is_in_the_bin_above():
    actions = np.linspace(0, 4, 41, dtype=np.float32)[:, None]
    bins = Bins(actions, bins=4, spread="uniform", outside=0.0)
    edges = torch.arange(5.0)[:, None]
    assert bins.encode(edges).flatten().tolist() == [0, 1, 2, 3, 3]


def test_uniform_bins_leave_a_share_outside():
    actions = np.linspace(0, 100, 1001, dtype=np.float32)[:, None]
    bins = Bins(actions, bins=8, spread="uniform", outside=0.01)
    assert bins.edges[0, [0, -1]].tolist() == pytest.approx([1, 99], abs=1e-4)


def test_quantile_bins_hold_equally_many():
    g = np.random.default_rng(0)
    actions = g.exponential(size=(4000, 1)).astype(np.float32)
    bins = Bins(actions, bins=20, spread="quantile", outside=0.0)
    found = bins.encode(torch.from_numpy(actions))
    count = np.bincount(found[:, 0].numpy(), minlength=20)
    assert count.min() >= 199 and count.max() <= 201
    # The centre is the mean of what is inside, which nothing beats in squared error.
    for i in (0, 7, 19):
        inside = actions[found.numpy() == i]
        assert bins.centres[0, i].item() == pytest.approx(inside.mean(), rel=1e-5)


def test_quantile_bins_of_few_values_come_back_exactly():
    actions = np.repeat(np.array([-1, 0.25, 1], np.float32), [50, 20, 30])[:, None]
    bins = Bins(actions, bins=8, spread="quantile", outside=0.01)
    x = torch.tensor([[-1.0], [0.25], [1.0]])
    assert torch.equal(bins.decode(bins.encode(x)), x)


@pytest.mark.parametrize("spread", ["uniform", "quantile"])
def test_discretised_is_cross_entropy_of_bins(spread):
    of = episodes()
    given = Discretised(bins=5, spread=spread, smoothing=0.2, target=Target(horizon=2))
    head = given.head(WIDTH, of, seed=1)
    x = moments()
    logits = head.logits(x).detach().double().numpy()
    errors = []
    for i, row in enumerate(FRAMES):
        for j, frame in enumerate(row):
            for k in range(2):
                if frame + k > 5:
                    continue
                for a in range(ACTION):
                    value = of[i].actions[frame + k, a]
                    edges = head.bins.edges[a].double().numpy()
                    chosen = min(max(int((edges <= value).sum()) - 1, 0), 4)
                    line = logits[i, j, k, a]
                    log_share = line - np.log(np.exp(line).sum())
                    errors.append(-0.8 * log_share[chosen] - 0.2 * log_share.mean())
    loss = head(shown(of, FRAMES, moments=x), generator())
    assert loss.item() == pytest.approx(np.mean(errors), rel=1e-5)
    loss.backward()
    assert x.grad.abs().sum() > 0
    acted = head.act(x, generator())
    assert torch.equal(acted, head.bins.decode(torch.from_numpy(logits.argmax(-1))))


def test_the_schedule_is_the_published_cosine():
    kept = cosine_kept(100).double().numpy()
    at = np.arange(1, 101) / 100
    share = np.cos((at + 0.008) / 1.008 * np.pi / 2) ** 2
    share /= np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(kept[:-1], share[:-1], rtol=1e-5)  # the last step is cut to .999
    assert kept[-1] == pytest.approx(kept[-2] * 0.001, rel=1e-4)
    assert (np.diff(kept) < 0).all()


def ddpm(steps):
    return Schedule("DDPM", steps, steps, "squaredcos_cap_v2", 0.0, 0.0, "epsilon", None)


def test_the_schedule_is_that_of_diffusion_policies():
    np.testing.assert_allclose(cosine_kept(50).numpy(), ddpm(50).kept.numpy(), rtol=1e-4)


def normal_head(steps=50, **given):
    """A head for 4,000 actions of mean 2 and standard deviation 0.5."""
    actions = 2 + 0.5 * np.random.default_rng(0).standard_normal((4000, 1))
    of = episodes(1, 4000, action=1)
    whole = Episode(**{name: getattr(of[0], name) for name in of[0].__dataclass_fields__}
                    | {"actions": actions.astype(np.float32)})  # fmt: skip
    return Diffusion(steps=steps, **given).head(WIDTH, Episodes([whole]), seed=0), whole


def test_noise_keeps_the_variance():
    head, whole = normal_head()
    scaled = head.scale(torch.from_numpy(whole.actions))[:, None]
    noise = torch.randn(scaled.shape, generator=generator())
    for step in (0, 10, 25, 49):
        noisy = head.noisy(scaled, torch.full((len(scaled),), step), noise)
        assert noisy.var().item() == pytest.approx(1.0, abs=0.06)
        share = np.corrcoef(noisy.flatten(), scaled.flatten())[0, 1] ** 2
        assert share == pytest.approx(head.kept[step].item(), abs=0.04)


def test_diffusion_is_the_squared_error_of_the_noise():
    of = episodes()
    head = Diffusion(steps=10, width=16, target=Target(horizon=2)).head(WIDTH, of, seed=1)
    x, drawn = moments(), generator(7)
    time = torch.randint(10, (3, 2), generator=drawn)
    noise = torch.randn(3, 2, 2, 2, generator=drawn)
    target, there = head.targets(shown(of, FRAMES, moments=x))
    kept = head.kept[time][..., None, None]
    noisy = kept.sqrt() * target + (1 - kept).sqrt() * noise
    error = (head.predicted(noisy, time, x) - noise).square().mean(-1)
    assert not bool(there.all())
    expected = error[there].mean().item()
    loss = head(shown(of, FRAMES, moments=x), generator(7))
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert x.grad.abs().sum() > 0


def test_sampling_takes_the_steps_of_diffusion_policies(monkeypatch):
    head, _ = normal_head(steps=12)
    head.scale.low.fill_(-1e6)
    head.scale.high.fill_(1e6)
    monkeypatch.setattr(head, "predicted", lambda noisy, time, features: 0.3 * noisy + 0.1)
    schedule, drawn = ddpm(12), generator(4)
    x = torch.randn(5, 1, 1, generator=drawn)
    for step in schedule.times:
        fresh = torch.randn(5, 1, 1, generator=drawn) if step else None
        x = schedule.step(0.3 * x + 0.1, x, step, fresh)
    found = head.act(torch.zeros(5, WIDTH), generator(4))
    np.testing.assert_allclose(found.numpy(), head.scale.inverse(x).numpy(), rtol=1e-3, atol=1e-4)


def test_the_best_denoiser_of_a_normal_brings_the_normal_back(monkeypatch):
    # For actions of variance 1 the expected noise in a sample is sqrt(1 - kept) times it.
    head, whole = normal_head()

    def best(noisy, time, features):
        return (1 - head.kept[time][..., None, None]).sqrt() * noisy

    monkeypatch.setattr(head, "predicted", best)
    found = head.act(torch.zeros(4000, WIDTH), generator())
    assert found.mean().item() == pytest.approx(whole.actions.mean(), abs=0.03)
    assert found.std().item() == pytest.approx(whole.actions.std(), abs=0.03)


def test_a_trained_denoiser_brings_back_what_each_feature_goes_with():
    g = np.random.default_rng(0)
    kind = g.integers(0, 2, 2000)
    mean, spread = np.where(kind, 3.0, -1.0), np.where(kind, 0.3, 0.8)
    actions = (mean + spread * g.standard_normal(2000)).astype(np.float32)[:, None]
    steps = np.arange(2000)
    one = Episode.from_frames(
        {}, id="0", task="t", instruction="i", success=True, actions=actions,
        states=np.zeros((2000, 1), np.float32), timestamps=steps / 10, steps=steps, length=2000,
    )  # fmt: skip
    head = Diffusion(steps=40, width=48, depth=2).head(WIDTH, Episodes([one]), seed=0)
    codes = torch.eye(WIDTH)[torch.from_numpy(kind)] * 3
    optimiser = torch.optim.Adam(head.parameters(), 3e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, 900)
    drawn, first = generator(1), None
    for _ in range(900):
        rows = torch.randint(2000, (256,), generator=drawn)
        seen = shown([one], rows[None].numpy(), moments=codes[rows][None])
        loss = head(seen, drawn)
        first = loss.item() if first is None else first
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()
    with torch.no_grad():
        for k, (m, s) in enumerate([(-1.0, 0.8), (3.0, 0.3)]):
            found = head.act(torch.eye(WIDTH)[[k]].expand(2000, WIDTH) * 3, generator(2))
            assert found.mean().item() == pytest.approx(m, abs=0.15)
            assert found.std().item() == pytest.approx(s, abs=0.15)


def test_sampled_actions_stay_within_what_was_done():
    head, whole = normal_head(steps=5)
    found = head.act(100 * torch.ones(50, WIDTH), generator())
    assert found.shape == (50, 1, 1)
    assert found.min() >= whole.actions.min() - 1e-5 and found.max() <= whole.actions.max() + 1e-5
    assert torch.equal(found, head.act(100 * torch.ones(50, WIDTH), generator()))


def test_settings_out_of_range():
    with pytest.raises(DefinitionError, match="a horizon of 0 actions; needed 1 or more"):
        Target(horizon=0)
    with pytest.raises(DefinitionError, match="regression has beta 0; needed a number above 0"):
        Regression(beta=0)
    with pytest.raises(DefinitionError, match="1 bins of each number; needed 2 or more"):
        Discretised(bins=1)
    with pytest.raises(DefinitionError, match=r"a share of 0\.5 outside and smoothing 0"):
        Discretised(outside=0.5)
    with pytest.raises(DefinitionError, match="diffusion of 0 steps, width 256 and depth 3"):
        Diffusion(steps=0)
