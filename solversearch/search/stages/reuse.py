"""More evaluations at the same price: some make one call, and use the guidance differences that others compute.

Which of them do, and when, is searched on the surrogate; the best choices are fitted to the network. What they are worth beside tables in
which every evaluation computes its own shows after the polish alone, which therefore polishes the best of either kind.
"""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from solversearch.models.base import NotFinite
from solversearch.runtime import Tableau
from solversearch.search.evaluating.evaluator import Evaluator, Result
from solversearch.search.stages.fit import RIDGE
from solversearch.search.stages.task import Budget, Task
from solversearch.search.surrogates.instant import reusing
from solversearch.search.surrogates.surrogates import Surrogates

MORE, CHOICES = (1, 2), 4
"""Evaluations more than asked for, each paid by two that reuse, and how many choices of these two or four are fitted. On digits at
guidance 4, 10 calls, the one that ends best (of six evaluations the fourth and the last) is among the first three on the surrogate."""


def run(task: Task, evaluator: Evaluator, budget: Budget, surrogates: Surrogates) -> Iterator[Result]:
    """Results, while the budget lasts; none of a table that runs away: that does not end a search."""
    settings, tables = task.settings, list[Tableau]()
    for more in MORE:
        if more < settings.nfe:  # some are left that compute
            progress = partial(_told, task, settings.nfe + more)
            tables += reusing(
                surrogates, settings.nfe + more, 2 * more, CHOICES, settings.guidance, settings.seed, settings.integer, progress
            )
    for k, table in enumerate(tables):
        with suppress(NotFinite):
            if not budget.spent():
                yield task.once(f"reuse {k}", partial(evaluator.fitted, table, RIDGE, {"solver": "instant"}))


def _told(task: Task, nfe: int, done: int, total: int) -> None:
    task.progress("reuse", done, total, f"{nfe} evaluations, on the surrogate")
