"""The polish: times and coefficients of the best table, improved by gradient on samples of which the teacher knows the ends alone.

What is kept of it is what the objective likes best on validation noise.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from math import ceil

from solversearch.memory import backward
from solversearch.models.base import NotFinite
from solversearch.search.evaluating.evaluator import Evaluated, Evaluator
from solversearch.search.fitting.polish import BATCH, FIRST, KEPT, cost, polish
from solversearch.search.settings import Settings
from solversearch.search.stages.task import OF_PLAN, PROBED, SOLVES, Budget, Task

STEPS = 20
"""Of the polish, an evaluation of the plan: more evaluations have more coefficients. Twice as many gain 1 to 3 % on digits at 5."""
DISTINCT = 8
"""Samples of the polish for each of those for fitting: a few hundred are learned by heart, and the mean error on others grows."""
GUIDED = 1 / 3
"""Of the objective's bound under guidance, where more samples end in another mode: the whole costs the median 4 % and spares the mean 2."""


def run(
    task: Task, evaluator: Evaluator, budget: Budget, candidates: Sequence[Evaluated], name: str = "polish", part: float = 1.0
) -> Iterator[Evaluated]:
    """Results from on the way and of the end, of the best candidate; none where the budget is spent, or of a table that runs away.

    part is the share of what is left of the budget that may be spent.
    """
    settings = task.settings
    best = min((each for each in candidates if not each.table.stochastic), key=lambda each: each.value)
    share = _share(task, budget, part)
    if share <= 0:
        return
    count, samples = (ceil(share * whole) for whole in (STEPS * settings.nfe, distinct(settings)))
    bound = task.objectives[0].bound * (1.0 if settings.guidance == 1 else GUIDED)
    with suppress(NotFinite):
        tables = polish(
            task.model, best.table, task.ends("fit", samples, best, OF_PLAN), count, bound, batch(settings), settings.seed,
            split=evaluator.splits(best.table), times=settings.polish == "all" and not settings.integer, batch_size=settings.batch_size,
            clock=task.clock, progress=lambda step, median: task.progress(name, step, count, f"median error {median:.3g}"),
            memo=task.parts(name),
        )  # fmt: skip
        for k, table in enumerate(tables):
            yield task.once(f"{name} {k}", partial(evaluator.table, table, best.origin))


def batch(settings: Settings) -> int:
    """Samples of a step: fewer for large models, whose steps are as many."""
    return min(BATCH, max(1, settings.fit_samples // 8))


def distinct(settings: Settings) -> int:
    """Samples of the polish: no more than it looks at."""
    return min(DISTINCT * settings.fit_samples, batch(settings) * (FIRST + STEPS * settings.nfe))


def most(settings: Settings, calls: int, checkpointing: bool = False) -> tuple[int, int]:
    """Network evaluations at most, at so many calls a sample: what the stage takes anyhow, and what grows with its steps and samples."""
    samples, guided = distinct(settings), calls // settings.nfe
    anyhow = guided * PROBED * sum(SOLVES[:-1]) + len(KEPT) * calls * settings.validation_samples
    none, all_steps = (cost(calls, steps, samples, batch(settings), checkpointing) for steps in (0, STEPS * settings.nfe))
    return anyhow + none, all_steps - none + guided * SOLVES[-2] * samples


def _share(task: Task, budget: Budget, part: float = 1.0) -> float:
    """Of all steps and samples, what the budget has room for."""
    settings = task.settings
    way = backward(task.model, task.calls, batch(settings), settings.batch_size)
    anyhow, more = most(settings, task.calls, checkpointing=way.checkpointing)
    return min(1.0, (part * budget.left() - anyhow) / more)
