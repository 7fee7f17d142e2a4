"""The recipe: a published method learns a plan in its own way, by the same teacher and budget, in the place of all later stages."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from solversearch.judging.baselines import Baseline
from solversearch.models.base import NotFinite
from solversearch.search.evaluating.evaluator import Evaluator, Result
from solversearch.search.stages.task import Budget, Task
from solversearch.search.strategies import STRATEGIES
from solversearch.spaces import Candidate


class Given(NamedTuple):
    """What a recipe learns from: start is the space's candidate on its grid, or on that of the best baseline; best is that baseline."""

    task: Task
    evaluator: Evaluator
    budget: Budget
    best: Result
    start: Candidate


def run(task: Task, evaluator: Evaluator, budget: Budget, best: Result, starts: Sequence[Baseline]) -> Iterator[Result]:
    """Results of the tables that the recipe learns; none where the budget is spent, or of a table that runs away."""
    domain, name = task.domain(starts), task.settings.strategy
    start = domain.candidate(domain.seed(starts[0].table.nodes))
    tables = STRATEGIES[name].made().learn(Given(task, evaluator, budget, best, start))
    for k, table in enumerate(tables):
        with suppress(NotFinite):
            yield task.once(f"{name} {k}", partial(evaluator.table, table, {**start.describe(), "learned by": name}))
