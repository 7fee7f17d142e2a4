"""Taylor steps whose derivatives are estimated at low order (USF, Liu et al. 2023, arXiv:2312.07243, section 4.1).

    x_t = DDIM(x_s -> t) + c sum_{k=1}^{p-1} phi_k k! h^k [m_0, ..., m_k]

    m_j       outputs (data or noise predictions), m_0 at s
    [...]     divided difference in lambda: the k-th derivative, over k!, from the k + 1 newest outputs only
    c phi_k   alpha_t or -alpha_t rho_s, and the integral of the k-th Taylor term, `taylor_weights`

Order 2 is that of UniP-2 with exact weights. UniP-p instead takes each derivative from all p outputs, which gives its order p;
here the first derivative alone leaves an error of order h, so the order stays 2. A step to sigma = 0 takes D itself.
"""

from collections.abc import Sequence
from math import factorial, isfinite

from solversearch.runtime import Node
from solversearch.solvers.base import Past, Step, first_order, lam, scale
from solversearch.solvers.integrals import Prediction, taylor_weights
from solversearch.tableau import Vector


def low_order(prediction: Prediction) -> Step:
    def step(past: Sequence[Past], t: Node) -> Vector:
        s = past[0]
        x, h = first_order(s, t, prediction), lam(t) - lam(s.node)
        if not isfinite(h):
            return x
        c, phi = t.alpha * scale(s.node, prediction), taylor_weights(h, len(past), prediction)
        lams = [lam(each.node) for each in past]
        differences = [each.output(prediction) for each in past]
        for k in range(1, len(past)):
            pairs = zip(differences, differences[1:], lams, lams[k:], strict=False)
            differences = [(new - old) * (h / (here - there)) for new, old, here, there in pairs]
            x = x + differences[0] * (c * phi[k] * factorial(k))
        return x

    return step
