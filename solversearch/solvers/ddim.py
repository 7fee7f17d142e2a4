"""DDIM (Song et al. 2020, arXiv:2010.02502, equation 12): the exact step for a constant data prediction. Order 1.

    x_t = (sigma_t / sigma_s) x_s + (alpha_t - alpha_s sigma_t / sigma_s) D_s

    D_s    data prediction at s

Also the Euler method in (x / alpha, sigma / alpha) (Karras et al. 2022, arXiv:2206.00364), in the time of rectified flow, and
the first-order DPM-Solver and DPM-Solver++.
"""

from collections.abc import Sequence

from solversearch.runtime import Node
from solversearch.solvers.base import Past, Solver, first_order, multistep
from solversearch.tableau import Vector


def step(past: Sequence[Past], t: Node) -> Vector:
    return first_order(past[0], t)


ddim = multistep(step, order=1)


SOLVERS = (Solver("ddim", ddim, 1, "Song et al. 2020, arXiv:2010.02502"),)
