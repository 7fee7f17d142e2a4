"""iPNDM: Adams-Bashforth with constant coefficients and growing order (Zhang and Chen 2022, arXiv:2204.13902).

    x_t = DDIM(x_s, sum_j a_j eps_j -> t),    a = (55, -59, 37, -9) / 24  at order 4

    eps_j    noise predictions, newest first

The coefficients of constant steps serve any grid, which costs order: at most 2 on uneven grids, their own on grids
uniform in rho = sigma / alpha.
"""

from collections.abc import Sequence

from solversearch.runtime import Node
from solversearch.solvers.base import Past, Solver, average, multistep
from solversearch.tableau import Vector

ADAMS_BASHFORTH = {1: (1.0,), 2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}


def ipndm(past: Sequence[Past], t: Node) -> Vector:
    return average(past[0], t, zip(past[1:], ADAMS_BASHFORTH[len(past)][1:], strict=True))


SOLVERS = tuple(Solver(f"ipndm_{k}", multistep(ipndm, k), 2, "Zhang and Chen 2022, arXiv:2204.13902") for k in (2, 3, 4))
