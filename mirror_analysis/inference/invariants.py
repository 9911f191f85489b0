"""What the exact permutation moments need to know of matrices over pairs of samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float64

from mirror_analysis.errors import DegenerateError, ShapeError
from mirror_analysis.inference.leading import Leading

Kind: TypeAlias = Literal["unbiased", "biased", "grand", "uncentred"]

# Parts this small beside the matrix they are parts of are rounding.
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Invariants:
    """What the permutation moments need to know of the layers of one side.

    The statistic of layers A and B is T = <A, P B P'>. Off the diagonal A is split into
    `A_st = c + a_s + a_t + Q_st` with a summing to 0 and Q without diagonal and with rows
    summing to 0. A permutation acts on the three parts apart, so that
    `T = level_x level_y + sum_s u_s v_p(s) + sum_st Q_st R_p(s)p(t)`, where u is what a and the
    diagonal of A come to together.

    Attributes:
        samples: rows of the matrices, at least 4.
        level: [layer] so that the mean of T is level_x * level_y.
        linear: [layer, layer] <u_i, u_k>.
        linear_cubed: [layer] sum_s u_s³.
        quadratic: [layer, layer] <Q_i, Q_k>, all entries of both triangles.
        triangles: [layer] trace of Q³.
        cubes: [layer] sum_st Q_st³.
        bent: [layer] sum_s u_s (Q²)_ss.
        held: [layer] u' Q u.
        leading: the strongest parts of the matrices, or None. The moments do not need them; the
            shape of the null does where few samples or directions carry a matrix.
    """

    samples: int
    level: Float64[np.ndarray, " layer"]
    linear: Float64[np.ndarray, "layer layer"]
    linear_cubed: Float64[np.ndarray, " layer"]
    quadratic: Float64[np.ndarray, "layer layer"]
    triangles: Float64[np.ndarray, " layer"]
    cubes: Float64[np.ndarray, " layer"]
    bent: Float64[np.ndarray, " layer"]
    held: Float64[np.ndarray, " layer"]
    leading: Leading | None = None

    def __len__(self) -> int:
        return len(self.level)

    @property
    def size(self) -> Float64[np.ndarray, " layer"]:
        """Norm of what a permutation changes, [layer]; 1 where there is nothing."""
        size = np.sqrt(self.linear.diagonal() + self.quadratic.diagonal())
        return np.where(size > 0, size, 1.0)

    @staticmethod
    def of(matrices: Any, *, kind: Kind, rank: int = 12) -> Invariants:
        """Splits explicit matrices; n³ work per layer.

        Args:
            matrices: [layer, sample, sample] symmetric, numpy or torch.
            kind: what is done to a matrix before the inner product. "unbiased": U-centred
                (debiased CKA, debiased distance correlation); "biased": rows and columns
                centred, diagonal kept (CKA, RV, distance correlation); "grand": diagonal left
                out, mean of the rest removed (Pearson RSA, Mantel); "uncentred": diagonal left
                out (cosine RSA).
            rank: eigenvectors kept in `leading`; 0 for none.

        Raises:
            ShapeError: if the matrices are not [layer, sample, sample].
            DegenerateError: if there are fewer than 4 samples.
        """
        read = matrices.detach().cpu().numpy() if hasattr(matrices, "detach") else matrices
        given = np.array(read, dtype=np.float64)
        if given.ndim != 3 or given.shape[1] != given.shape[2]:
            raise ShapeError(
                f"matrices have shape {given.shape}; needed [layer, sample, sample], square"
            )
        layers, n = given.shape[:2]
        need_samples(n)
        level, u, q = np.zeros(layers), np.zeros((layers, n)), given
        for i, matrix in enumerate(given):
            if kind == "biased":
                mean = matrix.mean(axis=0)
                matrix += mean.mean() - mean - mean[:, None]
            size = float(np.linalg.norm(matrix))
            diagonal = matrix.diagonal().copy()
            np.fill_diagonal(matrix, 0.0)
            total = matrix.sum()
            rows = (matrix.sum(axis=0) - total / n) / (n - 2)
            matrix -= total / (n * (n - 1)) + rows + rows[:, None]
            np.fill_diagonal(matrix, 0.0)
            if np.linalg.norm(matrix) <= _ROUNDING * size:
                matrix[:] = 0.0
            if kind == "biased":
                level[i] = diagonal.sum() / math.sqrt(n - 1)
                u[i] = (diagonal - diagonal.mean()) * math.sqrt(n / (n - 2))
            elif kind != "unbiased":
                u[i] = rows * math.sqrt(2 * (n - 2))
                level[i] = total / math.sqrt(n * (n - 1)) if kind == "uncentred" else 0.0
            if np.linalg.norm(u[i]) <= _ROUNDING * size:
                u[i] = 0.0
        flat = q.reshape(layers, -1)
        leading = None
        if rank:
            weights, vectors = np.linalg.eigh(q)
            order = np.argsort(-np.abs(weights), axis=1)[:, : min(rank, n)]
            leading = Leading(
                np.take_along_axis(weights, order, axis=1),
                np.take_along_axis(vectors, order[:, None], axis=2),
                u,
            )
        return Invariants(
            samples=n,
            level=level,
            linear=u @ u.T,
            linear_cubed=(u**3).sum(axis=1),
            quadratic=flat @ flat.T,
            triangles=np.array([np.vdot(r @ r, r) for r in q]),
            cubes=np.array([np.vdot(r * r, r) for r in q]),
            bent=np.array([s @ np.square(r).sum(axis=1) for s, r in zip(u, q, strict=True)]),
            held=np.array([s @ r @ s for s, r in zip(u, q, strict=True)]),
            leading=leading,
        )

    def scaled(self, factor: Float64[np.ndarray, " layer"]) -> Invariants:
        """The invariants of the matrices times one factor each.

        Args:
            factor: [layer] what each matrix is multiplied by.
        """
        square, cube = factor[:, None] * factor, factor**3
        return Invariants(
            samples=self.samples,
            level=self.level * factor,
            linear=self.linear * square,
            linear_cubed=self.linear_cubed * cube,
            quadratic=self.quadratic * square,
            triangles=self.triangles * cube,
            cubes=self.cubes * cube,
            bent=self.bent * cube,
            held=self.held * cube,
            leading=None if self.leading is None else self.leading.scaled(factor),
        )


def need_samples(n: int) -> None:
    """Refuses fewer samples than the moments are defined for.

    Raises:
        DegenerateError: if there are fewer than 4.
    """
    if n < 4:
        raise DegenerateError(f"exact permutation moments got {n} samples; needed at least 4")
