"""The stages of a search, each starting from the best so far. They see fitting and validation noise only."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from math import ceil
from typing import Any

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial

from solversearch.errors import UserError
from solversearch.judging.baselines import Baseline, baselines, screen, screening
from solversearch.judging.compare import StageResult, Tau, Timing
from solversearch.judging.objectives import Objective, parse_many
from solversearch.judging.objectives.ays import ays_times
from solversearch.judging.objectives.base import TEMPERED
from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.models.base import Clock, Model, NotFinite
from solversearch.runtime import Tableau
from solversearch.sampling import sample
from solversearch.schedules import CLEAN, Floats, explicit
from solversearch.search.evaluating.evaluations import Evaluations, InProcess, Log, Parts, Source
from solversearch.search.evaluating.evaluator import Evaluator, Origin, Result
from solversearch.search.fitting.compensation import SAMPLES, greedy_ratios
from solversearch.search.fitting.descent import descend
from solversearch.search.fitting.polish import polish
from solversearch.search.loop import Halving, Loop
from solversearch.search.settings import Settings
from solversearch.search.strategies import Context, enqueue_starts, predicts, strategy
from solversearch.search.surrogates.anchored import NOISES
from solversearch.search.surrogates.instant import instant
from solversearch.search.surrogates.predictor import Predictor, Record
from solversearch.search.surrogates.surrogates import Surrogates
from solversearch.solvers.mixed import Decision
from solversearch.spaces import Candidate, Domain, Params
from solversearch.teacher import STEPS, Teacher, teach

Progress = Callable[[str, int, int, str], None]
"""progress(stage, done, total, note); total 0 where it is not known."""

STARTS = 8
"""Grids of the best baselines that are fitted, and from which the search starts."""
RIDGE = 1e-4
"""Of the first fits; the search chooses its own."""
GUIDED = 0.1
"""Under guidance errors are tempered from a tenth of the best baseline's median on: more samples end in another mode."""
POLISHED = 4
"""Candidates that are polished a little before the best of them is polished to the end."""
SEARCHED = 0.4
"""Share of a bounded number of network evaluations after which the polish begins."""
OBSERVED, OBSERVED_TOGETHER = 16, 8
"""Candidates, beside the starts, whose outputs the surrogates learn from."""
SHORT, LONG = 30, 200
"""Iterations of the two polishes."""
SHORT_SHARE = 0.4
"""Of a bounded number of network evaluations, as long as the polish has them."""


