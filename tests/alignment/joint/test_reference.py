import numpy as np
import pytest
import scenes
import torch

from mirror_analysis.alignment.joint.reference import (
    ReferenceExecutionLearner,
    ReferenceObservationLearner,
)
from mirror_analysis.episodes import Episodes
from mirror_analysis.errors import DegenerateError, ShapeError, StreamError
from mirror_analysis.extraction import extract
from mirror_analysis.models.model import weights_digest
from mirror_analysis.models.reference.augmentation import Augmentation
from mirror_analysis.models.reference.family import PROPRIOCEPTION

STILL = Augmentation(gain=(1.0, 1.0), offset=(0.0, 0.0), shift=0, noise=0.0)
BOTH = [ReferenceObservationLearner, ReferenceExecutionLearner]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers)


@pytest.mark.parametrize("kind", BOTH)
def test_the_representation_is_the_layer_that_extraction_gives(kind):
    episodes = scenes.episodes(4)
    learner = kind(episodes, frames=3, augmentation=STILL).eval()
    layer = {"observation": "penultimate", "execution": "vision"}[learner.name]
    found = learner.step(rows(2, 0), generator()).representation
    expected = extract(learner.model, episodes, layers=[layer])[layer].values[[2, 0]]
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=2e-6)
    assert found.shape[1] == learner.width and found.requires_grad


def test_the_losses_are_those_of_their_tasks():
    episodes = scenes.episodes(4)
    u = ReferenceObservationLearner(episodes, frames=3, augmentation=STILL).eval()
    logits = extract(u.model, episodes, layers=["instruction"])["instruction"].values
    target = [u.instructions.index(e.instruction) for e in episodes]
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits), torch.tensor(target), label_smoothing=0.05
    )
    assert u.step(rows(0, 1, 2, 3), generator()).loss.item() == pytest.approx(expected.item(), 1e-5)

    e = ReferenceExecutionLearner(episodes, frames=3, augmentation=STILL).eval()
    done = np.stack([
        e.network(*_seen(e, one)).detach().numpy() for one in episodes
    ])  # fmt: skip
    off = np.abs(done - np.stack([one.actions for one in episodes]))
    huber = np.where(off < 0.1, off**2 / 0.2, off - 0.05).mean()
    assert e.step(rows(0, 1, 2, 3), generator()).loss.item() == pytest.approx(huber, 1e-5)


def _seen(learner, episode):
    from mirror_analysis.models.reference.networks import normalise

    felt = torch.from_numpy(episode.states[:, PROPRIOCEPTION])
    return normalise(torch.from_numpy(episode.frames(learner.model.camera))), felt


def test_the_expert_is_copied_where_it_is_recorded():
    plain = scenes.episodes(2)
    expert = Episodes(
        [scenes.episode(i, extras={"expert_actions": -e.actions}) for i, e in enumerate(plain)]
    )
    a, b = (ReferenceExecutionLearner(e, frames=3, augmentation=STILL).eval() for e in
            (plain, expert))  # fmt: skip
    a_loss, b_loss = (x.step(rows(0, 1), generator()).loss.item() for x in (a, b))
    assert a_loss != b_loss


@pytest.mark.parametrize("kind", BOTH)
def test_frames_and_appearance_are_drawn_by_the_generator(kind):
    learner = kind(scenes.episodes(3, time=6), frames=2).eval()
    first = learner.step(rows(0, 1), generator(1)).representation
    assert torch.equal(learner.step(rows(0, 1), generator(1)).representation, first)
    assert not torch.equal(learner.step(rows(0, 1), generator(2)).representation, first)


@pytest.mark.parametrize("kind", BOTH)
def test_a_twin_has_other_weights_and_the_same_pictures(kind):
    learner = kind(scenes.episodes(3), seed=1)
    digest = weights_digest(learner)
    twin = learner.untrained(5)
    assert type(twin) is kind and twin.episodes == learner.episodes
    assert weights_digest(twin) != digest == weights_digest(learner)
    assert twin._pictures is learner._pictures
    assert weights_digest(learner.untrained(5)) == weights_digest(twin)
    assert weights_digest(kind(scenes.episodes(3), seed=1)) == digest
    if kind is ReferenceExecutionLearner:
        mean = learner.network.proprioception_mean
        assert torch.equal(twin.network.proprioception_mean, mean) and float(mean.abs().sum()) > 0


def test_proprioception_is_scaled_by_the_training_episodes():
    episodes = scenes.episodes(4)
    network = ReferenceExecutionLearner(episodes).network
    felt = np.concatenate([e.states[:, PROPRIOCEPTION] for e in episodes])
    np.testing.assert_allclose(network.proprioception_mean, felt.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(network.proprioception_scale, felt.std(axis=0) + 0.02, atol=1e-5)


def test_episodes_that_do_not_fit_are_refused():
    for kind in BOTH:
        with pytest.raises(StreamError, match="2 of 2 episodes have no camera 'C'"):
            kind(scenes.episodes(2), camera="C")
        with pytest.raises(ShapeError, match="frames of 32 x 32 pixels; the reference pair needs"):
            kind(scenes.episodes(2, size=32))
    with pytest.raises(DegenerateError, match="2 episodes of 1 instruction; needed at least two"):
        ReferenceObservationLearner(scenes.episodes(2, instruction="wave"))
    with pytest.raises(DegenerateError, match="no episodes to train on; needed at least one"):
        ReferenceExecutionLearner(Episodes([]))
    with pytest.raises(ShapeError, match="states have 7 numbers; execution needs the 39"):
        ReferenceExecutionLearner(scenes.episodes(2, states=np.zeros((3, 7), np.float32)))
    with pytest.raises(ShapeError, match=r"have shape \[3, 7\]; execution needs the 4 numbers"):
        ReferenceExecutionLearner(scenes.episodes(2, actions=np.zeros((3, 7), np.float32)))
