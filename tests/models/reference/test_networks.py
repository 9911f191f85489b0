import math

import pytest
import torch

from mirror_analysis.models.reference.networks import (
    PICTURE,
    TRUNK,
    ExecutionNetwork,
    ObservationNetwork,
    normalise,
    time_code,
)


def pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def test_grey_levels_become_channels_first_about_zero():
    frames = torch.arange(2 * 4 * 5 * 3, dtype=torch.uint8).reshape(2, 4, 5, 3)
    out = normalise(frames)
    assert out.shape == (2, 3, 4, 5) and out.dtype == torch.float32
    for i, row, column, colour in ((0, 0, 0, 0), (1, 3, 2, 1), (0, 2, 4, 2)):
        grey = int(frames[i, row, column, colour])
        assert float(out[i, colour, row, column]) == pytest.approx(
            (grey / 255 - 0.45) / 0.25, abs=1e-6
        )
    torch.testing.assert_close(normalise(frames.float()), out)


def test_the_time_code_is_sines_and_cosines_of_falling_rates():
    code = time_code(torch.tensor([[0.0, 0.3, 1.0]]))
    assert code.shape == (1, 3, 128)
    for frame, time in enumerate((0.0, 0.3, 1.0)):
        for i in (0, 1, 63):
            angle = 100 * time * 1000.0 ** (-i / 64)
            assert float(code[0, frame, i]) == pytest.approx(math.sin(angle), abs=1e-4)
            assert float(code[0, frame, 64 + i]) == pytest.approx(math.cos(angle), abs=1e-4)


def test_the_trunk_halves_the_picture_in_every_layer():
    for network in (ObservationNetwork(3), ExecutionNetwork()):
        h, side = pictures(2), PICTURE
        for name, channels in TRUNK.items():
            h, side = network.trunk[name](h), side // 2
            assert h.shape == (2, channels, side, side)
            assert bool((h >= 0).all())
        assert side == 4


@pytest.mark.parametrize("network", [ObservationNetwork(36), ExecutionNetwork()])
def test_weights_are_small_and_of_one_type(network):
    assert sum(t.numel() * t.element_size() for t in network.state_dict().values()) < 2e6
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_every_weight_takes_part():
    observation, execution = ObservationNetwork(5), ExecutionNetwork()
    observation(pictures(2, 3), torch.rand(2, 3)).square().sum().backward()
    execution(pictures(4), torch.randn(4, 8)).square().sum().backward()
    for network in (observation, execution):
        for name, parameter in network.named_parameters():
            assert float(parameter.grad.abs().sum()) > 0, name


def test_watching_is_the_same_alone_and_in_a_batch():
    network, frames = ObservationNetwork(5).eval(), pictures(3, 4)
    time = torch.linspace(0, 1, 4).expand(3, 4)
    both = network(frames, time)
    assert both.shape == (3, 5)
    torch.testing.assert_close(network(frames[1:2], time[1:2]), both[1:2], rtol=1e-4, atol=1e-5)


def test_watching_knows_the_order_of_frames_from_their_time_alone():
    network, frames = ObservationNetwork(5).eval(), pictures(1, 4)
    time = torch.linspace(0, 1, 4)[None]
    backwards = network(frames.flip(1), time.flip(1))
    torch.testing.assert_close(backwards, network(frames, time), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(network(frames.flip(1), time), network(frames, time), atol=1e-4)


def test_proprioception_is_standardised_and_bounded():
    network, frames = ExecutionNetwork().eval(), pictures(1)
    seen = []
    network.hidden1.register_forward_pre_hook(lambda module, args: seen.append(args[0][:, 128:]))
    network.proprioception_mean.fill_(2.0)
    network.proprioception_scale.fill_(0.5)
    network(frames, torch.tensor([[2.0, 3.0, 1.0, 2.5, 99.0, -99.0, 2.0, 2.0]]))
    assert seen[0].tolist() == [[0.0, 2.0, -2.0, 1.0, 5.0, -5.0, 0.0, 0.0]]
