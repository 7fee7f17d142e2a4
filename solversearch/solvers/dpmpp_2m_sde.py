"""SDE-DPM-Solver++(2M) with eta = 1 (Lu et al. 2022, arXiv:2211.01095, midpoint form). Stochastic, weak order 2.

    x_t = r e^{-h} x_s + alpha_t (1 - e^{-2h}) [m0 + (m0 - m1) / (2 r0)] + sigma_t sqrt(1 - e^{-2h}) z

    m0, m1    data predictions, newest first; r = sigma_t / sigma_s
    r0        (lambda_0 - lambda_1) / h,  h = lambda_t - lambda_s
    z         a fresh standard normal

e^{-h} = alpha_s sigma_t / (alpha_t sigma_s) is regular at both ends, and no noise is drawn for a step to sigma = 0.
"""

from collections.abc import Sequence
from math import isfinite, sqrt

from solversearch.runtime import Node
from solversearch.solvers.base import Past, Solver, lam, multistep
from solversearch.tableau import Problem, Vector


def dpmpp_2m_sde(problem: Problem, x: Vector, nodes: Sequence[Node]) -> Vector:
    def step(past: Sequence[Past], t: Node) -> Vector:
        s, m0 = past[0].node, past[0].d
        decay = s.alpha * t.sigma / (t.alpha * s.sigma)
        h = lam(t) - lam(s)
        x = past[0].x * (t.sigma / s.sigma * decay) + m0 * (t.alpha * (1 - decay**2))
        if len(past) == 2 and isfinite(h):
            r0 = (lam(s) - lam(past[1].node)) / h
            x = x + (m0 - past[1].d) * (t.alpha * (1 - decay**2) / (2 * r0))
        return x + problem.noise() * (t.sigma * sqrt(1 - decay**2)) if t.sigma else x

    return multistep(step, order=2)(problem, x, nodes)


SOLVERS = (Solver("dpmpp_2m_sde", dpmpp_2m_sde, 2, "Lu et al. 2022, arXiv:2211.01095", stochastic=True),)
