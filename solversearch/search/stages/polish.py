"""The polish: times and coefficients of the best table, improved by gradient on samples of which the teacher knows the ends alone.

Patterns of cheaper evaluations show after a polish alone what they are worth: the best of them and a plain table race for most of it. What
is kept is what the objective likes best on validation noise.
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
from solversearch.teacher import Teacher

STEPS = 20
"""Of the polish, an evaluation of the plan: more evaluations have more coefficients. Twice as many gain 1 to 3 % on digits at 5."""
DISTINCT = 8
"""Samples of the polish for each of those for fitting: a few hundred are learned by heart, and the mean error on others grows."""
GUIDED = 1 / 3
"""Of the objective's bound under guidance, where more samples end in another mode: the whole costs the median 4 % and spares the mean 2."""
RACED, ENTRANTS = 0.25, 3
"""Of all steps, what each of several starts gets before the best alone goes on; and how many patterns of cheaper evaluations start."""


def run(task: Task, evaluator: Evaluator, budget: Budget, candidates: Sequence[Evaluated]) -> Iterator[Evaluated]:
    """Results of the race, from on the way and of the end; none where the budget is spent, or of tables that run away."""
    settings, starts = task.settings, entrants(candidates)
    share = _share(task, budget, len(starts))
    if share <= 0:
        return
    best = min(starts, key=lambda each: each.value)
    polished = partial(_polished, task, evaluator, task.ends("fit", ceil(share * distinct(settings)), best, OF_PLAN))
    if len(starts) > 1:
        for k, start in enumerate(starts):
            for result in polished(start, RACED * share, f"polish of start {k + 1}", (1.0,)):
                best = min(best, result, key=lambda each: each.value)
                yield result
        share *= 1 - RACED
    yield from polished(best, share, "polish")


def entrants(candidates: Sequence[Evaluated]) -> list[Evaluated]:
    """The best deterministic candidate of the model's own evaluations, and of the best `ENTRANTS` patterns of cheaper ones."""
    kinds: dict[tuple[tuple[str, bool], ...], Evaluated] = {}
    for each in sorted((each for each in candidates if not each.table.stochastic), key=lambda each: each.value):
        kinds.setdefault(tuple((node.variant, node.reuses) for node in each.table.nodes if each.table.cheaper), each)
    own = [each for pattern, each in kinds.items() if not pattern]
    return own + [each for pattern, each in kinds.items() if pattern][:ENTRANTS]


def most_entrants(settings: Settings) -> int:
    return 1 + ENTRANTS * (settings.budget is not None)


def _polished(
    task: Task, evaluator: Evaluator, fitting: Teacher, start: Evaluated, share: float, name: str, kept: Sequence[float] = KEPT
) -> Iterator[Evaluated]:
    """Results at shares of the way through a share of all steps; none more once the table runs away."""
    settings, count = task.settings, ceil(share * STEPS * task.settings.nfe)
    bound = task.objectives[0].bound * (1.0 if settings.guidance == 1 else GUIDED)
    with suppress(NotFinite):
        tables = polish(
            task.model, start.table, fitting, count, bound, batch(settings), settings.seed, split=evaluator.splits(start.table),
            times=settings.polish == "all" and not settings.integer, batch_size=settings.batch_size, clock=task.clock,
            progress=lambda step, median: task.progress(name, step, count, f"median error {median:.3g}"), memo=task.parts(name), kept=kept,
        )  # fmt: skip
        for k, table in enumerate(tables):
            yield task.once(f"{name} {k}", partial(evaluator.table, table, start.origin))


def batch(settings: Settings) -> int:
    """Samples of a step: fewer for large models, whose steps are as many."""
    return min(BATCH, max(1, settings.fit_samples // 8))


def distinct(settings: Settings) -> int:
    """Samples of the polish: no more than it looks at."""
    return min(DISTINCT * settings.fit_samples, batch(settings) * (FIRST + STEPS * settings.nfe))


def most(settings: Settings, calls: int, checkpointing: bool = False, starts: int = 1) -> tuple[int, int]:
    """Network evaluations at most, at so many calls a sample: what the stage takes anyhow, and what grows with its steps and samples."""
    samples, guided, racing = distinct(settings), calls // settings.nfe, starts if starts > 1 else 0
    first, all_steps = (cost(calls, steps, samples, batch(settings), checkpointing) for steps in (0, STEPS * settings.nfe))
    judging = (len(KEPT) + racing) * calls * settings.validation_samples
    anyhow = guided * PROBED * sum(SOLVES[:-1]) + judging + (1 + racing) * first
    return anyhow, ceil((1 + RACED * max(racing - 1, 0)) * (all_steps - first)) + guided * SOLVES[-2] * samples


def _share(task: Task, budget: Budget, starts: int = 1) -> float:
    """Of all steps and samples, what the budget has room for."""
    settings = task.settings
    way = backward(task.model, task.calls, batch(settings), settings.batch_size)
    anyhow, more = most(settings, task.calls, way.checkpointing, starts)
    return min(1.0, (budget.left() - anyhow) / more)
