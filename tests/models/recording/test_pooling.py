"""Pooling of outputs whose batch is not first, and of clips inside longer episodes."""

import pytest
import torch

from mirror_analysis.errors import HookError, ShapeError, UnknownNameError
from mirror_analysis.models.model import LayerInfo
from mirror_analysis.models.recording.pooling import Pooling, has_steps, pool

E, T, N, C = 2, 3, 5, 4


def value(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def pooled(x: torch.Tensor, axes: str, rule: str = "mean", **more) -> torch.Tensor:
    info = LayerInfo("a", C, axes, **more)
    return pool(x, info, Pooling.parse(rule), episodes=E, time=T)


@pytest.mark.parametrize("rule", ["mean", "last", "mean/cls", "last/patches"])
@pytest.mark.parametrize(
    ("axes", "other", "back"),
    [
        ("token episode channel", "episode token channel", lambda x: x.transpose(0, 1)),
        ("token episode*time channel", "episode*time token channel", lambda x: x.transpose(0, 1)),
        ("time episode token channel", "episode time token channel", lambda x: x.transpose(0, 1)),
        (
            "token time episode channel",
            "episode token time channel",
            lambda x: x.permute(2, 0, 1, 3),
        ),
    ],
)
def test_a_batch_behind_tokens_or_time_is_the_same_as_one_before(axes, other, back, rule) -> None:
    sizes = {"token": N, "episode": E, "episode*time": E * T, "time": T, "channel": C}
    x = value(*(sizes[word] for word in axes.split()))
    got = pooled(x, axes, rule, prefix=1)
    assert got.shape == (E, C)
    torch.testing.assert_close(got, pooled(back(x).contiguous(), other, rule, prefix=1))


def test_a_layer_may_see_fewer_frames_than_the_episode_has() -> None:
    x = value(E * 2, C)
    got = pooled(x, "episode*time channel", frames=2)
    torch.testing.assert_close(got, x.reshape(E, 2, C).mean(1))
    with pytest.raises(HookError, match="gave 4 rows for 2 episodes of 3 frames"):
        pooled(x, "episode*time channel")


@pytest.mark.parametrize(
    ("axes", "shape", "words"),
    [
        ("token episode channel", (N, E + 1, C), "gave 3 rows for 2 episodes.*'episode' needs 2"),
        ("token episode*time channel", (N, E, C), r"'episode\*time' needs 6"),
        ("token episode channel", (N, E, C + 1), "gave 5 channels"),
    ],
)
def test_an_output_other_than_declared_is_refused(axes, shape, words) -> None:
    with pytest.raises(HookError, match=words):
        pooled(value(*shape), axes)


@pytest.mark.parametrize("axes", ["channel episode token", "height width episode channel",
                                  "token channel", "token channel episode"])  # fmt: skip
def test_only_tokens_and_time_may_come_before_the_episode(axes) -> None:
    with pytest.raises(ShapeError, match="with nothing but token or time before it"):
        LayerInfo("a", C, axes)


@pytest.mark.parametrize("space", ["mean", "grid2", "cls", "patches"])
@pytest.mark.parametrize(
    "axes",
    [
        "episode*time channel height width",
        "episode channel time height width",
        "episode time token channel",
        "episode*time token channel",
        "token episode*time channel",
        "time episode channel",
    ],
)
def test_steps_are_what_each_frame_alone_would_give(axes, space) -> None:
    if space == "grid2" and "token" in axes:
        pytest.skip("tokens have no grid")
    sizes = {"episode": E, "time": T, "episode*time": E * T, "channel": C, "token": N,
             "height": 5, "width": 6}  # fmt: skip
    words = axes.split()
    x = value(*(sizes[word] for word in words))
    more = {"prefix": 1} if "token" in words else {}
    got = pooled(x, axes, f"steps/{space}", **more)
    assert got.shape[0] == E * T and got.is_contiguous()
    # Time running fastest: row e * T + t is frame t of episode e, pooled as an episode of its own.
    folded = "episode*time" in words
    for e in range(E):
        for t in range(T):
            if folded:
                frame = x.narrow(words.index("episode*time"), e * T + t, 1)
            else:
                frame = x.narrow(words.index("episode"), e, 1).narrow(words.index("time"), t, 1)
            info = LayerInfo("a", C, axes, **more)
            alone = pool(frame, info, Pooling.parse(f"mean/{space}"), episodes=1, time=1)
            torch.testing.assert_close(got[e * T + t], alone[0])


def test_steps_hold_nothing_of_the_activation() -> None:
    x = value(E * T, C)
    got = pooled(x, "episode*time channel", "steps")
    x.zero_()
    assert got.abs().min() > 0


@pytest.mark.parametrize(
    ("axes", "shape", "more", "words"),
    [
        ("episode channel", (E, C), {}, r"'a' \(episode channel\) gives 1 vectors for .* of 3 fr"),
        ("episode token channel", (E, N, C), {}, "gives 1 vectors for an episode of 3 frames"),
        ("episode time channel", (E, 2, C), {}, "gives 2 vectors for an episode of 3 frames"),
        ("episode*time channel", (E * 2, C), {"frames": 2}, "2 vectors .* has no 'steps'; leave"),
    ],
)
def test_layers_without_a_vector_for_every_frame_have_no_steps(axes, shape, more, words) -> None:
    with pytest.raises(ShapeError, match=words):
        pooled(value(*shape), axes, "steps", **more)
    assert has_steps(LayerInfo("a", C, axes, **more)) == (shape == (E, 2, C))


def test_a_rule_is_written_as_it_is_read() -> None:
    for text in ("mean", "last/cls", "steps", "steps/grid4"):
        assert str(Pooling.parse(text)) == text
    assert str(Pooling.parse("steps/mean")) == "steps"
    with pytest.raises(UnknownNameError, match="unknown pooling 'step'; did you mean 'steps'"):
        Pooling.parse("step")
