"""How fast episodes are drawn and collected, beside the bare cost of drawing them with MuJoCo.

    python benchmarks/episodes.py [TASK]

The floor draws the same model from the same views with the same settings, and nothing else.
Times are processor seconds, the least of several rounds in which the sides take turns.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import mujoco
import numpy as np

from mirror_analysis.episodes import Simulator, collect
from mirror_analysis.episodes.simulator import VIEWS

PICTURES = 200
EPISODES = 24
FRAMES = 16


def per_second(count: int, work: Callable[[], None]) -> float:
    start = time.process_time()
    work()
    return count / (time.process_time() - start)


def floor(simulator: Simulator) -> Callable[[], None]:
    renderer, env = simulator._renderer, simulator._env
    cameras = []
    for view in VIEWS.values():
        camera = mujoco.MjvCamera()
        camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        camera.azimuth, camera.elevation, camera.distance = view[:3]
        camera.lookat[:] = view.lookat
        cameras.append(camera)
    picture = np.empty((64, 64, 3), dtype=np.uint8)

    def draw() -> None:
        for i in range(PICTURES):
            mujoco.mjv_updateScene(
                env.model, env.data, renderer._option, None, cameras[i % 2],
                mujoco.mjtCatBit.mjCAT_ALL.value, renderer._scene,
            )  # fmt: skip
            mujoco.mjr_render(renderer._rect, renderer._scene, renderer._context)
            mujoco.mjr_readPixels(picture, None, renderer._rect, renderer._context)

    return draw


def main() -> None:
    task = sys.argv[1] if len(sys.argv) > 1 else "drawer-open"
    with Simulator(task) as simulator:
        observation = simulator.reset(1)
        snapshots = []
        for _ in range(80):
            observation, _ = simulator.step(simulator.expert(observation))
            snapshots.append(simulator.snapshot())

        def draw() -> None:
            for i in range(PICTURES // 2):
                simulator.restore(snapshots[i % len(snapshots)])
                simulator.render("A")
                simulator.render("B")

        def physics() -> None:
            seen = simulator.reset(2)
            for _ in range(150):
                seen, _ = simulator.step(simulator.expert(seen))

        bare = floor(simulator)
        bare()  # the first pictures are slow
        rounds = [
            (per_second(PICTURES, bare), per_second(PICTURES, draw), per_second(150, physics))
            for _ in range(5)
        ]
    lowest, ours, steps = np.max(rounds, axis=0)
    print(f"task                        {task}, 64 px, one process")
    print(f"bare MuJoCo (floor)         {lowest:7.0f} frames/s")
    print(f"restore and render          {ours:7.0f} frames/s   {ours / lowest:.2f} of the floor")
    print(f"expert and physics          {steps:7.0f} steps/s")
    with TemporaryDirectory() as folder:
        frames = EPISODES * FRAMES * 2
        rate = per_second(
            frames,
            lambda: collect(
                Path(folder), successes=EPISODES, failures=0, seed=0, split="fit",
                tasks=(task,), workers=1, frames=FRAMES,
            ) and None,
        )  # fmt: skip
    print(f"whole collection            {rate:7.0f} frames/s   {rate / lowest:.2f} of the floor")


if __name__ == "__main__":
    main()
