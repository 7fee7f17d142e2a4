"""Gradient estimation (Permenter and Yuan 2023, arXiv:2306.04848): Euler steps that go on from the change of the noise prediction. Order 1.

    x_t = DDIM(x_s, g eps_0 + (1 - g) eps_1 -> t)

    eps_0, eps_1    noise predictions, newest first
    g               2, as ComfyUI has it: twice what makes Adams-Bashforth of the difference

The first step has eps_0 alone, and so has that to sigma = 0.
"""

from collections.abc import Sequence

from solversearch.runtime import Node
from solversearch.solvers.base import Past, Solver, average, multistep
from solversearch.tableau import Vector

_GAMMA = 2.0


def step(past: Sequence[Past], t: Node) -> Vector:
    return average(past[0], t, [(old, 1 - _GAMMA) for old in past[1:]] if t.sigma else [])


SOLVERS = (Solver("gradient_estimation", multistep(step, 2), 1, "Permenter and Yuan 2023, arXiv:2306.04848"),)
