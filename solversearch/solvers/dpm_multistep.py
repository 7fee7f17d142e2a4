"""DPM-Solver++(2M), (3M) (Lu et al. 2022, arXiv:2211.01095, algorithm 2), multistep, and DPM-Solver's (arXiv:2206.00927). Order 2.

    2M    x_t = DDIM(x_s -> t) + c phi_1 D1 / 2,                D1 = (m0 - m1) / r0
    3M    x_t = DDIM(x_s -> t) + c (phi_2 D1 + phi_3 D2),       D1 = D1_0 + r0 / (r0 + r1) (D1_0 - D1_1),
          D1_0 = (m0 - m1) / r0,  D1_1 = (m1 - m2) / r1,        D2 = (D1_0 - D1_1) / (r0 + r1)

    m0, m1, m2    outputs (data or noise predictions), newest first; m0 at s
    r0, r1        (lambda_0 - lambda_1) / h, (lambda_1 - lambda_2) / h,  h = lambda_t - lambda_s
    c             alpha_t for data, -alpha_t rho_s for noise predictions
    phi_k         integrals of Taylor terms, `taylor_weights`

The official D2 is half the second derivative, so 3M has order 2 too; the exact one is UniP-3. A step to sigma = 0 takes D itself.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite

from solversearch.runtime import Node
from solversearch.solvers.base import Past, Solver, Step, first_order, lam, multistep, scale
from solversearch.solvers.integrals import Prediction, taylor_weights
from solversearch.tableau import Rule, Vector


def dpm_multistep(prediction: Prediction) -> Step:
    def step(past: Sequence[Past], t: Node) -> Vector:
        s = past[0]
        x = first_order(s, t, prediction)
        h = lam(t) - lam(s.node)
        if len(past) == 1 or not isfinite(h):
            return x
        c = t.alpha * scale(s.node, prediction)
        phi = taylor_weights(h, 3, prediction)
        m = [each.output(prediction) for each in past]
        r = [(lam(new.node) - lam(old.node)) / h for new, old in pairwise(past)]
        slopes = [(m[k] - m[k + 1]) * (1 / r[k]) for k in range(len(r))]
        if len(past) == 2:
            return x + slopes[0] * (c * phi[0] / 2)
        bend = slopes[0] - slopes[1]
        return x + (slopes[0] + bend * (r[0] / (r[0] + r[1]))) * (c * phi[1]) + bend * (c * phi[2] / (r[0] + r[1]))

    return step


def dpm(order: int, prediction: Prediction, lower_final: bool = True) -> Rule:
    return multistep(dpm_multistep(prediction), order, lower_final=lower_final)


SOLVERS = (
    Solver("dpm_2m", dpm(2, "noise"), 2, "Lu et al. 2022, arXiv:2206.00927"),
    Solver("dpm_3m", dpm(3, "noise"), 2, "Lu et al. 2022, arXiv:2206.00927"),
    Solver("dpmpp_2m", dpm(2, "data"), 2, "Lu et al. 2022, arXiv:2211.01095"),
    Solver("dpmpp_3m", dpm(3, "data"), 2, "Lu et al. 2022, arXiv:2211.01095"),
    Solver("dpmpp_3m_full", dpm(3, "data", lower_final=False), 2, "Lu et al. 2022, arXiv:2211.01095"),
)
