"""The main job: from a model and a budget to a proven plan, in stages that each start from the best so far.

    best baseline -> fit (closed form) -> search (Optuna: times and decisions, each candidate fitted) -> polish (gradient)

The stages see fitting and validation noise; the comparison alone sees the held-out noise, and decides whether the plan or the best
baseline is exported (`Comparison.won`).
"""

import math
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import optuna
import torch
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from pydantic import BaseModel, ConfigDict, Field

import solversearch
from solversearch.compare import LADDER_WIDTH, SCREEN, Baseline, Comparison, Stage, Timing, baselines, compare, screen
from solversearch.errors import UserError, nearest
from solversearch.models.base import Clock, Denoiser, Model, NotFinite
from solversearch.objectives.endpoint import endpoint_mse, tempered
from solversearch.plan import MAX_NFE, Plan, Provenance, write_text
from solversearch.runtime import Tableau
from solversearch.sampling import sample
from solversearch.search.fit import fit
from solversearch.search.polish import polish
from solversearch.solvers import SOLVERS
from solversearch.spaces import Candidate, SearchSpace
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
STRATEGIES: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed, multivariate=True, n_startup_trials=STARTS),
    "cmaes": lambda seed: CmaEsSampler(seed=seed, warn_independent_sampling=False),
    "random": lambda seed: RandomSampler(seed=seed),
}

SHORT, LONG = 30, 200
"""Iterations of the two polishes."""


