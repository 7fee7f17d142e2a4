"""More evaluations at the same price: some call a cheaper variant of the network, some reuse the features or the guidance differences that
others compute.

Which of them do, and when, is searched on the surrogate, which has learned how variants err; the best patterns are fitted to the network.
What they are worth beside tables of the network's own evaluations shows after the polish alone, which therefore polishes the best of
either kind.
"""

from collections.abc import Iterator
from contextlib import suppress
from functools import partial

from solversearch.models.base import Model, NotFinite
from solversearch.runtime import Tableau
from solversearch.search.evaluating.evaluator import Evaluated, Evaluator
from solversearch.search.fitting.fit import RIDGE
from solversearch.search.pricing import Pattern, counts, kinds
from solversearch.search.settings import Settings
from solversearch.search.stages.task import Budget, Task
from solversearch.search.surrogates.instant import priced
from solversearch.search.surrogates.surrogates import Surrogates

MORE, CHOICES = 3, 4
"""Evaluations more than the network's own at that price, at most, and how many patterns of each number are fitted. On digits at guidance 4,
10 calls, the one that ends best (of six evaluations the fourth and the last reuse) is among the first three on the surrogate."""


def choices(model: Model, settings: Settings) -> dict[tuple[int, bool], list[Pattern]]:
    """By the number of evaluations, and whether some reuse features, of what kinds they may be: the surrogate thinks better of features
    than of the rest, which they would crowd out."""
    if settings.budget is None:
        return {}
    known, found = kinds(model, settings.guidance, settings.splits, settings.space.cheaper), dict[tuple[int, bool], list[Pattern]]()
    for nfe in range(settings.nfe, settings.nfe + MORE + 1):
        for some in counts(known, nfe, settings.budget):
            found.setdefault((nfe, any(kind.stale for kind in some)), []).append(some)
    return found


def run(task: Task, evaluator: Evaluator, budget: Budget, surrogates: Surrogates) -> Iterator[Evaluated]:
    """Results, while the budget lasts; none of a table that runs away: that does not end a search."""
    settings, tables, which = task.settings, list[Tableau](), choices(task.model, task.settings)
    used = {(kind.variant, 1.0 if kind.reuses else settings.guidance) for some in which.values() for each in some for kind in each}
    errors = surrogates.learn_variants({each for each in used if each[0]}, settings.batch_size, task.clock, task.parts("variants"))
    for (nfe, _), some in which.items():
        progress = partial(_told, task, nfe)
        tables += priced(
            surrogates, nfe, some, CHOICES, settings.guidance, errors, settings.seed, settings.splits, settings.integer, progress
        )
    for k, table in enumerate(tables):
        with suppress(NotFinite):
            if not budget.spent():
                yield task.once(f"price {k}", partial(evaluator.fitted, table, RIDGE, {"solver": "instant"}))


def _told(task: Task, nfe: int, done: int, total: int) -> None:
    task.progress("price", done, total, f"{nfe} evaluations, on the surrogate")
