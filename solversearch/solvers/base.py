"""What a solver is, and the loops that solvers share: one for all multistep solvers, one for all singlestep solvers.

Every step is the first-order step, exact for a constant output, plus weights on *differences* of outputs. So constant
outputs are reproduced exactly whatever the weights, and nothing is singular where alpha_s = 0 or sigma_t = 0.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, log, sqrt
from typing import NamedTuple

from solversearch.parametrization import DATA, Parametrization
from solversearch.runtime import Node
from solversearch.schedules import NoiseSchedule
from solversearch.solvers.integrals import Prediction
from solversearch.tableau import Problem, Rule, Tableau, Vector, by_channel, trace


@dataclass(frozen=True)
class Solver:
    """A published sampling rule.

    order is the global order of convergence on a smooth problem, where the steps at both ends are so short that a first-order
    start and a lowered final order do not hide it; of a stochastic solver the weak order; 0 where the rule leaves the ODE on purpose.
    steps(nfe) is how many grid steps nfe evaluations buy (a multistep solver: nfe), raising `UserError` for a count that the
    solver cannot spend exactly. An empirical solver interpolates what suits the model, `Problem.parametrization`; by_channel says whether
    each channel of pictures has its own, where that is known.
    """

    name: str
    rule: Rule
    order: float
    reference: str
    steps: Callable[[int], int] = int
    stochastic: bool = False
    empirical: bool = False
    by_channel: bool = False

    def tableau(
        self, schedule: NoiseSchedule, nodes: Sequence[Node], parametrization: Parametrization = DATA, guidance: float = 1.0
    ) -> Tableau:
        """The table at a guidance scale, which some rules share out among the evaluations."""
        nodes = [replace(node, guidance=guidance) for node in nodes]
        if self.by_channel and parametrization.channels:
            return by_channel([trace(self.rule, schedule, nodes, each) for each in parametrization.channels])
        return trace(self.rule, schedule, nodes, parametrization)


class Past(NamedTuple):
    """One evaluation: its node, the input the network saw there, its data prediction, and the state to step from.

    The state is the input, unless a corrector has moved it since.
    """

    node: Node
    input: Vector
    d: Vector
    x: Vector

    @property
    def eps(self) -> Vector:
        """Noise prediction (input - alpha D) / sigma."""
        return (self.input - self.d * self.node.alpha) * (1 / self.node.sigma)

    def output(self, prediction: Prediction) -> Vector:
        return self.d if prediction == "data" else self.eps

    def churned(self, share: float, z: Vector) -> "Past":
        """This evaluation on the path whose noise is replaced by z to that share: noise predictions on both sides then compare."""

        def moved(x: Vector) -> Vector:
            clean = self.d * self.node.alpha
            return clean + (x - clean) * sqrt(1 - share**2) + z * (self.node.sigma * share)

        new = moved(self.input)
        return self._replace(input=new, x=new if self.x is self.input else moved(self.x))


def evaluate(problem: Problem, x: Vector, node: Node) -> Past:
    return Past(node, x, problem.denoise(x, node), x)


def lam(node: Node) -> float:
    """Half log-SNR ln(alpha / sigma): -inf without signal, inf without noise."""
    if node.alpha == 0:
        return -inf
    return log(node.alpha) - log(node.sigma) if node.sigma else inf


def rho(node: Node) -> float:
    """Noise-to-signal ratio sigma / alpha: inf without signal."""
    return node.sigma / node.alpha if node.alpha else inf


def first_order(s: Past, t: Node, prediction: Prediction = "data") -> Vector:
    """The exact step for a constant output: DDIM.

    The forms of both predictions are one unless a corrector has moved the state, so the data form, regular everywhere, serves for both.
    """
    if prediction == "data" or s.x is s.input:
        ratio = t.sigma / s.node.sigma
        return s.x * ratio + s.d * (t.alpha - s.node.alpha * ratio)
    ratio = t.alpha / s.node.alpha  # a corrected state is not the first, which alone may have alpha = 0
    return s.x * ratio + s.eps * (t.sigma - s.node.sigma * ratio)


def advance(s: Past, t: Node, terms: Iterable[tuple[Past, float]], prediction: Prediction) -> Vector:
    """first_order + alpha_t sum_j w_j (out_j - out_s) over the terms (evaluation j, w_j).

    At alpha_s = 0 noise predictions have no weights: the step is of first order.
    """
    x = first_order(s, t, prediction)
    if prediction == "noise" and s.node.alpha == 0:
        return x
    output = None
    for other, weight in terms:
        if weight:
            output = s.output(prediction) if output is None else output
            x = x + (other.output(prediction) - output) * (t.alpha * weight)
    return x


def average(s: Past, t: Node, terms: Iterable[tuple[Past, float]]) -> Vector:
    """The first-order step with the noise prediction eps_s + sum_j w_j (eps_j - eps_s), as linear multistep formulas in rho have it.

    At alpha_s = 0, where rho is infinite, data predictions are averaged instead.
    """
    if s.node.alpha == 0:
        return advance(s, t, terms, "data")
    return advance(s, t, [(other, weight * (rho(t) - rho(s.node))) for other, weight in terms], "noise")


def scale(s: Node, prediction: Prediction) -> float:
    """Factor of the integrals in `solversearch.solvers.integrals` in units of alpha_t."""
    return 1.0 if prediction == "data" else -rho(s)


Step = Callable[[Sequence[Past], Node], Vector]
"""step(past, t) -> x_t from the evaluations so far, newest first; their count is the order of the step."""

Corrector = Callable[[Past, Sequence[Past]], Vector]
"""corrector(new, past) -> x_t again, from the evaluation at t itself and the ones that had predicted it."""

Revise = Callable[[Sequence[Past]], Past]
"""revise(past) -> what stands for the newest evaluation from now on."""


@dataclass(frozen=True)
class Stage:
    """One step of a multistep solver. The corrector improves the state that this step predicts, once it has been evaluated.

    A singlestep stage starts from the state of the evaluation before the newest, which becomes an inner point; without such a
    history, and where that step is infinite, it is a multistep stage. churn is the share of the noise's standard deviation that is
    fresh after the step: it goes to a node of less noise, sigma sqrt(1 - churn^2), and adds sigma churn z. A step to sigma = 0 adds none.
    """

    step: Step
    order: int
    corrector: Corrector | None = None
    revise: Revise | None = None
    singlestep: bool = False
    churn: float = 0.0

    def used(self, past: Sequence[Past], t: Node) -> Sequence[Past]:
        """The evaluations that a step to t is computed from, the one whose state it starts from first."""
        used = past[: self.order]
        if self.singlestep and len(used) > 1 and isfinite(lam(t) - lam(used[1].node)):
            used = [used[1], used[0], *used[2:]]
        return used


def quieter(schedule: NoiseSchedule, node: Node, churn: float) -> Node:
    """The node with the same signal from which noise of standard deviation sigma * churn leads to the given one."""
    sigma = node.sigma * sqrt(1 - churn**2)
    return Node(float(schedule.time_of_lam(lam(Node(node.t, node.alpha, sigma)))), node.alpha, sigma)


def run_stages(problem: Problem, x: Vector, nodes: Sequence[Node], stages: Sequence[Stage], start: Sequence[Past] = ()) -> Vector:
    """The multistep loop: evaluate, correct, revise, step. The first steps have the order that their history allows.

    start is the history that another method has left, newest first.
    """
    past = list(start)
    used: Sequence[Past] = []
    for i, stage in enumerate(stages):
        new = evaluate(problem, x, nodes[i])
        corrector = stages[i - 1].corrector if i else None
        if corrector:
            new = new._replace(x=corrector(new, used))
        past.insert(0, new)
        if stage.revise:
            past[0] = stage.revise(past)
        t, churn = nodes[i + 1], stage.churn if nodes[i + 1].sigma else 0.0
        to = quieter(problem.schedule, t, churn) if churn else t
        used = stage.used(past, to)
        x = stage.step(used, to)
        if churn:
            z = problem.noise()
            x, past = x + z * (t.sigma * churn), [each.churned(churn, z) for each in past]
    return x


def multistep(step: Step, order: int, corrector: Corrector | None = None, lower_final: bool = False) -> Rule:
    """A multistep rule of the given order; lower_final lowers it to 2 and 1 in the last two steps (order 3), and so on."""

    def rule(problem: Problem, x: Vector, nodes: Sequence[Node]) -> Vector:
        n = len(nodes) - 1
        orders = [min(order, n - i) if lower_final else order for i in range(n)]
        return run_stages(problem, x, nodes, [Stage(step, k, corrector) for k in orders])

    return rule


Group = Callable[[Problem, Past, Sequence[Node]], Vector]
"""group(problem, s, nodes) -> x_t; nodes are those after s: the inner ones, where it evaluates, and t."""


def singlestep(groups: Sequence[Group]) -> Rule:
    """A singlestep rule of order len(groups), groups[k - 1] being its step of order k; every evaluation is on a node of the grid.

    The plan of orders is the official "fast" one (Lu et al. 2022, arXiv:2206.00927): as many steps of the full order
    as fit, then one of the rest; order 3 ends 2, 1 where the count is a multiple of 3. So any number of evaluations is
    spent exactly. A group from alpha = 0 or to sigma = 0, where h is infinite, is taken in first-order steps.
    """
    order = len(groups)

    def plan(nfe: int) -> list[int]:
        full, rest = divmod(nfe, order)
        if order == 3 and rest == 0:
            return [3] * (full - 1) + [2, 1]
        return [order] * full + [rest] * (rest > 0)

    def rule(problem: Problem, x: Vector, nodes: Sequence[Node]) -> Vector:
        i = 0
        for k in plan(len(nodes) - 1):
            regular = isfinite(lam(nodes[i + k]) - lam(nodes[i]))
            for size in [k] if regular else [1] * k:
                s = evaluate(problem, x, nodes[i])
                x = groups[size - 1](problem, s, nodes[i + 1 : i + size + 1])
                i += size
        return x

    return rule


def ddim_group(problem: Problem, s: Past, nodes: Sequence[Node]) -> Vector:
    """The first-order step of every singlestep solver."""
    return first_order(s, nodes[0])