class Settings(BaseModel):
    """What a person asks of a search."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    nfe: int = Field(ge=1, le=MAX_NFE)
    guidance: float = 1.0
    seed: int = Field(0, ge=0)
    trials: int = Field(60, ge=0)
    strategy: str = "tpe"
    space: SearchSpace = SearchSpace()
    samples: int = Field(1024, ge=2 * SCREEN)
    fit_samples: int = Field(256, ge=16)
    validation_samples: int = Field(256, ge=SCREEN)
    fit: bool = True
    search: bool = True
    polish: bool = True
    split: bool | None = None
    integer: bool = False
    batch_size: int = Field(512, ge=1)

    @property
    def splits(self) -> bool:
        """Whether the guidance difference has columns of its own: by default where there is guidance."""
        return self.guidance != 1 if self.split is None else self.split


class Interrupted(UserError):
    """The person stopped the search; the message says what was kept."""


@dataclass
class _Best:
    """A table with its validation errors."""

    table: Tableau
    error: torch.Tensor
    origin: dict[str, str]

    def loss(self, scale: float) -> float:
        return float(tempered(self.error, scale).mean())


@dataclass
class _Search:
    """The state of one search: what it knows, what it has spent, and the best table so far."""

    model: Model
    settings: Settings
    progress: Progress
    clock: Clock = field(default_factory=Clock)
    start: float = field(default_factory=time.perf_counter)
    stages: list[Stage] = field(default_factory=list)
    best: _Best | None = None
    trials: int = 0

    def teacher(self, split: str, count: int, trajectory: bool = True) -> Teacher:
        settings, total = self.settings, STEPS * 3 // 2
        return teach(
            self.model, split, count, settings.guidance, settings.seed, trajectory, batch_size=settings.batch_size, clock=self.clock,
            progress=lambda done: self.progress("teacher", done, total, f"{split}, {count} samples"),
        )  # fmt: skip

    def learn(self) -> None:
        """The stages before the comparison; `best` holds what they reached."""
        settings, model = self.settings, self.model
        self.fitting = self.teacher("fit", settings.fit_samples)
        self.validation = self.teacher("validate", settings.validation_samples)
        with self.stage("best baseline"):
            found = baselines(model, settings.nfe, settings.guidance, settings.integer)
            screened = screen(
                model, found, self.validation.first(SCREEN), settings.batch_size, self.clock,
                lambda done, total: self.progress("baselines", done, total, ""),
            )  # fmt: skip
            smooth = [baseline for _, baseline in screened if not baseline.table.stochastic]
            starts: dict[str, Baseline] = {}
            for baseline in smooth:
                if len(starts) < STARTS:
                    starts.setdefault(baseline.grid, baseline)
            best = smooth[0]
            self.best = self._tried(best.table, {"solver": best.solver, "grid": best.grid})
            self.scale = max(float(self.best.error.median()) * (1.0 if settings.guidance == 1 else GUIDED), 1e-12)
        candidates = [self.best]
        if settings.fit:
            with self.stage("fit"):
                for start in starts.values():
                    candidates.append(self._fitted(start.table, RIDGE, {"solver": start.solver, "grid": start.grid}))
                    self._keep(candidates[-1])
        if settings.search and settings.trials:
            with self.stage("search"):
                candidates += self._searched([start.table for start in starts.values()])
        if settings.polish:
            with self.stage("polish"):
                self._polished(sorted(candidates, key=lambda c: c.loss(self.scale)))

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Notes what the stage has brought."""
        start, evaluations = time.perf_counter(), self.clock.evaluations
        yield
        assert self.best is not None
        error, seconds = self.best.error, time.perf_counter() - start
        self.stages.append(
            Stage(name=name, endpoint_mse=float(error.mean()), median=float(error.median()), seconds=round(seconds, 3),
                  evaluations=self.clock.evaluations - evaluations)
        )  # fmt: skip

    def timing(self) -> Timing:
        return Timing(wall_s=round(time.perf_counter() - self.start, 3), network_s=round(self.clock.seconds, 3))

    def plan(self, table: Tableau, decisions: dict[str, str], command: str) -> Plan:
        settings, model = self.settings, self.model
        versions = {"solversearch": solversearch.__version__, "torch": torch.__version__, "python": platform.python_version()}
        return Plan(
            prediction_type=model.prediction_type,
            guidance=settings.guidance,
            nfe=table.nfe,
            network_calls=table.network_calls,
            nodes=table.nodes,
            rows=table.rows,
            decisions={
                **decisions,
                "timesteps": "whole" if settings.integer else "any",
                "stages": [stage.name for stage in self.stages],
            },
            provenance=Provenance(model=model.name, model_digest=model.digest, seed=settings.seed, versions=versions, command=command),
        )

    def _keep(self, candidate: _Best) -> None:
        assert self.best is not None
        if candidate.loss(self.scale) < self.best.loss(self.scale):
            self.best = candidate

    def _tried(self, table: Tableau, origin: dict[str, str]) -> _Best:
        samples = sample(self.model, table, self.validation, self.settings.batch_size, self.clock)
        return _Best(table, endpoint_mse(samples, self.validation.endpoint), origin)

    @torch.no_grad()
    def _fitted(self, prior: Tableau, ridge: float, origin: dict[str, str]) -> _Best:
        fitting, validation = self.fitting, self.validation
        conditions = None
        if fitting.conditions is not None and validation.conditions is not None:
            conditions = torch.cat([fitting.conditions, validation.conditions])
        denoise = Denoiser(self.model, conditions, self.settings.batch_size, self.settings.splits, self.clock)
        table, samples = fit(prior, fitting, denoise, torch.cat([fitting.noise, validation.noise]), ridge, robust=True)
        return _Best(table, endpoint_mse(samples[len(fitting) :], validation.endpoint), origin)

    def _searched(self, starts: list[Tableau]) -> list[_Best]:
        """Ask, evaluate, tell; a candidate that fails is told as such and the search goes on."""
        settings, schedule = self.settings, self.model.schedule
        tried: list[_Best] = []
        ranges = SearchSpace.ranges(schedule, [start.nodes for start in starts])
        for start in starts:
            self.study.enqueue_trial(SearchSpace.seed(schedule, start.nodes))
        for number in range(settings.trials):
            trial = self.study.ask()
            try:
                candidate = settings.space.suggest(trial, schedule, settings.integer, ranges)
                result = self._evaluated(candidate)
            except (NotFinite, ValueError, RuntimeError, UserError) as failure:
                trial.set_user_attr("failure", str(failure))
                self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            tried.append(result)
            self._keep(result)
            self.study.tell(trial, result.loss(self.scale))
            self.trials = number + 1
            self.progress("search", self.trials, settings.trials, f"best validation error {self.study.best_value:.3g}")
        return tried

    def _evaluated(self, candidate: Candidate) -> _Best:
        table = candidate.tableau(self.model.schedule, self.settings.guidance)
        first = candidate.decisions[0]
        orders = "".join(str(decision.order) for decision in candidate.decisions)
        origin = {"solver": first.solver, "order": orders, "prediction": first.prediction, "corrector": str(first.corrector)}
        result = self._fitted(table, candidate.ridge, origin) if self.settings.fit else self._tried(table, origin)
        if not torch.isfinite(result.error).all():
            raise NotFinite("the candidate's error is not finite")
        return result

    def _polished(self, candidates: list[_Best]) -> None:
        """A short polish of the best few, a long one of the best of those."""
        chosen = candidates[:POLISHED]
        total = SHORT * len(chosen) + LONG
        for k, candidate in enumerate(chosen):
            candidates[k] = self._polish(candidate, SHORT, SHORT * k, total)
        best = min(candidates[: len(chosen)], key=lambda c: c.loss(self.scale))
        self._polish(best, LONG, SHORT * len(chosen), total)

    def _polish(self, candidate: _Best, iterations: int, done: int, total: int) -> _Best:
        settings = self.settings
        table = polish(
            self.model, candidate.table, self.fitting, self.validation, iterations, scale=self.scale, split=settings.splits,
            times=not settings.integer, batch_size=settings.batch_size, clock=self.clock,
            progress=lambda i, loss: self.progress("polish", done + i, total, f"best validation error {loss:.3g}"),
        )  # fmt: skip
        result = self._tried(table, candidate.origin)
        self._keep(result)
        return result

    def open_study(self, folder: Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        journal = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
        sampler = STRATEGIES[self.settings.strategy](self.settings.seed)
        self.study = optuna.create_study(storage=journal, study_name="search", sampler=sampler)


def check(model: Model, settings: Settings) -> None:
    """Raises `UserError` for what cannot be, before any work is done."""
    if settings.strategy not in STRATEGIES:
        raise UserError(nearest(settings.strategy, list(STRATEGIES), "strategy"))
    if settings.guidance != 1 and model.null_condition is None:
        raise UserError(f"model {model.name!r} has no null condition, so only --guidance 1 is possible, got {settings.guidance:g}")
    if settings.splits and model.null_condition is None:
        raise UserError(f"model {model.name!r} has no null condition to split the guidance from; leave out --split")
    if settings.integer and model.schedule.discrete and settings.nfe > model.schedule.t_start - model.schedule.t_end + 1:
        raise UserError(f"nfe {settings.nfe} is more than the model's whole timesteps; ask for fewer")


def optimize(model: Model, settings: Settings, folder: Path, command: str, progress: Progress) -> tuple[Plan, Comparison]:
    """Runs the stages and the comparison; writes plan.json, comparison.json and the Optuna journal into the folder.

    Raises `UserError` for what cannot be, and `Interrupted` on Ctrl-C, after the best plan so far has been written.
    """
    check(model, settings)
    search = _Search(model, settings, progress)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        search.open_study(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot write there: {error.strerror}; choose another folder with --out") from None
    try:
        search.learn()
        assert search.best is not None
        plan = search.plan(search.best.table, search.best.origin, command)
        plan.write(folder / "plan.json")
        comparison = search_comparison(search, plan)
        if not comparison.won:
            row = next(row for row in comparison.rows if row.kind == "baseline")
            table = next(b.table for b in baselines(model, settings.nfe, settings.guidance, settings.integer) if b.name == row.name)
            plan = search.plan(table, {"solver": row.solver, "grid": row.grid, "baseline": "no candidate was better"}, command)
            comparison = search_comparison(search, plan)
        plan = plan.with_scores(tuple(row for row in comparison.rows if row.kind == "plan" or row.name == comparison.best_baseline))
        plan.write(folder / "plan.json")
        write_text(folder / "comparison.json", comparison.model_dump_json(indent=1) + "\n")
    except KeyboardInterrupt:
        raise Interrupted(_kept(search, folder, command)) from None
    return plan, comparison


def search_comparison(search: _Search, plan: Plan) -> Comparison:
    """The comparison on held-out noise, with the search's stages and time."""
    settings, count = search.settings, 0

    def told(note: str) -> None:
        nonlocal count
        count += 1
        search.progress("comparison", count, 0, note)

    teacher = search.teacher("held_out", settings.samples, trajectory=False)
    return compare(
        search.model, plan, teacher, search.clock, settings.batch_size, settings.integer, search.timing, tuple(search.stages), told
    )


def _kept(search: _Search, folder: Path, command: str) -> str:
    if search.best is None:
        return f"interrupted before any candidate was evaluated; nothing to keep but {folder / 'journal.log'} and the cached teacher"
    path = folder / "plan.json"
    search.plan(search.best.table, {**search.best.origin, "interrupted": "not compared on held-out noise"}, command).write(path)
    error = float(search.best.error.mean())
    return (
        f"interrupted after {search.trials} trials; kept: {path} (the best so far, validation error {error:.3g}, not compared yet: "
        f"'solversearch compare --plan {path} --model {search.model.name}') and {folder / 'journal.log'}"
    )


def estimate(model: Model, settings: Settings) -> dict[str, str | int | float]:
    """What a search would cost: evaluations a stage, and seconds at the speed of a few network calls made now."""
    check(model, settings)
    nfe, count = settings.nfe, len({b.table for b in baselines(model, settings.nfe, settings.guidance, settings.integer)})
    guided = 2 if settings.guidance != 1 or settings.splits else 1
    both = settings.fit_samples + settings.validation_samples
    stages = {
        "teacher": (both + settings.samples) * STEPS * 3 // 2,
        "baselines": count * nfe * SCREEN,
        "fit": STARTS * nfe * both * settings.fit,
        "search": settings.trials * nfe * both * settings.search,
        "polish": (SHORT * POLISHED + LONG) * nfe * (3 * settings.fit_samples + settings.validation_samples) * settings.polish,
        "comparison": nfe * (count * SCREEN + len(SOLVERS) * settings.samples)
        + 3 * (nfe + 2) * (LADDER_WIDTH * SCREEN + 3 * settings.samples),
    }
    speed = _speed(model, settings)
    evaluations = {name: value * guided for name, value in stages.items()}
    total = sum(evaluations.values()) - evaluations["polish"] // 2  # which mostly stops early
    return {
        "model": model.name,
        "discrete choices of the space": f"{settings.space.size(nfe):,} and {nfe + 1} continuous",
        **{f"network evaluations, {name}": f"up to {value:,}" for name, value in evaluations.items()},
        "evaluations a second": round(speed),
        "estimated seconds": math.ceil(total / speed),
        "missing": "nothing",
    }


def _speed(model: Model, settings: Settings) -> float:
    """Network evaluations a second in batches of the size asked for."""
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.standard_normal((settings.batch_size, *model.shape))).float().to(model.device)
    conditions = None if model.conditions is None else model.conditions[torch.arange(len(noise)) % len(model.conditions)]
    clock = Clock()
    denoise = Denoiser(model, conditions, settings.batch_size, clock=clock)
    with torch.no_grad():
        denoise(noise, model.schedule.node(model.schedule.t_start))
        clock.seconds, clock.evaluations = 0.0, 0
        while clock.seconds < 0.5 and clock.evaluations < 50 * len(noise):
            denoise(noise, model.schedule.node(model.schedule.t_start))
    return clock.evaluations / clock.seconds
