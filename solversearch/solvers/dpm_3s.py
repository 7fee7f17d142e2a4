"""DPM-Solver-3 (Lu et al. 2022, arXiv:2206.00927, algorithm 2), singlestep. Order 3.

    u1  = DDIM(x_s -> s1)
    u2  = (alpha_2 / alpha_s) x_s - sigma_2 [(e^{r2 h} - 1) eps_s + (r2 / r1) ((e^{r2 h} - 1) / (r2 h) - 1) (eps_1 - eps_s)]
    x_t = (alpha_t / alpha_s) x_s - sigma_t [(e^h - 1) eps_s + (1 / r2) ((e^h - 1) / h - 1) (eps_2 - eps_s)]

    h = lambda_t - lambda_s,  r_i = (lambda_i - lambda_s) / h,  eps_i the noise prediction at u_i

The inner nodes s1, s2 are the next two of the grid; on a grid uniform in lambda they are the r1 = 1/3, r2 = 2/3 of the paper,
and order 3 needs r2 near 2/3, as on every smooth grid.
"""

from collections.abc import Sequence

from solversearch.runtime import Node
from solversearch.solvers.base import Past, Solver, advance, ddim_group, evaluate, first_order, lam, scale, singlestep
from solversearch.solvers.dpm_2s import group_of_two
from solversearch.solvers.integrals import taylor_weights
from solversearch.tableau import Problem, Vector


def group_of_three(problem: Problem, s: Past, nodes: Sequence[Node]) -> Vector:
    s1, s2, t = nodes
    h, h1, h2 = (lam(node) - lam(s.node) for node in (t, s1, s2))
    factor = scale(s.node, "noise")
    first = evaluate(problem, first_order(s, s1, "noise"), s1)
    second = evaluate(problem, advance(s, s2, [(first, factor * taylor_weights(h2, 2, "noise")[1] * h2 / h1)], "noise"), s2)
    return advance(s, t, [(second, factor * taylor_weights(h, 2, "noise")[1] * h / h2)], "noise")


dpm_3s = singlestep([ddim_group, lambda *args: group_of_two("noise", *args), group_of_three])


SOLVERS = (Solver("dpm_3s", dpm_3s, 3, "Lu et al. 2022, arXiv:2206.00927"),)
