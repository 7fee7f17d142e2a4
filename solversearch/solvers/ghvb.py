"""GHVB, generalised heavy-ball with momentum (Wizadwongsa et al. 2023, arXiv:2307.11118).

    v_i = (1 - b) v_{i-1} + b eps_i,  v_0 = eps_0
    x_t = DDIM(x_s, sum_j a_j v_j -> t)
    order 2:  a = (2 + b, -(2 - b)) / 2b
    order 3:  a = (18 + 5b, -(24 - 8b), 6 - b) / 12b
    order 4:  a = (46 + 9b, -(78 - 19b), 42 - 5b, -(10 - b)) / 24b

    eps_i    noise predictions;  b the damping: b = 1 is `ipndm`, smaller b is stabler

The paper names the method of order k + 1 and damping b by k + b: GHVB 1.8 is order 2 with b = 0.8.
Constant coefficients: order 2 on uneven grids.
"""

from collections.abc import Sequence

from solversearch.runtime import Node
from solversearch.solvers.base import Past, Solver, Step, average, multistep
from solversearch.tableau import Vector


def coefficients(order: int, b: float) -> tuple[float, ...]:
    """Weights a_j of the velocities, newest first; they sum to 1."""
    table = {
        1: (1.0,),
        2: ((2 + b) / (2 * b), -(2 - b) / (2 * b)),
        3: ((18 + 5 * b) / (12 * b), -(24 - 8 * b) / (12 * b), (6 - b) / (12 * b)),
        4: ((46 + 9 * b) / (24 * b), -(78 - 19 * b) / (24 * b), (42 - 5 * b) / (24 * b), -(10 - b) / (24 * b)),
    }
    return table[order]


def ghvb(order: int, b: float) -> Step:
    """The step for the whole history: velocities are sums over it, so the multistep loop keeps all of it."""

    def step(past: Sequence[Past], t: Node) -> Vector:
        weights = [0.0] * len(past)  # of the noise predictions, newest first
        for age, a in enumerate(coefficients(min(order, len(past)), b)):
            for j in range(age, len(past)):
                oldest = j == len(past) - 1
                weights[j] += a * (1 - b) ** (j - age) * (1.0 if oldest else b)
        return average(past[0], t, zip(past[1:], weights[1:], strict=True))

    return step


_ALL = 10**6  # evaluations: an order that no history reaches

SOLVERS = tuple(Solver(f"ghvb_{k - 1}.8", multistep(ghvb(k, 0.8), _ALL), 2, "Wizadwongsa et al. 2023, arXiv:2307.11118") for k in (2, 3, 4))
