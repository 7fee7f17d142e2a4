"""The instant plan: the best table on the surrogate, judged once on the network."""

from collections.abc import Iterator
from contextlib import suppress

from solversearch.models.base import NotFinite
from solversearch.search.evaluating.evaluator import Evaluated, Evaluator
from solversearch.search.stages.task import Budget, Task
from solversearch.search.surrogates.instant import instant
from solversearch.search.surrogates.surrogates import Surrogates


def run(task: Task, evaluator: Evaluator, budget: Budget, surrogates: Surrogates) -> Iterator[Evaluated]:
    """One result; none where the budget is spent, or where the table runs away: that does not end a search."""
    settings = task.settings

    def found() -> Evaluated:
        table = instant(
            surrogates, settings.nfe, settings.guidance, settings.seed, settings.splits, settings.integer,
            lambda done, total: task.progress("instant", done, total, "on the surrogate"),
        )  # fmt: skip
        return evaluator.table(table, {"solver": "instant"})

    with suppress(NotFinite):
        if not budget.spent():
            yield task.once("instant", found)
