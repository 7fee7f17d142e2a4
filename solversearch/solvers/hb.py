"""Heavy-ball momentum (Wizadwongsa et al. 2023, arXiv:2307.11118): a step goes by an average of what steps have gone by. Order 1.

    v_i = (1 - b) v_{i-1} + b e_i,  v_0 = e_0
    x_t = DDIM(x_s, v_i -> t)

    e_i    what a multistep formula has in the place of the first-order step's output: of Adams-Bashforth the weighted noise prediction,
           of DPM-Solver++ the extrapolated data prediction, and of any other step the data prediction with which DDIM goes as far
    b      1 is the formula itself; a smaller one costs order and is stabler

The paper names Adams-Bashforth of order k + 1 and b by k + b. Its code for DPM-Solver++ begins with v at the second step. Where the
output is a data prediction the step to sigma = 0 goes without, for v would be the result.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from solversearch.runtime import Node
from solversearch.solvers.base import Past, Solver, Stage, Step, average, multistep, run_stages
from solversearch.solvers.dpm_multistep import dpm_multistep
from solversearch.solvers.ipndm import ADAMS_BASHFORTH
from solversearch.tableau import Problem, Vector

_ALL = 10**6  # evaluations: an order that no history reaches


def hb(order: int, b: float) -> Step:
    """Adams-Bashforth of constant steps with momentum, for the whole history, which velocities are sums over."""

    def step(past: Sequence[Past], t: Node) -> Vector:
        weights = [0.0] * len(past)  # of the noise predictions, newest first
        for age in range(len(past)):
            share = (1 - b) ** age * (1.0 if age == len(past) - 1 else b)
            for j, a in enumerate(ADAMS_BASHFORTH[min(order, len(past) - age)]):
                weights[age + j] += share * a
        return average(past[0], t, zip(past[1:], weights[1:], strict=True))

    return step


@dataclass
class Ball:
    """The velocity of one run, in data predictions."""

    velocity: Vector | None = None

    def step(self, step: Step, b: float) -> Step:
        def moved(past: Sequence[Past], t: Node) -> Vector:
            s, x = past[0], step(past, t)
            ratio = t.sigma / s.node.sigma
            own = t.alpha - s.node.alpha * ratio
            gone = (x - s.x * ratio) * (1 / own)
            if self.velocity is None or b == 1 or t.sigma == 0:
                self.velocity = gone
                return x
            self.velocity = self.velocity * (1 - b) + gone * b
            return s.x * ratio + self.velocity * own

        return moved


def dpmpp(problem: Problem, x: Vector, nodes: Sequence[Node]) -> Vector:
    """DPM-Solver++(2M) with momentum 0.8."""
    step = Ball().step(dpm_multistep("data"), 0.8)
    return run_stages(problem, x, nodes, [Stage(step, 2)] * (len(nodes) - 1))


_PAPER = "Wizadwongsa et al. 2023, arXiv:2307.11118"

SOLVERS = (
    *(Solver(f"hb_{k - 1}.8", multistep(hb(k, 0.8), _ALL), 1, _PAPER) for k in (2, 3)),
    Solver("hb_dpmpp_2m", dpmpp, 1, _PAPER),
)
