"""How fast a policy is rolled out, beside the simulation and the drawing that have to be done.

    python -m benchmarks.rollout [--quick] [--episodes 56] [--together 1 6] [--workers 2]

Rolls the reference policy out in all tasks, 1,008 episodes by default, where the aim is 1,000 in 5
minutes on two cores that have nothing else to do. The floor, after it in the same run and with as
many processes, takes as many steps of bare MuJoCo in the same tasks, with the hand held still, and
draws as many bare pictures of the same view; no policy acts, nothing is observed or judged.
Seconds are those of the clock and of the processor, everything counted: starting the processes,
importing, loading the policy and making the simulators. A busy machine changes the former much
and the latter little, so ratios are of processor seconds. Nothing is extrapolated.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from mirror_analysis.episodes import TASKS, Simulator
from mirror_analysis.episodes.simulator import VIEWS
from mirror_analysis.parallel import processes
from mirror_analysis.rollout import Outcomes, rollout_outcomes

POLICY = "reference-execution-s0"
VIEW = "B"
AIM = (1000, 300.0)  # episodes, seconds of the clock


@dataclass(frozen=True)
class Bare:
    """Steps and resets of one task."""

    task: str
    steps: int
    resets: int


@dataclass(frozen=True)
class Times:
    clock_s: float
    cpu_s: float


def timed(work: Callable[[], object]) -> Times:
    """Seconds of the work, that of processes it started and ended included."""
    start, cpu = time.perf_counter(), _cpu()
    work()
    return Times(time.perf_counter() - start, _cpu() - cpu)


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def floor(job: Bare) -> None:
    import mujoco
    import numpy as np

    with Simulator(job.task, cameras=(VIEW,)) as simulator:
        renderer, env = simulator._renderer, simulator._env
        model, data, view = env.model, env.data, VIEWS[VIEW]
        camera = mujoco.MjvCamera()
        camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        camera.azimuth, camera.elevation, camera.distance = view[:3]
        camera.lookat[:] = view.lookat
        picture = np.empty((64, 64, 3), dtype=np.uint8)
        every = -(-job.steps // job.resets)
        for step in range(job.steps):
            if step % every == 0:
                simulator.reset(step)
                data.ctrl[:] = 0.0
            mujoco.mj_step(model, data, nstep=env.frame_skip)
            mujoco.mj_forward(model, data)
            mujoco.mjv_updateScene(
                model, data, renderer._option, None, camera,
                mujoco.mjtCatBit.mjCAT_ALL.value, renderer._scene,
            )  # fmt: skip
            mujoco.mjr_render(renderer._rect, renderer._scene, renderer._context)
            mujoco.mjr_readPixels(picture, None, renderer._rect, renderer._context)


def bare(outcomes: Outcomes) -> list[Bare]:
    """What the floor has to do for these outcomes."""
    return [
        Bare(task, sum(steps), len(steps))
        for task, steps in zip(outcomes.tasks, outcomes.steps, strict=True)
    ]


def report(given: argparse.Namespace) -> dict[str, object]:
    tasks = tuple(TASKS)[: 3 if given.quick else None]
    episodes = 4 if given.quick else given.episodes
    sides: dict[str, object] = {}
    found: dict[int, Outcomes] = {}
    load = os.getloadavg()[0]

    def roll(together: int) -> None:
        (found[together],) = rollout_outcomes(
            POLICY, tasks=tasks, episodes=episodes, together=together, workers=given.workers,
            progress=lambda done, total: print(f"part {done} of {total}", file=sys.stderr),
        )  # fmt: skip

    times = {together: timed(lambda t=together: roll(t)) for together in given.together}
    first = found[given.together[0]]
    lowest = timed(lambda: processes(given.workers).map(floor, bare(first)))
    count = len(tasks) * episodes
    for together, spent in times.items():
        outcomes = found[together]
        pairs = zip(sum(outcomes.success, ()), sum(first.success, ()), strict=True)
        sides[f"together {together}"] = {
            "clock_s": round(spent.clock_s, 1),
            "cpu_s": round(spent.cpu_s, 1),
            "episodes_per_minute": round(60 * count / spent.clock_s, 1),
            "cpu_to_floor": round(spent.cpu_s / lowest.cpu_s, 2),
            "success_rate": round(outcomes.rate, 4),
            "steps": sum(map(sum, outcomes.steps)),
            "successes_that_differ": sum(a != b for a, b in pairs),
        }
    clock = times[given.together[0]].clock_s
    met = clock <= AIM[1] if count >= AIM[0] else None  # nothing is said of fewer
    return {
        "policy": POLICY,
        "tasks": len(tasks),
        "episodes": count,
        "workers": given.workers,
        "load_before": round(load, 2),
        "floor": {"clock_s": round(lowest.clock_s, 1), "cpu_s": round(lowest.cpu_s, 1)},
        "sides": sides,
        "aim": {"episodes": AIM[0], "clock_s": AIM[1], "met": met},
    }


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="12 episodes in 3 tasks")
    parser.add_argument("--episodes", type=int, default=56, help="of each task")
    parser.add_argument("--together", type=int, nargs="+", default=[1], help="simulators a batch")
    parser.add_argument("--workers", type=int, default=2)
    print(json.dumps(report(parser.parse_args(arguments)), indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
