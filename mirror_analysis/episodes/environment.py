"""A Gymnasium environment (Towers et al., 2024) as streams of numbers and pictures."""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.episodes.rendering import SceneRenderer, View
from mirror_analysis.errors import (
    DegenerateError,
    FormatError,
    MissingDependencyError,
    ShapeError,
    StreamError,
    UnknownNameError,
)

Seen = Mapping[str, NDArray[Any]]
"""Stream -> what is there now, without an axis for the environment."""

_MEND = "`pip install 'mirror-analysis[gym]'` installs it"
_ROBOTS = ("Adroit", "AntMaze", "Fetch", "Franka", "Hand", "PointMaze")  # gymnasium-robotics
_FREE = "free"  # MuJoCo's own view of a whole scene
_DRAWN = "render"  # the picture an environment without MuJoCo draws of itself
_LONGEST = 1_000_000  # steps of an environment that does not say


@dataclass(frozen=True, eq=False)
class Step:
    """What came of an action.

    Attributes:
        seen: what is there after it.
        reward: of the action.
        ended: whether the environment ends the episode here, as when the robot falls.
        success: whether the environment counts this as success; None where it never says.
    """

    seen: Seen
    reward: float
    ended: bool
    success: bool | None


@final
class Environment:
    """One environment, and one camera on it.

    A plain observation is the stream "states"; of a dictionary, its part "observation" is, and
    "array:NAME" is every other part. A picture is "camera:NAME", a single one
    "camera:observation". Pictures of MuJoCo scenes are drawn without shadows, sky and site markers.

    Args:
        name: such as "HalfCheetah-v5"; "module:Name-v0" imports code, so it has to be trusted.
        camera: of the MuJoCo scene, "free" for its default view, "render" for what any other
            environment draws of itself; None for no pictures.
        size: height and width of the pictures in pixels.
        trusted: whether the module of the name may be imported.

    Raises:
        UnknownNameError: if there is no such environment or camera.
        FormatError: if the name imports code and is not trusted, or it cannot be made.
        MissingDependencyError: if Gymnasium or what the environment needs is not installed.

    Example:
        >>> with Environment("HalfCheetah-v5", camera="track") as environment:
        ...     seen = environment.reset(7)
        ...     step = environment.step(np.zeros(6))
        ...     picture = environment.render()
    """

    def __init__(
        self, name: str, *, camera: str | None = None, size: int = 128, trusted: bool = False
    ) -> None:
        if size < 1:
            raise ShapeError(f"pictures of {size} pixels; needed at least 1")
        if ":" in name and not trusted:
            raise FormatError(
                f"environment '{name}' imports the module {name.partition(':')[0]}; name it with"
                " --trust where its code may run"
            )
        self.name, self.camera, self.size = name, camera, size
        self._gym = _gymnasium()
        self._env = _make(self._gym, name, None)
        core = self._env.unwrapped
        self._scene = core if hasattr(core, "model") and hasattr(core, "data") else None
        self._renderer: SceneRenderer | None = None
        if camera is not None:
            self._open_camera(camera)
        self.reset(0)

    @property
    def streams(self) -> dict[str, tuple[int, ...]]:
        """What a policy can read here: stream -> shape, () of pictures."""
        found: dict[str, tuple[int, ...]] = {}
        for stream, space in self._spaces():
            found[stream] = () if stream.startswith("camera:") else (_width(space),)
        return found if self.camera is None else found | {f"camera:{self.camera}": ()}

    @property
    def dt(self) -> float:
        """Seconds per step; 1 where the environment does not say."""
        core = self._env.unwrapped
        if isinstance(dt := getattr(core, "dt", None), int | float) and dt > 0:
            return float(dt)
        rate = (getattr(core, "metadata", None) or {}).get("render_fps")
        return 1.0 / rate if isinstance(rate, int | float) and rate > 0 else 1.0

    @property
    def horizon(self) -> int:
        """Steps after which an episode is stopped."""
        return int(self._env.spec.max_episode_steps or _LONGEST)

    def reset(self, seed: int) -> Seen:
        """Starts the episode of a seed.

        Args:
            seed: 0 or more; the same seed and actions give the same episode.
        """
        return self._seen(self._env.reset(seed=seed)[0])

    def step(self, action: NDArray[Any]) -> Step:
        """Takes an action.

        Args:
            action: [action] numbers, or the number of a choice; not clipped here.

        Raises:
            ShapeError: if there are not as many numbers as the environment wants.
            DegenerateError: if one is NaN or infinite.
        """
        seen, reward, ended, _, info = self._env.step(self._action(action))
        judged = info.get("success", info.get("is_success"))
        return Step(
            self._seen(seen), float(reward), bool(ended), None if judged is None else bool(judged)
        )

    def random_action(self, seed: int, step: int) -> NDArray[np.float32]:
        """An action drawn evenly from all there are; a number without bounds is drawn normal.

        Args:
            seed: of the episode.
            step: in it; the draw depends on these two alone.
        """
        self._env.action_space.seed(int(np.random.SeedSequence([seed, step]).generate_state(1)[0]))
        return np.asarray(self._env.action_space.sample(), dtype=np.float32).reshape(-1)

    def render(self) -> NDArray[np.uint8]:
        """[size, size, 3] what the camera sees now.

        Raises:
            StreamError: if the environment was made without a camera.
        """
        return self.draw(self.snapshot())

    def snapshot(self) -> tuple[NDArray[Any], ...]:
        """What `draw` needs to draw this moment later, before the next reset.

        Raises:
            StreamError: if the environment was made without a camera.
        """
        if self.camera is None:
            raise StreamError(
                f"{self.name} was made without a camera; name one of {', '.join(self._cameras())}"
            )
        if self._scene is None:
            return (self._drawn(),)
        data = self._scene.data
        return data.qpos.copy(), data.mocap_pos.copy(), data.mocap_quat.copy()

    def draw(self, snapshot: tuple[NDArray[Any], ...]) -> NDArray[np.uint8]:
        """[size, size, 3] what the camera saw at that moment."""
        if self._renderer is None:
            return snapshot[0]
        # Drawn from data of its own: what the physics goes on from must not be touched.
        data = self._drawing
        data.qpos[:], data.mocap_pos[:], data.mocap_quat[:] = snapshot
        self._mujoco.mj_fwdPosition(self._scene.model, data)  # type: ignore[union-attr]
        return self._renderer.render(data, self._view)

    def close(self) -> None:
        """Frees what was taken of the graphics system; closing twice does no harm."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self._env.close()

    def __enter__(self) -> Environment:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _cameras(self) -> list[str]:
        if self._scene is None:
            return [_DRAWN]
        model = self._scene.model
        return [*(name for i in range(model.ncam) if (name := model.camera(i).name)), _FREE]

    def _open_camera(self, camera: str) -> None:
        if camera not in (known := self._cameras()):
            raise UnknownNameError(f"camera of {self.name}", camera, known)
        if self._scene is None:
            self._env.close()
            self._env = _make(self._gym, self.name, "rgb_array")
            return
        import mujoco

        model = self._scene.model
        self._mujoco, self._drawing, self._view = mujoco, mujoco.MjData(model), camera
        if camera == _FREE:
            eye = mujoco.MjvCamera()
            mujoco.mjv_defaultFreeCamera(model, eye)
            self._view = View(eye.azimuth, eye.elevation, eye.distance, tuple(eye.lookat.tolist()))
        model.vis.global_.offwidth = max(self.size, model.vis.global_.offwidth)
        model.vis.global_.offheight = max(self.size, model.vis.global_.offheight)
        self._renderer = SceneRenderer(model, size=self.size)

    _mujoco: Any
    _drawing: Any
    _view: View | str

    def _drawn(self) -> NDArray[np.uint8]:
        from PIL import Image, ImageOps

        picture = Image.fromarray(np.asarray(self._env.render(), dtype=np.uint8))
        return np.asarray(ImageOps.pad(picture, (self.size, self.size)))

    def _spaces(self) -> Iterator[tuple[str, Any]]:
        space = self._env.observation_space
        parts = space.spaces if isinstance(space, self._gym.spaces.Dict) else {"": space}
        for key, part in parts.items():
            if isinstance(part, self._gym.spaces.Dict | self._gym.spaces.Tuple):
                raise FormatError(
                    f"{self.name} gives an observation inside an observation ('{key}'); needed"
                    " arrays, so flatten them with a wrapper of Gymnasium"
                )
            picture = len(part.shape or ()) == 3 and part.dtype == np.uint8
            if picture and part.shape[-1] == 3:
                yield f"camera:{key or 'observation'}", part
            elif key in ("", "observation"):
                yield "states", part
            else:
                yield f"array:{key}", part

    def _seen(self, observation: Any) -> Seen:
        parts = observation if isinstance(observation, dict) else {"": observation}
        found: dict[str, NDArray[Any]] = {}
        for (stream, _), value in zip(self._spaces(), parts.values(), strict=True):
            if stream.startswith("camera:"):
                found[stream] = np.asarray(value, dtype=np.uint8)
            else:
                found[stream] = np.asarray(value, dtype=np.float32).reshape(-1)
        return found

    def _action(self, action: NDArray[Any]) -> Any:
        space, values = self._env.action_space, np.asarray(action).reshape(-1)
        if values.size != _width(space):
            raise ShapeError(
                f"an action of {values.size} numbers; {self.name} takes {_width(space)}, so give"
                " it a policy that was trained in it"
            )
        if not np.isfinite(values).all():
            raise DegenerateError(f"action {values.tolist()} holds NaN or infinity; needed numbers")
        if isinstance(space, self._gym.spaces.Discrete):
            return int(values[0].round())
        if isinstance(space, self._gym.spaces.MultiDiscrete | self._gym.spaces.MultiBinary):
            return values.round().astype(np.int64).reshape(space.shape)
        return values.astype(space.dtype).reshape(space.shape)


def versions() -> dict[str, str]:
    """Package -> version, of what decides how an environment behaves."""
    found = {}
    for package in ("gymnasium", "gymnasium-robotics", "mujoco"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _width(space: Any) -> int:
    return math.prod(space.shape or (1,))


def _gymnasium() -> Any:
    try:
        import gymnasium
    except ModuleNotFoundError as error:
        mend = "`pip install 'mirror-analysis[sim]'` installs it"
        raise MissingDependencyError(str(error.name), "a Gymnasium environment", mend) from None
    return gymnasium


def _make(gym: Any, name: str, render_mode: str | None) -> Any:
    known = name.partition(":")[2] or name
    # Old versions of environments warn that they are old, which is why they are asked for.
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        if ":" not in name and known not in gym.registry:
            _register_robots(gym, name)
        if ":" not in name and known not in gym.registry:
            raise UnknownNameError("environment", name, gym.registry)
        try:
            return gym.make(name, render_mode=render_mode, disable_env_checker=True)
        except gym.error.DependencyNotInstalled as error:
            words = " ".join(str(part) for part in error.args)
            raise MissingDependencyError(
                "a package of it", f"environment {name}", f"Gymnasium says: {_line(words)}"
            ) from None
        except (gym.error.Error, ImportError, TypeError) as error:
            raise FormatError(f"environment {name} cannot be made: {_line(str(error))}") from None


def _register_robots(gym: Any, name: str) -> None:
    try:
        gym.register_envs(importlib.import_module("gymnasium_robotics"))
    except ModuleNotFoundError as error:
        if name.startswith(_ROBOTS):
            raise MissingDependencyError(str(error.name), f"environment {name}", _MEND) from None


def _line(text: str) -> str:
    return " ".join(text.split())[:200]
