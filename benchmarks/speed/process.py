"""Pieces of work in processes of their own, taking turns."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

Kind = Literal["floor", "ours", "peer", "published"]

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".venv-peers" / "bin" / "python"
_WORKER = Path(__file__).with_name("worker.py")


@dataclass(frozen=True)
class Side:
    """One piece of work to be timed.

    Attributes:
        name: what the tables call it.
        kind: the matrix products nobody can do without, ours, a package as installed, or a
            published algorithm that no package holds.
        make: "module:function" that takes the data and gives a function without arguments.
        settings: further arguments of `make`.
        warm: settings to replace while warming up on a small part of the data.
        arrays: names of the arrays it takes, out of the row's.
        package: distribution whose version is recorded.
        like: name of our side whose first values it should give; "" for nothing to compare.
        scale: what its time is multiplied by, where only a part of the work is measured.
        note: what there is to say about it, such as what was measured.
    """

    name: str
    kind: Kind
    make: str
    settings: dict[str, Any] = field(default_factory=dict)
    warm: dict[str, Any] = field(default_factory=dict)
    arrays: tuple[str, ...] = ()
    package: str = ""
    like: str = ""
    scale: float = 1.0
    note: str = ""


class Worker:
    """A process that holds one side's data and runs it when asked.

    Attributes:
        skipped: why there is no time, "" as long as all is well.
        version: of the side's package.
    """

    def __init__(self, kind: Kind, *, threads: int, limit: float) -> None:
        """Starts the process.

        Args:
            kind: of the sides it will run; peers have an interpreter of their own.
            threads: compute threads of the process.
            limit: seconds after which an answer is no longer waited for.
        """
        self.skipped = self.version = ""
        self._threads, self._limit = threads, limit
        self._process: subprocess.Popen[str] | None = None
        self._said: IO[str] = tempfile.TemporaryFile("w+")
        if kind == "peer" and not PEERS.exists():
            self.skipped = "not installed; `make peers` installs it"
            return
        counts = ("OMP", "MKL", "OPENBLAS", "NUMBA")
        self._process = subprocess.Popen(
            [str(PEERS) if kind == "peer" else sys.executable, str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            # Threads that wait by spinning would count as work on a busy machine.
            env={
                **os.environ,
                **{f"{c}_NUM_THREADS": str(threads) for c in counts},
                "OMP_WAIT_POLICY": "passive",
            },
        )

    def load(self, side: Side, arrays: dict[str, Path]) -> None:
        """Loads the data of a side, from the .npy files of the row, and warms up."""
        reply = self._ask(
            {
                "make": side.make,
                "arrays": {name: str(arrays[name]) for name in side.arrays},
                "settings": side.settings,
                "warm": side.warm,
                "package": side.package,
                "threads": self._threads,
            }
        )
        self.version = reply.get("version", "")

    def run(self, *, budget: float, most: int) -> dict[str, Any]:
        """One turn: repeats within `budget` seconds, at most `most`; see `worker.timed`."""
        return self._ask({"budget": budget, "most": most})

    def close(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()
        self._said.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        if process is None or self.skipped:
            return {}
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        if not select.select([process.stdout], [], [], self._limit)[0]:
            self.skipped = f"did not finish in {self._limit:.0f} s"
            process.kill()
            return {}
        line = process.stdout.readline()
        if not line:
            self._said.seek(0)
            last = self._said.read().strip().splitlines()[-1:] or ["no message"]
            self.skipped = f"the process ended: {last[0]}"
            return {}
        reply = json.loads(line)
        self.skipped = reply.get("skipped", "")
        return {} if self.skipped else reply
