"""One Meta-World task (Yu et al., 2020) as a simulator without surprises."""

from __future__ import annotations

import os
import warnings
from types import TracebackType
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mirror_analysis.episodes import tasks
from mirror_analysis.episodes.rendering import SceneRenderer, View, missing_graphics
from mirror_analysis.episodes.robot import touches
from mirror_analysis.episodes.variants import PLAIN, Variant, dressed, moved
from mirror_analysis.errors import (
    DegenerateError,
    MissingDependencyError,
    ShapeError,
    StreamError,
    UnknownNameError,
)

HORIZON = 500

# Two views a quarter turn apart, in both of which every target of the tasks can be seen: A from
# behind the robot's right shoulder, B from the far right corner of the table.
VIEWS = {
    "A": View(135.0, -40.0, 1.05, (0.0, 0.65, 0.1)),
    "B": View(225.0, -45.0, 1.05, (0.0, 0.68, 0.1)),
}

# Out of both views, and more than half of the cost of a picture.
_FAR_LINKS = ("l0", "l1", "head", "base", "pedestal")


class Snapshot(NamedTuple):
    """Where everything was at one moment.

    Attributes:
        qpos: joint positions.
        qvel: joint velocities.
        mocap_pos: position of the point that pulls the hand.
        mocap_quat: its orientation.
        body_pos: where the bodies are mounted, which every reset changes.
    """

    qpos: NDArray[np.float64]
    qvel: NDArray[np.float64]
    mocap_pos: NDArray[np.float64]
    mocap_quat: NDArray[np.float64]
    body_pos: NDArray[np.float64]


@final
class Simulator:
    """A Meta-World v3 task, its scripted expert and two cameras; starts in the episode of seed 0.

    Against the bare environment: an episode is determined by its seed alone; the observation
    after a reset is the true one; the goal is observed; no picture shows a goal marker.

    Args:
        task: name without version, such as "drawer-open".
        size: height and width of the pictures in pixels.
        cameras: names out of `VIEWS`; without any, nothing of the graphics system is touched.
        variant: another look of the scene; what happens stays the same, bit for bit.

    Raises:
        UnknownNameError: if there is no such task or camera.
        MissingDependencyError: if Meta-World or a way to draw is not installed.

    Example:
        >>> with Simulator("drawer-open") as simulator:
        ...     observation = simulator.reset(7)
        ...     observation, success = simulator.step(simulator.expert(observation))
        ...     picture = simulator.render("A")
    """

    def __init__(
        self,
        task: str,
        *,
        size: int = 64,
        cameras: tuple[str, ...] = ("A", "B"),
        variant: Variant | None = None,
    ) -> None:
        for camera in cameras:
            if camera not in VIEWS:
                raise UnknownNameError("camera", camera, VIEWS)
        if size < 1:
            raise ShapeError(f"pictures of {size} pixels; needed at least 1")
        self.task, self.cameras = task, cameras
        self._mujoco, self._env, self._policy = _make(task)
        model = self._env.model
        model.vis.global_.offwidth = max(size, model.vis.global_.offwidth)
        model.vis.global_.offheight = max(size, model.vis.global_.offheight)
        look = variant or PLAIN
        self._views = {camera: moved(VIEWS[camera], look) for camera in cameras}
        drawn = model if look == PLAIN or not cameras else dressed(model, look)
        self._renderer = SceneRenderer(drawn, size=size) if cameras else None
        self.reset(0)

    @property
    def dt(self) -> float:
        """Seconds per step."""
        return float(self._env.dt)

    @property
    def target(self) -> NDArray[np.float64]:
        """The random vector of this episode: one or two points (x, y, z), metres."""
        return np.array(self._env._last_rand_vec, dtype=np.float64)

    @property
    def side(self) -> str:
        """On which side of its range the target is, such as "left"."""
        return tasks.side(self.task, self.target)

    @property
    def instruction(self) -> str:
        """What this episode asks for, such as "open the drawer on the left".

        Raises:
            UnknownNameError: if the task is not one of `TASKS`.
        """
        return tasks.instruction(self.task, self.side)

    def reset(self, seed: int) -> NDArray[np.float64]:
        """Starts the episode of a seed; the same seed always gives the same episode.

        Args:
            seed: 0 or more.

        Returns:
            [39] observation: hand, gripper, objects; the same one step before; the goal.
        """
        env = self._env
        env.seed(seed)  # reset(seed=...) is ignored by these environments
        env.reset()
        # Bodies were moved after the last computation of where everything is, so what reset()
        # returns has the object where it was in the episode before.
        self._mujoco.mj_forward(env.model, env.data)
        now = env._get_curr_obs_combined_no_goal()
        env._prev_obs = now
        return self._bounded(np.concatenate([now, now, env._get_pos_goal()]))

    def observe(self) -> NDArray[np.float64]:
        """[39] observation, computed from where everything is now."""
        env = self._env
        now = env._get_curr_obs_combined_no_goal()
        return self._bounded(np.concatenate([now, env._prev_obs, env._get_pos_goal()]))

    def step(self, action: ArrayLike) -> tuple[NDArray[np.float64], bool]:
        """Takes an action.

        Args:
            action: [4] hand movement in x, y, z and gripper effort; clipped to -1 .. 1.

        Returns:
            [39] observation after it, and whether the task is done now.

        Raises:
            ShapeError: if there are not four numbers.
            DegenerateError: if one is NaN, or the episode has had its 500 steps.
        """
        values = np.asarray(action, dtype=np.float32)
        if values.shape != (4,):
            raise ShapeError(f"action has shape {list(values.shape)}; needed [4]")
        if not np.isfinite(values).all():
            raise DegenerateError(f"action {values.tolist()} holds NaN or infinity; needed numbers")
        if self._env.curr_path_length >= HORIZON:
            raise DegenerateError(
                f"the episode is over after {HORIZON} steps; reset(seed) starts another"
            )
        observation, _, _, _, info = self._env.step(np.clip(values, -1.0, 1.0))
        return observation, bool(info["success"])

    def expert(self, observation: NDArray[np.float64]) -> NDArray[np.float32]:
        """[4] what the scripted expert does on seeing an observation, in -1 .. 1."""
        with warnings.catch_warnings():
            # It warns that it asks for more than 1, which is clipped here.
            warnings.simplefilter("ignore", UserWarning)
            # A copy, for some experts (door-open) move the object in the observation they get.
            action = self._policy.get_action(np.array(observation, dtype=np.float64))
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def render(self, camera: str) -> NDArray[np.uint8]:
        """[size, size, 3] what a camera sees now.

        Raises:
            StreamError: if the simulator was made without that camera.
        """
        if self._renderer is None or camera not in self.cameras:
            there = ", ".join(self.cameras) if self.cameras else "none"
            raise StreamError(
                f"this simulator has no camera '{camera}' (cameras: {there});"
                " name it when making the simulator"
            )
        return self._renderer.render(self._env.data, self._views[camera])

    @property
    def touching(self) -> bool:
        """Whether the hand touches anything that can move, after a reset or a restored snapshot.

        After a step the contacts are those of the moment before it.
        """
        return touches(self._env.model, self._env.data)

    def snapshot(self) -> Snapshot:
        """Where everything is now, for drawing it later."""
        data = self._env.data
        arrays = (data.qpos, data.qvel, data.mocap_pos, data.mocap_quat, self._env.model.body_pos)
        return Snapshot(*(array.copy() for array in arrays))

    def restore(self, snapshot: Snapshot) -> None:
        """Puts everything where it was, to be drawn; reset before taking another step."""
        data = self._env.data
        data.qpos[:], data.qvel[:] = snapshot.qpos, snapshot.qvel
        data.mocap_pos[:], data.mocap_quat[:] = snapshot.mocap_pos, snapshot.mocap_quat
        self._env.model.body_pos[:] = snapshot.body_pos
        self._mujoco.mj_forward(self._env.model, data)

    def close(self) -> None:
        """Frees what was taken of the graphics system; closing twice does no harm."""
        if self._renderer is not None:
            self._renderer.close()
        self._renderer = None

    def __enter__(self) -> Simulator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _bounded(self, observation: NDArray[np.float64]) -> NDArray[np.float64]:
        space = self._env.sawyer_observation_space
        return np.clip(observation, space.low, space.high)


