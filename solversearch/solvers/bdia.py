"""BDIA, bi-directional integration approximation (Zhang et al. 2023, arXiv:2307.10829). Order 1.

    x_t = DDIM(x_s -> t) + gamma (x_u - DDIM(x_s -> u))

    u        the node before s, x_u its state: the step back from s should have met it, and what it missed is carried over
    gamma    0 is DDIM, 1 is exactly invertible; 0.5 is the paper's choice at 10 steps

Two past states, but one evaluation a step and no past output.
"""

from collections.abc import Sequence

from solversearch.runtime import Node
from solversearch.solvers.base import Past, Solver, Step, first_order, multistep
from solversearch.tableau import Vector


def bdia(gamma: float) -> Step:
    def step(past: Sequence[Past], t: Node) -> Vector:
        x = first_order(past[0], t)
        if len(past) == 1:
            return x
        before = past[1]
        return x + (before.x - first_order(past[0], before.node)) * gamma

    return step


SOLVERS = (Solver("bdia", multistep(bdia(0.5), 2), 1, "Zhang et al. 2023, arXiv:2307.10829"),)
