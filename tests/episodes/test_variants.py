"""Other looks: what is seen differs as it should, what happens does not at all."""

import hashlib
import pickle
from itertools import product

import msgspec
import numpy as np
import pytest

from mirror_analysis.episodes import Simulator
from mirror_analysis.episodes.rendering import SceneRenderer, View
from mirror_analysis.episodes.robot import ARM, carried
from mirror_analysis.episodes.simulator import VIEWS
from mirror_analysis.episodes.variants import PLAIN, VARIANTS, Variant, dressed, find_variant, moved
from mirror_analysis.errors import DefinitionError, UnknownNameError

TASK = "handle-press"  # the hand touches the handle and comes back


def roll(simulator, seed=1, steps=30):
    """[step, 39] observations, [step, state] positions and velocities."""
    observation = simulator.reset(seed)
    observations, inside = [observation], []
    for _ in range(steps):
        observation, _ = simulator.step(simulator.expert(observation))
        observations.append(observation)
        kept = simulator.snapshot()
        inside.append(np.concatenate([kept.qpos, kept.qvel]))
    return np.array(observations), np.array(inside)


@pytest.fixture(scope="module")
def plain():
    with Simulator(TASK, size=48) as simulator:
        yield simulator


def test_the_table_is_sorted_and_every_look_is_another_one():
    assert list(VARIANTS) == sorted(VARIANTS)
    looks = {str(variant) for variant in VARIANTS.values()}
    assert len(looks) == len(VARIANTS) and "plain" not in looks
    assert find_variant("camera-near") == Variant(zoom=1.2)
    with pytest.raises(UnknownNameError, match="unknown variant 'camera-neer'; did you mean 'cam"):
        find_variant("camera-neer")


def test_a_look_is_put_into_words_by_what_differs_and_read_back_whole():
    assert (str(PLAIN), str(Variant(zoom=2.0))) == ("plain", "zoom 2.0")
    assert str(VARIANTS["embodiment-large"]) == "arm 1.15, hand 1.4"
    for variant in VARIANTS.values():
        text = msgspec.json.encode(pickle.loads(pickle.dumps(variant)))
        assert text == msgspec.json.encode(variant)
        assert msgspec.json.decode(text, type=Variant) == variant


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"zoom": 0.0}, "variant zoom is 0.0; needed 0.5 to 2"),
        ({"hand": 0.7}, "variant hand is 0.7; needed 1 to 2"),
        ({"elevation": 50.0}, "variant elevation is 50.0; needed -40 to 30"),
        ({"azimuth": float("nan")}, "variant azimuth is nan; needed -90 to 90"),
        ({"table": (0.1, 1.2, 0.0)}, r"variant table is \(0.1, 1.2, 0.0\); needed red, green"),
    ],
)
def test_impossible_looks_are_refused(changes, text):
    with pytest.raises(DefinitionError, match=text):
        Variant(**changes)


def test_cameras_move_around_their_point():
    view = View(135.0, -40.0, 1.0, (0.0, 0.5, 0.1))
    assert moved(view, Variant()) == view
    there = moved(view, Variant(azimuth=-15.0, elevation=10.0, zoom=1.25))
    assert there == View(120.0, -30.0, 0.8, (0.0, 0.5, 0.1))


@pytest.mark.sim
@pytest.mark.parametrize("name", ["camera-side", "embodiment-large", "light-dim", "table-dark"])
def test_another_look_changes_pictures_and_nothing_that_happens(plain, name):
    with Simulator(TASK, size=48, variant=VARIANTS[name]) as simulator:
        for seen, expected in zip(roll(simulator), roll(plain), strict=True):
            assert np.array_equal(seen, expected)
        for camera in "AB":
            there, here = simulator.render(camera).astype(int), plain.render(camera)
            assert (np.abs(there - here).max(-1) > 12).mean() > 0.02


@pytest.mark.sim
def test_no_variant_is_the_plain_look(plain):
    plain.reset(4)
    with Simulator(TASK, size=48, variant=Variant()) as simulator:
        simulator.reset(4)
        for camera in "AB":
            assert np.array_equal(simulator.render(camera), plain.render(camera))


def difference(simulator, variant):
    """Where camera A's picture of the same moment differs under a variant, [size, size]."""
    other = SceneRenderer(dressed(simulator._env.model, variant), size=48)
    try:
        seen = other.render(simulator._env.data, moved(VIEWS["A"], variant))
        return (simulator.render("A") != seen).any(-1)
    finally:
        other.close()


