"""The compensation ratios of DC-Solver (`solvers.dc`), by the published greedy fit.

    rho_i = argmin_rho mean |x^c_{i+1}(rho) - x*(t_{i+1})|^2        step after step, the earlier ratios kept

    x^c    the state after the corrector, which has seen the evaluation at t_{i+1}; at the last step the result itself
    x*     the teacher's state there, or its endpoint

The fit is that of Zhao et al. 2024 (arXiv:2409.03755, algorithm 1): 10 samples, 40 iterations of AdamW with the rate 0.1 a step, from
rho = 1. The first two steps are not compensated, rho = 1. Derivatives are central differences: there is one scalar a step and the loss
is smooth in it, so two runs of the sampler cost less than one backward pass and need no gradient of the network.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.memo import NO_MEMO, Memo, memoized
from solversearch.models.base import Clock, Denoiser, Model, TensorOutput
from solversearch.runtime import Node, Tableau, run, steps
from solversearch.schedules import NoiseSchedule
from solversearch.search.fitting.descent import STEP
from solversearch.solvers.base import Stage, run_stages
from solversearch.solvers.dc import compensated, stages
from solversearch.tableau import Problem, Vector, trace
from solversearch.teacher import Teacher

FREE_FROM = 2
"""The first step that has three evaluations to interpolate."""
SAMPLES, ITERATIONS, RATE = 10, 40, 0.1


def table(schedule: NoiseSchedule, nodes: Sequence[Node], ratios: Sequence[float], order: int = 3) -> Tableau:
    """The table of DC-Solver with these ratios on a grid."""
    return trace(compensated(ratios, order), schedule, nodes)


def corrected_table(schedule: NoiseSchedule, nodes: Sequence[Node], ratios: Sequence[float], order: int = 3) -> Tableau:
    """The table whose result is the state at nodes[len(ratios)] after its corrector; at the last node the result of the sampling."""
    count = len(ratios)
    if count == len(nodes) - 1:
        return table(schedule, nodes, ratios, order)

    def rule(problem: Problem, x: Vector, nodes: Sequence[Node]) -> Vector:
        look = Stage(lambda past, t: past[0].x, 1)
        return run_stages(problem, x, nodes, [*stages([*ratios, *[1.0] * (len(nodes) - 1 - count)], order)[:count], look])

    return trace(rule, schedule, nodes)


def greedy_ratios(
    model: Model, nodes: Sequence[Node], teacher: Teacher, order: int = 3, iterations: int = ITERATIONS, batch_size: int = 512,
    clock: Clock | None = None, memo: Memo = NO_MEMO,
) -> tuple[float, ...]:  # fmt: skip
    """The published fit on a grid (its last node `CLEAN`, the others at the guidance of the teacher) with all of the teacher's samples.

    Of each step's iterates the best is kept, so that no step is left worse than at ratio 1.
    """
    known = _KnownPrefix(Denoiser(model, teacher.conditions, batch_size, clock=clock), teacher.noise, memo)
    ratios = [1.0] * min(FREE_FROM, len(nodes) - 1)
    while len(ratios) < len(nodes) - 1:
        target = teacher.endpoint if len(ratios) == len(nodes) - 2 else teacher.state(nodes[len(ratios) + 1])

        def loss(ratio: float, target: Tensor = target) -> float:
            return known.error(corrected_table(model.schedule, nodes, [*ratios, ratio], order), target)

        known.evaluate(corrected_table(model.schedule, nodes, [*ratios, 1.0], order), len(ratios) + 1)
        ratios.append(_adamw(loss, iterations))
    return tuple(ratios)


class _KnownPrefix:
    """A denoiser that evaluates the first nodes of a table once: what comes before a ratio does not depend on it."""

    def __init__(self, denoise: Denoiser, noise: Tensor, memo: Memo) -> None:
        self.denoise, self.noise, self.memo = denoise, noise, memo
        self.outputs: list[Tensor] = []

    @torch.no_grad()
    def evaluate(self, table: Tableau, count: int) -> None:
        """The outputs at the first nodes of the table, so many in all."""
        denoise, loop = memoized(self.denoise, self.memo), steps(table.nodes, table.rows, self.noise)
        x, node = next(loop)
        for k in range(count):
            if k == len(self.outputs):
                prediction = denoise(x, node)
                assert isinstance(prediction, Tensor)
                self.outputs.append(prediction)
            if k + 1 < count:
                x, node = loop.send(self.outputs[k])

    @torch.no_grad()
    def error(self, table: Tableau, target: Tensor) -> float:
        """The mean error of the table's result; its first nodes have been evaluated."""

        def compute() -> list[float]:
            known = iter(self.outputs)

            def output(x: Tensor, node: Node) -> TensorOutput:
                first = next(known, None)
                return self.denoise(x, node) if first is None else first

            return [float(endpoint_mse(run(table.nodes, table.rows, output, self.noise), target).mean())]

        (error,) = self.memo.numbers(compute)
        return error


def _adamw(loss: Callable[[float], float], iterations: int) -> float:
    ratio = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.AdamW([ratio], lr=RATE)
    best = (loss(1.0), 1.0)
    for _ in range(iterations):
        now = float(ratio.detach())
        ratio.grad = torch.tensor((loss(now + STEP) - loss(now - STEP)) / (2 * STEP), dtype=torch.float64)
        optimizer.step()
        best = min(best, (loss(float(ratio.detach())), float(ratio.detach())))
    return best[1]
