import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from mirror_analysis.episodes import TASKS, Simulator
from mirror_analysis.episodes.rendering import SceneRenderer, backend
from mirror_analysis.errors import (
    DegenerateError,
    DeviceError,
    MissingDependencyError,
    ShapeError,
    StreamError,
    UnknownNameError,
)

pytestmark = pytest.mark.sim


@pytest.fixture(scope="module")
def drawer():
    with Simulator("drawer-open") as simulator:
        yield simulator


def run(code, **environment):
    """Runs code in a fresh interpreter with warnings as errors."""
    changed = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        env=changed | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def roll(simulator, seed, steps=12):
    observation = simulator.reset(seed)
    observations = [observation]
    for _ in range(steps):
        observation, _ = simulator.step(simulator.expert(observation))
        observations.append(observation)
    return np.array(observations)


@pytest.mark.parametrize("task", ["drawer-open", "window-open", "faucet-open", "lever-pull"])
def test_the_observation_after_a_reset_is_the_true_one(task):
    import mujoco

    with Simulator(task, cameras=()) as simulator:
        env = simulator._env
        for seed in (1, 2):
            observation = simulator.reset(seed)
            mujoco.mj_forward(env.model, env.data)
            assert np.array_equal(observation, simulator.observe())
            assert np.array_equal(observation[:18], observation[18:36])
            # The bare environment is off by centimetres, so this test can fail.
            env.seed(seed)
            stale, _ = env.reset()
            assert np.abs(stale[:18] - observation[:18]).max() > 0.01


def test_the_goal_is_observed_before_and_after_a_step(drawer):
    observation = drawer.reset(3)
    goal = drawer.target + np.array([0.0, -0.36, 0.09])  # the drawer's handle, pulled out
    assert np.allclose(observation[36:], goal)
    assert np.allclose(drawer.step(np.zeros(4))[0][36:], goal)


def test_an_episode_is_determined_by_its_seed_alone(drawer):
    first = roll(drawer, 5)
    roll(drawer, 6)
    drawer.restore(drawer.snapshot())
    assert np.array_equal(roll(drawer, 5), first)
    assert not np.array_equal(roll(drawer, 6), first)
    with Simulator("drawer-open", cameras=()) as fresh:
        assert np.array_equal(roll(fresh, 5), first)


def test_the_expert_opens_the_drawer_and_says_where(drawer):
    observation = drawer.reset(1)
    where = "left" if drawer.target[0] < 0 else "right"
    assert drawer.instruction == f"open the drawer on the {where}"
    successes = []
    for _ in range(120):
        observation, success = drawer.step(drawer.expert(observation))
        successes.append(success)
    assert not successes[0]
    assert successes[-1]


def test_asking_the_expert_changes_nothing():
    with Simulator("door-open", cameras=()) as simulator:
        observation = simulator.reset(1)
        before = observation.copy()
        first = simulator.expert(observation)
        assert np.array_equal(observation, before)
        assert np.array_equal(simulator.expert(observation), first)


def test_actions_are_clipped_in_float32(drawer):
    drawer.reset(2)
    far, _ = drawer.step([9.0, 9.0, 9.0, 9.0])
    drawer.reset(2)
    near, _ = drawer.step([1.0, 1.0, 1.0, 1.0])
    assert np.array_equal(far, near)
    drawer.reset(2)
    wide, _ = drawer.step(np.full(4, 1 / 3, np.float64))
    drawer.reset(2)
    narrow, _ = drawer.step(np.full(4, 1 / 3, np.float32))
    assert np.array_equal(wide, narrow)


def test_impossible_actions_are_refused(drawer):
    drawer.reset(0)
    with pytest.raises(ShapeError, match=r"action has shape \[3\]; needed \[4\]"):
        drawer.step([0.0, 0.0, 0.0])
    with pytest.raises(DegenerateError, match="holds NaN or infinity; needed numbers"):
        drawer.step([0.0, np.nan, 0.0, 0.0])


def test_an_episode_ends_after_its_horizon(drawer):
    drawer.reset(0)
    drawer._env.curr_path_length = 500
    with pytest.raises(
        DegenerateError, match=r"over after 500 steps; reset\(seed\) starts another"
    ):
        drawer.step(np.zeros(4))
    drawer.reset(0)
    drawer.step(np.zeros(4))


def test_pictures_are_upright_and_show_the_drawer_where_it_is(drawer):
    """The drawer is the only green thing; further to the robot's left is further left in A."""
    centres = {}
    for seed in range(4):
        drawer.reset(seed)
        for camera in ("A", "B"):
            picture = drawer.render(camera).astype(int)
            assert picture.shape == (64, 64, 3)
            green = picture[..., 1] - picture[..., [0, 2]].max(-1) > 25
            assert green.sum() > 60
            rows, columns = np.nonzero(green)
            centres[seed, camera] = (drawer.target[0], columns.mean(), rows.mean())
            # The arm, the only red thing, comes from above.
            red = picture[..., 0] - picture[..., 1:].max(-1) > 60
            assert np.nonzero(red)[0].mean() < 32
    for camera, direction in (("A", 1), ("B", -1)):
        x, column, _ = np.array([v for k, v in centres.items() if k[1] == camera]).T
        assert np.corrcoef(x, column)[0, 1] * direction > 0.95


