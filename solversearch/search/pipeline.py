"""The stages of a search in their order, each from the best so far. They see fitting and validation noise only.

    best baseline -> instant (on the surrogate) -> fit (closed form) -> search (each candidate fitted)
    -> price (more evaluations at the same price, fitted) -> components (fitted) -> polish (gradient), or descent

The settings say which of them run; from the instant plan the polish may go on at once (`Settings.straight`). A strategy that learns by a
recipe of its own takes the place of all after the first.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from solversearch.judging.baselines import Baseline
from solversearch.judging.compare import StageResult
from solversearch.search.evaluating.evaluator import Evaluated
from solversearch.search.loop import Loop
from solversearch.search.stages import baseline, components, descent, fit, instant, polish, price, recipe, search, surrogate
from solversearch.search.stages.search import ALONE, Setup
from solversearch.search.stages.task import Budget, Task
from solversearch.search.strategies import recipe as learner
from solversearch.search.surrogates.predictor import Predictor


@dataclass
class Found:
    """What a search has found so far. befell is what went wrong with the workers."""

    best: Evaluated | None = None
    stages: list[StageResult] = field(default_factory=list)
    loop: Loop | None = None
    befell: str = ""

    @property
    def course(self) -> list[float]:
        """The best value after each trial of the search."""
        return self.loop.progress if self.loop else []

    @property
    def predictor(self) -> Predictor | None:
        return self.loop.predictor if self.loop else None

    @property
    def evaluations(self) -> int:
        """Network evaluations of all stages but the best baseline, which any search has to find."""
        return sum(stage.evaluations for stage in self.stages[1:])

    def keep(self, result: Evaluated) -> Evaluated:
        if self.best is None or result.value < self.best.value:
            self.best = result
        return result


def run_stages(task: Task, setup: Setup = ALONE, found: Found | None = None) -> Found:
    """Learns a table of least error. An interruption leaves in `found` what was found before it."""
    settings, found = task.settings, found or Found()
    stage = partial(_stage, task, found)
    fitting, validation = task.learning
    surrogates = surrogate.run(task, fitting, validation)
    with stage("best baseline"):
        starts, best, evaluator = baseline.run(task, fitting, validation, surrogates)
        surrogates.anchored.scale = evaluator.scale
        candidates = [found.keep(best)]
    budget = Budget(settings.evaluations, task.clock, task.clock.evaluations)

    def add(results: Iterable[Evaluated]) -> None:
        candidates.extend(map(found.keep, results))

    if learner(settings.strategy):
        with stage(settings.strategy):
            add(recipe.run(task, evaluator, budget, best, starts))
        return found
    if settings.instant or settings.only_instant:
        with stage("instant"):
            add(instant.run(task, evaluator, budget, surrogates))
        starts = [*(Baseline("instant", "surrogate", each.table) for each in candidates[1:]), *starts]
    if settings.only_instant:
        return found
    if settings.fit and settings.fits and not (settings.straight and len(candidates) > 1):
        with stage("fit"):
            before = search.share(task, budget) / (2 if settings.searches else 1)
            add(fit.run(task, evaluator, budget, starts, before))
    if settings.searches:
        with stage("search"):
            found.loop = search.prepare(task, evaluator, starts, surrogates, setup)
            with setup.source(evaluator) as source:
                add(search.run(task, budget, found.loop, source))
                found.befell = source.befell
    if settings.budget is not None:
        with stage("price"):
            add(price.run(task, evaluator, budget, surrogates))
    if settings.polish == "decisions":
        with stage("descent"):
            add(descent.run(task, evaluator, budget, starts, found.loop.tried if found.loop else ()))
    elif settings.polish:
        if components.choices(settings.space.components, task.model.shape):
            with stage("components"):
                add(components.run(task, evaluator, budget, tuple(candidates)))
        with stage("polish"):
            add(polish.run(task, evaluator, budget, tuple(candidates)))
    return found


@contextmanager
def _stage(task: Task, found: Found, name: str) -> Iterator[None]:
    """Notes what the stage has brought. What it took of the earlier processes of the search counts, too."""
    task.log.numbers(f"{name} begins", task.clock, tuple)
    start, evaluations = task.log.elapsed(), task.clock.evaluations
    yield
    task.log.numbers(f"{name} ends", task.clock, tuple)
    assert found.best is not None
    error, seconds = found.best.error, task.log.elapsed() - start
    found.stages.append(
        StageResult(name=name, value=found.best.value, unit=task.unit, endpoint_mse=float(error.mean()), median=float(error.median()),
              seconds=round(seconds, 3), evaluations=task.clock.evaluations - evaluations)
    )  # fmt: skip
