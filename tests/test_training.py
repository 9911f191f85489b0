import msgspec
import numpy as np
import pytest
import torch
from scenes import episode, episodes

from mirror_analysis.episodes.episode import Episodes
from mirror_analysis.errors import DegenerateError, DeviceError, ShapeError, StreamError
from mirror_analysis.models.checkpoint import Checkpoint, Options
from mirror_analysis.models.reference.augmentation import augment
from mirror_analysis.models.reference.family import PROPRIOCEPTION, load, save
from mirror_analysis.models.reference.networks import normalise
from mirror_analysis.training import (
    TrainingConfig,
    fit_execution,
    fit_observation,
    train_execution,
    train_observation,
)

STILL = TrainingConfig(
    epochs=1, batch=8, gain=(1.0, 1.0), offset=(0.0, 0.0), shift=0, noise=0.0
)  # fmt: skip
QUICK = TrainingConfig(epochs=10, batch=16, frames=2)


def changed(**fields) -> TrainingConfig:
    return msgspec.structs.replace(STILL, **fields)


def grey(pictures: torch.Tensor) -> torch.Tensor:
    """Pictures as they were before normalisation, channels last."""
    return (pictures * 0.25 + 0.45).mul(255).movedim(-3, -1)


def some(count: int = 4, frames: int = 3, size: int = 16) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, frames, size, size, 3), generator=g, dtype=torch.uint8)


def drawn(frames: torch.Tensor, config: TrainingConfig, seed: int = 0) -> torch.Tensor:
    return augment(frames, config.augmentation, torch.Generator().manual_seed(seed))