def test_markers_of_the_goal_are_hidden(drawer):
    drawer.reset(1)
    shown = SceneRenderer(drawer._env.model, size=64)
    shown._option.sitegroup[:] = 1
    try:
        from mirror_analysis.episodes.simulator import VIEWS

        with_sites = shown.render(drawer._env.data, VIEWS["A"])
        assert not np.array_equal(with_sites, drawer.render("A"))
    finally:
        shown.close()
    hidden = drawer.render("A")
    drawer._env.model.site_rgba[:] = [0, 0, 1, 1]
    assert np.array_equal(drawer.render("A"), hidden)


def test_a_restored_snapshot_looks_as_it_did(drawer):
    observation = drawer.reset(4)
    live, kept = [], []
    for _ in range(30):
        observation, _ = drawer.step(drawer.expert(observation))
        live.append(drawer.render("A"))
        kept.append(drawer.snapshot())
    drawer.reset(9)
    for picture, snapshot in list(zip(live, kept, strict=True))[::10]:
        drawer.restore(snapshot)
        assert np.array_equal(drawer.render("A"), picture)
    assert not np.array_equal(live[0], live[-1])


def test_size_and_cameras_are_those_asked_for():
    with Simulator("reach", size=20, cameras=("B",)) as simulator:
        assert simulator.render("B").shape == (20, 20, 3)
        with pytest.raises(StreamError, match=r"no camera 'A' \(cameras: B\); name it when making"):
            simulator.render("A")
        with pytest.raises(UnknownNameError, match="unknown task 'reach'"):
            _ = simulator.instruction
    simulator.close()
    with pytest.raises(ShapeError, match="pictures of 0 pixels; needed at least 1"):
        Simulator("reach", size=0)


def test_unknown_names_are_refused():
    with pytest.raises(UnknownNameError, match=r"Meta-World task 'drawer'.*did you mean 'drawer-"):
        Simulator("drawer", cameras=())
    with pytest.raises(UnknownNameError, match=r"unknown camera 'C' \(known: A, B\)"):
        Simulator("reach", cameras=("C",))


def test_without_cameras_nothing_is_drawn(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a renderer was made")

    monkeypatch.setattr("mirror_analysis.episodes.simulator.SceneRenderer", refuse)
    with Simulator("reach", cameras=()) as simulator:
        assert simulator.reset(0).shape == (39,)
        with pytest.raises(StreamError, match=r"no camera 'A' \(cameras: none\)"):
            simulator.render("A")


@pytest.mark.parametrize(
    "task", ["drawer-open", "handle-press-side", "plate-slide", "window-close"]
)
def test_midpoints_are_those_of_the_environment(task):
    with Simulator(task, cameras=()) as simulator:
        space, coordinate = simulator._env._random_reset_space, TASKS[task].coordinate
        low, high = space.low[coordinate], space.high[coordinate]
        assert high - low > 0.09
        assert np.isclose(TASKS[task].midpoint, (low + high) / 2)


def test_it_is_quiet_even_when_left_open():
    code = """
        import numpy as np
        from mirror_analysis.episodes import Simulator
        one, two = Simulator("reach", size=8), Simulator("coffee-button", size=8)
        assert not np.array_equal(one.render("A"), two.render("A"))
        one.step(one.expert(one.reset(0)))
    """
    done = run(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_way_to_draw_follows_the_environment():
    code = """
        from mirror_analysis.episodes import Simulator
        from mirror_analysis.episodes.rendering import backend
        with Simulator("reach", size=8) as simulator:
            drawn = simulator.render("A").std() > 9
            print(backend(), type(simulator._renderer._gl).__module__, drawn)
    """
    assert run(code, MUJOCO_GL="osmesa").stdout == "osmesa mujoco.osmesa True\n"


def test_a_process_draws_in_one_way_only():
    code = """
        import os
        from mirror_analysis.episodes import Simulator
        Simulator("reach", size=8).close()
        os.environ["MUJOCO_GL"] = "osmesa"
        Simulator("reach", size=8)
    """
    done = run(code, MUJOCO_GL="egl")
    assert "cannot draw with osmesa: this process draws with egl already; use one" in done.stderr


def test_a_screen_is_refused(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    with pytest.raises(DeviceError, match="MUJOCO_GL is 'glfw'; needed egl or osmesa"):
        backend()


def test_without_a_way_to_draw_the_mend_is_named(monkeypatch):
    monkeypatch.setattr("mirror_analysis.episodes.rendering._draws", lambda name: False)
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    mend = "`sudo apt-get install -y libegl1 libosmesa6 libgl1` installs it"
    with pytest.raises(MissingDependencyError, match="needs a working EGL or OSMesa, .*" + mend):
        backend()
    monkeypatch.setenv("MUJOCO_GL", "egl")
    with pytest.raises(MissingDependencyError, match=r"a working egl \(MUJOCO_GL\), which"):
        backend()
    monkeypatch.undo()
    broken = "import mirror_analysis.episodes as e; e.Simulator('reach', cameras=())"
    done = run(broken, MUJOCO_GL="egl", PYOPENGL_PLATFORM="osmesa")
    assert "drawing the simulator needs a working egl (MUJOCO_GL)" in done.stderr


def test_without_metaworld_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "metaworld.env_dict", None)
    text = r"the simulator needs metaworld.*`pip install 'mirror-analysis\[sim\]'` installs it"
    with pytest.raises(MissingDependencyError, match=text):
        Simulator("reach", cameras=())
