"""DC-Solver, dynamic compensation (Zhao et al. 2024, arXiv:2409.03755): UniPC whose newest output is moved in time.

    t'  = rho t_i + (1 - rho) t_{i-1}
    D_i <- sum_j L_j(t') D_j     over the last three evaluations, L_j their Lagrange basis in t

    rho    the compensation ratio of the step; 1 leaves D_i as it is, which is UniPC

The corrector still uses the raw D_i; the predictor and all later steps use its replacement, so compensation is recursive.
The first two steps have no three evaluations, and are not compensated.
"""

from collections.abc import Sequence

import numpy as np

from solversearch.errors import UserError
from solversearch.runtime import Node
from solversearch.solvers.base import Past, Revise, Stage, run_stages
from solversearch.solvers.integrals import lagrange
from solversearch.solvers.unipc import Variant, unic, unip
from solversearch.tableau import Problem, Rule, Vector


def compensation(ratio: float) -> Revise:
    """Replaces the newest data prediction by the interpolation at t'."""

    def revise(past: Sequence[Past]) -> Past:
        new = past[0]
        if ratio == 1 or len(past) < 3:
            return new
        times = [each.node.t for each in past[:3]]
        weights = lagrange(times, np.array([ratio * times[0] + (1 - ratio) * times[1]]))[:, 0]
        return new._replace(d=sum((((old.d - new.d) * float(w)) for old, w in zip(past[1:3], weights[1:], strict=True)), start=new.d))

    return revise


def stages(ratios: Sequence[float], order: int = 3, variant: Variant = "bh2") -> list[Stage]:
    """The steps of UniPC of the given order, lowered in the last steps, with one compensation ratio a step."""
    step, corrector, n = unip("data", variant), unic("data", variant), len(ratios)
    return [Stage(step, min(order, n - i), corrector, compensation(ratio)) for i, ratio in enumerate(ratios)]


def compensated(ratios: Sequence[float], order: int = 3, variant: Variant = "bh2") -> Rule:
    """The rule of these steps."""

    def rule(problem: Problem, x: Vector, nodes: Sequence[Node]) -> Vector:
        n = len(nodes) - 1
        if len(ratios) != n:
            raise UserError(f"{n} steps need {n} compensation ratios, got {len(ratios)}")
        return run_stages(problem, x, nodes, stages(ratios, order, variant))

    return rule
