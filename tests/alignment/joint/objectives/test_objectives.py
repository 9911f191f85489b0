"""Tasks that name what an episode is, against their formulas written out."""

import numpy as np
import pytest
import torch

from mirror_analysis.alignment.joint.objectives import Classification, Shown, VideoText
from mirror_analysis.episodes.episode import Episode, Episodes
from mirror_analysis.errors import (
    DefinitionError,
    DegenerateError,
    HookError,
    ShapeError,
    StreamError,
    UnknownNameError,
)
from mirror_analysis.models.recording.live import Live

WORDS = ("open", "close", "push", "open", "close", "open")


def episode(number, instruction, **labels):
    steps = np.arange(2)
    return Episode.from_frames(
        {}, id=str(number), task="t", instruction=instruction, success=True,
        states=np.zeros((2, 1), np.float32), actions=np.zeros((2, 1), np.float32),
        timestamps=steps / 10, steps=steps, length=2, labels=labels,
    )  # fmt: skip


EPISODES = Episodes([episode(i, word, side=i % 2) for i, word in enumerate(WORDS)])


def shown(representation, *, output=None, episodes=EPISODES):
    frames = np.tile(np.arange(2), (len(episodes), 1))
    live = Live(representation, None, np.zeros(0, dtype=np.int64), output)
    return Shown(live, list(episodes), frames)


def features(width=5):
    g = torch.Generator().manual_seed(0)
    return torch.randn(len(WORDS), width, generator=g).requires_grad_()


def generator():
    return torch.Generator().manual_seed(0)


def test_classification_is_smoothed_cross_entropy():
    head = Classification(smoothing=0.1).head(5, EPISODES, seed=1)
    assert head.classes.names == ("close", "open", "push")
    x = features()
    logits = head.logits(x).detach().double().numpy()
    expected = []
    for row, word in zip(logits, WORDS, strict=True):
        log_share = row - np.log(np.exp(row).sum())
        target = np.full(3, 0.1 / 3)
        target[head.classes.names.index(word)] += 0.9
        expected.append(-(target * log_share).sum())
    loss = head(shown(x), generator())
    assert loss.item() == pytest.approx(np.mean(expected), abs=1e-6)
    loss.backward()
    assert x.grad.abs().sum() > 0


def test_classification_of_another_label():
    head = Classification(label="side").head(5, EPISODES, seed=1)
    assert head.classes.names == ("0", "1")
    assert head.classes.numbers(shown(features())).tolist() == [0, 1, 0, 1, 0, 1]


def test_classification_of_the_models_own_output():
    head = Classification(smoothing=0.0, source="output").head(5, EPISODES, seed=1)
    assert not list(head.parameters())
    logits = torch.zeros(6, 3, requires_grad=True)
    loss = head(shown(features(), output=logits), generator())
    assert loss.item() == pytest.approx(np.log(3), abs=1e-6)
    with pytest.raises(DefinitionError, match="no map from a layer; run the model itself"):
        head.logits(features())
    with pytest.raises(ShapeError, match=r"gives \[6, 4\] for 6 episodes of 3 labels"):
        head(shown(features(), output=torch.zeros(6, 4, requires_grad=True)), generator())
    with pytest.raises(HookError, match="the model gives no output; train on a layer"):
        head(shown(features()), generator())
    with pytest.raises(HookError, match="chooses its output, without gradients"):
        head(shown(features(), output=torch.zeros(6, 3)), generator())
    with torch.no_grad():
        assert head(shown(features(), output=torch.zeros(6, 3)), generator()) > 0


def brute_force(videos, texts, words, temperature):
    """Khosla et al. (2020), eq. 2, in both directions, with loops."""
    cosines = np.array([[v @ t / np.linalg.norm(v) / np.linalg.norm(t) for t in texts]
                        for v in videos]) / temperature  # fmt: skip
    total = 0.0
    for matrix in (cosines, cosines.T):
        for i, row in enumerate(matrix):
            log_share = row - np.log(np.exp(row).sum())
            alike = [j for j, word in enumerate(words) if word == words[i]]
            total -= np.mean(log_share[alike]) / (2 * len(words))
    return total


