"""Pictures of a MuJoCo scene without a screen, fast: only what a small picture needs is drawn."""

from __future__ import annotations

import atexit
import importlib
import os
import subprocess
import sys
import weakref
from functools import cache
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from mirror_analysis.errors import DeviceError, MissingDependencyError

_BACKENDS = ("egl", "osmesa")
_MEND = "sudo apt-get install -y libegl1 libosmesa6 libgl1"
_PROBE = "from mujoco.{} import GLContext as C; c = C(8, 8); c.make_current(); c.free()"
_MAX_GEOMS = 1000


class View(NamedTuple):
    """A camera that looks at a point.

    Attributes:
        azimuth: degrees; 90 looks along y, away from the robot.
        elevation: degrees; negative looks down.
        distance: metres from the point.
        lookat: the point (x, y, z), metres.
    """

    azimuth: float
    elevation: float
    distance: float
    lookat: tuple[float, float, float]


def backend() -> str:
    """The way to draw without a screen: `MUJOCO_GL` where set, else "egl" or "osmesa".

    Raises:
        DeviceError: if `MUJOCO_GL` names something that needs a screen.
        MissingDependencyError: if what it names, or all of them, cannot draw on this machine.
    """
    asked = os.environ.get("MUJOCO_GL", "").lower().strip()
    if asked and asked not in _BACKENDS:
        raise DeviceError(
            f"MUJOCO_GL is '{asked}'; needed egl or osmesa, which draw without a screen,"
            " or leave it unset"
        )
    for name in (asked,) if asked else _BACKENDS:
        if _draws(name):
            return name
    raise missing_graphics(asked)


def missing_graphics(asked: str) -> MissingDependencyError:
    """The error for a machine that cannot draw.

    Args:
        asked: what `MUJOCO_GL` names; "" when it is not set.
    """
    what = f"a working {asked} (MUJOCO_GL)" if asked else "a working EGL or OSMesa"
    return MissingDependencyError(what, "drawing the simulator", f"`{_MEND}` installs it")


@cache
def _draws(name: str) -> bool:
    # In a process of its own: the first of them that PyOpenGL loads, works or not, is the only one.
    environment = {k: v for k, v in os.environ.items() if k != "PYOPENGL_PLATFORM"}
    done = subprocess.run(
        [sys.executable, "-c", _PROBE.format(name)],
        env=environment | {"MUJOCO_GL": name},
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


@final
class SceneRenderer:
    """Draws one model from any view.

    Marker sites, shadows, reflections, the sky and smoothing are left out: markers would give
    the goal away, and the rest costs ten times more than the picture.

    Args:
        model: mujoco.MjModel; its smoothing is switched off.
        size: height and width in pixels.
    """

    def __init__(self, model: Any, *, size: int) -> None:
        import mujoco

        name = backend()
        self._mujoco, self._model, self._size = mujoco, model, size
        model.vis.quality.offsamples = 0
        model.vis.quality.shadowsize = 0
        try:
            # Not mujoco.Renderer: what it draws with was settled when mujoco was imported.
            self._gl = importlib.import_module(f"mujoco.{name}").GLContext(size, size)
        except ImportError:
            raise DeviceError(
                f"cannot draw with {name}: this process draws with"
                f" {os.environ.get('PYOPENGL_PLATFORM')} already; use one of them per process"
            ) from None
        # At exit, but before the display is closed: freeing a context after that complains.
        self._at_exit = _closer(self)
        atexit.register(self._at_exit)
        self._gl.make_current()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=_MAX_GEOMS)
        for flag in ("SHADOW", "REFLECTION", "SKYBOX"):
            self._scene.flags[getattr(mujoco.mjtRndFlag, f"mjRND_{flag}")] = 0
        self._option = mujoco.MjvOption()
        self._option.sitegroup[:] = 0
        self._rect = mujoco.MjrRect(0, 0, size, size)

    def render(self, data: Any, view: View | str) -> NDArray[np.uint8]:
        """One picture.

        Args:
            data: mujoco.MjData, forwarded.
            view: from where; or the name of a camera of the model.

        Returns:
            [size, size, 3] RGB, the first row the top one.
        """
        mujoco = self._mujoco
        camera = mujoco.MjvCamera()
        if isinstance(view, str):
            camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            camera.fixedcamid = self._model.camera(view).id
        else:
            camera.type = mujoco.mjtCamera.mjCAMERA_FREE
            camera.azimuth, camera.elevation, camera.distance = view[:3]
            camera.lookat[:] = view.lookat
        self._gl.make_current()
        mujoco.mjv_updateScene(
            self._model, data, self._option, None, camera, mujoco.mjtCatBit.mjCAT_ALL.value,
            self._scene,
        )  # fmt: skip
        mujoco.mjr_render(self._rect, self._scene, self._context)
        picture = np.empty((self._size, self._size, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(picture, None, self._rect, self._context)
        return np.ascontiguousarray(picture[::-1])  # OpenGL counts rows from below

    def close(self) -> None:
        """Frees what was taken of the graphics system; closing twice does no harm."""
        atexit.unregister(self._at_exit)
        if self._gl is not None:
            self._gl.make_current()
            self._context.free()
            self._gl.free()
            self._gl = None


def _closer(renderer: SceneRenderer) -> Any:
    reference = weakref.ref(renderer)

    def close() -> None:
        if (alive := reference()) is not None:
            alive.close()

    return close