def _make(task: str) -> tuple[Any, Any, Any]:
    """The mujoco module, the environment and the scripted expert of a task."""
    try:
        import mujoco
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
        from metaworld.policies import ENV_POLICY_MAP
    except ModuleNotFoundError as error:
        mend = "`pip install 'mirror-analysis[sim]'` installs it"
        raise MissingDependencyError(str(error.name), "the simulator", mend) from None
    except (ImportError, AttributeError):
        # What importing mujoco raises where MUJOCO_GL names a library that does not work.
        raise missing_graphics(os.environ.get("MUJOCO_GL", "")) from None
    if f"{task}-v3" not in ALL_V3_ENVIRONMENTS:
        known = [name.removesuffix("-v3") for name in ALL_V3_ENVIRONMENTS]
        raise UnknownNameError("Meta-World task", task, known)
    env = ALL_V3_ENVIRONMENTS[f"{task}-v3"]()
    env._partially_observable = False
    # Cached while the goal was hidden; with it the goal would be clipped to 0 in every step.
    env.__dict__.pop("sawyer_observation_space", None)
    env._freeze_rand_vec, env.seeded_rand_vec, env._set_task_called = False, True, True
    _hide_far_links(mujoco, env.model)
    policies: Any = ENV_POLICY_MAP  # typed as holding the abstract class
    return mujoco, env, policies[f"{task}-v3"]()


def _hide_far_links(mujoco: Any, model: Any) -> None:
    kind = mujoco.mjtObj.mjOBJ_MESH
    for geom in np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_MESH):
        if mujoco.mj_id2name(model, kind, model.geom_dataid[geom]) in _FAR_LINKS:
            model.geom_rgba[geom, 3] = 0.0
