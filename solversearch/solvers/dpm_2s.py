"""DPM-Solver-2 (Lu et al. 2022, arXiv:2206.00927, algorithm 1) and DPM-Solver++(2S) (arXiv:2211.01095, algorithm 1), singlestep. Order 2.

    u   = DDIM(x_s -> s1)
    x_t = (alpha_t / alpha_s) x_s - sigma_t (e^h - 1) [eps_s + (eps_1 - eps_s) / (2 r1)]          DPM-Solver-2
    x_t = (sigma_t / sigma_s) x_s + alpha_t (1 - e^{-h}) [D_s + (D_1 - D_s) / (2 r1)]             DPM-Solver++(2S)

    h = lambda_t - lambda_s,  r1 = (lambda_1 - lambda_s) / h,  eps_1, D_1 the predictions at u

The inner node s1 is the next node of the grid, as in diffusers; on a grid uniform in lambda it is the midpoint r1 = 1/2 of the papers.
"""

from collections.abc import Sequence
from math import expm1

from solversearch.runtime import Node
from solversearch.solvers.base import Past, Solver, advance, ddim_group, evaluate, first_order, lam, scale, singlestep
from solversearch.solvers.integrals import Prediction
from solversearch.tableau import Problem, Rule, Vector


def group_of_two(prediction: Prediction, problem: Problem, s: Past, nodes: Sequence[Node]) -> Vector:
    s1, t = nodes
    h = lam(t) - lam(s.node)
    r1 = (lam(s1) - lam(s.node)) / h
    inner = evaluate(problem, first_order(s, s1, prediction), s1)
    return advance(s, t, [(inner, scale(s.node, prediction) * -expm1(-h) / (2 * r1))], prediction)


def dpm_2s(prediction: Prediction) -> Rule:
    """DPM-Solver-2 for noise prediction, DPM-Solver++(2S) for data prediction."""
    return singlestep([ddim_group, lambda *args: group_of_two(prediction, *args)])


SOLVERS = (
    Solver("dpm_2s", dpm_2s("noise"), 2, "Lu et al. 2022, arXiv:2206.00927"),
    Solver("dpmpp_2s", dpm_2s("data"), 2, "Lu et al. 2022, arXiv:2211.01095"),
)
