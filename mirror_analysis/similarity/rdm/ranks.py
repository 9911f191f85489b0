"""Ranks of the distances of a layer, and what they are without some of the samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Float64, Int32, Int64
from torch import Tensor

from mirror_analysis.errors import DegenerateError
from mirror_analysis.similarity.measures import Layer
from mirror_analysis.similarity.pairwise.pairs import Pairs, spans, strip_pairs
from mirror_analysis.similarity.rdm.distances import Points, above, mirrored, triangle

# Pairs worked on together: inside the processor's cache, and too few to be worth a second thread.
_CHUNK = 1 << 14
# Pairs of all layers multiplied together; with as few in all, in float64.
_BLOCK = 1 << 18
# Last bits of a float64 that rounding may have touched: steps of 1e-12, neighbours tie.
_ROUNDED = 12
# Up to so many pairs chance brings no two distances as near as that.
_FEW = 1 << 17
# Bits of a float32 left out where ranks are counted, not sorted: 2^15 steps to a doubling remain.
_DROPPED = 8
# Steps in which what leaves is counted: with more, ranks without a fold move by less than 1e-9.
_STEPS = 1 << 16


@dataclass(frozen=True, eq=False)
class Order:
    """The distances of a layer by their order alone.

    Attributes:
        name: what to call the layer in an error.
        samples: rows of the layer.
        codes: [pair] place of each among the different distances, smallest first, counted from 0.
        counts: [size] how many pairs have each of the different distances.
    """

    name: str
    samples: int
    codes: Int32[Tensor, " pair"]
    counts: Int64[Tensor, " size"]

    def ranks(self) -> Float64[Tensor, " size"]:
        """Average rank of each of the different distances, less the mean rank."""
        return _centred(self.counts)


@dataclass(frozen=True, eq=False)
class Ranked:
    """A layer's distances as ranks.

    Attributes:
        pairs: matrix of centred average ranks, of variance near 1.
        order: what they were made of; None where no matrix is kept.
    """

    pairs: Pairs
    order: Order | None


def order(found: Points, layer: Layer) -> Order:
    """The order of all distances of a layer.

    Ties are distances that are equal. Where they come in few sizes, as those of whole numbers do,
    they are measured in float64 and tie when they differ by rounding only. Holds up to 8 bytes
    per ordered pair of samples at a time beyond what is returned.

    Raises:
        DegenerateError: if all distances are the same.
    """
    distances = triangle(found)
    _need_spread(distances.min(), distances.max(), layer)
    few = distances.dtype == torch.float64 and len(distances) <= _FEW
    codes, counts = ordered(distances, near=found.repeats or few)
    return Order(layer.name, len(layer), codes, counts)


def ranked(found: Points, layer: Layer) -> Ranked:
    """Ranks of all distances of a layer, as a matrix.

    Where the layer's budget does not hold the matrix, its rows are made anew whenever they are
    needed from a table of 2^23 sizes; distances that agree in their first 15 bits are tied then.

    Raises:
        DegenerateError: if all distances are the same.
    """
    if len(layer) ** 2 * layer.values.element_size() > layer.budget:
        return Ranked(_counted(found, layer), None)
    kept = order(found, layer)
    n, scale = len(layer), 12**0.5 / len(kept.codes)
    table = (kept.ranks() * scale).to(layer.values.dtype)

    def anew(index: Tensor) -> Tensor:
        return mirrored(table.index_select(0, kept.codes), n)[index]

    matrix = mirrored(table.index_select(0, kept.codes), n)
    pairs = strip_pairs(lambda index: matrix[index[0] : index[-1] + 1], layer, kind="correlation")
    # So that the matrix of ranks is not held beside the one made of it.
    return Ranked(replace(pairs, raw=anew), kept)


def ordered(
    distances: Float[Tensor, " pair"], *, near: bool
) -> tuple[Int32[Tensor, " pair"], Int64[Tensor, " size"]]:
    """Codes [pair] and counts [size] of distances of at least 0; near float64 ones may tie.

    The bits of such numbers are in the order of the numbers. They are sorted together with the
    place they come from, in one 64-bit number each.
    """
    count, device = len(distances), distances.device
    short = distances.dtype == torch.float32
    # Every pair's place fits in this many bits.
    width = max(1, (count - 1).bit_length())
    mask = (1 << width) - 1
    keys = distances.view(torch.int32 if short else torch.int64)
    # None at all stays 0, so that it does not stretch the range of the others.
    least = torch.where(keys > 0, keys, keys.max()).min().long() - 1
    if near:
        least -= 2 << _ROUNDED
    need = int(keys.max() - least).bit_length() + width
    drop = max(_ROUNDED if near else 0, need - 63)
    packed = torch.empty(count, dtype=torch.int64, device=device)
    for start in range(0, count, _CHUNK):
        part = packed[start : start + _CHUNK]
        torch.sub(keys[start : start + _CHUNK], least, out=part)
        part.clamp_(min=0).bitwise_right_shift_(drop).bitwise_left_shift_(width)
        part += torch.arange(start, start + len(part), device=device)
    if device.type == "cpu":
        # Several times as fast as torch's on a processor.
        packed.numpy().sort()
    else:
        packed = packed.sort().values
    codes = torch.empty(count, dtype=torch.int32, device=device)
    # A step up from the distance before, of the first from none.
    steps = torch.zeros(_CHUNK, dtype=torch.int32, device=device)
    last, size, begins = packed[0] >> width, 0, [torch.zeros(1, dtype=torch.int64, device=device)]
    for start in range(0, count, _CHUNK):
        part = packed[start : start + _CHUNK]
        key, step = part >> width, steps[: len(part)]
        step[0] = key[0] - last > near
        step[1:] = key[1:] - key[:-1] > near
        begins.append(step.nonzero().reshape(-1) + start)
        codes.scatter_(0, part & mask, step.cumsum(0, dtype=torch.int32).add_(size))
        last, size = key[-1], size + len(begins[-1])
    ends = torch.tensor([count], device=device)
    return codes, torch.cat([*begins, ends]).diff()


def leave_out_ranks(
    x: Sequence[Order], y: Sequence[Order], folds: Int64[Tensor, " sample"]
) -> Float64[Tensor, "fold x_layer y_layer"]:
    """Rank correlations without each fold in turn, the pairs left ranked anew.

    The rank of a pair falls by the pairs below it that leave.

    Returns:
        [fold, x layer, y layer], NaN where the distances left are all the same.
    """
    layers = [*x] if x is y else [*x, *y]
    held = [_Held.of(layer) for layer in layers]
    out = []
    for fold in range(int(folds.max()) + 1):
        gone = folds == fold
        leaving = above(gone[:, None] | gone)
        where = leaving.nonzero().reshape(-1)
        left = len(leaving) - len(where)
        tables = [h.table(where) for h in held]
        inner = torch.zeros(len(layers), len(layers), dtype=torch.float64, device=folds.device)
        for start in range(0, len(leaving), _BLOCK):
            part = slice(start, start + _BLOCK)
            rows = torch.stack([h.ranks(t, part) for h, t in zip(held, tables, strict=True)])
            rows *= ~leaving[part]
            inner += (rows @ rows.T).double()
        inner *= (2 / left) ** 2 / left
        own = inner.diagonal()
        spread = own.clamp(min=0).sqrt()[:, None] * own.clamp(min=0).sqrt()
        # A variance of ranks this small is that of one size of distance.
        defined = (own > 1e-10)[:, None] & (own > 1e-10)
        found = torch.where(defined, inner / spread, torch.nan)
        out.append(found[: len(x), : len(y)] if x is y else found[: len(x), len(x) :])
    return torch.stack(out)


@dataclass(frozen=True, eq=False)
class _Held:
    """Ranks of one layer, and the steps that what leaves is counted in."""

    full: Float[Tensor, " pair"]
    steps: Int32[Tensor, " pair"]
    size: int

    @staticmethod
    def of(kept: Order) -> _Held:
        shift = max(0, (len(kept.counts) - 1).bit_length() - _STEPS.bit_length() + 1)
        dtype = torch.float64 if len(kept.codes) < _BLOCK else torch.float32
        full = kept.ranks().to(dtype).index_select(0, kept.codes)
        return _Held(full, kept.codes >> shift, (len(kept.counts) - 1 >> shift) + 1)

    def table(self, where: Tensor) -> Tensor:
        """What ranks fall by, [step], when the pairs at these places leave."""
        counts = torch.bincount(self.steps[where], minlength=self.size)
        return _centred(counts).to(self.full.dtype)

    def ranks(self, table: Tensor, part: slice) -> Tensor:
        return self.full[part] - table.index_select(0, self.steps[part])


def _centred(counts: Int64[Tensor, " size"]) -> Float64[Tensor, " size"]:
    """Average ranks of things of which there are so many each, less their mean."""
    below = counts.cumsum(0) - counts
    return below.double() + (counts - counts.sum()).double() / 2


def _counted(found: Points, layer: Layer) -> Pairs:
    """Ranks by counting how many distances there are of each size, in blocks of rows."""
    n, device = len(layer), layer.values.device
    size = (0x7F800000 >> _DROPPED) + 1
    counts = torch.zeros(size, dtype=torch.int64, device=device)
    least, most = [], []
    for start, stop in spans(n, 1):
        index = torch.arange(start, stop, device=device)
        block = found.block(index)
        counts += torch.bincount(_steps(block).reshape(-1), minlength=size)
        most.append(block.max())
        block[index - start, index] = torch.inf
        least.append(block.min())
    _need_spread(torch.stack(least).min(), torch.stack(most).max(), layer)
    counts[0] -= n
    table = (_centred(counts) * (12**0.5 / (n * (n - 1)))).to(layer.values.dtype)

    def raw(index: Tensor) -> Tensor:
        rows = table[_steps(found.block(index))]
        rows[torch.arange(len(index), device=device), index] = 0
        return rows

    return strip_pairs(raw, layer, kind="correlation")


def _steps(block: Tensor) -> Tensor:
    return block.float().view(torch.int32) >> _DROPPED


def _need_spread(least: Tensor, most: Tensor, layer: Layer) -> None:
    """Refuses distances that are all the same up to rounding, whose order is noise."""
    rounding = 64 * torch.finfo(layer.values.dtype).eps
    if float(most - least) <= rounding * float(most):
        raise DegenerateError(
            f"{layer.name} has no spread (all its samples are equally alike); needed at least two"
            " distances that differ, so add samples"
        )
