"""More evaluations at the same price: some make one call, and use the guidance differences that others compute.

Which of them do, and when, is searched on the surrogate; the best of each kind are fitted to the network, beside the best so far.
"""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from pydantic import JsonValue

from solversearch.models.base import NotFinite
from solversearch.runtime import Tableau
from solversearch.search.evaluating.evaluator import Evaluator, Origin, Result
from solversearch.search.stages.fit import RIDGE
from solversearch.search.stages.task import Budget, Task
from solversearch.search.surrogates.instant import reusing
from solversearch.search.surrogates.surrogates import Surrogates

MORE, CHOICES = (1, 2), 4
"""Evaluations more than asked for, each paid by two that reuse; and choices of these that are fitted to the network. On digits, guidance 4,
10 calls, the surrogate has the best choice among the first four, and seldom at their head."""


def run(task: Task, evaluator: Evaluator, budget: Budget, surrogates: Surrogates, best: Result) -> Iterator[Result]:
    """Results, while the budget lasts; none of a table that runs away. The first is the best so far, fitted like the others."""
    settings, tables = task.settings, [best.table]
    for more in MORE:
        if more < settings.nfe:

            def told(done: int, total: int, nfe: int = settings.nfe + more) -> None:
                task.progress("reuse", done, total, f"{nfe} evaluations, on the surrogate")

            tables += reusing(surrogates, settings.nfe + more, 2 * more, CHOICES, settings.guidance, settings.seed, settings.integer, told)
    for k, table in enumerate(tables):
        with suppress(NotFinite):
            if not budget.spent():
                yield task.once(f"reuse {k}", partial(evaluator.fitted, table, RIDGE, _origin(table)))


def _origin(table: Tableau) -> Origin:
    saved: list[JsonValue] = [i for i, node in enumerate(table.nodes) if node.guidance == 1]
    return {"solver": "instant", "reuse": saved} if saved else {"solver": "instant"}
