"""The nearest neighbours of every sample: exact, and never with all pairs in memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

# "cosine" or "euclidean"; anything else is refused in words where neighbours are asked for.
Metric: TypeAlias = str

# Similarities closer than this are equal: the same row twice differs by rounding only.
_TIE = 1e-12
# Candidates kept beyond the k nearest: they certify the search and outlast rows left out.
_EXTRA = 12
# Up to here all pairs in float64 cost no more than the search in float32.
_SMALL = 400
# Entries looked at together, so that a step stays within some ten megabytes.
_TILE = 1 << 22
# Half the distance between 1 and the next float32.
_UNIT = 2.0**-24


@dataclass(frozen=True, eq=False)
class Neighbors:
    """Directed edges from every sample to its nearest, sorted by (sample, neighbour).

    Attributes:
        samples: number of samples.
        key: [edge] sample * samples + neighbour.
        weight: [edge] 1, or the share of a place where several samples tie for it.
        cosine: [edge] of the two samples; minus the squared distance where the metric is
            Euclidean.
        ranked: what it takes to find them again with some samples left out; None where
            leaving out samples changes the others too.
    """

    samples: int
    key: Int64[Tensor, " edge"]
    weight: Float64[Tensor, " edge"]
    cosine: Float64[Tensor, " edge"]
    ranked: Ranked | None = None

    @property
    def row(self) -> Int64[Tensor, " edge"]:
        """[edge] the sample whose neighbour it is."""
        return self.key // self.samples

    @property
    def column(self) -> Int64[Tensor, " edge"]:
        """[edge] the neighbour."""
        return self.key % self.samples


@dataclass(frozen=True, eq=False)
class Points:
    """Samples whose similarity is asked for, in float64 where they are used.

    Attributes:
        values: float32 or float64 [sample, feature].
        metric: "cosine", or "euclidean" for minus the squared distance.
    """

    values: Float[Tensor, "sample feature"]
    metric: Metric

    def rows(self, at: Tensor | slice) -> Float64[Tensor, "row feature"]:
        """Unit rows, or rows less the column means."""
        if self.metric == "euclidean":
            return self.values[at].double() - self._mean
        return _unit(self.values[at])

    @cached_property
    def _mean(self) -> Tensor:
        total = torch.zeros(self.values.shape[1], dtype=torch.float64, device=self.values.device)
        for part in torch.split(self.values, _lines(self.values.shape[1])):
            total += (part.double() if self.metric == "euclidean" else _unit(part)).sum(dim=0)
        return total / len(self.values)

    @cached_property
    def square(self) -> Float64[Tensor, " sample"]:
        """Squared length of every row."""
        return torch.cat([self.rows(part).square().sum(dim=1) for part in self._parts()])

    def between(self, rows: Int64[Tensor, " row"]) -> Float64[Tensor, "row sample"]:
        """Similarity of some samples with all, -inf with themselves."""
        mine = self.rows(rows)
        out = torch.cat([mine @ self.rows(part).T for part in self._parts()], dim=1)
        if self.metric == "euclidean":
            out = 2 * out - self.square[rows, None] - self.square
        out[torch.arange(len(rows), device=rows.device), rows] = -torch.inf
        return out

    def listed(
        self, index: Int64[Tensor, "row place"], rows: Tensor | slice
    ) -> Float64[Tensor, "row place"]:
        """Similarity of some samples with those listed for each."""
        out = torch.empty(index.shape, dtype=torch.float64, device=index.device)
        mine = torch.arange(len(self.values), device=index.device)[rows]
        source = self.values
        step = max(1, (_TILE >> 2) // (index.shape[1] * source.shape[1]))
        for start in range(0, len(index), step):
            near, at = index[start : start + step], mine[start : start + step]
            others, own = source[near.reshape(-1)].double(), source[at].double()
            if self.metric == "euclidean":
                others, own = others - self._mean, own - self._mean
            product = torch.einsum("npf,nf->np", others.reshape(*near.shape, -1), own)
            out[start : start + step] = product
        if self.metric == "euclidean":
            return 2 * out - self.square[mine, None] - self.square[index]
        return out * self._inverse[mine, None] * self._inverse[index]

    @cached_property
    def _inverse(self) -> Tensor:
        length = torch.cat([self.values[at].double().norm(dim=1) for at in self._parts()])
        return torch.where(length > 0, 1 / length.clamp(min=1e-300), 0.0)

    def slack(self, similarity: Tensor, rows: Tensor | slice) -> Tensor:
        """How far from `similarity` [row] still counts as equal."""
        if self.metric == "cosine":
            return torch.full_like(similarity, _TIE)
        return _TIE * (self.square[rows] - similarity)

    def screen(self) -> tuple[Tensor, Tensor | None, float, Tensor]:
        """What a search in float32 needs: similarity = gain * (part · part + bias) + shift.

        A large mean is removed in float64 before anything is rounded, so that an offset common
        to all samples costs no digits.

        Returns:
            Parts [sample, feature] and bias [sample] in float32 (None for 0), the gain, and the
            shift [sample] of the row that asks.
        """
        parts = torch.empty_like(self.values, dtype=torch.float32)
        if self.metric == "euclidean":
            scale = max(float(self.square.max()) ** 0.5, 1e-150)
            for at in self._parts():
                parts[at] = self.rows(at) / scale
            half = self.square / (-2 * scale**2)
            return parts, half.float(), 2 * scale**2, -self.square
        # Of unrelated rows it is next to nothing, and a pass over all products is saved.
        small = float(self._mean.square().sum()) < 0.25
        mean = torch.zeros_like(self._mean) if small else self._mean
        bias = torch.empty(len(parts), dtype=torch.float64, device=parts.device)
        shift = torch.empty_like(bias)
        for at in self._parts():
            rows = self.rows(at)
            bias[at] = rows @ mean
            rows = rows - mean
            shift[at] = rows @ mean
            parts[at] = rows
        if small:
            return parts, None, 1.0, shift
        middle = bias.mean()
        return parts, (bias - middle).float(), 1.0, shift + middle

    def _parts(self) -> list[slice]:
        step = _lines(self.values.shape[1])
        return [slice(s, s + step) for s in range(0, len(self.values), step)]


def _lines(width: int) -> int:
    return max(1, (_TILE >> 2) // width)


def _unit(values: Tensor) -> Tensor:
    rows = values.double()
    rows = rows / rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-300)
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-300)


@dataclass(frozen=True, eq=False)
class Ranked:
    """The nearest of every sample, more of them than were asked for.

    Attributes:
        points: the samples.
        found: [sample, place] who they are, nearly in order.
        beyond: [sample] nobody outside the list is nearer than this; -inf where all are listed.
    """

    points: Points
    found: Int64[Tensor, "sample place"]
    beyond: Float64[Tensor, " sample"]

    @cached_property
    def falling(self) -> tuple[Tensor, Tensor]:
        """Who is near and how near, [sample, place], the nearest first."""
        similarity, order = self.points.listed(self.found, slice(None)).sort(dim=1, descending=True)
        return self.found.gather(1, order), similarity


def nearest(
    values: Float[Tensor, "sample feature"], k: int, *, metric: Metric = "cosine"
) -> Neighbors:
    """The k nearest neighbours of every sample, the sample itself excluded.

    Candidates come from float32 products of centred rows, are measured in float64, and a row is
    taken only if no sample outside its candidates can be among its nearest; the other rows are
    searched in float64. Samples equally near as the k-th (within 1e-12) share the places left.

    Args:
        values: float32 or float64 [sample, feature].
        k: neighbours per sample, less than the number of samples.
        metric: "cosine" or "euclidean".
    """
    n = len(values)
    points = Points(_tame(values, metric), metric)
    width = min(k + _EXTRA, n - 1)
    parts: list[_Edges] = []
    if n > _SMALL:
        index, bounds = _search(points, k, width)
        rows = torch.arange(n, device=values.device)
        for count, bound in bounds.items():
            similarity = points.listed(index[rows, :count], rows)
            last = similarity.topk(k, dim=1).values[:, -1]
            sure = last - points.slack(last, rows) > bound[rows]
            own = sure.nonzero()[:, 0]
            parts.append(_edges(points, similarity[own], rows[own], k, index[rows[own], :count]))
            rows = rows[~sure]
        beyond = bounds[width]
    else:
        index = torch.empty(n, width, dtype=torch.int64, device=values.device)
        beyond = torch.empty(n, dtype=torch.float64, device=values.device)
        rows = torch.arange(n, device=values.device)
    for part in _portions(rows, n):
        between = points.between(part)
        similarity, index[part] = between.topk(width, dim=1)
        beyond[part] = similarity[:, -1] if width < n - 1 else -torch.inf
        parts.append(_edges(points, between, part, k))
    return _collect(parts, n, Ranked(points, index, beyond))


def _portions(rows: Tensor, samples: int) -> list[Tensor]:
    """Rows in portions whose similarities with all samples fit a tile; none of no rows."""
    return list(torch.split(rows, max(1, _TILE // samples))) if len(rows) else []


def _tame(values: Tensor, metric: Metric) -> Tensor:
    """Values whose squares neither overflow nor vanish in float64."""
    if metric == "cosine" and values.dtype == torch.float64 and len(values):
        size = values.abs().amax(dim=1)
        if bool(((size > 1e100) | ((size < 1e-100) & (size > 0))).any()):
            return _unit(values)
    return values


def without(neighbors: Neighbors, keep: Int64[Tensor, " kept"], k: int) -> Neighbors | None:
    """The neighbours among some of the samples only, numbered anew in the order of `keep`.

    Those left out are struck off the lists; rows whose list grows too short are searched anew.

    Args:
        neighbors: of all samples, with `ranked`.
        keep: [kept] the samples that stay, ascending.
        k: neighbours per sample.

    Returns:
        What `nearest` gives for the samples that stay; None where it is not known how they were
        found.
    """
    ranked = neighbors.ranked
    if ranked is None:
        return None
    points, n = ranked.points, neighbors.samples
    number = torch.full((n,), -1, dtype=torch.int64, device=keep.device)
    number[keep] = torch.arange(len(keep), device=keep.device)
    listed, near = ranked.falling
    index = number[listed[keep]]
    stays = index >= 0
    similarity = torch.where(stays, near[keep], -torch.inf)
    # The k-th that stays, or -inf.
    place = (stays.cumsum(dim=1) < k).sum(dim=1)
    reached = place < index.shape[1]
    at = place.clamp(max=index.shape[1] - 1)[:, None]
    last = torch.where(reached, similarity.gather(1, at)[:, 0], -torch.inf)
    sure = reached & (last - points.slack(last, keep) > ranked.beyond[keep])
    own = sure.nonzero()[:, 0]
    parts = [_edges(points, similarity[own], keep[own], k, index[own], own)]
    for rows in _portions((~sure).nonzero()[:, 0], n):
        parts.append(_edges(points, points.between(keep[rows])[:, keep], keep[rows], k, None, rows))
    return _collect(parts, len(keep), None)


_Edges = tuple[Tensor, Tensor, Tensor, Tensor]


def _edges(
    points: Points,
    similarity: Tensor,
    rows: Tensor,
    k: int,
    index: Tensor | None = None,
    number: Tensor | None = None,
) -> _Edges:
    """Row, column, weight and similarity of the k nearest of some rows.

    Args:
        points: the samples.
        similarity: [row, candidate].
        rows: [row] which samples they are.
        k: neighbours per row.
        index: [row, candidate] who the candidates are; None if each stands at its own number.
        number: [row] what to call the rows; None for their own number.
    """
    if not len(rows):
        return rows, rows, similarity.new_zeros(0), similarity.new_zeros(0)
    last = similarity.topk(k, dim=1).values[:, -1]
    slack = points.slack(last, rows)
    within = (similarity >= (last - slack)[:, None]).nonzero()
    row, candidate = within[:, 0], within[:, 1]
    found = similarity[row, candidate]
    above = found > (last + slack)[row]
    sure = torch.bincount(row[above], minlength=len(rows))
    tied = torch.bincount(row[~above], minlength=len(rows))
    share = ((k - sure).double() / tied)[row]
    column = candidate if index is None else index[row, candidate]
    return (rows if number is None else number)[row], column, torch.where(above, 1.0, share), found


def _collect(parts: list[_Edges], n: int, ranked: Ranked | None) -> Neighbors:
    row, column, weight, similarity = (torch.cat(part) for part in zip(*parts, strict=True))
    key, order = (row * n + column).sort()
    return Neighbors(n, key, weight[order], similarity[order], ranked)


def _search(points: Points, k: int, width: int) -> tuple[Tensor, dict[int, Tensor]]:
    """Candidates of every sample by float32 products.

    Returns:
        Index [sample, place], about the nearest first, and by number of places a bound [sample]
        on the similarity of whoever is not among so many.
    """
    parts, bias, gain, shift = points.screen()
    n, features = parts.shape
    index = torch.empty(n, width, dtype=torch.int64, device=parts.device)
    score = torch.empty(n, width, dtype=torch.float32, device=parts.device)
    step = max(1, _TILE // n)
    block = torch.empty(step, n, dtype=torch.float32, device=parts.device)
    for start in range(0, n, step):
        stop = min(start + step, n)
        found = torch.mm(parts[start:stop], parts.T, out=block[: stop - start])
        if bias is not None:
            found += bias
        at = torch.arange(stop - start, device=parts.device)
        found[at, at + start] = -torch.inf
        score[start:stop], index[start:stop] = found.topk(width, dim=1)
    length = parts.double().norm(dim=1)
    # Rounding of a product of this many terms, at eight standard errors (Higham and Mary 2019),
    # of the parts themselves and of the bias; and four times the worst seen in a sample of them,
    # should products be taken at less than float32 precision.
    size = length * length.max() + (0.0 if bias is None else bias.abs().max())
    error = _UNIT * (8 * features**0.5 + 12) * size
    some = torch.arange(0, n, max(1, n // 256), device=parts.device)
    seen = gain * score[some].double() + shift[some, None] - points.listed(index[some], some)
    worst = float((seen.abs().amax(dim=1) / (gain * size[some]).clamp(min=1e-300)).max())
    error = torch.maximum(error, 4 * worst * size)
    # A few more than k settle most rows.
    bounds = {
        count: gain * (score[:, count - 1].double() + error) + shift
        for count in (min(k + 2, width), width)
    }
    if width == n - 1:
        bounds[width].fill_(-torch.inf)
    return index, bounds
