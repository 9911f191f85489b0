"""Hands files to a reader in another process and hears what became of each."""

import json
import os
import selectors
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STARTING = 180.0  # seconds the libraries may take to be imported


class Reader:
    """One reading process; a new one is started where a file has killed it.

    Args:
        scratch: a folder for its temporary files.
        patience: seconds one file may take.
    """

    def __init__(self, scratch, *, patience=60.0):
        self.patience = patience
        scratch.mkdir(parents=True, exist_ok=True)
        self.log = scratch / "stderr.txt"
        self.environment = {
            **os.environ,
            "TMPDIR": str(scratch),
            "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        self.process = None

    def read(self, job):
        """What became of one file: a report of the reader, or that it killed or stalled it."""
        if self.process is None:
            self._start()
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        began = time.monotonic()
        line = self._line(self.patience)
        if line:
            return json.loads(line)
        code = self.process.poll()
        self.close(kill=True)
        how = f"ended with {code}" if code is not None else f"took over {self.patience:g} seconds"
        said = self.log.read_text(errors="replace")[-1500:]
        took = time.monotonic() - began
        report = {"id": job["id"], "outcome": "killed", "kind": how, "words": "", "trace": said}
        return report | {"seconds": took, "grown": 0, "inner": 0, "seen": []}

    def _start(self):
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("reader.py"))],
                env=self.environment,
                cwd=self.log.parent,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        if not self._line(STARTING):
            raise RuntimeError(f"the reader did not start: {self.log.read_text()[-3000:]}")

    def _line(self, patience):
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(patience):
                return ""
        return self.process.stdout.readline()

    def close(self, *, kill=False):
        """Ends the process."""
        if self.process is None:
            return
        if kill:
            self.process.kill()
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.process = None
