"""Multinomial logistic regression of many problems at once, along a path of penalties."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mirror_analysis.errors import DegenerateError
from mirror_analysis.probing.span import Span

# Pairs of steps and gradient changes that the quasi-Newton update remembers.
_MEMORY = 5
# Iterations of a strength at which the preconditioner is made anew; later, whenever they double.
_RENEWED = (0, 12)
# Rows that the preconditioner knows one by one: those of the largest curvature.
_ROWS = 192
# A step is accepted where the slope along it has fallen to this share.
_SLOPE = 0.4
_TRIES = 25


@dataclass(frozen=True, eq=False)
class Path:
    """Solutions along the path.

    Attributes:
        v: [problem, strength, axis, class] in the coordinates of the span, of mean 0 over the
            classes of a problem; 0 for classes that it lacks.
        classes: [problem, class] which classes a problem's rows have.
        steps: [problem, strength] iterations taken.
        converged: [problem, strength] whether the gradient fell below the tolerance.
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
    tolerance: float = 1e-4,
    start: Float[Tensor, "problem axis class"] | None = None,
    limit: int = 1000,
) -> Path:
    """Minimises the penalised multinomial log-loss of every problem at every strength.

    `mean over rows of -log softmax(w x + b)[label] + strength / 2 |w|²` on standardised features,
    the intercept free. With two classes the penalty counts once, as on one vector of weights
    (the difference of the two). scikit-learn's C is 1 / (strength * rows).

    Each problem walks its own path from its first strength to its last, starting where the one
    before ended, while all share every matrix product. Steps are quasi-Newton (L-BFGS) around a
    preconditioner that is nearly the Hessian: the penalty, the mean curvature along each axis, and
    for the rows of largest curvature the part of their Hessian along their residual, inverted
    together through one matrix of rows x rows (Woodbury). Along a step the loss costs no matrix
    product, so steps are found by a safeguarded Newton search.

    Args:
        span: the rows of each problem, float32 or float64, in which everything is computed.
        labels: [problem, row] class numbers below `classes`; -1 for rows that are padding.
        strengths: [problem, strength] positive, each problem's from strong to weak.
        classes: how many there are in all.
        tolerance: of the gradient of the objective per unit weight of each principal axis and
            of the intercept, largest entry; scikit-learn's `tol`. Below 1e-5 use float64.
        start: [problem, axis, class] where the path begins; 0 when None.
        limit: iterations of a strength.

    Raises:
        DegenerateError: if a problem has rows of one class only, or a strength is not positive.

    Source:
        Nocedal and Wright 2006, algorithm 7.4 (L-BFGS); Frangella et al. 2023 (low-rank
        preconditioning in the same spirit).
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
        "which", "at", "step", "rows", "axes", "labels", "coded", "closed", "strengths", "curb",
        "unit", "share", "penalty", "v", "z", "p", "gradient", "moves", "changes", "weight", "base",
        "inverse", "steep", "chosen",
    )  # fmt: skip

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
        (problems, rows, axes), classes = span.rows.shape, coded.shape[2]
        device = span.rows.device
        shape = (problems, strengths.shape[1])
        self.found = coded.new_zeros((*shape, axes, classes))
        self.steps = torch.zeros(shape, dtype=torch.int64, device=device)
        self.converged = self.steps.bool()
        self.tolerance, self.limit = tolerance, limit

        self.which = torch.arange(problems, device=device)
        self.at = torch.zeros(problems, dtype=torch.int64, device=device)
        self.step = torch.zeros(problems, dtype=torch.int64, device=device)
        self.rows, self.axes, self.coded = span.rows, span.axes, coded
        self.labels = labels.clamp(min=0)[:, :, None]
        known = coded.sum(dim=1) > 0
        self.closed: Tensor | None = None
        if not bool(known.all()):
            self.closed = torch.where(known, 0.0, -torch.inf).to(coded.dtype)[:, None]
        # Two classes share one vector of weights, which the symmetric pair penalises by half.
        pair = (known.sum(dim=1) == 2).to(coded.dtype)
        self.strengths = strengths * (1 + pair)[:, None]
        self.curb = (span.curb * span.count[:, None])[:, :, None]
        self.unit = (span.scale / span.count[:, None])[:, :, None]
        self.share = 1 / (span.count * classes)
        self.penalty = self.curb * self.strengths[:, 0, None, None]
        self.v = torch.zeros_like(self.found[:, 0]) if start is None else start.clone()
        self.z = self.rows @ self.v
        self.p = self._chances(self.z)
        self.gradient = self._gradient()
        self.moves = coded.new_zeros((_MEMORY, problems, axes, classes)).transpose(0, 1)
        self.changes = torch.zeros_like(self.moves)
        self.weight = coded.new_zeros((problems, _MEMORY))
        self.slot = 0
        rank = min(rows, _ROWS)
        self.base = torch.ones_like(self.curb)
        self.inverse = coded.new_zeros((problems, rank, rank))
        self.steep = coded.new_zeros((problems, rank, classes))
        self.chosen = coded.new_zeros((problems, rank, axes)) if rank < rows else None

    def advance(self) -> bool:
        """One step of every problem; False when all have arrived."""
        self._arrive()
        if not len(self.which):
            return False
        self._renew()
        move = self._direction().neg_()
        slope = _dot(self.gradient, move)
        along = self.rows @ move
        t = self._search(move, along, slope)
        move *= t
        self.v = self.v + move
        change = self.gradient
        self.gradient = self._gradient()
        change = self.gradient - change
        bend = _dot(move, change)
        size = (_dot(move, move) * _dot(change, change)).sqrt()
        # Curvature lost in rounding would poison the memory.
        weight = torch.where(bend > 1e-6 * size, 1 / bend, 0.0)
        self.moves[:, self.slot], self.changes[:, self.slot] = move, change
        self.weight[:, self.slot] = weight[:, 0, 0]
        self.slot = (self.slot + 1) % _MEMORY
        self.step += 1
        return True

    def _chances(self, z: Tensor) -> Tensor:
        return torch.softmax(z if self.closed is None else z + self.closed, dim=2)

    def _gradient(self) -> Tensor:
        return torch.addcmul(self.rows.mT @ (self.p - self.coded), self.penalty, self.v)

    def _small(self) -> Tensor:
        """Where no entry of the gradient of the mean loss, feature by feature, is too large."""
        inner = self.gradient * self.unit
        # The mean square does not change with the axes, and the largest entry is not below it.
        mean = inner[:, :-1].square().sum(dim=1).amax(dim=1) / self.axes.shape[1]
        maybe = (mean <= self.tolerance**2) & (inner[:, -1].abs().amax(dim=1) <= self.tolerance)
        for number in maybe.nonzero()[:, 0].tolist():
            largest = (self.axes[number] @ inner[number, :-1]).abs().amax()
            maybe[number] = largest <= self.tolerance
        return maybe

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
            self.step = torch.where(ready, 0, self.step)
            self.weight = self.weight * ~ready[:, None]
            left = self.at < self.strengths.shape[1]
            if not bool(left.all()):
                for name in self._OWN:
                    value = getattr(self, name)
                    if value is not None:
                        setattr(self, name, value[left])
            own = self.strengths.gather(1, self.at[:, None])[:, :, None]
            penalty = self.curb * own
            self.gradient = self.gradient + (penalty - self.penalty) * self.v
            self.penalty = penalty

    def _renew(self) -> None:
        """Makes the preconditioner of those problems whose turn it is."""
        late = (self.step > _RENEWED[-1]) & (self.step % _RENEWED[-1] == 0)
        due = late | torch.isin(self.step, self.step.new_tensor(_RENEWED))
        which = due.nonzero()[:, 0]
        if not len(which):
            return
        rows, coded = self.rows[which], self.coded[which]
        p = self.p[which] * coded.sum(dim=2, keepdim=True)
        residual = coded - p
        bent = p * residual
        bent -= p * bent.sum(dim=2, keepdim=True)
        depth = (residual * bent).sum(dim=2, keepdim=True)
        tiny = torch.finfo(p.dtype).tiny ** 0.5
        steep = torch.where(depth > tiny, bent / depth.clamp(min=tiny).sqrt(), 0.0)
        curvature = (p - p.square()).sum(dim=(1, 2))
        if self.chosen is not None:
            rank = self.chosen.shape[1]
            top = steep.square().sum(dim=2).topk(rank, dim=1).indices[:, :, None]
            steep = steep.gather(1, top.expand(-1, -1, steep.shape[2]))
            rows = rows.gather(1, top.expand(-1, -1, rows.shape[2]))
            self.chosen[which] = rows
        rest = (curvature - steep.square().sum(dim=(1, 2))).clamp(min=0)
        rest = (rest / (rows.shape[2] * p.shape[2])).clamp(min=1e-10)
        base = self.penalty[which] + rest[:, None, None]
        # The intercept has no penalty to hold it.
        base[:, -1, 0] += curvature * self.share[which]
        base = base.reciprocal()
        kernel = (rows * base.mT) @ rows.mT
        kernel *= steep @ steep.mT
        kernel.diagonal(dim1=1, dim2=2).add_(1.0)
        factor, failed = torch.linalg.cholesky_ex(kernel)
        if bool(failed.any()):
            # Rounding left it short of positive; a preconditioner need not be exact.
            kernel.diagonal(dim1=1, dim2=2).mul_(1.001)
            factor = torch.linalg.cholesky(kernel)
        self.base[which], self.steep[which] = base, steep
        self.inverse[which] = torch.cholesky_inverse(factor)

    def _solved(self, g: Tensor) -> Tensor:
        """The preconditioner applied."""
        x = self.base * g
        rows = self.rows if self.chosen is None else self.chosen
        t = self.inverse @ ((rows @ x) * self.steep).sum(dim=2, keepdim=True)
        return x - self.base * (rows.mT @ (self.steep * t))

    def _direction(self) -> Tensor:
        """The two loops of L-BFGS, newest pair first; pairs of weight 0 are forgotten ones."""
        order = [(self.slot - 1 - i) % _MEMORY for i in range(_MEMORY)]
        order = order[: int(self.step.max().clamp(max=_MEMORY))]
        q = self.gradient
        shares = []
        for i in order:
            share = self.weight[:, i, None, None] * _dot(self.moves[:, i], q)
            q = torch.addcmul(q, share, self.changes[:, i], value=-1)
            shares.append(share)
        q = self._solved(q)
        for i, share in zip(reversed(order), reversed(shares), strict=True):
            back = self.weight[:, i, None, None] * _dot(self.changes[:, i], q)
            q = torch.addcmul(q, share - back, self.moves[:, i])
        return q

    def _search(self, move: Tensor, along: Tensor, slope: Tensor) -> Tensor:
        """How far to go: where the slope along the move has nearly vanished. Goes there."""
        fixed = _dot(self.penalty * self.v, move)
        # Padding rows have no part in any map, so their entry is 0.
        fixed -= along.gather(2, self.labels).sum(dim=1, keepdim=True)
        bend = _dot(self.penalty * move, move)
        t, low = torch.ones_like(slope), torch.zeros_like(slope)
        high = torch.full_like(slope, torch.inf)
        for _ in range(_TRIES):
            z = torch.addcmul(self.z, t, along)
            p = self._chances(z)
            here = _dot(p, along) + fixed + t * bend
            good = here.abs() <= _SLOPE * slope.abs()
            if bool(good.all()):
                break
            weighted = p * along
            second = _dot(weighted, along) - weighted.sum(dim=2).square().sum(dim=1)[:, None, None]
            low = torch.where(here < 0, t, low)
            high = torch.where(here > 0, t, high)
            new = t - here / (second + bend)
            middle = torch.where(high.isinf(), 2 * t, (low + high) / 2)
            new = torch.where((new > low) & (new < high), new, middle)
            t = torch.where(good, t, new)
        else:
            # The loss still falls at the lower end: a step there is a step down.
            t = torch.where(good, t, low)
            z = torch.addcmul(self.z, t, along)
            p = self._chances(z)
        self.z, self.p = z, p
        return t


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of each problem, [problem, 1, 1]."""
    return torch.linalg.vecdot(a.flatten(1), b.flatten(1))[:, None, None]
