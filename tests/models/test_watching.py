"""Networks that watch one camera: pictures, clips, frames chosen, twins."""

import pytest
import torch
from tiny_transformers import Scene
from torch import nn

from mirror_analysis.models.preparation import Preparation
from mirror_analysis.models.structure.discovery import discover
from mirror_analysis.models.watching import Watching
from mirror_analysis.testing import check_model

SMALL = Preparation(size=(8, 8))


class Pictures(nn.Module):
    """Of single pictures, [picture, channel, height, width]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 6, 4, stride=4), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.stem(x).relu().mean((2, 3)))


class Clips(nn.Module):
    """Of clips, [episode, channel, time, height, width]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv3d(3, 6, (2, 4, 4), stride=(2, 4, 4)), nn.Linear(6, 2)

    def forward(self, x):
        return {"logits": self.head(self.stem(x).relu().mean((2, 3, 4)))}


def watching(cls, layout="picture", clip=0) -> Watching:
    torch.manual_seed(0)
    network = cls().eval()

    def run(episodes, time):
        if layout == "picture":
            return network(torch.rand(episodes * time, 3, 8, 8))
        x = torch.rand(episodes, clip, 3, 8, 8)
        return call(network, x if layout == "time channel" else x.transpose(1, 2))

    def call(module, x):
        return module(x.transpose(1, 2) if layout == "time channel" else x)

    def rebuild():
        twin = cls()
        return twin, structure.moved(network, twin)

    structure = discover(network, run)
    return Watching(
        network, name="made", prepare=SMALL, call=call, structure=structure, rebuild=rebuild,
        layout=layout, clip=clip, facts={"family": "made"}, settings={"more": "1"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("cls", "layout", "clip"),
    [(Pictures, "picture", 0), (Pictures, "picture", 4), (Clips, "channel time", 4),
     (Clips, "time channel", 4)],
)  # fmt: skip
def test_every_layout_keeps_the_contract_of_models(cls, layout, clip) -> None:
    model = watching(cls, layout, clip)
    check_model(model, frames=7)
    assert model.framewise == (layout == "picture" and not clip)
    assert model.inputs == ("camera",)


def test_frames_reach_the_network_in_order_and_prepared() -> None:
    scenes = [Scene(5, 0), Scene(5, 1)]
    model, prepared = watching(Pictures), [SMALL(scene.pictures) for scene in scenes]
    with torch.no_grad():
        output = model.forward_batch(scenes)
        for i in (0, 1):
            torch.testing.assert_close(output[i], model.module(prepared[i]))
        for layout in ("channel time", "time channel"):
            clips = watching(Clips, layout, 3)
            chosen = torch.stack([x[[0, 2, 4]] for x in prepared]).transpose(1, 2)
            expected = clips.module(chosen)["logits"]
            torch.testing.assert_close(clips.forward_batch(scenes), expected)


def test_a_layer_of_chosen_frames_says_how_many() -> None:
    assert {info.frames for info in watching(Pictures, clip=4).layers()} == {4}
    assert {info.frames for info in watching(Pictures).layers()} == {0}


def test_what_decides_the_features_is_in_the_settings() -> None:
    every, some = watching(Pictures).settings, watching(Pictures, clip=2).settings
    assert every["preparation"] == str(SMALL)
    assert every["more"] == "1"
    assert every != some
    assert watching(Pictures).facts == {"normalisation": str(SMALL), "family": "made"}


def test_a_twin_has_the_same_layers_and_other_weights_and_leaves_the_seed_alone() -> None:
    model = watching(Pictures)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    twin = model.untrained(3)
    assert torch.equal(torch.rand(1), expected)
    assert twin.name == "made-untrained3"
    assert twin.layers() == model.layers()
    assert twin.weights_sha256 == model.untrained(3).weights_sha256 != model.weights_sha256
    assert twin.untrained(3).weights_sha256 == twin.weights_sha256
    assert not twin.module.training
