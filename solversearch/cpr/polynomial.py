"""A cascade of polynomials over step, guidance and NFE, and its least-squares fit (Zhao et al. 2024, arXiv:2409.03755, section 3.3).

    f(u, g, n) = sum_p c_p u^p,    c_p = sum_k d_pk g^k,    d_pk = sum_l a_pkl n^l

    u    i / NFE of step i          g    guidance / 12          n    NFE / 50

The cascade multiplied out is one polynomial, linear in the numbers a_pkl (36 of them at the published degrees 3, 2, 2), so that its fit
is a single linear least-squares problem. It is solved in Legendre polynomials scaled to the fitted ranges, where it is well conditioned,
with a small ridge that grows with the degree, so that what the data leave open is settled by the lowest degrees; the result is written
in powers, as published.
"""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.polynomial import Legendre, Polynomial
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

from solversearch.plan import Many
from solversearch.schedules import Floats

UNITS = (1.0, 12.0, 50.0)
"""Of u, guidance and NFE."""
DEGREES = (3, 2, 2)
"""Published degrees in u, g and n."""
RIDGES = (1e-12, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1)
"""In units of the mean square of a basis function; which one is used, leaving out one configuration at a time decides."""


class Cascade(BaseModel):
    """coefficients[p][k][l] of u^p g^k n^l."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True, strict=True)
    coefficients: Many[Many[Many[float]]]

    @model_validator(mode="after")
    def _full(self) -> Self:
        rows = [row for plane in self.coefficients for row in plane]
        if not rows or not rows[0] or len({len(p) for p in self.coefficients}) > 1 or len({len(row) for row in rows}) > 1:
            raise ValueError("coefficients: lists of equal lengths, [power of u][power of g][power of n]")
        return self

    def __call__(self, u: Floats, guidance: Floats | float, nfe: Floats | float) -> Floats:
        points = np.broadcast_arrays(u, guidance, nfe)
        x, y, z = (each / unit for each, unit in zip(points, UNITS, strict=True))
        return np.polynomial.polynomial.polyval3d(x, y, z, np.array(self.coefficients))

    def __add__(self, other: "Cascade") -> "Cascade":
        mine, yours = np.array(self.coefficients), np.array(other.coefficients)
        total = np.zeros(np.maximum(mine.shape, yours.shape))
        for each in (mine, yours):
            total[tuple(map(slice, each.shape))] += each
        return _cascade(total)

    @classmethod
    def published(cls, coefficients: Sequence[Sequence[Sequence[float]]]) -> "Cascade":
        """From the authors' table, whose powers of g and n fall from 2 to 0."""
        return _cascade(np.array(coefficients, dtype=np.float64)[:, ::-1, ::-1])


def _cascade(coefficients: Floats) -> Cascade:
    return Cascade(coefficients=tuple(tuple(tuple(row) for row in plane) for plane in coefficients.tolist()))


class Basis:
    """Products of Legendre polynomials, each variable scaled to its range in the points (M, 3) of u, guidance and NFE."""

    def __init__(self, points: Floats, degrees: Sequence[int]) -> None:
        self.bases: list[list[Legendre]] = []
        for values, unit, degree in zip(points.T, UNITS, degrees, strict=True):
            low, high = float(values.min()) / unit, float(values.max()) / unit
            domain = (low, high) if high > low else (low - 1, high + 1)
            self.bases.append([Legendre.basis(d, domain) for d in range(degree + 1)])

    @property
    def size(self) -> int:
        return int(np.prod([len(functions) for functions in self.bases]))

    def total_degrees(self) -> Floats:
        """Of each function."""
        return np.indices([len(functions) for functions in self.bases]).sum(0).reshape(-1).astype(np.float64)

    def design(self, points: Floats) -> Floats:
        """(M, functions)."""
        u, g, n = (
            np.stack([f(values / unit) for f in functions]) for functions, values, unit in zip(self.bases, points.T, UNITS, strict=True)
        )
        return np.einsum("pm,km,lm->mpkl", u, g, n).reshape(len(points), -1)

    def cascade(self, weights: Floats) -> Cascade:
        """The same function in powers."""
        powers: list[Floats] = []
        for functions in self.bases:
            rows = [np.asarray(f.convert(kind=Polynomial).coef, dtype=np.float64) for f in functions]
            powers.append(np.stack([np.pad(row, (0, len(functions) - len(row))) for row in rows]))
        u, g, n = powers
        shaped = weights.reshape([len(functions) for functions in self.bases])
        return _cascade(np.einsum("pkl,pa,kb,lc->abc", shaped, u, g, n))


def degrees(points: Floats, highest: Sequence[int] = DEGREES) -> tuple[int, int, int]:
    """The highest degrees that so many different values determine: with m values at most m - 1.

    The degree in u is that of the configuration with most steps, and the ridge settles what the others leave open; guidance and NFE
    together have no more functions than there are configurations.
    """
    cells = np.unique(points[:, 1:], axis=0)
    steps = max(int(np.sum(np.all(points[:, 1:] == cell, axis=1))) for cell in cells)
    u, g, n = (min(h, count - 1) for h, count in zip(highest, (steps, *(len(np.unique(c)) for c in cells.T)), strict=True))
    while (g + 1) * (n + 1) > len(cells):
        g, n = (g - 1, n) if g > n else (g, n - 1)
    return u, g, n


def fit_cascade(points: Floats, values: Floats, highest: Sequence[int] = DEGREES) -> tuple[Cascade, Floats, Floats]:
    """The cascade through values (M,) at points (M, 3) of u, guidance and NFE.

    Returns it with its residuals (M,) and, for every point, the error of the fit that leaves out the point's configuration (M,).
    """
    basis = Basis(points, degrees(points, highest))
    design = basis.design(points)
    cells, member = np.unique(points[:, 1:], axis=0, return_inverse=True)
    member = member.reshape(-1)
    penalised = 3.0 ** basis.total_degrees()
    penalised[0] = 0

    def solve(kept: NDArray[np.bool_], ridge: float) -> Floats:
        rows = np.concatenate([design[kept], np.diag(np.sqrt(ridge * kept.sum() * penalised))])
        return np.linalg.lstsq(rows, np.concatenate([values[kept], np.zeros(design.shape[1])]), rcond=None)[0]

    def left_out(ridge: float) -> Floats:
        errors = np.zeros(len(values))
        for cell in range(len(cells)):
            out = member == cell
            errors[out] = design[out] @ solve(~out, ridge) - values[out]
        return errors

    tried = [(left_out(ridge), ridge) for ridge in RIDGES]
    errors, ridge = min(tried, key=lambda pair: float(np.mean(pair[0] ** 2)))
    weights = solve(np.ones(len(values), dtype=bool), ridge)
    return basis.cascade(weights), design @ weights - values, errors
