"""The contract for models: it passes what keeps it and names what does not."""

import numpy as np
import pytest
import torch
from torch import nn

from mirror_analysis.errors import HookError
from mirror_analysis.models.model import Input, LayerInfo, ObservationModel
from mirror_analysis.testing import check_model, made_up


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.conv(x).relu().mean((2, 3)))


class Sound(ObservationModel):
    """Keeps the contract."""

    twins = True

    def __init__(self, name: str = "sound", seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.name, self.module, self.needs = name, Network(), (Input("camera"),)

    def layers(self):
        return [
            LayerInfo("conv", 4, "episode*time channel height width"),
            LayerInfo("head", 5, "episode*time channel"),
        ]

    def taps(self):
        return {"conv": self.module.conv, "head": self.module.head}

    def pictures(self, episodes):
        frames = np.concatenate([episode.stream("camera") for episode in episodes])
        return torch.from_numpy(frames).permute(0, 3, 1, 2) / 255

    def forward_batch(self, episodes):
        return self.module(self.pictures(episodes))

    def untrained(self, seed):
        return type(self)(f"{self.name}-untrained{seed}", seed + 1)


class Blind(Sound):
    def forward_batch(self, episodes):
        return self.module(0 * self.pictures(episodes))


class Random(Sound):
    def forward_batch(self, episodes):
        return self.module(torch.rand_like(self.pictures(episodes)))


class Mixing(Sound):
    def forward_batch(self, episodes):
        x = self.pictures(episodes)
        return self.module(x - x.mean())


class Learning(Sound):
    def forward_batch(self, episodes):
        found = super().forward_batch(episodes)
        with torch.no_grad():
            self.module.head.bias += 1e-6
        return found


class Hooked(Sound):
    def forward_batch(self, episodes):
        self.module.conv.register_forward_hook(lambda *call: None)
        return super().forward_batch(episodes)


class Twinless(Sound):
    def untrained(self, seed):
        twin = Sound(f"{self.name}-untrained{seed}")
        twin.module.load_state_dict(self.module.state_dict())
        return twin


class Misnamed(Sound):
    def untrained(self, seed):
        return Sound("twin", seed + 1)


class Fickle(Sound):
    def untrained(self, seed):
        return Sound(f"{self.name}-untrained{seed}", int(torch.randint(10**6, ())))


class Untapped(Sound):
    def taps(self):
        return {"head": self.module.head}


class Twice(Sound):
    def layers(self):
        return super().layers() * 2


class Silent(Sound):
    def layers(self):
        return []


def test_a_sound_model_passes():
    check_model(Sound())


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Blind, "gives every episode the same 'head'; it does not see its inputs"),
        (Random, "layer 'conv' of sound made again is off by"),
        (Mixing, "of sound made one by one is off by"),
        (Learning, "sound changed its weights while it ran"),
        (Hooked, "sound was left with hooks"),
        (Twinless, "untrained twin of sound has its weights, or those of another seed"),
        (Misnamed, "the twin is named 'twin'"),
        (Fickle, "one seed gave two different twins"),
        (Untapped, r"sound has no tap for \['conv'\]"),
        (Twice, "sound declares a layer twice"),
        (Silent, "sound declares no layers"),
    ],
)
def test_what_does_not_keep_the_contract_is_named(kind, words):
    with pytest.raises(AssertionError, match=words):
        check_model(kind())


def test_a_width_that_is_not_true_is_told_by_the_hook():
    model = Sound()
    model.layers = lambda: [LayerInfo("head", 6, "episode*time channel")]
    with pytest.raises(HookError, match="gave 5 channels"):
        check_model(model)


def test_made_up_episodes_have_what_is_needed():
    needs = [Input("camera"), Input("camera:top"), Input("states", 7), Input("array:goal")]
    episodes = made_up([*needs, Input("instruction")], count=4, pixels=(9, 11), frames=2)
    assert episodes.cameras == ("only", "top") and len(episodes) == 4
    assert episodes[1].stream("camera:top").shape == (2, 9, 11, 3)
    assert episodes.streams["states"] == (7,) and episodes.streams["array:goal"] == (4,)
    assert (
        episodes.fingerprint
        == made_up([*needs, Input("instruction")], count=4, pixels=(9, 11), frames=2).fingerprint
    )
