"""The times of least KLUB, found at once: Align Your Steps (Sabour et al. 2024, arXiv:2404.14507) without its search.

The bound of `klub` is a sum over steps. Forward noise is a Brownian path in t^2, so the network evaluated once at every one of M
noise levels of each of n paths gives E |D_a - D_b|^2 for all pairs of levels, and with it the cost of every possible step; dynamic
programming then finds the best N steps on the levels, and a quasi-Newton method moves their times off them.

With s = arsinh(c / t), in which the levels are uniform, w = 1 + c^2 / t^2 = cosh^2 s. The cost of a step from s_a to s_b is that of the
Gaussian N(0, c^2), psi(w_b / w_a) / 2 an element, times a ratio that varies slowly. A polynomial in (s_a, s_b) is fitted to its logarithm:
the bound is so flat about its optimum that the noise of the paths, independent at every level, would otherwise choose the times.
"""

from dataclasses import dataclass, replace
from math import asinh

import numpy as np
import torch
from numpy.polynomial.chebyshev import chebvander2d
from scipy.special import softmax

from solversearch.errors import UserError
from solversearch.judging.klub import STREAM, psi, spread
from solversearch.memo import NO_MEMO, Memo, memoized
from solversearch.models.base import Clock, Denoiser, Model
from solversearch.noise import SPLITS
from solversearch.runtime import Node
from solversearch.schedules import Floats, NoiseSchedule
from solversearch.teacher import Teacher

LEVELS = 64
DEGREE = 8
"""Of the polynomial, in both variables together."""
MEMORY = 2**25
"""Numbers that are kept of a batch's paths, 8 bytes each."""


def ays_times(
    model: Model, teacher: Teacher, nfe: int, guidance: float = 1.0, batch_size: int = 512, clock: Clock | None = None,
    levels: int = LEVELS, memo: Memo = NO_MEMO,
) -> list[float]:  # fmt: skip
    """The nfe times of least KLUB, falling from t_start; the last step ends at t_end, as in the paper both ends are fixed.

    Costs `levels` network evaluations a sample of the teacher. For several nfe, `step_costs` once and `StepCosts.times` for each.
    """
    return step_costs(model, teacher, guidance, batch_size, clock, levels, memo).times(nfe)


@dataclass(frozen=True)
class StepCosts:
    """What a step between any two noise levels costs: s (M,), rising from t_start to t_end, and the polynomial's coefficients."""

    schedule: NoiseSchedule
    c: float
    s: Floats
    coefficients: Floats

    def cost(self, s_a: Floats, s_b: Floats) -> Floats:
        """The terms of `klub` for steps from s_a to s_b > s_a, elementwise."""
        ratio = np.exp(_basis(self.s, s_a, s_b) @ self.coefficients)
        return _gaussian(s_a, s_b) * ratio / 2

    def times(self, nfe: int) -> list[float]:
        """As `ays_times`."""
        if not 1 <= nfe < len(self.s):
            raise UserError(f"{len(self.s)} noise levels allow 1 to {len(self.s) - 1} evaluations, not {nfe}; use more levels")
        from scipy.optimize import minimize

        first, length = self.s[0], self.s[-1] - self.s[0]

        def placed(theta: Floats) -> Floats:
            """s of the nfe + 1 ends of the steps whose lengths are proportional to exp(theta)."""
            return first + length * np.concatenate([[0.0], np.cumsum(softmax(theta))])

        def loss(theta: Floats) -> float:
            s = placed(theta)
            return float(np.log(self.cost(s[:-1], s[1:]).sum()))

        s = placed(minimize(loss, np.log(np.diff(self.s[self.best_levels(nfe)])), method="BFGS").x)
        return [float(t) for t in self.schedule.time_of_angle(np.arctan2(self.c, np.sinh(s[:-1])))]

    def best_levels(self, nfe: int) -> list[int]:
        """The nfe + 1 levels at the ends of the cheapest nfe steps from the first to the last, by dynamic programming."""
        a, b = np.triu_indices(len(self.s), 1)
        costs = np.full((len(self.s), len(self.s)), np.inf)
        costs[a, b] = self.cost(self.s[a], self.s[b])
        reached, came_from = costs[0], []
        for _ in range(nfe - 1):
            through = reached[:, None] + costs
            came_from.append(through.argmin(0))
            reached = through.min(0)
        path = [len(self.s) - 1]
        for previous in reversed(came_from):
            path.append(int(previous[path[-1]]))
        return [0, *reversed(path)]


