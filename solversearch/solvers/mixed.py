"""A solver chosen step by step, as in USF (Liu et al. 2023, arXiv:2312.07243) and its search S3: one `Decision` a step."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from solversearch.errors import UserError, nearest
from solversearch.runtime import Node
from solversearch.schedules import NoiseSchedule
from solversearch.solvers.base import Corrector, Stage, Step, run_stages
from solversearch.solvers.dc import compensation
from solversearch.solvers.deis import deis_rhoab, deis_tab
from solversearch.solvers.dpm_multistep import dpm_multistep
from solversearch.solvers.epsilon_scaling import scaled
from solversearch.solvers.integrals import Prediction
from solversearch.solvers.ipndm import ipndm
from solversearch.solvers.unipc import Variant, unic, unip
from solversearch.tableau import Problem, Rule, Vector

_VARIANTS: dict[str, Variant] = {"unip": "exact", "unip_bh1": "bh1", "unip_bh2": "bh2"}

FAMILIES: dict[str, tuple[int, Callable[[Prediction, NoiseSchedule], Step]]] = {
    "unip": (4, lambda prediction, schedule: unip(prediction, "exact")),
    "unip_bh1": (4, lambda prediction, schedule: unip(prediction, "bh1")),
    "unip_bh2": (4, lambda prediction, schedule: unip(prediction, "bh2")),
    "dpmpp": (3, lambda prediction, schedule: dpm_multistep(prediction)),
    "deis_rhoab": (4, lambda prediction, schedule: deis_rhoab),
    "deis_tab": (4, lambda prediction, schedule: deis_tab(schedule)),
    "ipndm": (4, lambda prediction, schedule: ipndm),
}
"""Step rules by name, with the highest order of each. The last three step in the noise prediction, whatever `Decision.prediction` says."""


@dataclass(frozen=True)
class Decision:
    """How one step is taken, from the node where the network has just been evaluated to the next.

    solver is a name in `FAMILIES`; order is the number of evaluations used, at most the family's; prediction is the output that is
    interpolated, by the predictor and by the corrector; corrector improves the predicted state once it has been evaluated
    (so it does nothing at the last step); epsilon_scale divides this evaluation's noise prediction (`epsilon_scaling`);
    compensation is the ratio rho of DC-Solver (`dc`). Raises `UserError` for values out of range.
    """

    solver: str = "unip"
    order: int = 2
    prediction: Prediction = "data"
    corrector: bool = False
    epsilon_scale: float = 1.0
    compensation: float = 1.0

    def __post_init__(self) -> None:
        if self.solver not in FAMILIES:
            raise UserError(nearest(self.solver, list(FAMILIES), "step solver"))
        if not 1 <= self.order <= FAMILIES[self.solver][0]:
            raise UserError(f"{self.solver} has orders 1 to {FAMILIES[self.solver][0]}, got {self.order}")
        if self.prediction not in get_args(Prediction):
            raise UserError(nearest(self.prediction, list(get_args(Prediction)), "prediction"))
        if not self.epsilon_scale > 0:
            raise UserError(f"epsilon_scale must be positive, got {self.epsilon_scale}")

    def stage(self, schedule: NoiseSchedule) -> Stage:
        corrector: Corrector | None = unic(self.prediction, _VARIANTS.get(self.solver, "exact")) if self.corrector else None
        return Stage(FAMILIES[self.solver][1](self.prediction, schedule), self.order, corrector, compensation(self.compensation))


def mixed(decisions: Sequence[Decision]) -> Rule:
    """The multistep rule that takes step i by decisions[i]; the first steps have the order that their history allows."""

    def rule(problem: Problem, x: Vector, nodes: Sequence[Node]) -> Vector:
        if len(decisions) != len(nodes) - 1:
            raise UserError(f"{len(nodes) - 1} steps need as many decisions, got {len(decisions)}")
        scales: Iterator[float] = iter([decision.epsilon_scale for decision in decisions])

        def denoise(x: Vector, node: Node) -> Vector:
            return scaled(problem.denoise(x, node), x, node, next(scales))

        stages = [decision.stage(problem.schedule) for decision in decisions]
        return run_stages(replace(problem, denoise=denoise), x, nodes, stages)

    return rule