@dataclass
class Search:
    """The state of one search: what it knows, what it has spent, and the best table so far.

    log and earlier are what a search that is resumed has evaluated and proposed before, notes what its strategy has noted in the study;
    source is what evaluates candidates.
    """

    model: Model
    settings: Settings
    progress: Progress
    record: Callable[[Sequence[FrozenTrial], Mapping[str, Any]], None] = lambda trials, notes: None
    records: tuple[Record, ...] = ()
    log: Log = field(default_factory=Log)
    earlier: Sequence[Params] = ()
    notes: Mapping[str, Any] = field(default_factory=dict)
    source: Callable[[Evaluator], AbstractContextManager[Source]] = lambda evaluator: nullcontext(InProcess(evaluator))
    clock: Clock = field(default_factory=Clock)
    teachers: dict[str, Teacher] = field(default_factory=dict)
    stages: list[StageResult] = field(default_factory=list)
    best: Result | None = None
    loop: Loop | None = None
    predictor: Predictor | None = None
    befell: str = ""

    def __post_init__(self) -> None:
        self.settings = self.settings.sized(self.model)

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        return parse_many(self.settings.objective)

    @property
    def unit(self) -> str:
        """What the best is chosen by."""
        return self.objectives[0].unit

    def parts(self, key: str) -> Parts:
        """Keeps the parts of a computation, which depend on how many samples are evaluated together."""
        return Parts(self.log, f"{key}, {self.settings.batch_size} together", self.clock)

    def learn(self) -> None:
        """The stages before the comparison; `best` holds what they reached."""
        settings = self.settings
        fitting, validation = self.teacher("fit", settings.fit_samples), self.teacher("validate", settings.validation_samples)
        with self.stage("best baseline"):
            starts = self._starts(fitting, validation)
        surrogates = self._surrogates(fitting, validation)
        self.begun = self.clock.evaluations
        candidates = [self.best] if self.best else []
        if settings.instant or settings.only_instant:
            with self.stage("instant"):
                candidates += self.attempt(lambda: self._instant(surrogates, starts))
        if settings.only_instant:
            return
        if settings.fit:
            with self.stage("fit"):
                for k, start in enumerate(starts):
                    origin: Origin = {"solver": start.solver, "grid": start.grid}
                    fitted = partial(self.evaluator.fitted, start.table, RIDGE, origin)
                    candidates += self.attempt(partial(self.log.once, f"fit {k}", self.clock, fitted))
        if settings.search and (settings.trials or settings.evaluations):
            with self.stage("search"):
                candidates += self._searched(starts, surrogates)
        if settings.polish == "decisions":
            with self.stage("descent"):
                self._descended(starts)
        elif settings.polish:
            with self.stage("polish"):
                self._polished([each for each in candidates if not each.table.stochastic])

    @property
    def held_out(self) -> Teacher:
        """What the comparison alone looks at; with its trajectory where the deciding objective needs it."""
        return self.teacher("held_out", self.settings.samples, "trajectory" in self.objectives[0].needs)

    def teacher(self, split: str, count: int, trajectory: bool = True, guidance: float | None = None) -> Teacher:
        settings, total, spent = self.settings, STEPS * 3 // 2, Clock()
        guidance = settings.guidance if guidance is None else guidance
        key = f"teacher {split} {count} {'whole' if trajectory else 'ends'} {guidance!r}"
        if key not in self.teachers:
            self.teachers[key] = teach(
                self.model, split, count, guidance, settings.seed, trajectory, batch_size=settings.batch_size, clock=spent,
                progress=lambda done: self.progress("teacher", done, total, f"{split}, {count} samples"),
            )  # fmt: skip
            self.log.numbers(key, self.clock, lambda: self._spend(spent))  # another process finds it in the cache
        return self.teachers[key]

    def _spend(self, spent: Clock) -> tuple[()]:
        self.clock.evaluations += spent.evaluations
        self.clock.seconds += spent.seconds
        return ()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Notes what the stage has brought. What it took of the earlier processes of the search counts, too."""
        self.log.numbers(f"{name} begins", self.clock, tuple)
        start, evaluations = self.log.elapsed(), self.clock.evaluations
        yield
        self.log.numbers(f"{name} ends", self.clock, tuple)
        assert self.best is not None
        error, seconds = self.best.error, self.log.elapsed() - start
        self.stages.append(
            StageResult(name=name, value=self.best.value, unit=self.unit, endpoint_mse=float(error.mean()), median=float(error.median()),
                  seconds=round(seconds, 3), evaluations=self.clock.evaluations - evaluations)
        )  # fmt: skip

    def taus(self) -> tuple[Tau, ...]:
        """How well the predictor ranked, by the number of evaluations."""
        return () if self.predictor is None else tuple(self.predictor.tau_history())

    def timing(self) -> Timing:
        return Timing(wall_s=round(self.log.elapsed(), 3), network_s=round(self.clock.seconds, 3))

    def keep(self, result: Result) -> Result:
        if self.best is None or result.value < self.best.value:
            self.best = result
        return result

    def attempt(self, evaluate: Callable[[], Result]) -> list[Result]:
        """The result, kept; nothing where the budget is spent, or where the table runs away: that does not end a search."""
        try:
            return [] if self.spent() else [self.keep(evaluate())]
        except NotFinite:
            return []

    def spent(self, share: float = 1.0) -> bool:
        """Whether a share of the network evaluations that were granted is used up."""
        granted = self.settings.evaluations
        return granted is not None and self.clock.evaluations - self.begun >= share * granted

    def _room(self, share: float) -> int:
        """Candidates that may be begun within a share of the evaluations; the last of them may go beyond it."""
        settings = self.settings
        if settings.evaluations is None:
            return settings.trials
        call = settings.nfe * (2 if settings.guidance != 1 else 1)
        left = share * settings.evaluations - (self.clock.evaluations - self.begun)
        beside = call * OBSERVED_TOGETHER * NOISES * (self.predictor is not None)  # what the surrogates may observe after it
        together = (left - beside) / (call * (settings.fit_samples * settings.fit + settings.validation_samples))
        return max(ceil(together), int(left > 0))

    def _starts(self, fitting: Teacher, validation: Teacher) -> list[Baseline]:
        """The best baselines of different grids, the very best first; sets up the evaluator, whose scale is the best one's median."""
        settings, model = self.settings, self.model
        found = baselines(model, settings.nfe, settings.guidance, settings.integer)
        ranked = self.log.numbers(f"screen {len(found)}", self.clock, lambda: self._ranked(found, validation))
        screened = [found[int(place)] for place in ranked]
        smooth = [baseline for baseline in screened if not baseline.table.stochastic]
        starts: dict[str, Baseline] = {}
        for baseline in smooth:
            if len(starts) < STARTS:
                starts.setdefault(baseline.grid, baseline)
        best = smooth[0]
        (median,) = self.log.numbers("scale", self.clock, lambda: [self._median(best.table, validation)])
        scale = median * (1.0 if settings.guidance == 1 else GUIDED)
        self.evaluator = Evaluator(
            model, fitting, validation, self.objectives, max(scale, 1e-12), settings.splits, settings.batch_size, self.clock
        )  # fmt: skip
        origin: Origin = {"solver": best.solver, "grid": best.grid}
        result = self.log.once("best baseline", self.clock, lambda: self.evaluator.table(best.table, origin))
        self.keep(result)
        if not result.error.any():  # as where the network's output does not depend on its input
            raise UserError(
                f"there is nothing to search: at {settings.nfe} evaluations {best.name} already makes exactly the teacher's samples of "
                f"model {model.name!r}; check that its network looks at its input, or ask for a lower --nfe"
            )
        return list(starts.values())

    def _ranked(self, found: Sequence[Baseline], validation: Teacher) -> list[int]:
        """The places of baselines in the list, the best one's first."""
        few = validation.first(screening(len(validation)))
        screened = screen(
            self.model, found, few, self.settings.batch_size, self.clock, lambda done, total: self.progress("baselines", done, total, ""),
            memo=self.parts("screening"),
        )  # fmt: skip
        places = {(baseline.solver, baseline.grid): place for place, baseline in enumerate(found)}
        return [places[baseline.solver, baseline.grid] for _, baseline in screened]

    def _median(self, table: Tableau, validation: Teacher) -> float:
        samples = sample(self.model, table, validation, self.settings.batch_size, self.clock)
        return float(endpoint_mse(samples, validation.endpoint).median())

    def _surrogates(self, fitting: Teacher, validation: Teacher) -> Surrogates | None:
        """Fitted on the teacher's samples; a guided surrogate needs unguided ones as well."""
        settings = self.settings
        if not (settings.instant or settings.only_instant or (settings.search and predicts(settings.strategy))):
            return None
        unguided: tuple[Teacher, ...] = ()
        if settings.guidance != 1:
            unguided = (
                self.teacher("fit", settings.fit_samples, trajectory=False, guidance=1.0),
                self.teacher("validate", settings.validation_samples, trajectory=False, guidance=1.0),
            )
        return Surrogates.of(self.model, fitting, validation, unguided, settings.guidance, settings.seed, self.evaluator.scale)

    def _instant(self, surrogates: Surrogates | None, starts: list[Baseline]) -> Result:
        """The best table on the surrogate, from which the later stages start, too."""
        settings = self.settings
        assert surrogates is not None

        def found() -> Result:
            table = instant(
                surrogates, settings.nfe, settings.guidance, settings.seed, settings.splits, settings.integer,
                lambda done, total: self.progress("instant", done, total, "on the surrogate"),
            )  # fmt: skip
            return self.evaluator.table(table, {"solver": "instant"})

        result = self.log.once("instant", self.clock, found)
        starts.insert(0, Baseline("instant", "surrogate", result.table))
        return result

    def _searched(self, starts: list[Baseline], surrogates: Surrogates | None) -> list[Result]:
        settings = self.settings
        domain = self._domain(starts)
        first = tuple(domain.seed(start.table.nodes) for start in starts) + self._seeds(domain, starts[0])
        if not predicts(settings.strategy):
            surrogates = None
        if surrogates is not None:
            self.predictor = Predictor(surrogates, settings.fit, self.records, settings.seed)
        context = Context(domain, settings.seed, first, self._predict(domain), len(self.objectives))
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        # In memory: a journal that is written parameter by parameter would cost more than the network.
        study = optuna.create_study(sampler=strategy(settings.strategy, context), directions=["minimize"] * len(self.objectives))
        for name, note in self.notes.items():
            study.set_user_attr(name, note)
        enqueue_starts(study, study.sampler, context)
        halving = Halving.up_to(settings.validation_samples, screening(settings.validation_samples))
        share = SEARCHED if settings.polish else 1.0
        if surrogates is not None:
            self._observe(surrogates, [start.table for start in starts])
        with self.source(self.evaluator) as source:
            evaluations = Evaluations(source, self.clock, self.log)
            self.loop = Loop(study, settings.strategy, domain, evaluations, halving, self.predictor, self.record, self.earlier)
            self.loop.run(
                settings.trials, lambda: self._room(share), lambda result: self._tried(result, surrogates),
                lambda done, best: self.progress("search", done, settings.trials, f"best {self.unit} {best:.3g}"),
            )  # fmt: skip
            self.befell = source.befell
        return [result for _, result in self.loop.tried]

    def _domain(self, starts: list[Baseline]) -> Domain:
        settings, nodes = self.settings, [start.table.nodes for start in starts]
        space = settings.space.fitting(settings.fit)
        return Domain.of(space, self.model.schedule, settings.nfe, settings.guidance, nodes, settings.integer)

    def _tried(self, result: Result, surrogates: Surrogates | None) -> None:
        """The surrogates learn from the first candidates that were worth all samples, a few at a time."""
        self.keep(result)
        assert self.loop is not None
        count = len(self.loop.tried)
        if surrogates is not None and count <= OBSERVED and count % OBSERVED_TOGETHER == 0:
            self._observe(surrogates, [each.table for _, each in self.loop.tried[-OBSERVED_TOGETHER:]])

    def _observe(self, surrogates: Surrogates, tables: Sequence[Tableau]) -> None:
        with suppress(NotFinite):  # what runs away teaches nothing
            surrogates.observe(tables, self.settings.batch_size, self.clock, self.parts(f"observation {surrogates.version}"))

    def _predict(self, domain: Domain) -> Callable[[Sequence[Params]], tuple[Floats, Floats]] | None:
        predictor = self.predictor
        if predictor is None:
            return None
        return lambda candidates: predictor.predict([domain.tableau(params) for params in candidates])

    def _seeds(self, domain: Domain, best: Baseline) -> tuple[Params, ...]:
        """What the published methods start from: the times of least KLUB, the greedy compensation ratios."""
        settings, model, seeds = self.settings, self.model, []
        if any("klub" in objective.name for objective in self.objectives):
            fitting, parts = self.evaluator.fitting, self.parts("times of least KLUB")
            times = ays_times(model, fitting, settings.nfe, settings.guidance, settings.batch_size, self.clock, memo=parts)
            seeds.append(domain.seed(explicit(model.schedule, times)[:-1]))
        if f"compensation.{settings.nfe - 1}" in domain.distributions:
            nodes = [*(replace(node, guidance=settings.guidance) for node in best.table.nodes), CLEAN]
            fitting, parts = self.evaluator.fitting.first(SAMPLES), self.parts("greedy ratios")
            ratios = greedy_ratios(model, nodes, fitting, batch_size=settings.batch_size, clock=self.clock, memo=parts)
            seeds.append(domain.seed(best.table.nodes, [Decision(compensation=ratio) for ratio in ratios]))
        return tuple(seeds)

    def _polished(self, candidates: list[Result]) -> None:
        """A short polish of the best few, a long one of the best of those."""
        candidates = sorted(candidates, key=lambda each: each.value)[:POLISHED]
        short = self._short(len(candidates))
        total = short * len(candidates) + LONG
        polished = [self._polish(each, short, short * k, total) for k, each in enumerate(candidates)]
        self._polish(min([*candidates, *polished], key=lambda each: each.value), LONG, short * len(candidates), total)

    def _short(self, count: int) -> int:
        """Iterations of each short polish: together at most a part of what is granted, so that enough is left for the long one."""
        settings = self.settings
        if settings.evaluations is None:
            return SHORT
        guided = 2 if settings.guidance != 1 else 1
        iteration = settings.nfe * guided * (3 * settings.fit_samples + settings.validation_samples)  # backward counts twice
        left = settings.evaluations - (self.clock.evaluations - self.begun)
        return max(1, min(SHORT, int(SHORT_SHARE * left / iteration / max(count, 1))))

    def _polish(self, candidate: Result, iterations: int, done: int, total: int) -> Result:
        settings, evaluator = self.settings, self.evaluator
        if self.spent():
            return candidate

        def polished() -> Result:
            table = polish(
                self.model, candidate.table, evaluator.fitting, evaluator.validation, iterations, scale=evaluator.scale,
                split=evaluator.splits(candidate.table), times=settings.polish == "all" and not settings.integer,
                batch_size=settings.batch_size, clock=self.clock, enough=self.spent,
                progress=lambda i, loss: self.progress("polish", done + i, total, f"best {TEMPERED} {loss:.3g}"),
                memo=self.parts(f"polish {done}"),
            )  # fmt: skip
            return evaluator.table(table, candidate.origin)

        return self.keep(self.log.once(f"polish {done}", self.clock, polished))

    def _descended(self, starts: list[Baseline]) -> None:
        """Goes on from the best candidate of the search, else from the best grid, along its numbers: times, input shifts, ratios."""
        evaluator, domain = self.evaluator, self._domain(starts)
        if self.spent():
            return
        params = domain.seed(starts[0].table.nodes)
        if self.loop is not None and self.loop.tried:
            params, _ = min(self.loop.tried, key=lambda pair: pair[1].value)
        kinds = {name: kind for name, kind in domain.distributions.items() if isinstance(kind, FloatDistribution) and name != "ridge"}
        names, bounds = list(kinds), [(kind.low, kind.high) for kind in kinds.values()]
        low, width = np.array([a for a, _ in bounds]), np.array([b - a for a, b in bounds])

        def candidate(x: Floats) -> Candidate:
            return domain.candidate({**params, **dict(zip(names, (low + x * width).tolist(), strict=True))})

        x = descend(
            self.model, lambda x: candidate(x).tableau(self.model.schedule), (np.array([params[name] for name in names]) - low) / width,
            evaluator.fitting, evaluator.validation, evaluator.scale, [(0.0, 1.0)] * len(names), batch_size=self.settings.batch_size,
            clock=self.clock, enough=self.spent,
            progress=lambda i, loss: self.progress("descent", i, 0, f"best {TEMPERED} {loss:.3g}"), memo=self.parts("descent"),
        )  # fmt: skip
        self.keep(self.log.once("descended", self.clock, lambda: evaluator.candidate(candidate(x))))
