"""The fit: the grids of the best baselines, the coefficients of each fitted to the teacher in closed form."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial

from solversearch.judging.baselines import Baseline
from solversearch.models.base import NotFinite
from solversearch.search.evaluating.evaluator import Evaluated, Evaluator, Origin
from solversearch.search.fitting.fit import RIDGE
from solversearch.search.stages.task import Budget, Task


def run(task: Task, evaluator: Evaluator, budget: Budget, starts: Sequence[Baseline], share: float = 1.0) -> Iterator[Evaluated]:
    """A result a start, while a share of the budget lasts; none of a table that runs away: that does not end a search."""
    for k, start in enumerate(starts):
        origin: Origin = {"solver": start.solver, "grid": start.grid}
        with suppress(NotFinite):
            if budget.left(share) > 0:
                yield task.once(f"fit {k}", partial(evaluator.fitted, start.table, RIDGE, origin))