def _basis(s: Floats, s_a: Floats, s_b: Floats) -> Floats:
    """Chebyshev polynomials of two variables up to a total degree, (..., terms), on the range of the levels s."""
    x, y = (2 * (each - s[0]) / (s[-1] - s[0]) - 1 for each in (s_a, s_b))
    first, second = np.divmod(np.arange((DEGREE + 1) ** 2), DEGREE + 1)
    return chebvander2d(x, y, [DEGREE, DEGREE])[..., first + second <= DEGREE]


def _gaussian(s_a: Floats, s_b: Floats) -> Floats:
    """psi(w_b / w_a): twice the cost of a step from s_a to s_b for an element of data N(0, c^2)."""
    # cosh^2 b / cosh^2 a - 1 = sinh(b - a) sinh(b + a) / cosh^2 a keeps short steps exact.
    return psi(np.sinh(s_b - s_a) * np.sinh(s_b + s_a) / np.cosh(s_a) ** 2)


@torch.no_grad()
def step_costs(
    model: Model, teacher: Teacher, guidance: float = 1.0, batch_size: int = 512, clock: Clock | None = None, levels: int = LEVELS,
    memo: Memo = NO_MEMO,
) -> StepCosts:  # fmt: skip
    """Runs the network at every level along Brownian paths from the teacher's endpoints."""
    schedule, c = model.schedule, spread(teacher.endpoint)
    batch_size = model.filled(min(batch_size, max(1, MEMORY // (levels * teacher.endpoint[0].numel()))))
    first, last = (asinh(c * node.alpha / node.sigma) for node in map(schedule.node, (schedule.t_start, schedule.t_end)))
    s = np.linspace(first, last, levels)
    nodes = [replace(schedule.node(t), guidance=guidance) for t in schedule.time_of_angle(np.arctan2(c, np.sinh(s)))]
    grams = []
    for first in range(0, len(teacher), batch_size):
        residuals = _residuals(model, teacher, nodes, slice(first, first + batch_size), clock, memo)
        grams.append(residuals @ residuals.mT)  # one matrix a sample, so that batches change no digit of their mean
    gram = torch.cat(grams).mean(0).cpu().numpy()
    norms = np.diagonal(gram)
    return StepCosts(schedule, c, s, _fitted(s, c, norms[:, None] + norms[None, :] - 2 * gram))


def _residuals(model: Model, teacher: Teacher, nodes: list[Node], batch: slice, clock: Clock | None, memo: Memo) -> torch.Tensor:
    """D - x_0 at each of M nodes along a batch's paths, (B, M, elements), float64."""
    conditions = None if teacher.conditions is None else teacher.conditions[batch]
    x0 = teacher.endpoint[batch]
    denoise = memoized(Denoiser(model, conditions, len(x0), clock=clock), memo)
    increments = torch.stack([_increments(teacher, i, len(nodes)) for i in range(len(teacher))[batch]]).to(x0)
    x, alpha, sigma = x0, 1.0, 0.0
    kept = []
    for k, node in reversed(list(enumerate(nodes))):
        share = node.alpha / alpha
        x = share * x + max(node.sigma**2 - (share * sigma) ** 2, 0.0) ** 0.5 * increments[:, k]
        alpha, sigma = node.alpha, node.sigma
        prediction = denoise(x, node)
        assert isinstance(prediction, torch.Tensor)
        kept.append((prediction - x0).double().flatten(1))
    return torch.stack(kept[::-1], dim=1)


def _increments(teacher: Teacher, i: int, levels: int) -> torch.Tensor:
    """Standard normals of sample i's path, (levels, *shape)."""
    rng = np.random.default_rng([teacher.seed, SPLITS.index(teacher.split), i, STREAM])
    return torch.from_numpy(rng.standard_normal((levels, *teacher.endpoint.shape[1:])))


def _fitted(s: Floats, c: float, squares: Floats) -> Floats:
    """The polynomial's coefficients from E |D_a - D_b|^2, (M, M).

    Between two levels |D_t - D_a|^2 / B_a(t) is taken for linear, and weighted with the exact integrals of t^-3 B_a(t).
    """
    w, ratios = np.cosh(s) ** 2, []
    for a in range(len(s) - 1):
        gaussian = c**2 * (w[a + 1 :] - w[a]) / (w[a] * w[a + 1 :])  # c^4 B_a
        local = np.maximum(squares[a, a + 1 :], 1e-300) / gaussian
        masses = np.diff(_gaussian(s[a], s[a:]))
        means = (np.concatenate([local[:1], local[:-1]]) + local) / 2
        ratios.append(np.cumsum(masses * means) / np.cumsum(masses))
    rows, columns = np.triu_indices(len(s), 1)
    solution = np.linalg.lstsq(_basis(s, s[rows], s[columns]), np.log(np.concatenate(ratios)), rcond=None)
    return np.asarray(solution[0], dtype=np.float64)
