"""Which frames of which episodes are shown, and how they look."""

import numpy as np
import pytest
import torch

from mirror_analysis.alignment.joint.showing import (
    FrameDraw,
    Shelf,
    ShownEpisode,
    draw_nuisance,
)
from mirror_analysis.episodes.episode import Episode, Episodes
from mirror_analysis.episodes.nuisance import Nuisance, NuisanceDraw, jitter
from mirror_analysis.errors import DefinitionError, ShapeError, StreamError


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_streams_that_fit_are_read_once_and_others_again():
    reads = []

    def loader(number):
        def load(camera):
            reads.append(number)
            return np.zeros((4, 8, 8, 3), np.uint8)

        return load

    steps = np.arange(4)
    of = Episodes(
        Episode(
            id=str(i), task="t", instruction="i", success=True, states=np.zeros((4, 0), np.float32),
            actions=np.zeros((4, 0), np.float32), timestamps=steps / 10, steps=steps, length=4,
            cameras=("A",), loader=loader(i), digest=str(i),
        )
        for i in range(3)
    )  # fmt: skip
    shelf = Shelf(of, {"camera": "camera:A"}, most=2 * 4 * 8 * 8 * 3)
    for _ in range(3):
        for i in range(3):
            ShownEpisode(shelf, i, np.array([0, 2]), {}).stream("camera")
    assert reads == [0, 1, 2, 2, 2]
    assert shelf.held <= shelf.most
    with pytest.raises(StreamError, match="the model reads 'states' but declares only camera;"):
        ShownEpisode(shelf, 0, np.array([0]), {}).stream("states")


def test_looks_are_those_of_the_nuisance_that_was_drawn():
    steps = np.arange(3)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 9, 9, 3), dtype=np.uint8)
    one = Episode.from_frames(
        {"A": pictures, "B": pictures}, id="0", task="t", instruction="i", success=True,
        states=np.ones((3, 2), np.float32), actions=np.zeros((3, 0), np.float32),
        timestamps=steps / 10, steps=steps, length=3,
    )  # fmt: skip
    wires = {"camera:top": "camera:A", "camera": "camera:B", "states": "states"}
    shelf = Shelf(Episodes([one]), wires)
    assert shelf.cameras == ("camera:top", "camera")
    look = NuisanceDraw((1.5, 0.5, 1.0), 10.0, (2, -1))
    shown = ShownEpisode(shelf, 0, np.array([2, 0]), {"camera": look})
    np.testing.assert_array_equal(shown.stream("camera"), jitter(pictures[[2, 0]], look))
    np.testing.assert_array_equal(shown.stream("camera:top"), pictures[[2, 0]])
    np.testing.assert_array_equal(shown.stream("states"), one.states[:2])
    assert (shown.id, shown.instruction, shown.length) == ("0", "i", 3)
    assert shown.steps.tolist() == [2, 0] and shown.timestamps.tolist() == [0.2, 0.0]


def test_nuisance_is_drawn_evenly_over_its_ranges():
    nuisance = Nuisance(gain=(0.5, 2.5), offset=(-10.0, 30.0), shift=2)
    drawn = generator()
    found = [draw_nuisance(nuisance, drawn) for _ in range(3000)]
    gain = np.array([one.gain for one in found])
    offset = np.array([one.offset for one in found])
    shift = np.array([one.shift for one in found])
    assert gain.min() >= 0.5 and gain.max() < 2.5 and offset.min() >= -10 and offset.max() < 30
    np.testing.assert_allclose(gain.mean(0), 1.5, atol=0.05)
    assert gain.std(0) == pytest.approx(2 / 12**0.5, rel=0.05)
    assert offset.mean() == pytest.approx(10, abs=0.8)
    counts = np.stack([np.bincount(column + 2, minlength=5) for column in shift.T])
    assert counts.shape == (2, 5) and counts.min() > 500
    everything = np.column_stack([gain, offset, shift])
    off = np.abs(np.corrcoef(everything.T) - np.eye(6)).max()
    assert off < 0.08  # drawn apart from one another
    again = generator()
    assert [draw_nuisance(nuisance, again) for _ in range(5)] == found[:5]


def test_frames_of_some_rows():
    draw = FrameDraw(np.array([4, 400]), 2, consecutive=False, ids=["a", "b"])
    found = draw(np.array([1, 0, 1]), generator())
    assert found.shape == (3, 2) and found[1].max() < 4
    assert (found[[0, 2]] // 200 == [0, 1]).all()


def test_what_cannot_be_shown():
    lengths = np.array([4, 9])
    with pytest.raises(DefinitionError, match="-1 frames of an episode; needed 1 or more, or 0"):
        FrameDraw(lengths, -1, consecutive=False, ids=["a", "b"])
    with pytest.raises(ShapeError, match="between 4 and 9 frames; showing all of them needs"):
        FrameDraw(lengths, 0, consecutive=False, ids=["a", "b"])
    with pytest.raises(ShapeError, match="episode a has 4 frames; 6 consecutive ones were asked"):
        FrameDraw(lengths, 6, consecutive=True, ids=["a", "b"])
