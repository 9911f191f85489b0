"""Contacts of the hand, against a search by name through what the physics engine lists."""

import numpy as np
import pytest

from mirror_analysis.episodes import Simulator
from mirror_analysis.episodes.robot import ARM, FINGERS, HAND, carried

HAND_BODIES = {"right_l6", "right_hand", "hand", "rightclaw", "rightpad", "leftclaw", "leftpad"}
MOVES = {"faucet-open": {"faucet_link2"}, "handle-press": {"handle_link"}}

pytestmark = pytest.mark.sim


def listed(simulator, things):
    """Whether a contact between the hand and one of the things is on MuJoCo's list."""
    env = simulator._env
    name = lambda geom: env.model.body(env.model.geom_bodyid[geom]).name  # noqa: E731
    pairs = [{name(c.geom1), name(c.geom2)} for c in env.data.contact[: env.data.ncon]]
    return any(pair & HAND_BODIES and pair & things for pair in pairs)


@pytest.mark.parametrize("task", sorted(MOVES))
def test_a_touch_is_a_contact_of_the_hand_with_what_can_move(task):
    with Simulator(task, cameras=()) as simulator:
        found, expected, places = [], [], []
        for seed in (0, 2):
            observation = simulator.reset(seed)
            kept = []
            for _ in range(70):
                kept.append(simulator.snapshot())
                places.append(observation[4:7])
                observation, _ = simulator.step(simulator.expert(observation))
            for snapshot in kept:
                simulator.restore(snapshot)
                found.append(simulator.touching)
                expected.append(listed(simulator, MOVES[task]))
        assert found == expected
        assert 0.1 < np.mean(found) < 0.9
        for touch, place in zip(np.split(np.array(found), 2), np.split(np.array(places), 2),
                                strict=True):  # fmt: skip
            # Nothing moves before it is touched; then it does.
            way = np.linalg.norm(place - place[0], axis=1)
            assert way[: np.argmax(touch) + 1].max() < 0.002
            assert way[-1] > 0.02


def test_the_table_and_the_robot_itself_do_not_count():
    with Simulator("reach", cameras=()) as simulator:
        observation = simulator.reset(0)
        for _ in range(60):  # down to the table, away from the thing
            aim = np.clip((np.array([-0.3, 0.5, -0.05]) - observation[:3]) * 10, -1, 1)
            observation, _ = simulator.step([*aim, 1.0])
        simulator.restore(simulator.snapshot())
        data, model = simulator._env.data, simulator._env.model
        names = [{model.body(model.geom_bodyid[g]).name for g in (c.geom1, c.geom2)}
                 for c in data.contact[: data.ncon]]  # fmt: skip
        assert any(pair & HAND_BODIES and not pair <= HAND_BODIES for pair in names)
        assert not simulator.touching


def test_what_a_body_carries():
    with Simulator("reach", cameras=()) as simulator:
        model = simulator._env.model
        named = lambda mask: {model.body(b).name for b in model.geom_bodyid[mask]}  # noqa: E731
        assert named(carried(model, HAND)) == HAND_BODIES
        assert set(FINGERS) <= named(carried(model, HAND)) < named(carried(model, ARM))
        assert named(carried(model, "rightpad")) == {"rightpad"}
