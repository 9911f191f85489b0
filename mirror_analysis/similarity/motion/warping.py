"""The tables of dynamic time warping: several pairs side by side on CPU, many at once on GPU."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from typing import Any, no_type_check

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirror_analysis.similarity.motion.trajectories import Steps

Progress = Callable[[int, int], None]

# Trajectories warped side by side against one, the width of a register of doubles.
_LANES = 4
# Cells of the warping tables between two reports of progress, some tens of milliseconds.
_CELLS = 1 << 23
# Numbers held at once by the batched form, about half a gigabyte.
_NUMBERS = 1 << 26
# asin(h) / h as a polynomial in h² on [0, 1/2], to 1e-15; half of a half angle is in there.
_ASIN = (
    1.0000000000000004,
    0.1666666666661266,
    0.07500000010327015,
    0.04464284935276123,
    0.030382252611974896,
    0.022364792754369343,
    0.01746833887673925,
    0.012711150499407511,
    0.02127241161041483,
    -0.04521656236835062,
    0.23748902997476698,
    -0.6963330328936033,
    1.5828806316199933,
    -2.5068961956309646,
    2.717071133567094,
    -1.7870176085449654,
    0.5621834431165632,
)


@no_type_check
def _sweep(steps, starts, lengths, first, last, group, widths, rows, lanes, kinds, begins, ends,
           factors, band, diagonal, same, out):  # fmt: skip
    """Warps the trajectories first to last against a group side by side; compiled before use.

    `group` is [column, step * _LANES + lane], so that a loop over `t` runs over the lanes of all
    steps of a row of the table, and every such loop begins at 0 of a view, without which it would
    not be vectorised. `same` is the place of the group's first lane where both sides are one, and
    then only pairs in that order are written, and mirrored; else -1.
    """
    size = group.shape[1]
    width = size // _LANES
    costs, sums = np.zeros(size), np.zeros(size)
    before, now = np.empty(size + _LANES), np.empty(size + _LANES)
    for a in range(first, last):
        n = lengths[a]
        low, high = n, width
        if band >= 0:
            low, high = band, band
            for lane in range(_LANES):
                low = max(low, band + n - widths[lane])
                high = max(high, band + widths[lane] - n)
        before[:] = np.inf
        now[:] = np.inf
        for i in range(n):
            q = steps[starts[a] + i]
            start, stop = max(0, i - low) * _LANES, min(width, i + high + 1) * _LANES
            count = stop - start
            cost, total = costs[start:stop], sums[start:stop]
            for t in range(count):
                cost[t] = 0.0
            for part in range(len(kinds)):
                c, end = begins[part], ends[part]
                if kinds[part] == 2:
                    p0, p1, p2, p3 = q[c], q[c + 1], q[c + 2], q[c + 3]
                    g0, g1 = group[c][start:stop], group[c + 1][start:stop]
                    g2, g3 = group[c + 2][start:stop], group[c + 3][start:stop]
                    four = 4.0 * factors[part]
                    for t in range(count):
                        d0, d1, d2, d3 = p0 - g0[t], p1 - g1[t], p2 - g2[t], p3 - g3[t]
                        s0, s1, s2, s3 = p0 + g0[t], p1 + g1[t], p2 + g2[t], p3 + g3[t]
                        near = (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
                        far = (s0 * s0 + s1 * s1) + (s2 * s2 + s3 * s3)
                        z = 0.25 * (near if near < far else far)
                        y = _ASIN[16] * z + _ASIN[15]
                        y = y * z + _ASIN[14]
                        y = y * z + _ASIN[13]
                        y = y * z + _ASIN[12]
                        y = y * z + _ASIN[11]
                        y = y * z + _ASIN[10]
                        y = y * z + _ASIN[9]
                        y = y * z + _ASIN[8]
                        y = y * z + _ASIN[7]
                        y = y * z + _ASIN[6]
                        y = y * z + _ASIN[5]
                        y = y * z + _ASIN[4]
                        y = y * z + _ASIN[3]
                        y = y * z + _ASIN[2]
                        y = y * z + _ASIN[1]
                        y = y * z + _ASIN[0]
                        cost[t] += four * np.sqrt(z) * y
                    continue
                if kinds[part] == 0 and end - c == 1:
                    p0, g0 = q[c], group[c][start:stop]
                    for t in range(count):
                        cost[t] += abs(p0 - g0[t])
                    continue
                for t in range(count):
                    total[t] = 0.0
                while end - c > 4:
                    p0, p1, p2, p3 = q[c], q[c + 1], q[c + 2], q[c + 3]
                    g0, g1 = group[c][start:stop], group[c + 1][start:stop]
                    g2, g3 = group[c + 2][start:stop], group[c + 3][start:stop]
                    for t in range(count):
                        d0, d1, d2, d3 = p0 - g0[t], p1 - g1[t], p2 - g2[t], p3 - g3[t]
                        total[t] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
                    c += 4
                if kinds[part] == 0 and end - c == 3:
                    p0, p1, p2 = q[c], q[c + 1], q[c + 2]
                    g0, g1 = group[c][start:stop], group[c + 1][start:stop]
                    g2 = group[c + 2][start:stop]
                    for t in range(count):
                        d0, d1, d2 = p0 - g0[t], p1 - g1[t], p2 - g2[t]
                        cost[t] += np.sqrt(total[t] + ((d0 * d0 + d1 * d1) + d2 * d2))
                    continue
                while end > c:
                    p0, g0 = q[c], group[c][start:stop]
                    for t in range(count):
                        d0 = p0 - g0[t]
                        total[t] += d0 * d0
                    c += 1
                if kinds[part] == 1:
                    for t in range(count):
                        cost[t] += total[t]
                else:
                    for t in range(count):
                        cost[t] += np.sqrt(total[t])
            if band >= 0:
                for lane in range(_LANES):
                    m = widths[lane]
                    least = max(0, i - band - max(0, n - m)) * _LANES
                    most = (i + band + max(0, m - n)) * _LANES + lane
                    for t in range(start + lane, min(least, stop), _LANES):
                        costs[t] = np.inf
                    for t in range(max(most, start) + _LANES, stop, _LANES):
                        costs[t] = np.inf
            if i == 0:
                for lane in range(_LANES):
                    before[lane] = (1.0 - diagonal) * cost[lane]
            above, corner = before[start + _LANES : stop + _LANES], before[start:stop]
            # One step's lanes at a constant distance from the next, or it is not vectorised.
            row = now[start : stop + _LANES]
            for lane in range(_LANES):
                row[lane] = np.inf
            for t in range(count):
                up, across = above[t] + cost[t], corner[t] + diagonal * cost[t]
                row[t + _LANES] = up if up < across else across
            for t in range(count):
                along = row[t] + cost[t]
                row[t + _LANES] = along if along < row[t + _LANES] else row[t + _LANES]
            before, now = now, before
        for lane in range(len(lanes)):  # the last group can have fewer than its width
            value = before[widths[lane] * _LANES + lane]
            if same < 0:
                out[rows[a], lanes[lane]] = value
            elif a <= same + lane:
                out[rows[a], lanes[lane]] = value
                out[lanes[lane], rows[a]] = value


@cache
def _compiled() -> Callable[..., None]:
    """The kernel in machine code, kept on disk where there is a place to write it."""
    import numba

    settings: dict[str, Any] = {"nogil": True, "fastmath": {"contract", "nnan", "nsz"}}
    try:
        return numba.njit(cache=True, **settings)(_sweep)
    except RuntimeError:  # no folder to write to
        return numba.njit(**settings)(_sweep)


def by_lanes(
    x: Steps,
    y: Steps,
    *,
    band: int | None,
    diagonal: float,
    threads: int,
    progress: Progress | None,
) -> Tensor:
    """All pairs on the CPU, each trajectory of x against several of y side by side."""
    same = x is y
    out = np.empty((len(x.lengths), len(y.lengths)))
    steps = x.values.contiguous().numpy()
    rows = np.argsort(x.lengths, kind="stable")
    lengths = np.asarray(x.lengths)
    starts = (np.cumsum(lengths) - lengths)[rows]
    lengths = lengths[rows]
    codes = {"vector": 0, "squared": 1, "rotation": 2}
    parts = (
        np.array([codes[p[0]] for p in x.parts]),
        np.array([p[1] for p in x.parts]),
        np.array([p[2] for p in x.parts]),
        np.array([p[3] for p in x.parts]),
    )
    settings = (
        -1 if band is None else band,
        diagonal,
    )
    sweep = _compiled()

    def work(first: int, last: int, group: _Group) -> int:
        lanes = group.lanes
        sweep(steps, starts, lengths, first, last, group.values, group.widths, rows, lanes,
              *parts, *settings, group.first if same else -1, out)  # fmt: skip
        if not same:
            return (last - first) * len(lanes)
        return sum(max(0, min(last, group.first + i + 1) - first) for i in range(len(lanes)))

    tasks: list[tuple[int, int, _Group]] = []
    for group in _groups(y):
        stop = group.first + len(group.lanes) if same else len(rows)
        # Trajectories of x until the cells of a task are as many as they should be.
        cells = np.cumsum(lengths[:stop]) * group.values.shape[1]
        cuts = np.flatnonzero(np.diff(cells // _CELLS)) + 1
        tasks += [(a, b, group) for a, b in itertools.pairwise([0, *cuts.tolist(), stop])]
    pairs = len(rows) * (len(rows) + 1) // 2 if same else out.size
    done = 0
    for count in _run(work, tasks, threads):
        done += count
        if progress is not None:
            progress(done, pairs)
    return torch.from_numpy(out)


@dataclass(frozen=True, eq=False)
class _Group:
    """Trajectories of about one length, side by side.

    Attributes:
        values: [column, step * lanes + lane], zero beyond the end of a lane.
        widths: [lane] steps; 1 of a lane without trajectory.
        lanes: which trajectories they are.
        first: place of the first in the order of lengths.
    """

    values: NDArray[np.float64]
    widths: NDArray[np.int64]
    lanes: NDArray[np.int64]
    first: int


def _groups(y: Steps) -> list[_Group]:
    values = y.values.numpy()
    order = np.argsort(y.lengths, kind="stable")
    starts = np.cumsum(y.lengths) - np.asarray(y.lengths)
    out = []
    for first in range(0, len(order), _LANES):
        lanes = order[first : first + _LANES]
        widths = np.ones(_LANES, dtype=np.int64)
        widths[: len(lanes)] = [y.lengths[i] for i in lanes]
        packed = np.zeros((values.shape[1], widths.max(), _LANES))
        for lane, i in enumerate(lanes):
            packed[:, : y.lengths[i], lane] = values[starts[i] : starts[i] + y.lengths[i]].T
        out.append(_Group(packed.reshape(values.shape[1], -1), widths, lanes, first))
    return out


def _run(work: Callable[..., int], tasks: Sequence[tuple[Any, ...]], threads: int) -> Iterator[int]:
    """Results in the order they are done; what has not begun is dropped when the caller stops."""
    if threads == 1:
        yield from (work(*task) for task in tasks)
        return
    executor = ThreadPoolExecutor(threads)
    try:
        for future in as_completed([executor.submit(work, *task) for task in tasks]):
            yield future.result()
    finally:
        executor.shutdown(cancel_futures=True)


def by_diagonals(
    x: Steps, y: Steps, *, band: int | None, diagonal: float, progress: Progress | None
) -> Tensor:
    """All pairs on any device, many at once, one anti-diagonal of their tables after the other."""
    device = x.values.device
    n, m = torch.tensor(x.lengths), torch.tensor(y.lengths)
    if x is y:
        first, second = torch.triu_indices(len(n), len(n))
    else:
        first, second = torch.cartesian_prod(torch.arange(len(n)), torch.arange(len(m))).T
    # By the diagonal on which they end, so that those of one batch end one after the other.
    order = (n[first] + m[second]).argsort(stable=True)
    first, second = first[order], second[order]
    a, b = _padded(x), _padded(y)
    out = torch.empty(len(n), len(m), dtype=torch.float64, device=device)
    size = max(1, _NUMBERS // (4 * a.shape[0] * (a.shape[1] + b.shape[1])))
    done = 0
    for i, j in zip(first.split(size), second.split(size), strict=True):
        found = _diagonals(a, b, x.parts, i, j, n[i], m[j], band, diagonal)
        i, j = i.to(device), j.to(device)
        out[i, j] = found
        if x is y:
            out[j, i] = found
        done += len(i)
        if progress is not None:
            progress(done, len(first))
    return out


def _padded(steps: Steps) -> Tensor:
    """[column, time, trajectory], zero beyond the end of each."""
    parts = torch.split(steps.values, list(steps.lengths))
    return torch.nn.utils.rnn.pad_sequence(list(parts)).permute(2, 0, 1).contiguous()


def _diagonals(
    a: Tensor,
    b: Tensor,
    parts: Sequence[tuple[str, int, int, float]],
    i: Tensor,
    j: Tensor,
    n: Tensor,
    m: Tensor,
    band: int | None,
    diagonal: float,
) -> Tensor:
    """[pair] distances of trajectories i of a and j of b, whose lengths are n and m."""
    device = a.device
    rows, columns, pairs = int(n.max()), int(m.max()), len(i)
    left = a[:, :rows, i.to(device)]
    # Turned round, so that the partners on a diagonal stand in the same order.
    right = b[:, :columns, j.to(device)].flip(1)
    low = high = None
    if band is not None:
        low = (band + (n - m).clamp(min=0)).to(device)
        high = (band + (m - n).clamp(min=0)).to(device)
    ends = (n + m - 2).numpy()
    last = (n.to(device), torch.arange(pairs, device=device))
    out = torch.empty(pairs, dtype=torch.float64, device=device)
    # Cell (row r, column k - r) stands at r + 1, before it a place that is never reached.
    earlier = before = torch.full((rows + 1, pairs), torch.inf, dtype=torch.float64, device=device)
    for k in range(int(ends[-1]) + 1):
        r, stop = max(0, k - columns + 1), min(rows - 1, k) + 1
        shift = columns - 1 - k
        cost = _cost(left[:, r:stop], right[:, shift + r : shift + stop], parts)
        if low is not None and high is not None:
            off = (k - 2 * torch.arange(r, stop, device=device))[:, None]
            cost = cost.masked_fill((off < -low) | (off > high), torch.inf)
        now = torch.full_like(before, torch.inf)
        if k == 0:
            now[1] = cost[0]
        else:
            straight = torch.minimum(before[r + 1 : stop + 1], before[r:stop]) + cost
            now[r + 1 : stop + 1] = torch.minimum(straight, earlier[r:stop] + diagonal * cost)
        start, end = np.searchsorted(ends, [k, k + 1])
        if end > start:
            out[start:end] = now[last[0][start:end], last[1][start:end]]
        earlier, before = before, now
    return out


def _cost(left: Tensor, right: Tensor, parts: Sequence[tuple[str, int, int, float]]) -> Tensor:
    """Local cost of steps side by side, each [column, ...]."""
    total = torch.zeros_like(left[0])
    for kind, begin, end, factor in parts:
        p, q = left[begin:end], right[begin:end]
        squares = (p - q).square().sum(dim=0)
        if kind == "rotation":
            # The chord between unit quaternions, one of them turned to the side of the other.
            chord = 0.5 * torch.minimum(squares, (p + q).square().sum(dim=0)).sqrt()
            total += 4 * factor * chord.clamp(max=1).asin()
        else:
            total += squares if kind == "squared" else squares.sqrt()
    return total
