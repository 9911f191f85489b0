"""Multinomial logistic regression of many problems at once, along a path of penalties."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mirror_analysis.errors import DegenerateError
from mirror_analysis.probing.span import Span

# A step is accepted where the slope along it has fallen to this share.
_SLOPE = 0.2
_TRIES = 25


@dataclass(frozen=True, eq=False)
class Path:
    """Solutions along the path.

    Attributes:
        v: [problem, strength, axis, class] in the coordinates of the span, of mean 0 over the
            classes of a problem; 0 for classes that it lacks.
        classes: [problem, class] which classes a problem's rows have.
        steps: [problem, strength] iterations taken.
        converged: [problem, strength] whether the gradient became as small as asked.
    """

    v: Float[Tensor, "problem strength axis class"]
    classes: Bool[Tensor, "problem class"]
    steps: Int[Tensor, "problem strength"]
    converged: Bool[Tensor, "problem strength"]

    def logits(
        self, rows: Float[Tensor, "problem other axis"]
    ) -> Float[Tensor, "problem strength other class"]:
        """Log-odds of placed rows, -inf for classes that a problem lacks."""
        out = rows[:, None] @ self.v
        return out.masked_fill(~self.classes[:, None, None], -torch.inf)


def logistic_path(
    span: Span,
    labels: Int[Tensor, "problem row"],
    strengths: Float[Tensor, "problem strength"],
    *,
    classes: int,
    tolerance: float = 2e-3,
    start: Float[Tensor, "problem axis class"] | None = None,
    limit: int = 1000,
) -> Path:
    """Minimises the penalised multinomial log-loss of every problem at every strength.

    `mean over rows of -log softmax(w x + b)[label] + strength / 2 |w|²` on standardised features,
    the intercept free. With two classes the penalty counts once, as on one vector of weights
    (the difference of the two). scikit-learn's C is 1 / (strength * rows).

    Each problem walks its own path from its first strength to its last, while all share every
    matrix product. It starts each strength where the two before lead, in a line over log strength:
    with little penalty the weights of separable classes grow as its logarithm. Steps are
    quasi-Newton (BFGS that remembers the last step) around a diagonal that is nearly the Hessian's
    in principal axes: the penalty and the mean curvature of the loss. A step costs two matrix
    products, there and back. Along it the loss costs none, so that its length is found by a
    safeguarded Newton search.

    A strength is done once the gradient of the objective is no longer than `tolerance * strength *
    |w|`. The penalty makes the objective strongly convex, so that the weights are then within
    `tolerance * |w|` of the best ones, up to the intercept's share: as near at weak penalties as at
    strong ones, where a bound on the gradient alone would stop weak ones far away. A gradient that
    is all rounding ends a strength as well.

    Args:
        span: the rows of each problem, float32 or float64, in which everything is computed.
        labels: [problem, row] class numbers below `classes`; -1 for rows that are padding.
        strengths: [problem, strength] positive, each problem's from strong to weak.
        classes: how many there are in all.
        tolerance: distance from the best weights, as a share of their length. Below 1e-3 use
            float64.
        start: [problem, axis, class] where the path begins; 0 when None.
        limit: iterations of a strength.

    Raises:
        DegenerateError: if a problem has rows of one class only, or a strength is not positive.

    Source:
        Nocedal and Wright 2006, section 7.2 (memoryless BFGS).
    """
    if not bool((strengths > 0).all()):
        raise DegenerateError("a strength of the penalty is not positive; needed numbers above 0")
    there = labels >= 0
    coded = torch.nn.functional.one_hot(labels.clamp(min=0), classes).to(span.rows.dtype)
    coded = coded * there[:, :, None]
    known = coded.sum(dim=1) > 0
    if int(known.sum(dim=1).min()) < 2:
        raise DegenerateError(
            "the rows of a problem are all of one class; needed at least 2 classes in each"
        )
    walk = _Walk(
        span, labels, coded, strengths.to(coded.dtype), start, tolerance=tolerance, limit=limit
    )
    while walk.advance():
        pass
    v = walk.found
    mean = (v * known[:, None, None]).sum(dim=3, keepdim=True) / known.sum(dim=1)[
        :, None, None, None
    ]
    return Path((v - mean) * known[:, None, None], known, walk.steps, walk.converged)


class _Walk:
    """All problems on their way; those that have arrived are left out."""

    # What is kept for each problem, and so is cut when one has arrived.
    _OWN = (
        "which", "at", "step", "rows", "mean", "labels", "coded", "closed", "strengths", "stretch",
        "curb", "unit", "rounding", "penalty", "v", "last", "z", "p", "residual", "pull",
        "gradient", "move", "change", "weight",
    )  # fmt: skip
    gradient: Tensor

    def __init__(
        self,
        span: Span,
        labels: Tensor,
        coded: Tensor,
        strengths: Tensor,
        start: Tensor | None,
        *,
        tolerance: float,
        limit: int,
    ) -> None:
        problems, _, axes = span.rows.shape
        device = span.rows.device
        shape = (problems, strengths.shape[1])
        self.found = coded.new_zeros((*shape, axes, coded.shape[2]))
        self.steps = torch.zeros(shape, dtype=torch.int64, device=device)
        self.converged = self.steps.bool()
        self.tolerance, self.limit = tolerance, limit

        self.which = torch.arange(problems, device=device)
        self.at = torch.zeros(problems, dtype=torch.int64, device=device)
        self.step = torch.zeros(problems, dtype=torch.int64, device=device)
        self.rows, self.coded = span.rows, coded
        count = span.count[:, None, None]
        self.mean = (labels >= 0)[:, None].to(coded.dtype) / count
        self.labels = labels.clamp(min=0)[:, :, None]
        known = coded.sum(dim=1) > 0
        self.closed: Tensor | None = None
        if not bool(known.all()):
            self.closed = torch.where(known, 0.0, -torch.inf).to(coded.dtype)[:, None]
        # Two classes share one vector of weights, which the symmetric pair penalises by half.
        pair = (known.sum(dim=1) == 2).to(coded.dtype)
        self.strengths = strengths * (1 + pair)[:, None]
        self.curb = span.curb[:, :, None] * count
        self.unit = span.scale[:, :, None] / count
        self.rounding = torch.finfo(coded.dtype).eps * self.unit.flatten(1).norm(dim=1)
        self.penalty = self.curb * self.strengths[:, 0, None, None]
        gaps = strengths.log().diff(dim=1)
        self.stretch = torch.zeros_like(strengths)
        # On uneven grids, or for strengths given twice, the path is not followed far.
        self.stretch[:, 2:] = (gaps[:, 1:] / gaps[:, :-1]).nan_to_num(0.0).clamp(0.0, 2.0)
        self.v = torch.zeros_like(self.found[:, 0]) if start is None else start.clone()
        self.last = self.v
        self._refresh()
        self.move = self.change = torch.zeros_like(self.v)
        self.weight = coded.new_zeros((problems, 1, 1))

    def advance(self) -> bool:
        """One step of every problem; False when all have arrived."""
        self._arrive()
        if not len(self.which):
            return False
        move = self._direction().neg_()
        along = self.rows @ move
        self.move = move.mul_(self._search(move, along))
        self.v = self.v + move
        self.pull = self.penalty * self.v
        gradient = self._gradient()
        self.change = gradient - self.gradient
        self.gradient = gradient
        bend = _dot(self.move, self.change)
        size = (_dot(self.move, self.move) * _dot(self.change, self.change)).sqrt()
        # Curvature lost in rounding would poison the next direction.
        self.weight = torch.where(bend > 1e-6 * size, 1 / bend, 0.0)
        self.step += 1
        return True

    def _chances(self, z: Tensor) -> Tensor:
        return torch.softmax(z if self.closed is None else z + self.closed, dim=2)

    def _gradient(self) -> Tensor:
        return torch.baddbmm(self.pull, self.rows.mT, self.residual)

    def _small(self) -> Tensor:
        """Where the gradient by the weights bounds their distance from the best as asked."""
        gradient = (self.gradient * self.unit).flatten(1).norm(dim=1)
        held = (self.pull * self.unit).flatten(1).norm(dim=1)
        # A probability near 1 is rounded by as much as one that is far from its label.
        rounding = self.rounding * (1 + self.residual.flatten(1).norm(dim=1))
        return gradient <= torch.maximum(self.tolerance * held, rounding)

    def _arrive(self) -> None:
        """Records what has converged and sends it on to the next strength."""
        while len(self.which):
            small = self._small()
            ready = small | (self.step >= self.limit)
            if not bool(ready.any()):
                return
            which, at = self.which[ready], self.at[ready]
            self.found[which, at] = self.v[ready]
            self.steps[which, at] = self.step[ready]
            self.converged[which, at] = small[ready]
            self.at = self.at + ready
            left = self.at < self.strengths.shape[1]
            if not bool(left.all()):
                for name in self._OWN:
                    value = getattr(self, name)
                    if value is not None:
                        setattr(self, name, value[left])
            self._set_out(ready[left])

    def _set_out(self, ready: Tensor) -> None:
        """Starts those that are ready on their next strength, from where their path leads."""
        far = torch.where(ready, self.stretch.gather(1, self.at[:, None])[:, 0], 0.0)[:, None, None]
        ready = ready[:, None, None]
        self.step = torch.where(ready[:, 0, 0], 0, self.step)
        self.weight = self.weight * ~ready
        v = self.v
        self.v = torch.addcmul(v, far, v - self.last)
        self.last = torch.where(ready, v, self.last)
        self.penalty = self.curb * self.strengths.gather(1, self.at[:, None])[:, :, None]
        self._refresh()

    def _refresh(self) -> None:
        """Everything that follows from the map and the penalty."""
        self.z = self.rows @ self.v
        self.p = self._chances(self.z)
        self.residual = self.p - self.coded
        self.pull = self.penalty * self.v
        self.gradient = self._gradient()

    def _direction(self) -> Tensor:
        """Where the loss grows fastest by the diagonal, corrected by what the last step showed."""
        curvature = self.mean @ torch.addcmul(self.p, self.p, self.p, value=-1)
        # The intercept has no penalty to hold it where the loss has no curvature left.
        base = (self.penalty + curvature.clamp(min=1e-10)).reciprocal()
        share = self.weight * _dot(self.move, self.gradient)
        q = base * torch.addcmul(self.gradient, share, self.change, value=-1)
        back = self.weight * _dot(self.change, q)
        return torch.addcmul(q, share - back, self.move)

    def _search(self, move: Tensor, along: Tensor) -> Tensor:
        """How far to go: where the slope along the move has nearly vanished. Goes there."""
        slope = _dot(self.gradient, move)
        fixed = _dot(self.pull, move)
        # Padding rows have no part in any map, so their entry is 0.
        fixed -= along.gather(2, self.labels).sum(dim=1, keepdim=True)
        bend = _dot(self.penalty * move, move)
        # Rounding may leave no curvature, on which a step would be endless.
        least = torch.finfo(slope.dtype).eps * slope.abs()
        t = -slope / torch.maximum(_bent(self.p, along) + bend, least)
        low = torch.zeros_like(slope)
        high = torch.full_like(slope, torch.inf)
        for _ in range(_TRIES):
            z = torch.addcmul(self.z, t, along)
            p = self._chances(z)
            here = _dot(p, along) + fixed + t * bend
            good = here.abs() <= _SLOPE * slope.abs()
            if bool(good.all()):
                break
            low = torch.where(here < 0, t, low)
            high = torch.where(here > 0, t, high)
            new = t - here / torch.maximum(_bent(p, along) + bend, least)
            middle = torch.where(high.isinf(), 2 * t, (low + high) / 2)
            new = torch.where((new > low) & (new < high), new, middle)
            t = torch.where(good, t, new)
        else:
            # The loss still falls at the lower end: a step there is a step down.
            t = torch.where(good, t, low)
            z = torch.addcmul(self.z, t, along)
            p = self._chances(z)
        self.z, self.p, self.residual = z, p, p - self.coded
        return t


def _bent(p: Tensor, along: Tensor) -> Tensor:
    """Second derivative of the log-loss along a move of the log-odds."""
    weighted = p * along
    return _dot(weighted, along) - weighted.sum(dim=2).square().sum(dim=1)[:, None, None]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each problem, [problem, 1, 1]."""
    return torch.linalg.vecdot(a.flatten(1), b.flatten(1))[:, None, None]