@pytest.mark.parametrize("given", [False, True], ids=["learned-texts", "given-texts"])
def test_video_text_is_brute_force(given):
    g = np.random.default_rng(0)
    texts = {word: g.standard_normal(4) for word in set(WORDS)} if given else None
    head = VideoText(width=7, texts=texts, temperature=0.3).head(5, EPISODES, seed=1)
    x = features()
    videos = head.parts["video"](x).detach().double().numpy()
    table = dict(zip(head.classes.names, head.texts().detach().double().numpy(), strict=True))
    expected = brute_force(videos, [table[word] for word in WORDS], WORDS, 0.3)
    loss = head(shown(x), generator())
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    loss.backward()
    reached = {name for name, p in head.named_parameters() if p.grad.abs().sum() > 0}
    text = {"parts.text.weight", "parts.text.bias"} if given else {"parts.text.weight"}
    assert reached == {"parts.video.weight", "parts.video.bias", "log_temperature"} | text
    if given:
        unit = {word: vector / np.linalg.norm(vector) * 2 for word, vector in texts.items()}
        kept = np.stack([unit[name] for name in head.classes.names])
        np.testing.assert_allclose(head.table.numpy(), kept, rtol=1e-6)


def test_temperature_starts_as_given_and_has_a_floor():
    head = VideoText(temperature=0.07).head(5, EPISODES, seed=1)
    assert head.temperature.item() == pytest.approx(0.07, abs=1e-7)
    head.log_temperature.data.fill_(-50.0)
    assert head.temperature.item() == pytest.approx(0.01, abs=1e-7)
    fixed = VideoText(learned=False).head(5, EPISODES, seed=1)
    assert not fixed.log_temperature.requires_grad


def test_logits_are_cosines_over_the_temperature():
    head = VideoText(width=3).head(5, EPISODES, seed=1)
    x = features()
    found = head.logits(x) * head.temperature
    assert found.shape == (6, 3) and found.abs().max() <= 1 + 1e-6
    assert torch.allclose(found, head.videos(x) @ head.texts().T)


def test_a_seed_gives_the_same_head_and_leaves_the_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b, c = (VideoText().head(5, EPISODES, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["parts.video.weight"], c["parts.video.weight"])


def test_labels_that_cannot_be_learned():
    with pytest.raises(DegenerateError, match="2 episodes have 1 value of 'task'"):
        Classification(label="task").head(5, EPISODES[:2], seed=0)
    with pytest.raises(StreamError, match="episode 0 has no label 'colour'"):
        Classification(label="colour").head(5, EPISODES, seed=0)
    with pytest.raises(StreamError, match="episode x has no label 'instruction'"):
        VideoText().head(5, Episodes([episode("x", "")]), seed=0)
    head = Classification().head(5, EPISODES, seed=0)
    strangers = Episodes([episode(9, "fly")])
    with pytest.raises(UnknownNameError, match="unknown instruction 'fly'"):
        head(shown(features()[:1], episodes=strangers), generator())


def test_vectors_of_words_that_do_not_fit():
    some = {"open": np.ones(3), "close": np.ones(3)}
    with pytest.raises(UnknownNameError, match="unknown vector of words 'push'"):
        VideoText(texts=some).head(5, EPISODES, seed=0)
    with pytest.raises(ShapeError, match=r"have the shapes \[\(2,\), \(3,\)\]"):
        VideoText(texts=some | {"push": np.ones(2)}).head(5, EPISODES, seed=0)


def test_settings_out_of_range():
    with pytest.raises(DefinitionError, match="smoothing 1; needed 0 to below 1"):
        Classification(smoothing=1)
    with pytest.raises(DefinitionError, match=r"a width of 0 and a temperature of 0\.07"):
        VideoText(width=0)
    with pytest.raises(DefinitionError, match=r"temperature of 0\.01; needed 1 or more, and above"):
        VideoText(temperature=0.01)
