"""Ancestral sampling, DDIM with eta = 1 (Song et al. 2020, arXiv:2010.02502, equations 12 and 16). Stochastic, weak order 1.

    x_t = r e^{-h} x_s + alpha_t (1 - e^{-2h}) D_s + sigma_t sqrt(1 - e^{-2h}) z

    r = sigma_t / sigma_s,  h = lambda_t - lambda_s,  z a fresh standard normal

This form, of the first-order SDE-DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095), equals DDIM's and holds for any
schedule; e^{-h} = alpha_s sigma_t / (alpha_t sigma_s) is regular at both ends.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt

from solversearch.runtime import Node
from solversearch.solvers.base import Solver, evaluate
from solversearch.tableau import Problem, Vector


def ddim_ancestral(problem: Problem, x: Vector, nodes: Sequence[Node]) -> Vector:
    for s, t in pairwise(nodes):
        d = evaluate(problem, x, s).d
        decay = s.alpha * t.sigma / (t.alpha * s.sigma)
        x = x * (t.sigma / s.sigma * decay) + d * (t.alpha * (1 - decay**2))
        if t.sigma:
            x = x + problem.noise() * (t.sigma * sqrt(1 - decay**2))
    return x


SOLVERS = (Solver("ddim_eta1", ddim_ancestral, 1, "Song et al. 2020, arXiv:2010.02502", stochastic=True),)