def where(simulator, geoms):
    """Where camera A sees certain shapes, [size, size]."""
    drawn = simulator._renderer._model
    before, first = drawn.geom_rgba.copy(), simulator.render("A")
    drawn.geom_rgba[geoms, :3] = 1.0 - before[geoms, :3] * 0.9
    changed = (simulator.render("A") != first).any(-1)
    drawn.geom_rgba[:] = before
    return changed


@pytest.mark.sim
def test_colours_change_where_their_parts_are_and_nowhere_else(plain):
    plain.reset(0)
    model = plain._env.model
    body = np.array([model.body(number).name for number in model.geom_bodyid])
    parts = {
        "embodiment-blue": carried(model, ARM),
        "table-dark": body == "tablelink",
        "room-orange": np.isin(body, ["world", "RetainingWall"]),
    }
    for name, geoms in parts.items():
        changed, there = difference(plain, VARIANTS[name]), where(plain, geoms)
        assert changed.sum() > 0.7 * there.sum() > 30  # the arm has a black ring
        assert not (changed & ~there).any(), name


@pytest.mark.sim
def test_a_larger_hand_covers_more_and_stays_where_it_is(plain):
    with Simulator(TASK, size=48, cameras=("A",), variant=Variant(hand=1.5)) as large:
        model, drawn = plain._env.model, large._renderer._model
        hand = carried(model, "right_l6")
        assert np.array_equal(drawn.geom_size[hand], model.geom_size[hand] * 1.5)
        assert np.array_equal(drawn.geom_size[~hand], model.geom_size[~hand])
        assert not np.array_equal(drawn.mesh_vert, model.mesh_vert)
        moved_most = np.abs(drawn.mesh_vert - model.mesh_vert).max()
        assert 0.01 < moved_most < 0.05  # metres
        assert np.array_equal(large._env.model.mesh_vert, model.mesh_vert)
        plain.reset(0)
        large.reset(0)
        before = where(plain, hand)
        grown = where(large, hand)
        assert grown.sum() > 1.3 * before.sum()
        middle = lambda mask: np.argwhere(mask).mean(axis=0)  # noqa: E731
        assert np.abs(middle(grown) - middle(before)).max() < 2.0  # pixels


@pytest.mark.sim
def test_dressing_leaves_the_scene_itself_as_it_is(plain):
    model = plain._env.model
    fields = ("geom_rgba", "geom_size", "geom_aabb", "geom_rbound", "mesh_vert", "light_diffuse")
    digest = lambda: [hashlib.sha256(getattr(model, f).tobytes()).digest() for f in fields]  # noqa: E731
    before, light = digest(), model.vis.headlight.diffuse.copy()
    colours = dict.fromkeys(("robot", "fingers", "table", "room"), (0.0, 0.0, 1.0))
    everything = Variant(**colours, arm=1.2, hand=1.3, lamps=0.3, headlight=0.3)
    drawn = dressed(model, everything)
    assert digest() == before
    assert np.array_equal(model.vis.headlight.diffuse, light)
    assert all(not np.array_equal(getattr(drawn, f), getattr(model, f)) for f in fields)


@pytest.mark.sim
@pytest.mark.parametrize("task", ["coffee-button", "faucet-open"])
def test_the_thing_that_is_worked_on_stays_in_view(task):
    with Simulator(task) as simulator:
        drawn, data = simulator._renderer._model, simulator._env.data
        body = np.array([drawn.body(number).name for number in drawn.geom_bodyid])
        scene = np.isin(body, ["world", "tablelink", "RetainingWall", "mocap"])
        thing = ~scene & ~carried(drawn, "base")
        shown = drawn.geom_rgba[thing, 3]
        for seed, camera in product((0, 1), VIEWS):
            simulator.reset(seed)
            for name in (name for name in VARIANTS if name.startswith("camera")):
                view = moved(VIEWS[camera], VARIANTS[name])
                with_it = simulator._renderer.render(data, view)
                drawn.geom_rgba[thing, 3] = 0.0
                without = simulator._renderer.render(data, view)
                drawn.geom_rgba[thing, 3] = shown
                assert (with_it != without).any(-1).sum() > 30, (name, seed, camera)
