"""DualFast (Yu et al. 2025, arXiv:2506.13058): noise predictions are led away from the first one, which is the most exact.

    eps'_t = (1 + c_t) eps_t - c_t eps_tau

    tau    the noisiest node, kept from the first evaluation
    c_t    strength (1 - phi_t / phi_tau) with the angle phi = atan2(sigma, alpha): 0 at tau, growing toward low noise

The growth of c_t by the angle is a choice of this implementation. In a first-order solver this is the published rule; in a
multistep solver the published one replaces the first-order term alone, this one every noise prediction.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import atan2

from solversearch.runtime import Node
from solversearch.solvers.base import Past, Solver
from solversearch.solvers.ddim import ddim
from solversearch.tableau import Problem, Rule, Vector


def dualfast(rule: Rule, strength: float) -> Rule:
    """The rule on the extrapolated noise predictions."""

    def wrapped(problem: Problem, x: Vector, nodes: Sequence[Node]) -> Vector:
        kept: list[Past] = []

        def denoise(x: Vector, node: Node) -> Vector:
            now = Past(node, x, problem.denoise(x, node), x)
            kept.append(now)
            tau = kept[0]
            c = strength * (1 - atan2(node.sigma, node.alpha) / atan2(tau.node.sigma, tau.node.alpha))
            # In data prediction, D = (x - sigma eps) / alpha.
            return now.d if c == 0 else now.d - (now.eps - tau.eps) * (c * node.sigma / node.alpha)

        return rule(replace(problem, denoise=denoise), x, nodes)

    return wrapped


SOLVERS = (Solver("dualfast_ddim", dualfast(ddim, 0.2), 0, "Yu et al. 2025, arXiv:2506.13058"),)