def squares(count: int, seed: int, frames: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Episodes of a bright square on noise, and where it is: x, y in -1 .. 1."""
    g = np.random.default_rng(seed)
    pictures = g.integers(0, 90, (count, frames, 64, 64, 3), dtype=np.uint8)
    places = g.choice([-1.0, 1.0], (count, 2))
    for picture, (x, y) in zip(pictures, places, strict=True):
        top, left = int(26 + 16 * y), int(26 + 16 * x)
        picture[:, top : top + 12, left : left + 12] = 240
    return pictures, places


# -- nuisance ---------------------------------------------------------------------------------


def test_without_nuisance_pictures_are_normalised_only():
    frames = some()
    torch.testing.assert_close(drawn(frames, STILL), normalise(frames))


@pytest.mark.parametrize("shift", [1, 5, 18])
def test_a_shift_moves_all_frames_of_an_episode_and_repeats_edges(shift):
    frames = some(count=9)
    out = grey(drawn(frames, changed(shift=shift))).round().long()
    found = []
    for before, after in zip(frames.long(), out, strict=True):
        fits = []
        for down in range(-shift, shift + 1):
            rows = (torch.arange(16) + down).clamp(0, 15)
            for right in range(-shift, shift + 1):
                columns = (torch.arange(16) + right).clamp(0, 15)
                if torch.equal(before[:, rows][:, :, columns], after):
                    fits.append((down, right))
        assert fits  # the same for all three frames
        found.append(fits[0])
    assert len(set(found)) > 1
    assert any(down != right for down, right in found)
    if shift == 1:
        assert {d for d, _ in found} == {r for _, r in found} == {-1, 0, 1}


def test_gain_and_offset_are_drawn_per_episode_and_colour_inside_their_ranges():
    # Two grey levels give the line; both stay inside 0 .. 255 whatever is drawn.
    frames = torch.full((200, 2, 4, 4, 3), 100, dtype=torch.uint8)
    frames[:, :, 2:] = 120
    config = changed(gain=(0.8, 1.2), offset=(-30.0, 20.0))
    out = grey(drawn(frames, config))
    dark, bright = out[:, :, 0, 0], out[:, :, 3, 3]  # [episode, frame, colour]
    gain = (bright - dark) / 20
    offset = dark - 100 * gain
    for value, (low, high) in ((gain, config.gain), (offset, config.offset)):
        assert torch.allclose(value[:, 0], value[:, 1], atol=1e-2)  # constant over frames
        assert low - 1e-2 <= float(value.min()) < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < float(value.max()) <= high + 1e-2
        assert float(value[:, 0].std(dim=0).min()) > 0.2 * (high - low)  # differs by episode
        assert float((value[:, 0, 0] - value[:, 0, 1]).abs().max()) > 0.5 * (high - low)
    assert abs(np.corrcoef(gain[:, 0, 0], offset[:, 0, 0])[0, 1]) < 0.3


def test_pictures_are_cut_at_black_and_white():
    out = grey(drawn(some(), changed(gain=(9.0, 9.0), offset=(-200.0, -200.0))))
    assert float(out.min()) == pytest.approx(0, abs=1e-3)
    assert float(out.max()) == pytest.approx(255, abs=1e-3)


def test_noise_is_added_to_every_pixel_after_normalisation():
    frames = some(size=32)
    noise = drawn(frames, changed(noise=0.3)) - normalise(frames)
    assert float(noise.std()) == pytest.approx(0.3, rel=0.02)
    assert abs(float(noise.mean())) < 0.01
    assert not torch.allclose(noise[0, 0], noise[0, 1], atol=0.1)


def test_a_generator_fixes_the_nuisance():
    frames, config = some(), TrainingConfig(epochs=1, batch=4)
    first = drawn(frames, config, seed=3)
    assert torch.equal(drawn(frames, config, seed=3), first)
    assert not torch.allclose(drawn(frames, config, seed=4), first)


# -- learning ---------------------------------------------------------------------------------


def test_an_instruction_that_can_be_seen_is_learnt():
    pictures, places = squares(64, seed=0)
    network = fit_observation(pictures, (places[:, 0] > 0).astype(np.int64), config=QUICK)
    assert not network.training
    shown, where = squares(100, seed=1)
    with torch.inference_mode():
        logits = network(
            normalise(torch.from_numpy(shown)), torch.tensor([0.0, 1.0]).expand(100, 2)
        )
    assert np.mean(logits.argmax(1).numpy() == (where[:, 0] > 0)) > 0.9


def test_an_action_that_can_be_seen_is_learnt():
    pictures, places = squares(96, seed=0, frames=1)
    g = np.random.default_rng(0)
    felt = (0.1 * g.standard_normal((96, 8)) + 5).astype(np.float32)
    actions = np.concatenate([places, np.zeros((96, 2))], axis=1).astype(np.float32)
    network = fit_execution(pictures[:, 0], felt, actions, config=QUICK)
    np.testing.assert_allclose(network.proprioception_mean, felt.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(network.proprioception_scale, felt.std(axis=0) + 0.02, rtol=1e-4)
    assert not network.training
    shown, where = squares(100, seed=1, frames=1)
    with torch.inference_mode():
        planned = network(normalise(torch.from_numpy(shown[:, 0])), torch.full((100, 8), 5.0))
    assert np.mean(np.sign(planned[:, :2].numpy()) == where) > 0.9
    assert float(planned[:, 2:].abs().mean()) < 0.3


def few(seed: int = 0, **fields) -> TrainingConfig:
    return TrainingConfig(**{"epochs": 2, "batch": 3, "frames": 2, "seed": seed} | fields)


def weights(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def test_a_seed_fixes_the_training_and_the_global_generator_is_left_alone():
    pictures, places = squares(6, seed=0)
    target = (places[:, 0] > 0).astype(np.int64)
    felt, actions = np.ones((6, 8), np.float32), np.ones((6, 4), np.float32)
    for fit in (
        lambda seed: fit_observation(pictures, target, config=few(seed)),
        lambda seed: fit_execution(pictures[:, 0], felt, actions, config=few(seed)),
    ):
        torch.manual_seed(1)
        before = torch.get_rng_state()
        first = weights(fit(0))
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(2)
        assert torch.equal(weights(fit(0)), first)
        assert not torch.allclose(weights(fit(1)), first)


@pytest.mark.parametrize(
    ("count", "batch", "updates"), [(6, 3, 4), (7, 3, 4), (2, 3, 2), (3, 3, 2)]
)
def test_progress_is_told_after_every_update(count, batch, updates):
    pictures, _ = squares(count, seed=0)
    told = []
    fit_observation(
        pictures,
        np.arange(count) % 2,
        config=few(batch=batch),
        progress=lambda *report: told.append(report),
    )
    assert [report[:2] for report in told] == [(i, updates) for i in range(1, updates + 1)]
    assert all(np.isfinite(loss) and 0 < loss < 5 for _, _, loss in told)


# -- episodes ---------------------------------------------------------------------------------


def test_a_trained_observation_model_is_whole(tmp_path):
    data = episodes(6)
    model = train_observation(data, camera="B", name="mine", config=few())
    assert (model.name, model.camera, model.inputs) == ("mine", "B", ("camera:B",))
    assert model.instructions == ("pull the cup", "push the cup")
    save(model, tmp_path / "m.safetensors", provenance={})
    read = load(Checkpoint(tmp_path / "m.safetensors"), name="mine", options=Options())
    assert read.weights_sha256 == model.weights_sha256
    again = train_observation(data, camera="B", config=few())
    assert again.weights_sha256 == model.weights_sha256


def test_a_trained_execution_model_is_whole_and_copies_the_expert(tmp_path):
    data = episodes(4)
    model = train_execution(data, camera="A", name="mine", config=few())
    assert (model.name, model.camera, model.inputs) == ("mine", "A", ("camera:A", "states"))
    felt = np.concatenate([one.states[:, PROPRIOCEPTION] for one in data])
    np.testing.assert_allclose(model.module.proprioception_mean, felt.mean(axis=0), atol=1e-6)
    save(model, tmp_path / "m.safetensors", provenance={})
    read = load(Checkpoint(tmp_path / "m.safetensors"), name="m", options=Options())
    assert read.weights_sha256 == model.weights_sha256

    def expert(actions: list[np.ndarray]) -> Episodes:
        return Episodes(
            [episode(i, extras={"expert_actions": a}) for i, a in enumerate(actions)]
        )  # fmt: skip

    same = train_execution(expert([one.actions for one in data]), camera="A", config=few())
    assert same.weights_sha256 == model.weights_sha256
    other = train_execution(expert([-one.actions for one in data]), camera="A", config=few())
    assert other.weights_sha256 != model.weights_sha256


@pytest.mark.parametrize("train", [train_observation, train_execution])
def test_episodes_that_do_not_fit_are_refused(train):
    with pytest.raises(StreamError, match="2 of 2 episodes have no camera 'C', first episode 0"):
        train(episodes(2), camera="C")
    uneven = Episodes([episode(0), episode(1, time=5)])
    with pytest.raises(ShapeError, match="between 3 and 5 frames; needed equally many, so collect"):
        train(uneven, camera="A")
    words = "camera A has frames of 32 x 32 pixels; the reference pair needs 64 x 64"
    with pytest.raises(ShapeError, match=words):
        train(episodes(2, size=32), camera="A")
    with pytest.raises(DeviceError, match="device 'cuda:99' was asked for but is not there"):
        train(episodes(2), config=few(device="cuda:99"))


def test_one_instruction_or_none_cannot_be_learnt():
    with pytest.raises(DegenerateError, match="2 episodes of 1 instruction; needed at least two"):
        train_observation(episodes(2, instruction="wave"), config=few())
    with pytest.raises(
        DegenerateError, match=r"0 episodes of 0 instruction; .* collect more tasks"
    ):
        train_observation(Episodes([]), config=few())


def test_a_policy_of_another_body_cannot_be_trained():
    with pytest.raises(
        DegenerateError, match="no episodes to train on; needed at least one, so co"
    ):
        train_execution(Episodes([]), config=few())
    with pytest.raises(
        ShapeError, match="states have 7 numbers; execution needs the 39 of Meta-Wo"
    ):
        train_execution(episodes(2, states=np.zeros((3, 7), np.float32)), config=few())
    words = r"actions of episode episode 0 have shape \[3, 6\]; execution needs the 4 numbers of"
    with pytest.raises(ShapeError, match=words):
        train_execution(episodes(2, actions=np.zeros((3, 6), np.float32)), config=few())
