"""Pooling of outputs whose batch is not first, and of clips inside longer episodes."""

import pytest
import torch

from mirror_analysis.errors import HookError, ShapeError
from mirror_analysis.models.model import LayerInfo
from mirror_analysis.models.recording.pooling import Pooling, pool

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
