"""What the commands do that takes more than a call."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from mirror_analysis.episodes import load_episodes
from mirror_analysis.errors import FormatError, UnknownNameError
from mirror_analysis.models.reference.family import Reference, save
from mirror_analysis.provenance import record
from mirror_analysis.reporting import render_report
from mirror_analysis.results import Result
from mirror_analysis.training import EXECUTION, OBSERVATION, train_execution, train_observation

Report = Callable[[str, int, int], None]


def train(
    role: str,
    source: str,
    out: Path,
    camera: str,
    epochs: int | None,
    seed: int,
    device: str,
    report: Report,
) -> Path:
    """Trains a model of the reference pair and writes it with its provenance."""
    defaults = {"observation": (OBSERVATION, "A"), "execution": (EXECUTION, "B")}
    if role not in defaults:
        raise UnknownNameError("role", role, defaults)
    config, view = defaults[role]
    changes = {} if epochs is None else {"epochs": epochs}
    config = msgspec.structs.replace(config, seed=seed, device=device, **changes)
    episodes = load_episodes(source)
    episodes.require(camera or view)
    if out.is_dir():
        raise FormatError(
            f"{out} is a folder; needed the name of a file, such as {out}/a.safetensors"
        )
    out.parent.mkdir(parents=True, exist_ok=True)  # told now, and not after hours of work
    started = time.monotonic()

    def told(done: int, total: int, loss: float) -> None:
        report(f"training the {role} model", done, total)

    model: Reference
    if role == "observation":
        model = train_observation(
            episodes, camera=camera or view, name=out.stem, config=config, progress=told
        )
    else:
        model = train_execution(
            episodes, camera=camera or view, name=out.stem, config=config, progress=told
        )
    made = record(
        device=device,
        seeds={"training": [seed]},
        inputs={"episodes": episodes.fingerprint},
        seconds=time.monotonic() - started,
    )
    provenance = {
        "training": msgspec.json.encode(config).decode(),
        "episodes": episodes.fingerprint,
        "commit": made.commit,
        "torch": made.packages.get("torch", ""),
        "trained": datetime.now(UTC).date().isoformat(),
    }
    save(model, out, provenance=provenance)
    return out


def rendered(result: Result, out: Path, report: Report) -> Path:
    """The report's page; a page made from this very result is not made again."""
    page, mark = out / "report.html", out / ".report"
    identity = (result.provenance.inputs.get("identity", "") + result.provenance.created).encode()
    if page.is_file() and mark.is_file() and mark.read_bytes() == identity:
        return page
    report("drawing the report", 0, 1)
    page = render_report(result, out=out)
    mark.write_bytes(identity)
    report("drawing the report", 1, 1)
    return page
