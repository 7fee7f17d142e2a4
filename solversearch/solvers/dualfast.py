"""DualFast (Yu et al. 2025, arXiv:2506.13058): the first-order term is led away from the first noise prediction, the most exact. Order 0.

    eps'_t = (1 + c_t) eps_t - c_t eps_tau    in the first-order term; terms of higher order keep eps_t

    tau    the noisiest node, kept from the first evaluation
    c_t    strength (1 - phi_t / phi_tau) with the angle phi = atan2(sigma, alpha): 0 at tau, growing toward low noise

The growth of c_t by the angle is a choice of this implementation.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import atan2

from solversearch.runtime import Node
from solversearch.solvers.base import Past, Solver, Step, multistep
from solversearch.solvers.ddim import step as ddim_step
from solversearch.solvers.dpm_multistep import dpm_multistep
from solversearch.tableau import Problem, Rule, Vector


def shift(s: Past, t: Node, tau: Past, strength: float) -> Vector | None:
    """What that adds to a step from s to t; None where it adds nothing: at tau, and at alpha = 0, where eps says nothing about D."""
    c = strength * (1 - atan2(s.node.sigma, s.node.alpha) / atan2(tau.node.sigma, tau.node.alpha))
    if c == 0 or s.node.alpha == 0:
        return None
    return (s.eps - tau.eps) * (c * (t.sigma - s.node.sigma * t.alpha / s.node.alpha))


def led(step: Step, strength: float, seen: Sequence[Past]) -> Step:
    """The step with it; seen has the evaluations of the run so far, the first one first."""

    def wrapped(past: Sequence[Past], t: Node) -> Vector:
        x, more = step(past, t), shift(past[0], t, seen[0], strength)
        return x if more is None else x + more

    return wrapped


def dualfast(step: Step, order: int, strength: float) -> Rule:
    """The multistep rule of these steps."""

    def rule(problem: Problem, x: Vector, nodes: Sequence[Node]) -> Vector:
        seen: list[Past] = []

        def denoise(x: Vector, node: Node) -> Vector:
            seen.append(Past(node, x, problem.denoise(x, node), x))
            return seen[-1].d

        return multistep(led(step, strength, seen), order)(replace(problem, denoise=denoise), x, nodes)

    return rule


SOLVERS = tuple(
    Solver(f"dualfast_{name}", dualfast(step, order, 0.2), 0, "Yu et al. 2025, arXiv:2506.13058")
    for name, step, order in (("ddim", ddim_step, 1), ("dpmpp_2m", dpm_multistep("data"), 2))
)
