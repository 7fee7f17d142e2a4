"""PLMS, pseudo linear multistep: PNDM without its Runge-Kutta start (Liu et al. 2022, arXiv:2202.09778; Rombach et al. 2022's sampler).

    first step    x'_t = DDIM(x_s, eps_s -> t),  x_t = DDIM(x_s, (eps_s + eps'_t) / 2 -> t)
    then          x_t  = DDIM(x_s, sum_j a_j eps_j -> t),  the Adams-Bashforth coefficients of `ipndm`, order growing to 4

    eps_j     noise predictions, newest first; eps'_t, at the provisional state, is used once

One evaluation more than steps. Constant coefficients: order 2 on uneven grids.
"""

from collections.abc import Sequence

from solversearch.errors import UserError
from solversearch.runtime import Node
from solversearch.solvers.base import Solver, Stage, average, evaluate, first_order, run_stages
from solversearch.solvers.ipndm import ipndm
from solversearch.tableau import Problem, Vector


def plms(problem: Problem, x: Vector, nodes: Sequence[Node]) -> Vector:
    here = evaluate(problem, x, nodes[0])
    there = evaluate(problem, first_order(here, nodes[1]), nodes[1])
    x = average(here, nodes[1], [(there, 0.5)])
    return run_stages(problem, x, nodes[1:], [Stage(ipndm, 4)] * (len(nodes) - 2), start=[here])


def _steps(nfe: int) -> int:
    if nfe < 3:
        raise UserError(f"plms needs at least 3 evaluations, one more than its steps, got {nfe}")
    return nfe - 1


SOLVERS = (Solver("plms", plms, 2, "Liu et al. 2022, arXiv:2202.09778", _steps),)
