"""RES, the refined exponential solver (Zhang et al. 2023, arXiv:2308.02157), multistep (2M) and singlestep (2S). Order 2.

    x_t = (sigma_t / sigma_s) x_s + alpha_t h (b_1 D_s + b_2 D_1),    b_2 = phi_2 / c_2,  b_1 = phi_1 - b_2

    h        lambda_t - lambda_s
    phi_k    phi_1 = (1 - e^{-h}) / h,  phi_2 = (1 - phi_1) / h
    D_1      2M: the evaluation before s;  2S: the one at the inner point u = DDIM(x_s -> s1)
    c_2      (lambda_1 - lambda_s) / h: negative in 2M

So the slope of D in lambda is integrated exactly, where DPM-Solver++ has b_2 = phi_1 / (2 c_2). 2M is UniP-2 with exact weights, to the
last bit of the table, and ComfyUI's res_multistep. 2S has c_2 = 1/2 there; here the inner node s1 is the next of the grid, as in
`dpm_2s`, and c_2 is 1/2 on a grid uniform in lambda. A step to sigma = 0 takes D itself.
"""

from collections.abc import Sequence

from solversearch.runtime import Node
from solversearch.solvers.base import Past, Solver, advance, ddim_group, evaluate, first_order, lam, multistep, singlestep
from solversearch.solvers.integrals import taylor_weights
from solversearch.solvers.unipc import unip
from solversearch.tableau import Problem, Vector


def group_of_two(problem: Problem, s: Past, nodes: Sequence[Node]) -> Vector:
    s1, t = nodes
    h, inner = lam(t) - lam(s.node), evaluate(problem, first_order(s, s1), s1)
    h_phi_2 = taylor_weights(h, 2, "data")[1]
    return advance(s, t, [(inner, h_phi_2 * h / (lam(s1) - lam(s.node)))], "data")


SOLVERS = (
    Solver("res_2m", multistep(unip("data"), 2), 2, "Zhang et al. 2023, arXiv:2308.02157"),
    Solver("res_2s", singlestep([ddim_group, group_of_two]), 2, "Zhang et al. 2023, arXiv:2308.02157"),
)
