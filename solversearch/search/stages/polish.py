"""The polish: times and coefficients of the best tables, improved by gradient.

the best few, a little each -> the best of all of them, to the end
"""

from collections.abc import Iterator, Sequence

from solversearch.judging.objectives.base import TEMPERED
from solversearch.search.evaluating.evaluator import Evaluator, Result
from solversearch.search.fitting.polish import polish
from solversearch.search.stages.task import Budget, Task

POLISHED = 4
"""Candidates that are polished a little: the best before a polish is not always the best after it."""
SHORT, LONG = 30, 200
"""Iterations of the two polishes: the first has to tell candidates apart, the second mostly ends early, on validation noise."""
SHORT_SHARE = 0.4
"""What all short polishes may take of a bounded number of network evaluations, so that more than half is left for the long one."""


def run(task: Task, evaluator: Evaluator, budget: Budget, candidates: Sequence[Result]) -> Iterator[Result]:
    """The results of the short polishes and of the long one; a candidate itself where the budget is spent."""
    chosen = sorted((each for each in candidates if not each.table.stochastic), key=lambda each: each.value)[:POLISHED]
    short = _short(task, budget, len(chosen))
    total, polished = short * len(chosen) + LONG, list[Result]()
    for k, each in enumerate(chosen):
        polished.append(_polished(task, evaluator, budget, each, short, short * k, total))
        yield polished[-1]
    best = min([*chosen, *polished], key=lambda each: each.value)
    yield _polished(task, evaluator, budget, best, LONG, short * len(chosen), total)


def _short(task: Task, budget: Budget, count: int) -> int:
    """Iterations of each short polish."""
    settings = task.settings
    iteration = task.calls * (3 * settings.fit_samples + settings.validation_samples)  # backward counts twice
    return max(1, int(min(SHORT, SHORT_SHARE * budget.left() / iteration / max(count, 1))))


def _polished(task: Task, evaluator: Evaluator, budget: Budget, candidate: Result, iterations: int, done: int, total: int) -> Result:
    """done and total are iterations of the whole stage."""
    settings = task.settings
    if budget.spent():
        return candidate

    def polished() -> Result:
        table = polish(
            task.model, candidate.table, evaluator.fitting, evaluator.validation, iterations, scale=evaluator.scale,
            split=evaluator.splits(candidate.table), times=settings.polish == "all" and not settings.integer,
            batch_size=settings.batch_size, clock=task.clock, enough=budget.spent,
            progress=lambda i, loss: task.progress("polish", done + i, total, f"best {TEMPERED} {loss:.3g}"),
            memo=task.parts(f"polish {done}"),
        )  # fmt: skip
        return evaluator.table(table, candidate.origin)

    return task.once(f"polish {done}", polished)
