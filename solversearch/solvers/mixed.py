"""A solver chosen step by step, as in USF (Liu et al. 2023, arXiv:2312.07243) and its search S3: one `Decision` a step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from numbers import Integral
from typing import Literal, get_args

from solversearch.errors import UserError, nearest
from solversearch.runtime import Node
from solversearch.solvers import dpm_v3, higs
from solversearch.solvers.base import Corrector, Past, Stage, Step, first_order, lam, run_stages
from solversearch.solvers.dc import compensation
from solversearch.solvers.deis import deis_rhoab, deis_tab
from solversearch.solvers.dpm_multistep import dpm_multistep
from solversearch.solvers.dualfast import led
from solversearch.solvers.epsilon_scaling import scaled
from solversearch.solvers.hb import Ball
from solversearch.solvers.integrals import Prediction
from solversearch.solvers.ipndm import ipndm
from solversearch.solvers.taylor import low_order
from solversearch.solvers.unipc import Variant, unic, unip
from solversearch.tableau import Problem, Rule, Vector

Derivative = Literal["exact", "low"]
Start = Literal["multistep", "singlestep"]
_PREDICTIONS, _DERIVATIVES, _STARTS = get_args(Prediction), get_args(Derivative), get_args(Start)

_VARIANTS: dict[str, Variant] = {"unip": "exact", "unip_bh1": "bh1", "unip_bh2": "bh2"}

FAMILIES: dict[str, tuple[int, Callable[[Prediction, Problem], Step]]] = {
    "unip": (4, lambda prediction, problem: unip(prediction, "exact")),
    "unip_bh1": (4, lambda prediction, problem: unip(prediction, "bh1")),
    "unip_bh2": (4, lambda prediction, problem: unip(prediction, "bh2")),
    "dpmpp": (3, lambda prediction, problem: dpm_multistep(prediction)),
    "deis_rhoab": (4, lambda prediction, problem: deis_rhoab),
    "deis_tab": (4, lambda prediction, problem: deis_tab(problem.schedule)),
    "ipndm": (4, lambda prediction, problem: ipndm),
    "dpm_v3": (3, lambda prediction, problem: dpm_v3.predictor(problem.parametrization)),
}
"""Step rules by name, with the highest order of each."""

NOISE_ONLY = ("deis_rhoab", "deis_tab", "ipndm")
"""These step in the noise prediction, whatever `Decision.prediction` says; their corrector heeds it."""
EMPIRICAL = ("dpm_v3",)
"""These step, and correct, in the model's own parametrisation."""


@dataclass(frozen=True)
class Decision:
    """How one step is taken, from the node where the network has just been evaluated to the next.

    solver              a name in `FAMILIES`
    order               number of evaluations used, at most the family's
    prediction          the output that is interpolated, by predictor and corrector; a number in [0, 1] is the share of the step
                        with noise prediction in a blend with the one with data prediction
    derivative          "low": `low_order`, for the unip families of order 3 and more, which differ there
    derivative_scale    c: the predictor's weights on differences of outputs are multiplied by 1 + c h (USF), h finite
    corrector           improves the predicted state once it has been evaluated, so it does nothing at the last step
    start               "singlestep": from the state before the newest evaluation, which is an inner point; see `Stage`. ipndm has none
    epsilon_scale       divides this evaluation's noise prediction (`epsilon_scaling`)
    compensation        the ratio rho of DC-Solver (`dc`)
    churn               share of the noise's standard deviation that is fresh after the step; such a step is not corrected, for
                        the correction would take the fresh noise out again
    momentum            b of a heavy ball (`hb`), in data predictions; 1 is none. Such a step is not corrected either, nor the last one led
    dualfast            strength by which the first-order term is led away from the first noise prediction (`dualfast`)
    history             weight by which this evaluation is led away from the average of those before (`higs`)
    history_rate        at which that average forgets, 1 leaving the last evaluation alone

    Raises `UserError` for values out of range.
    """

    solver: str = "unip"
    order: int = 2
    prediction: Prediction | float = "data"
    derivative: Derivative = "exact"
    derivative_scale: float = 0.0
    corrector: bool = False
    start: Start = "multistep"
    epsilon_scale: float = 1.0
    compensation: float = 1.0
    churn: float = 0.0
    momentum: float = 1.0
    dualfast: float = 0.0
    history: float = 0.0
    history_rate: float = 0.75

    def __post_init__(self) -> None:
        if self.solver not in FAMILIES:
            raise UserError(nearest(self.solver, list(FAMILIES), "step solver"))
        if not (isinstance(self.order, Integral) and 1 <= self.order <= FAMILIES[self.solver][0]):
            raise UserError(f"{self.solver} has orders 1 to {FAMILIES[self.solver][0]}, got {self.order}")
        if isinstance(self.prediction, str):
            _known("prediction", self.prediction, _PREDICTIONS)
        elif not 0 <= self.prediction <= 1:
            raise UserError(f"the share of the noise prediction must lie in [0, 1], got {self.prediction}")
        _known("derivative", self.derivative, _DERIVATIVES)
        _known("start", self.start, _STARTS)
        if not (self.epsilon_scale > 0 and all(map(isfinite, (self.epsilon_scale, self.compensation, self.derivative_scale)))):
            raise UserError("epsilon_scale must be positive, and it, compensation and derivative_scale must be finite")
        if not 0 <= self.churn <= 1:
            raise UserError(f"churn must lie in [0, 1], got {self.churn}")
        if not (0 < self.momentum <= 1 and 0 < self.history_rate <= 1):
            raise UserError(f"momentum and history_rate must lie in (0, 1], got {self.momentum} and {self.history_rate}")
        if not all(map(isfinite, (self.dualfast, self.history))):
            raise UserError(f"dualfast and history must be finite, got {self.dualfast} and {self.history}")

    @property
    def noise_share(self) -> float:
        """The share of the step with noise prediction."""
        return float(self.prediction == "noise") if isinstance(self.prediction, str) else self.prediction

    @property
    def corrected(self) -> bool:
        return self.corrector and not self.churn and self.momentum == 1

    def stage(self, problem: Problem, run: "SolverRun") -> Stage:
        step: Step = _blend(self.noise_share, lambda prediction: self._step(prediction, problem))
        corrector: Corrector | None = None
        if self.corrected and self.solver in EMPIRICAL:
            corrector = dpm_v3.corrector(problem.parametrization)
        elif self.corrected:
            variant = _VARIANTS.get(self.solver, "exact")
            corrector = _blend(self.noise_share, lambda prediction: unic(prediction, variant))
        if self.dualfast:
            step, corrector = led(step, self.dualfast, run.seen), _led_corrector(corrector, self.dualfast, run.seen)
        if run.ball:
            step = run.ball.step(step, self.momentum)
        singlestep = self.start == "singlestep" and self.solver != "ipndm"
        return Stage(step, self.order, corrector, compensation(self.compensation), singlestep, self.churn)

    def _step(self, prediction: Prediction, problem: Problem) -> Step:
        step = FAMILIES[self.solver][1](prediction, problem)
        if self.derivative == "low" and self.solver in _VARIANTS and self.order > 2:
            exact, low = step, low_order(prediction)
            step = lambda past, t: (low if len(past) > 2 else exact)(past, t)  # noqa: E731
        if self.derivative_scale == 0:
            return step
        prediction = "noise" if self.solver in NOISE_ONLY else "data" if self.solver in EMPIRICAL else prediction
        return _stretched(step, self.derivative_scale, prediction)


