"""The descent, in the place of the polish: along the numbers that a candidate's table is made from, times, input shifts and ratios."""

from collections.abc import Iterator, Sequence

import numpy as np
from optuna.distributions import FloatDistribution

from solversearch.judging.baselines import Baseline
from solversearch.judging.objectives.base import TEMPERED
from solversearch.schedules import Floats
from solversearch.search.evaluating.evaluator import Evaluated, Evaluator
from solversearch.search.fitting.descent import descend
from solversearch.search.stages.task import Budget, Task
from solversearch.spaces import Candidate, Params


def run(
    task: Task, evaluator: Evaluator, budget: Budget, starts: Sequence[Baseline], tried: Sequence[tuple[Params, Evaluated]]
) -> Iterator[Evaluated]:
    """Goes on from the best candidate of the search, else from the best grid; nowhere where the budget is spent."""
    if budget.spent():
        return
    domain = task.domain(starts)
    params = min(tried, key=lambda pair: pair[1].value)[0] if tried else domain.seed(starts[0].table.nodes)
    schedule, batch_size = task.model.schedule, task.settings.batch_size
    kinds = {name: kind for name, kind in domain.distributions.items() if isinstance(kind, FloatDistribution) and name != "ridge"}
    low, high = (np.array([getattr(kind, end) for kind in kinds.values()]) for end in ("low", "high"))
    start = (np.array([params[name] for name in kinds]) - low) / (high - low)

    def candidate(x: Floats) -> Candidate:
        """x in fractions of the ranges."""
        return domain.candidate({**params, **dict(zip(kinds, (low + x * (high - low)).tolist(), strict=True))})

    x = descend(
        task.model, lambda x: candidate(x).tableau(schedule), start, evaluator.fitting, evaluator.validation, evaluator.scale,
        [(0.0, 1.0)] * len(kinds), batch_size=batch_size, clock=task.clock, enough=budget.spent,
        progress=lambda i, loss: task.progress("descent", i, 0, f"best {TEMPERED} {loss:.3g}"), memo=task.parts("descent"),
    )  # fmt: skip
    yield task.once("descended", lambda: evaluator.candidate(candidate(x)))
