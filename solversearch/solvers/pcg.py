"""Predictor-corrector guidance (Bradley and Nakkiran 2024, arXiv:2408.09000): guidance as Langevin steps. Stochastic, weak order 1.

    x'_t = DDIM(x_s, D(x_s | c) -> t)
    x_t  = alpha_t G + e^{-h} (x'_t - alpha_t G) + sigma_t sqrt(1 - e^{-2h}) z,    h = lambda_t - lambda_s

    D    the data prediction under the condition, without guidance
    G    the one at x'_t with the guidance 2 w - 1, for a guidance w of the plan
    z    a fresh standard normal

In the limit of many steps this is ancestral sampling with guidance w (theorem 3). The paper's Langevin step of length beta_t dt, which is
2 sigma_t^2 h, is Euler's, and unstable in long steps; here it is exact for a constant G. An evaluation without guidance costs half. The
last step, to sigma = 0, is the first line alone. e^{-h} = alpha_s sigma_t / (alpha_t sigma_s) is regular at alpha_s = 0.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from math import sqrt

from solversearch.errors import UserError
from solversearch.runtime import Node
from solversearch.solvers.base import Solver, evaluate, first_order
from solversearch.tableau import Problem, Vector


def pcg_ddim(problem: Problem, x: Vector, nodes: Sequence[Node]) -> Vector:
    for s, t in pairwise(nodes):
        x = first_order(evaluate(problem, x, replace(s, guidance=1.0)), t)
        if t.sigma:
            g = evaluate(problem, x, replace(t, guidance=2 * t.guidance - 1)).d * t.alpha
            decay = s.alpha * t.sigma / (t.alpha * s.sigma)
            x = g + (x - g) * decay + problem.noise() * (t.sigma * sqrt(1 - decay**2))
    return x


def _steps(nfe: int) -> int:
    if nfe % 2 == 0:
        raise UserError(f"pcg_ddim spends an odd number of evaluations, 2 steps - 1, not {nfe}: ask for {nfe - 1} or {nfe + 1}")
    return (nfe + 1) // 2


SOLVERS = (Solver("pcg_ddim", pcg_ddim, 1, "Bradley and Nakkiran 2024, arXiv:2408.09000", _steps, stochastic=True),)
