"""All audits in one pool of processes."""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Callable, Sequence

import msgspec

from mirror_analysis.audit.checks import Check, Job
from mirror_analysis.errors import SmallSampleWarning, UnknownNameError
from mirror_analysis.parallel import Executor, processes

AUDITS = {
    "correlation": "mirror_analysis.audit.published:jobs",
    "coverage": "mirror_analysis.audit.coverage:jobs",
    "deletion": "mirror_analysis.audit.deletion:jobs",
    "identification": "mirror_analysis.audit.identification:jobs",
    "information": "mirror_analysis.audit.information:jobs",
    "oracles": "mirror_analysis.audit.oracles:jobs",
    "rejection": "mirror_analysis.audit.rejection:jobs",
}
"""Name of the audit -> what gives its jobs for (quick, seed)."""


def run_audit(
    *,
    quick: bool = False,
    only: Sequence[str] = (),
    seed: int = 0,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Check]:
    """Holds the installed version to values that are known.

    Args:
        quick: under a minute, with fewer draws and wider bands.
        only: names out of `AUDITS`; all when empty.
        seed: of everything drawn; known values do not depend on it.
        executor: where work is done; a process per core when not given.
        progress: called with (pieces of work done, pieces in all).

    Returns:
        Every check, audit by audit; the installation has passed where none has `passed` False.
        A piece of work that ends in an error is a check that did not pass.

    Raises:
        UnknownNameError: if there is no audit of a name.

    Example:
        >>> [check.name for check in run_audit(quick=True) if check.passed is False]
        []
    """
    for name in only:
        if name not in AUDITS:
            raise UnknownNameError("audit", name, AUDITS)
    jobs = [job for name in AUDITS if not only or name in only for job in _jobs(name, quick, seed)]
    order = sorted(range(len(jobs)), key=lambda i: -jobs[i].cost)
    where = executor or processes()
    done = dict(zip(order, where.map(checks_of, [jobs[i] for i in order], progress), strict=True))
    return [check for i in range(len(jobs)) for check in done[i]]


def _jobs(name: str, quick: bool, seed: int) -> list[Job]:
    module, _, function = AUDITS[name].partition(":")
    return getattr(importlib.import_module(module), function)(quick, seed)


def checks_of(job: Job) -> list[Check]:
    """What a job finds; where it ends in an error, one check that says so."""
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            # Too few samples are among what is tried on purpose.
            warnings.simplefilter("ignore", SmallSampleWarning)
            found = job.function(**job.arguments)
    # Whatever goes wrong inside a measure is what an audit is there to tell.
    except Exception as error:
        words = " ".join(f"{type(error).__name__}: {error}".split())
        found = [Check(job.group, job.name, None, passed=False, note=words)]
    seconds = time.perf_counter() - start
    return [msgspec.structs.replace(check, seconds=seconds) for check in found]
