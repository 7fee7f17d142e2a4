"""Heun's method (Karras et al. 2022, arXiv:2206.00364, algorithm 1). Order 2; two evaluations a step, one in the last.

    x'_t = DDIM(x_s, eps_s -> t)
    x_t  = DDIM(x_s, (eps_s + eps'_t) / 2 -> t)

    eps_s, eps'_t    noise predictions at x_s and at x'_t, the slopes of x / alpha in rho = sigma / alpha

The last step is the first line alone. At alpha_s = 0, where rho is infinite, data predictions are averaged.
"""

from collections.abc import Sequence
from itertools import pairwise

from solversearch.errors import UserError
from solversearch.runtime import Node
from solversearch.solvers.base import Solver, average, evaluate, first_order
from solversearch.tableau import Problem, Vector


def heun(problem: Problem, x: Vector, nodes: Sequence[Node]) -> Vector:
    for s, t in pairwise(nodes[:-1]):
        here = evaluate(problem, x, s)
        there = evaluate(problem, first_order(here, t), t)
        x = average(here, t, [(there, 0.5)])
    return first_order(evaluate(problem, x, nodes[-2]), nodes[-1])


def _steps(nfe: int) -> int:
    if nfe % 2 == 0:
        raise UserError(f"heun spends an odd number of evaluations, 2 steps - 1, not {nfe}: ask for {nfe - 1} or {nfe + 1}")
    return (nfe + 1) // 2


SOLVERS = (Solver("heun", heun, 2, "Karras et al. 2022, arXiv:2206.00364", _steps),)
