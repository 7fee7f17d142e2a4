"""Epsilon scaling (Ning et al. 2023, arXiv:2308.15321): noise predictions are divided by L before the solver sees them. Order 0.

    eps' = eps / L,   that is   D' = D / L + (1 - 1/L) x / alpha

    L    a little above 1 (about 1.01): a network fed with its own outputs predicts too much noise

At alpha = 0 the output is taken as it is: there x carries no information that D' could use.
"""

from collections.abc import Sequence
from dataclasses import replace

from solversearch.runtime import Node
from solversearch.solvers.base import Solver
from solversearch.solvers.ddim import ddim
from solversearch.solvers.dpm_multistep import dpm
from solversearch.solvers.unipc import unipc
from solversearch.tableau import Problem, Rule, Vector


def scaled(d: Vector, x: Vector, node: Node, factor: float) -> Vector:
    """The data prediction of a network whose noise prediction is divided by factor."""
    if factor == 1 or node.alpha == 0:
        return d
    return d * (1 / factor) + x * ((1 - 1 / factor) / node.alpha)


def epsilon_scaling(rule: Rule, factor: float) -> Rule:
    """The rule on a network whose noise predictions are divided by factor."""

    def wrapped(problem: Problem, x: Vector, nodes: Sequence[Node]) -> Vector:
        def denoise(x: Vector, node: Node) -> Vector:
            return scaled(problem.denoise(x, node), x, node, factor)

        return rule(replace(problem, denoise=denoise), x, nodes)

    return wrapped


SOLVERS = tuple(
    Solver(f"es_{name}", epsilon_scaling(rule, 1.01), 0, "Ning et al. 2023, arXiv:2308.15321")
    for name, rule in (("ddim", ddim), ("dpmpp_2m", dpm(2, "data")), ("unipc_3", unipc(3)))
)
