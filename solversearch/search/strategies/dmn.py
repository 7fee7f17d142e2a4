"""DMN, optimised time steps (Xue et al. 2024, arXiv:2402.17376): times of the least bound on the error of a multistep solver.

With data predictions that are off by eps_n = sigma_n^p / alpha_n at lambda_n, the step from lambda_s to lambda_{s+1}, which interpolates
the last k_s = min(3, s + 1, N - s) of them, adds J_{s,n} eps_n to x / sigma, where

    J_{s,n} = int_{lambda_s}^{lambda_{s+1}} e^lambda l_{s,n}(lambda) dlambda,    l the Lagrange polynomials.

The bound is sum_n |sum_s J_{s,n}| eps_n. For up to 7 steps the first three of them count by their own Euclidean norm over n, and so do
the first and the last step always: as in the paper's code, which has p = 2, and 1 for models of pixels. Both are judged here; they ask
the network nothing. Minimised by scipy's trust-constr from the grid of the space on, of which the paper takes the log-SNR one for pixels,
the uniform one for latents.
"""

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from scipy.optimize import LinearConstraint, minimize

from solversearch.runtime import Tableau
from solversearch.schedules import Floats
from solversearch.search.settings import Settings
from solversearch.search.stages.recipe import Given

ORDER, FEW, APART = 3, 7, 3
"""Of the solver; and up to how many steps how many of the first count by themselves."""
POWERS = (1, 2)
LEAST = -8.0
"""Lambda where it is infinite, as of the log-SNR grid."""
_POINTS, _WEIGHTS = np.polynomial.legendre.leggauss(16)


def bound(lam: Sequence[float] | Floats, power: int) -> float:
    """The bound of N + 1 rising half log-SNRs, the last of which is not evaluated."""
    lam = np.asarray(lam, dtype=np.float64)
    count = len(lam) - 1
    errors = (1 + np.exp(2 * lam)) ** (-power / 2) * np.sqrt(1 + np.exp(-2 * lam))  # sigma^p / alpha
    joint, apart = np.zeros(count), 0.0
    for s in range(count):
        known = np.arange(s + 1 - min(ORDER, s + 1, count - s), s + 1)
        half = (lam[s + 1] - lam[s]) / 2
        points = lam[s] + half * (1 + _POINTS)
        basis = [np.prod([(points - lam[m]) / (lam[n] - lam[m]) for m in known if m != n], axis=0) for n in known]
        added = half * (basis * np.exp(points)) @ _WEIGHTS * errors[known]
        if s in (0, count - 1) or (count <= FEW and s < APART):
            apart += float(np.linalg.norm(added))
        else:
            joint[known] += added
    return apart + float(np.abs(joint).sum())


def least(lam: Sequence[float] | Floats, power: int) -> Floats:
    """The half log-SNRs (N + 1,) of the least bound, from the given ones on, whose ends stay."""
    first, *inner, last = map(float, lam)
    if not inner:
        return np.array([first, last])
    rising = np.diff(np.eye(len(inner)), axis=0, prepend=0, append=0)
    ends = np.zeros(len(inner) + 1)
    ends[[0, -1]] = first, -last
    apart = 1e-3 * (last - first) / len(inner)
    within = LinearConstraint(rising, ends + apart, np.inf, keep_feasible=True)
    with warnings.catch_warnings():  # of quasi-Newton updates that change nothing, at the end
        warnings.simplefilter("ignore", UserWarning)
        found = minimize(
            lambda x: bound([first, *x, last], power),
            np.array(inner),
            method="trust-constr",
            constraints=[within],
            options={"maxiter": 2000},
        )
    return np.array([first, *found.x, last])


class _Bound:
    def cost(self, settings: Settings, calls: int) -> int:
        """What it takes to judge the tables."""
        return settings.space.size(1) * len(POWERS) * calls * settings.validation_samples

    def learn(self, given: Given) -> Iterator[Tableau]:
        schedule = given.task.model.schedule
        lam = np.maximum(schedule.lam([schedule.t_start, *given.starts[0].times[1:], schedule.t_end]), LEAST)
        for power in POWERS:
            yield from given.at([schedule.t_start, *schedule.time_of_lam(least(lam, power)[1:-1])])


DMN = _Bound()
