"""PNDM with its pseudo Runge-Kutta start (Liu et al. 2022, arXiv:2202.09778, algorithm 2: F-PNDM).

    three steps    x_t = DDIM(x_s, (e1 + 2 e2 + 2 e3 + e4) / 6 -> t)
                   e1 = eps(x_s, s),                              e2 = eps(DDIM(x_s, e1 -> mid), mid)
                   e3 = eps(DDIM(x_s, e2 -> mid), mid),           e4 = eps(DDIM(x_s, e3 -> t), t)
    then           x_t = DDIM(x_s, sum_j a_j eps_j -> t),  the fourth-order Adams-Bashforth coefficients of `ipndm`

    mid    halfway between s and t in time;  eps_j the noise predictions at the nodes, newest first

Nine evaluations more than steps. Constant coefficients and a midpoint in t: order 2 on uneven grids.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from solversearch.errors import UserError
from solversearch.runtime import Node
from solversearch.solvers.base import Past, Solver, Stage, average, evaluate, first_order, run_stages
from solversearch.solvers.ipndm import ipndm
from solversearch.tableau import Problem, Vector


def pndm(problem: Problem, x: Vector, nodes: Sequence[Node]) -> Vector:
    past: list[Past] = []
    for s, t in pairwise(nodes[:4]):
        middle = replace(problem.schedule.node((s.t + t.t) / 2), guidance=s.guidance)
        e1 = evaluate(problem, x, s)
        e2 = evaluate(problem, first_order(e1, middle), middle)
        e3 = evaluate(problem, average(e1, middle, [(e2, 1.0)]), middle)
        e4 = evaluate(problem, average(e1, t, [(e3, 1.0)]), t)
        x = average(e1, t, [(e2, 1 / 3), (e3, 1 / 3), (e4, 1 / 6)])
        past.insert(0, e1)
    return run_stages(problem, x, nodes[3:], [Stage(ipndm, 4)] * (len(nodes) - 4), start=past)


def _steps(nfe: int) -> int:
    if nfe < 13:
        raise UserError(f"pndm needs at least 13 evaluations, 12 for its Runge-Kutta start, got {nfe}: plms has none")
    return nfe - 9


SOLVERS = (Solver("pndm", pndm, 2, "Liu et al. 2022, arXiv:2202.09778", _steps),)
