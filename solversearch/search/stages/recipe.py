"""The recipe: a published method learns a plan in its own way, by the same teacher and budget, in the place of all later stages."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import product
from typing import NamedTuple

from solversearch.judging.baselines import Baseline
from solversearch.models.base import NotFinite
from solversearch.runtime import Node, Tableau
from solversearch.search.evaluating.evaluator import Evaluated, Evaluator
from solversearch.search.stages.task import Budget, Task
from solversearch.search.strategies import STRATEGIES
from solversearch.spaces import Candidate, Domain


class Given(NamedTuple):
    """What a recipe learns from: best is the best baseline, starts are `starting`'s."""

    task: Task
    evaluator: Evaluator
    budget: Budget
    best: Evaluated
    starts: tuple[Candidate, ...]

    def at(self, times: Sequence[float]) -> Iterator[Tableau]:
        """The tables of all starts at other times."""
        for start in self.starts:
            yield replace(start, times=tuple(map(float, times))).tableau(self.task.model.schedule)


def run(task: Task, evaluator: Evaluator, budget: Budget, best: Evaluated, grids: Sequence[Baseline]) -> Iterator[Evaluated]:
    """Results of the tables that the recipe learns, while the budget lasts; none of a table that runs away."""
    name, starts = task.settings.strategy, starting(task.domain(grids), grids[0].table.nodes)
    for k, table in enumerate(STRATEGIES[name].made().learn(Given(task, evaluator, budget, best, starts))):
        with suppress(NotFinite):
            yield task.once(f"{name} {k}", partial(evaluator.table, table, {"learned by": name}))
        if budget.spent():
            return


def starting(domain: Domain, nodes: Sequence[Node]) -> tuple[Candidate, ...]:
    """The candidates of all that a space lists to be chosen once a plan, on its own grids, or on the given one where times are free."""
    listed = {name: choice.choose for name, choice in domain.parameters.items() if choice.choose and "." not in name}
    seed = domain.seed(nodes)
    found = [domain.candidate({**seed, **dict(zip(listed, values, strict=True))}) for values in product(*listed.values())]
    return tuple({each.signature: each for each in found}.values())
