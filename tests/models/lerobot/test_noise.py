import itertools

import pytest
import torch

from mirror_analysis.models.lerobot.noise import Schedule

BETAS = ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"]


def schedule(kind, betas, predicted, clip, *, trained=20, steps=20):
    return Schedule(
        kind,
        trained=trained,
        steps=steps,
        betas=betas,
        beta_start=0.001,
        beta_end=0.3,
        predicted=predicted,
        clip=clip,
    )


@pytest.mark.parametrize("steps", [20, 6])
@pytest.mark.parametrize(
    ("kind", "betas", "predicted", "clip"),
    [
        case
        for case in itertools.product(["DDPM", "DDIM"], BETAS, ["epsilon", "sample"], [None, 0.7])
        if case[:2] != ("DDIM", "sigmoid")  # diffusers has no such scheduler
    ],
)
def test_every_step_is_that_of_diffusers(kind, betas, predicted, clip, steps):
    diffusers = pytest.importorskip("diffusers", reason="the schedulers to compare with")
    own = schedule(kind, betas, predicted, clip, steps=steps)
    other = getattr(diffusers, f"{kind}Scheduler")(
        num_train_timesteps=20,
        beta_start=0.001,
        beta_end=0.3,
        beta_schedule=betas,
        clip_sample=clip is not None,
        clip_sample_range=clip or 1.0,
        prediction_type=predicted,
    )
    other.set_timesteps(steps)
    assert own.times == other.timesteps.tolist()
    x = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    for time in own.times:
        output = torch.tanh(3 * x + 0.1 * time)  # in the place of a network
        g = torch.Generator().manual_seed(time)
        more = {"generator": g} if kind == "DDPM" else {}
        wanted = other.step(output, time, x, **more).prev_sample
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(time))
        found = own.step(output, x, time, noise)
        assert torch.allclose(found, wanted, rtol=1e-6, atol=1e-6)
        x = wanted


@pytest.mark.parametrize(("kind", "draws"), [("DDPM", 20), ("DDIM", 1)])
def test_ddim_draws_noise_only_to_begin_with(kind, draws):
    assert schedule(kind, "linear", "epsilon", None).draws == draws


def test_a_network_that_knows_the_sample_gives_it_back():
    own = schedule("DDIM", "squaredcos_cap_v2", "sample", None, steps=5)
    clean = torch.tensor([[[0.3, -0.4]]])
    x = torch.full((1, 1, 2), 2.0)
    for time in own.times:
        x = own.step(clean, x, time, None)
    assert torch.allclose(x, clean, atol=1e-6)