@dataclass
class SolverRun:
    """What the steps of one run share: its evaluations so far, noisiest first, and the velocity of a heavy ball, where there is one."""

    seen: list[Past]
    ball: Ball | None


def _led_corrector(corrector: Corrector | None, strength: float, seen: Sequence[Past]) -> Corrector | None:
    """A corrector takes the step again, so that its first-order term is led, too."""
    if corrector is None:
        return None
    return lambda new, past: led(lambda past, t: corrector(new, past), strength, seen)(past, new.node)


def _known(what: str, name: str, names: Sequence[str]) -> None:
    if name not in names:
        raise UserError(nearest(name, list(names), what))


def _blend(share: float, rule: Callable[[Prediction], Callable[..., Vector]]) -> Callable[..., Vector]:
    """The rule with data prediction, with noise prediction, or between them."""
    if share in (0, 1):
        return rule("noise" if share else "data")
    data, noise = rule("data"), rule("noise")
    return lambda *args: data(*args) * (1 - share) + noise(*args) * share


def _stretched(step: Step, c: float, prediction: Prediction) -> Step:
    """The step with its weights on differences, all that it adds to the first-order step, multiplied by 1 + c h."""

    def stretched(past: Sequence[Past], t: Node) -> Vector:
        x, h = step(past, t), lam(t) - lam(past[0].node)
        if len(past) == 1 or not isfinite(h):
            return x
        first = first_order(past[0], t, prediction)
        return first + (x - first) * (1 + c * h)

    return stretched


def mixed(decisions: Sequence[Decision], analytic_first_step: bool = False) -> Rule:
    """The rule that takes step i by decisions[i]; the first steps have the order that their history allows.

    analytic_first_step: the first step costs no evaluation and has no decision (AFS; GENIE, Dockhorn et al. 2022, arXiv:2210.05475).
    There x is almost pure noise, so eps = x, for noise of unit variance, and D = (x - sigma eps) / alpha; it joins the history.
    Raises `UserError` where alpha = 0, for there x says nothing about D.
    """

    def rule(problem: Problem, x: Vector, nodes: Sequence[Node]) -> Vector:
        start: list[Past] = []
        if analytic_first_step:
            start = [_analytic(problem, x, nodes[0])]
            x, nodes = first_order(start[0], nodes[1]), nodes[1:]
        if len(decisions) != len(nodes) - 1:
            raise UserError(f"{len(nodes) - 1} steps need as many decisions, got {len(decisions)}")
        own = list(decisions) if start else [replace(decisions[0], momentum=1.0), *decisions[1:]]  # a ball at rest has no momentum
        ball = Ball(start[0].d if start else None) if any(decision.momentum != 1 for decision in own) else None
        shared = SolverRun(list(start), ball)
        outputs, taken = [each.d for each in start], iter(own)

        def denoise(x: Vector, node: Node) -> Vector:
            here = next(taken)
            outputs.append(scaled(problem.denoise(x, node), x, node, here.epsilon_scale))
            d = higs.led(outputs[-1], outputs[:-1], here.history, here.history_rate)
            shared.seen.append(Past(node, x, d, x))
            return d

        stages = [decision.stage(problem, shared) for decision in own]
        return run_stages(replace(problem, denoise=denoise), x, nodes, stages, start)

    return rule


def _analytic(problem: Problem, x: Vector, node: Node) -> Past:
    if node.alpha == 0:
        raise UserError("an analytic first step needs a start with alpha > 0, for without signal x says nothing about the sample")
    eps = x * (1 / problem.schedule.initial_scale(node.t))
    return Past(node, x, (x - eps * node.sigma) * (1 / node.alpha), x)
