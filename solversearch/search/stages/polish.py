"""The polish: times and coefficients of the best table, improved by gradient on samples of which the teacher knows the ends alone.

What is kept of it is what the objective likes best on validation noise.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial

from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.memory import backward
from solversearch.models.base import Denoiser, NotFinite
from solversearch.search.evaluating.evaluator import Evaluator, Result
from solversearch.search.fitting.polish import BATCH, FIRST, KEPT, cost, polish
from solversearch.search.settings import Settings
from solversearch.search.stages.task import Budget, Task
from solversearch.teacher import STEPS as MOST
from solversearch.teacher import Teacher, solve

STEPS = 20
"""Of the polish, an evaluation of the plan: more evaluations have more coefficients. Twice as many gain 1 to 3 % on digits at 5."""
DISTINCT = 8
"""Samples of the polish for each of those for fitting: a few hundred are learned by heart, and the mean error on others grows."""
EXACT = 300
"""The plan's error over that of its teacher at the start of the polish, by whose end it is some 100."""
SOLVES, PROBED = (12, 16, 24, 32, 48), 64
"""Steps of the teacher that are tried, the first that are enough being taken, and the samples on which."""


def run(task: Task, evaluator: Evaluator, budget: Budget, candidates: Sequence[Result]) -> Iterator[Result]:
    """Results from on the way and of the end; none where the budget is spent, or of a table that runs away."""
    settings = task.settings
    best = min((each for each in candidates if not each.table.stochastic), key=lambda each: each.value)
    count = _steps(task, budget)
    if not count:
        return
    with suppress(NotFinite):
        tables = polish(
            task.model, best.table, _teacher(task, evaluator, best), count, task.objectives[0].bound, batch(settings), settings.seed,
            split=evaluator.splits(best.table), times=settings.polish == "all" and not settings.integer, batch_size=settings.batch_size,
            clock=task.clock, progress=lambda step, median: task.progress("polish", step, count, f"median error {median:.3g}"),
            memo=task.parts("polish"),
        )  # fmt: skip
        for k, table in enumerate(tables):
            yield task.once(f"polish {k}", partial(evaluator.table, table, best.origin))


def batch(settings: Settings) -> int:
    """Samples of a step: fewer for large models, whose steps are as many."""
    return min(BATCH, max(1, settings.fit_samples // 8))


def distinct(settings: Settings) -> int:
    """Samples of the polish: no more than it looks at."""
    return min(DISTINCT * settings.fit_samples, batch(settings) * (FIRST + STEPS * settings.nfe))


def _steps(task: Task, budget: Budget) -> int:
    """As many as the budget has room for, besides what the teacher and the judging of tables take."""
    settings, most = task.settings, STEPS * task.settings.nfe
    samples, size, way = distinct(settings), batch(settings), backward(task.model, task.calls, batch(settings), settings.batch_size)
    beside = MOST // 2 * samples * task.calls // settings.nfe + len(KEPT) * task.calls * settings.validation_samples
    none = beside + cost(task.calls, 0, samples, size, way.checkpointing)
    one = cost(task.calls, 1, samples, size, way.checkpointing) - cost(task.calls, 0, samples, size, way.checkpointing)
    return int(max(0, min(most, (budget.left() - none) // one)))


def _teacher(task: Task, evaluator: Evaluator, best: Result) -> Teacher:
    """Ends as exact as the plan needs them, by as few steps as that takes."""
    model, known = task.model, evaluator.validation.first(PROBED)
    mean, median = float(best.error.mean()) / EXACT, float(best.error.median()) / EXACT

    def enough() -> list[int]:
        for steps in SOLVES:
            denoise = Denoiser(model, known.conditions, task.settings.batch_size, clock=task.clock)
            error = endpoint_mse(solve(model, denoise, known.noise, task.settings.guidance, steps), known.endpoint)
            if error.mean() <= mean and error.median() <= median:
                return [steps]
        return [MOST]

    (steps,) = task.log.numbers("steps of the teacher", task.clock, enough)
    return task.teacher("fit", distinct(task.settings), trajectory=False, steps=int(steps))
