"""The search: a strategy proposes candidates, each is fitted and judged, and the surrogates and the predictor learn on the way."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from math import ceil, inf, isinf
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from solversearch.grids import explicit
from solversearch.judging.baselines import Baseline, screening
from solversearch.judging.objectives.ays import ays_times
from solversearch.models.base import NotFinite
from solversearch.runtime import Tableau
from solversearch.schedules import CLEAN, Floats
from solversearch.search.evaluating.evaluations import Evaluations, InProcess, Source
from solversearch.search.evaluating.evaluator import Evaluated, Evaluator
from solversearch.search.fitting.compensation import SAMPLES, greedy_ratios
from solversearch.search.fitting.time_shift import variance_shifts
from solversearch.search.loop import Halving, Loop
from solversearch.search.settings import Settings
from solversearch.search.stages import polish
from solversearch.search.stages.task import Budget, Task
from solversearch.search.strategies import Context, predicts, strategy
from solversearch.search.strategies.proposals import enqueue_starts
from solversearch.search.surrogates.anchored import NOISES
from solversearch.search.surrogates.predictor import Predictor, Record
from solversearch.search.surrogates.surrogates import Surrogates
from solversearch.solvers.mixed import Decision
from solversearch.spaces import Domain, Params

SEARCHED, DESCENDED = 0.1, 0.6
"""Of a bounded number of network evaluations, the least for fits and candidates, and what a descent gets. A gradient polish has the first
claim: on digits, 4 to 8 evaluations, guidance 4, 200,000 in all, a search that took .4 of them left an error 1.05 to 1.3 times as large."""
OBSERVED, OBSERVED_TOGETHER = 16, 8
"""Candidates, beside the starts, whose outputs the surrogates learn from, and how many at a time: each costs evaluations, and the
surrogates keep the states of the best few alone. How many at a time, halved or doubled: within noise on digits."""


@dataclass(frozen=True)
class Setup:
    """What the search has beside its task.

    records are evaluations of earlier runs, for the predictor. earlier and notes are what an interrupted search has proposed, and what
    its strategy noted in the study. record is told finished trials and notes; source makes what evaluates candidates.
    """

    records: tuple[Record, ...] = ()
    earlier: Sequence[Params] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)
    record: Callable[[Sequence[FrozenTrial], Mapping[str, Any]], None] = lambda trials, notes: None
    source: Callable[[Evaluator], AbstractContextManager[Source]] = lambda evaluator: nullcontext(InProcess(evaluator))


ALONE = Setup()
"""Nothing is known from before, nothing written down, and all is evaluated here."""


def prepare(task: Task, evaluator: Evaluator, starts: Sequence[Baseline], surrogates: Surrogates, setup: Setup) -> Loop:
    """The loop, whose strategy knows the starts; its predictor has seen what the network makes of them, where it has one."""
    settings, domain = task.settings, task.domain(starts)
    first = tuple(domain.seed(start.table.nodes) for start in starts) + _published(task, evaluator, domain, starts[0])
    predictor = None
    if predicts(settings.strategy):
        predictor = Predictor(surrogates, settings.fit, setup.records, settings.seed)

    def predict(candidates: Sequence[Params]) -> tuple[Floats, Floats]:
        assert predictor is not None
        return predictor.predict([domain.tableau(params) for params in candidates])

    context = Context(domain, settings.seed, first, predict if predictor else None, len(task.objectives))
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # In memory: a journal that is written parameter by parameter would cost more than the network.
    study = optuna.create_study(sampler=strategy(settings.strategy, context), directions=["minimize"] * len(task.objectives))
    for name, note in setup.notes.items():
        study.set_user_attr(name, note)
    enqueue_starts(study, study.sampler, context)
    if predictor is not None:
        _observe(task, predictor.surrogates, [start.table for start in starts])
    halving = Halving.up_to(settings.validation_samples, screening(settings.validation_samples))
    return Loop(study, settings.strategy, domain, halving, predictor, setup.record, setup.earlier)


def run(task: Task, budget: Budget, loop: Loop, source: Source) -> Iterator[Evaluated]:
    """Results on all validation samples, as they come. The surrogates learn from the first of them, a few at a time."""
    evaluator = Evaluations(source, task.clock, task.log)
    trials, part = task.settings.trials, share(task, budget)

    def told(done: int, best: float) -> None:
        task.progress("search", done, trials, ", ".join(filter(None, [source.at_work, f"best {task.unit} {best:.3g}"])))

    for result in loop.run(evaluator, trials, lambda: _room(task, budget, part, loop.predictor is not None), told):
        yield result
        count = len(loop.tried)
        if loop.predictor is not None and count <= OBSERVED and count % OBSERVED_TOGETHER == 0:
            _observe(task, loop.predictor.surrogates, [each.table for _, each in loop.tried[-OBSERVED_TOGETHER:]])


def share(task: Task, budget: Budget) -> float:
    """Of the budget, what may be spent until the polish begins: all of it where nothing follows, or too little would be left for that."""
    settings, granted = task.settings, budget.granted or inf
    if settings.polish == "decisions":
        return 1 - DESCENDED
    if not settings.polish:
        return 1.0
    anyhow, more = polish.most(settings, task.calls, starts=polish.most_entrants(settings))
    return max(SEARCHED, 1 - (anyhow + more) / granted) if (1 - SEARCHED) * granted > anyhow else 1.0


def _observe(task: Task, surrogates: Surrogates, tables: Sequence[Tableau]) -> None:
    """Shows the surrogates what the network says where tables lead."""
    with suppress(NotFinite):  # what runs away teaches nothing
        surrogates.observe(tables, task.settings.batch_size, task.clock, task.parts(f"observation {surrogates.version}"))


def _room(task: Task, budget: Budget, share: float, observes: bool) -> int:
    """Candidates that may be begun within a share of the budget; the last of them may go beyond it."""
    settings, left = task.settings, budget.left(share)
    if isinf(left):
        return settings.trials
    beside = task.calls * OBSERVED_TOGETHER * NOISES * observes  # what the surrogates may observe after it
    together = (left - beside) / (task.calls * (settings.fit_samples * settings.fit + settings.validation_samples))
    return max(ceil(together), int(left > 0))


def shifts_by_variance(settings: Settings, domain: Domain) -> bool:
    """Whether told times are searched, and nothing that is fitted or descends makes up for them."""
    return f"input_shift.{settings.nfe - 1}" in domain.distributions and not (settings.fit or settings.polish)


def _published(task: Task, evaluator: Evaluator, domain: Domain, best: Baseline) -> tuple[Params, ...]:
    """What the published methods start from: the times of least KLUB, the greedy compensation ratios, the times of the states' variance."""
    settings, model, clock, batch_size, found = task.settings, task.model, task.clock, task.settings.batch_size, list[Params]()
    if any("klub" in objective.name for objective in task.objectives):
        parts = task.parts("times of least KLUB")
        times = ays_times(model, evaluator.fitting, settings.nfe, settings.guidance, batch_size, clock, memo=parts)
        found.append(domain.seed(explicit(model.schedule, times)[:-1]))
    if f"compensation.{settings.nfe - 1}" in domain.distributions:
        nodes = [*(replace(node, guidance=settings.guidance) for node in best.table.nodes), CLEAN]
        parts = task.parts("greedy ratios")
        ratios = greedy_ratios(model, nodes, evaluator.fitting.first(SAMPLES), batch_size=batch_size, clock=clock, memo=parts)
        found.append(domain.seed(best.table.nodes, [Decision(compensation=ratio) for ratio in ratios]))
    if shifts_by_variance(settings, domain):
        space, table = settings.space.input_shift, domain.tableau(domain.seed(best.table.nodes))
        parts = task.parts("times of the states' variance")
        reach = max(abs(float(each)) for each in (*space.choose, space.low or 0.0, space.high or 0.0))
        with suppress(NotFinite):
            shifts = variance_shifts(model, table, evaluator.fitting, reach, batch_size, clock, parts)
            found.append(domain.seed(best.table.nodes, shifts=shifts))
    return tuple(found)
