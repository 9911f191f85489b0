"""What is measured on CUDA, in this process: times after a warm-up, and memory of its allocator."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import torch

from benchmarks.speed import data
from benchmarks.speed.fits import TEMPERATURE, grid
from benchmarks.speed.record import Check, Row
from mirror_analysis import provenance

_TILE = 8192  # rows of logits of the matrix products


@dataclass(frozen=True)
class CudaPlan:
    """A row on CUDA before it ran.

    Attributes:
        name: for `--only`.
        work: what is computed, with its sizes.
        checks: what is aimed at, not measured yet.
        measure: gives the number of each check, in their order.
    """

    name: str
    work: str
    checks: Sequence[Check]
    measure: Callable[[], Sequence[float]]


def loss(*, batch: int, width: int, most: float | None) -> CudaPlan:
    """Value and gradient of the loss in bfloat16, beside matrix products.

    The rate counts three products of batch x width x batch, as of an update that keeps the logits:
    what is computed again is not counted. The products' rate is that of one such product in tiles
    of 8192 rows, which hold no batch x batch either. Memory is the most that was allocated beyond
    the embeddings, their gradients included.

    Args:
        batch: pairs.
        width: of the embeddings.
        most: megabytes aimed at; None at small sizes.
    """

    def measure() -> list[float]:
        from mirror_analysis.alignment import info_nce

        g = torch.Generator("cuda").manual_seed(0)
        x, y = (
            torch.randn(batch, width, device="cuda", dtype=torch.bfloat16, generator=g)
            for _ in range(2)
        )
        product = seconds(lambda: _multiplied(x, y))
        x.requires_grad_()
        y.requires_grad_()

        def step() -> None:
            x.grad = y.grad = None
            info_nce(x, y, temperature=TEMPERATURE).backward()  # type: ignore[no-untyped-call]

        whole = seconds(step)
        x.grad = y.grad = None
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return [3 * product / whole, (torch.cuda.max_memory_allocated() - before) / 1e6]

    return CudaPlan(
        "gpu loss",
        f"InfoNCE of a batch of {batch}, width {width}, bfloat16, value and gradient",
        [
            Check("rate of three products / rate of the products", "x", "at least", 0.5, None,
                  None, ""),
            Check("most memory beyond the embeddings", "MB", "at most", most, None, None, ""),
        ],
        measure,
    )  # fmt: skip


def _multiplied(x: torch.Tensor, y: torch.Tensor) -> None:
    out = x.new_empty(min(_TILE, len(x)), len(y))
    for start in range(0, len(x), _TILE):
        rows = x[start : start + _TILE]
        torch.mm(rows, y.T, out=out[: len(rows)])


def layers(*, count: int, rows: int, features: tuple[int, int], width: int, alone: int) -> CudaPlan:
    """Whole fits with the default settings, from arrays to maps: in one call and one by one.

    Args:
        count: layers of each side.
        rows: pairs.
        features: of a layer of x and of y.
        width: of the shared space.
        alone: layer pairs that are fitted one by one, whose mean time is compared.
    """

    def measure() -> list[float]:
        x, y = data.stacks(rows, count, *features)
        settings = {"width": width, "steps": 300, "device": "cuda"}
        one = grid(x_layers=x, y_layers=y, together=False, alone=alone, **settings)  # type: ignore[arg-type]
        many = grid(x_layers=x, y_layers=y, together=True, **settings)  # type: ignore[arg-type]
        by_one = seconds(one, repeats=1) / alone
        return [seconds(many, repeats=1) / count**2 / by_one]

    return CudaPlan(
        "gpu grid",
        f"alignments of {count} x {count} layer pairs of {rows} pairs, width {width}, 300 updates",
        [
            Check(f"time of a pair, in one call / one by one (of {alone})", "x", "at most", 1 / 3,
                  None, None, "")
        ],
        measure,
    )  # fmt: skip


def seconds(work: Callable[[], object], *, repeats: int = 5) -> float:
    """Least seconds of several runs after one that does not count."""
    best = float("inf")
    for number in range(repeats + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        best = best if number == 0 else min(best, time.perf_counter() - start)
    return best


def run(plan: CudaPlan, *, quick: bool) -> Row:
    """The row; where there is no such device its aims are marked as not measured."""
    start, work = time.perf_counter(), plan.work
    if torch.cuda.is_available():
        work = f"{work}, on {torch.cuda.get_device_name()}"
        checks = [
            msgspec.structs.replace(check, measured=number)
            for check, number in zip(plan.checks, plan.measure(), strict=True)
        ]
    else:
        missing = "not measured: no CUDA device here"
        checks = [msgspec.structs.replace(check, missing=missing) for check in plan.checks]
    made = provenance.record(device="cuda", seeds={}, inputs={}, seconds=0)
    passed = round(time.perf_counter() - start, 1)
    return Row(plan.name, work, quick, made.created, made.commit, made.dirty, passed, [], checks)
