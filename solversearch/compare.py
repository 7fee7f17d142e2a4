"""The comparison: a plan against every published solver on every grid at the same cost, on held-out noise."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import inf, isfinite

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from solversearch.errors import UserError
from solversearch.models.base import Clock, Model, NotFinite
from solversearch.objectives.endpoint import endpoint_mse
from solversearch.objectives.frechet import Gaussian, frechet
from solversearch.plan import Interval, Plan, Score, Threshold
from solversearch.runtime import Tableau
from solversearch.sampling import sample, sample_together
from solversearch.schedules import GRIDS, grid
from solversearch.solvers import SOLVERS
from solversearch.teacher import Teacher

SCREEN = 64
"""Samples on which every baseline is tried before each solver's best grid is measured in full."""
LADDER_WIDTH = 80
"""Baselines that are carried to the next NFE when the plan's error is looked for."""
UNDECIDED = 3.0
"""Ratio of two means from which on outliers are no excuse."""
RESAMPLES = 200
"""Bootstrap samples of every interval."""


@dataclass(frozen=True)
class Baseline:
    """A published solver on a published grid."""

    solver: str
    grid: str
    table: Tableau

    @property
    def name(self) -> str:
        return f"{self.solver} on {self.grid}"


class Stage(BaseModel):
    """What one stage of a search reached on validation noise; evaluations are the network's, a sample each."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    endpoint_mse: float
    median: float
    seconds: float
    evaluations: int


class Timing(BaseModel):
    """Seconds, of which network_s inside the network (forward and backward)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    wall_s: float
    network_s: float


class Tau(BaseModel):
    """Kendall's tau between the errors of the last candidates and what was predicted before they were evaluated.

    evaluated is how many had been by then; surrogate alone, the learned model alone, and both together.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    evaluated: int
    surrogate: float
    learned: float
    both: float


class ParetoPoint(BaseModel):
    """A plan that no other candidate beats in every objective, with its values on validation noise."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    file: str
    network_calls: int
    values: dict[str, float]


class Rung(BaseModel):
    """The best baseline at one NFE, measured in full."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    nfe: int
    name: str
    endpoint_mse: float


class Comparison(BaseModel):
    """A plan beside its peers. ratio_* is the plan's value over the best baseline's in that value.

    baseline_nfe_for_plan_error is the least NFE at which some baseline's mean error is the plan's or less; None where none
    was found up to ladder's last NFE.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    model: str
    nfe: int
    guidance: float
    samples: int
    seed: int
    ratio_endpoint_mse: float
    ratio_endpoint_median: float
    ratio_frechet_teacher: float | None
    best_baseline: str
    baseline_nfe_for_plan_error: int | None
    teacher_error: float
    timing: Timing
    stages: tuple[Stage, ...] = ()
    ladder: tuple[Rung, ...] = ()
    progress: tuple[float | None, ...] = ()
    """Of a search: the best value so far after each trial; None before the first that did not fail."""
    predictor: tuple[Tau, ...] = ()
    pareto: tuple[ParetoPoint, ...] = ()
    note: str = ""
    """What the person should know of the search."""
    rows: tuple[Score, ...]

    @property
    def won(self) -> bool:
        """Whether the plan is the better one: by its mean error, or by its median where outliers leave the means undecided.

        Undecided: the bootstrap intervals of the two means overlap, and neither mean is more than `UNDECIDED` times the other.
        """
        own, best = self.rows[0].endpoint_mse, self.rows[1].endpoint_mse
        undecided = own.low <= best.high and self.ratio_endpoint_mse < UNDECIDED
        return self.ratio_endpoint_mse < 1 or (self.ratio_endpoint_median < 1 and undecided)


def baselines(
    model: Model, nfe: int, guidance: float, integer: bool = False, among: Collection[tuple[str, str]] | None = None
) -> list[Baseline]:
    """Every solver on every grid (or those pairs of them that are named) that can spend exactly nfe evaluations."""
    found = []
    for solver in SOLVERS.values():
        for name in GRIDS:
            if among is not None and (solver.name, name) not in among:
                continue
            try:
                nodes = grid(name, model.schedule, solver.steps(nfe), integer)
            except UserError:  # a count that this solver cannot spend, or a grid whose times coincide
                continue
            found.append(Baseline(solver.name, name, solver.tableau(model.schedule, nodes).guided(guidance)))
    if not found:
        raise UserError(f"no baseline can spend {nfe} evaluations on this model's schedule; ask for another --nfe")
    return found


def screen(
    model: Model,
    candidates: Sequence[Baseline],
    teacher: Teacher,
    batch_size: int = 512,
    clock: Clock | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[tuple[float, Baseline]]:
    """Mean endpoint error of every candidate on the teacher's noise, best first. Equal tables are run once."""
    different = list(dict.fromkeys(candidate.table for candidate in candidates))
    together = max(1, batch_size // len(teacher))
    known: dict[Tableau, float] = {}

    def errors(group: Sequence[Tableau]) -> list[float]:
        try:
            return [float(endpoint_mse(x, teacher.endpoint).mean()) for x in sample_together(model, group, teacher, clock)]
        except NotFinite:  # one of them ran away: alone, it costs the others nothing
            return [inf] if len(group) == 1 else [error for table in group for error in errors([table])]

    for first in range(0, len(different), together):
        group = different[first : first + together]
        known.update(zip(group, errors(group), strict=True))
        progress(first + len(group), len(different))
    if not any(map(isfinite, known.values())):
        raise NotFinite(f"the network of {model.name!r} returned NaN or inf with every baseline; check its weights and dtype")
    return sorted(((known[c.table], c) for c in candidates), key=lambda pair: pair[0])


def best_of_each_solver(screened: Sequence[tuple[float, Baseline]]) -> list[Baseline]:
    """The best grid of every solver, best first."""
    kept: dict[str, Baseline] = {}
    for _, candidate in screened:
        kept.setdefault(candidate.solver, candidate)
    return list(kept.values())


class Meter:
    """Measures samplers on one set of held-out noise: endpoint error and Frechet distances with bootstrap intervals."""

    def __init__(self, model: Model, teacher: Teacher, seed: int = 0, batch_size: int = 512, clock: Clock | None = None) -> None:
        self.model, self.teacher, self.batch_size, self.clock = model, teacher, batch_size, clock
        rng = np.random.default_rng([seed, len(teacher)])
        n = len(teacher)
        self.weights = torch.from_numpy(rng.multinomial(n, [1 / n] * n, size=RESAMPLES)).double()
        self.references: dict[str, tuple[Gaussian, Gaussian]] = {}
        if model.features is not None:
            reached = model.features(teacher.endpoint)
            # The samples come from the same noise as the teacher's, so both are resampled together.
            self.references = {"frechet_teacher": (Gaussian.of(reached), Gaussian.resampled(reached, self.weights))}
            if model.data is not None:
                real = Gaussian.of(model.features(model.data()))
                self.references["frechet_data"] = (real, real)

    def measure(self, name: str, kind: str, solver: str, grid: str, table: Tableau, threshold: Threshold | None = None) -> Score:
        samples = sample(self.model, table, self.teacher, self.batch_size, self.clock, threshold)
        error = endpoint_mse(samples, self.teacher.endpoint)
        scores = {"endpoint_mse": self._interval(error.mean(), self.weights @ error / len(error), error.median())}
        if self.model.features is not None:
            features = self.model.features(samples)
            moments, resampled = Gaussian.of(features), Gaussian.resampled(features, self.weights)
            for reference, (whole, parts) in self.references.items():
                scores[reference] = self._interval(frechet(whole, moments)[0], frechet(parts, resampled))
        return Score.model_validate(
            {"name": name, "kind": kind, "solver": solver, "grid": grid, "nfe": table.nfe, "network_calls": table.network_calls,
             "samples": len(error), **scores}
        )  # fmt: skip

    def baseline(self, candidate: Baseline) -> Score:
        return self.measure(candidate.name, "baseline", candidate.solver, candidate.grid, candidate.table)

    @staticmethod
    def _interval(value: Tensor, resampled: Tensor, median: Tensor | None = None) -> Interval:
        """The 95 % interval, moved by the bootstrap's bias: a Frechet distance grows with the noise of resampling."""
        deviation = np.quantile((resampled - resampled.mean()).numpy(), [0.025, 0.975])
        low, high = float(value) + deviation
        return Interval(mean=float(value), low=max(float(low), 0.0), high=float(high), median=None if median is None else float(median))


def climb(
    model: Model, meter: Meter, screened: Sequence[tuple[float, Baseline]], target: float, guidance: float, integer: bool,
    progress: Callable[[str], None], limit: int = 40,
) -> list[Rung]:  # fmt: skip
    """The best baseline at each higher NFE until one reaches the target error.

    The best combinations of one NFE are screened at the next; the three best there are measured in full.
    """
    rungs: list[Rung] = []
    nfe = screened[0][1].table.nfe
    few = meter.teacher.first(SCREEN)
    while (not rungs or rungs[-1].endpoint_mse > target) and nfe < limit:
        nfe += 1
        progress(f"best baseline at NFE {nfe}")
        good = {(c.solver, c.grid) for _, c in screened[:LADDER_WIDTH]}
        good |= {(solver, name) for solver in ("heun", "plms", "pndm") for name in GRIDS}  # these skip some counts
        found = baselines(model, nfe, guidance, integer, good)
        screened = screen(model, found, few, meter.batch_size, meter.clock)
        measured = [(_error(model, meter, c.table), c) for _, c in screened[:3]]
        error, best = min(measured, key=lambda pair: pair[0])
        rungs.append(Rung(nfe=nfe, name=best.name, endpoint_mse=error))
    return rungs


def _error(model: Model, meter: Meter, table: Tableau) -> float:
    samples = sample(model, table, meter.teacher, meter.batch_size, meter.clock)
    return float(endpoint_mse(samples, meter.teacher.endpoint).mean())


def compare(
    model: Model,
    plan: Plan,
    teacher: Teacher,
    clock: Clock,
    batch_size: int = 512,
    integer: bool = False,
    timing: Callable[[], Timing] = lambda: Timing(wall_s=0.0, network_s=0.0),
    stages: tuple[Stage, ...] = (),
    progress: Callable[[str], None] = lambda what: None,
) -> Comparison:
    """Measures a plan and every baseline at its NFE and guidance on the teacher's (held-out) noise."""
    few = teacher.first(SCREEN)
    meter = Meter(model, teacher, teacher.seed, batch_size, clock)
    progress("screening baselines")
    screened = screen(model, baselines(model, plan.nfe, plan.guidance, integer), few, batch_size, clock)
    progress("measuring each solver's best")
    rows = [meter.baseline(candidate) for candidate in best_of_each_solver(screened)]
    rows.sort(key=lambda row: row.endpoint_mse.mean)
    own = meter.measure("plan", "plan", str(plan.decisions.get("solver", "table")), str(plan.decisions.get("grid", "searched")),
                        plan.tableau, plan.threshold)  # fmt: skip
    best = rows[0]
    target = own.endpoint_mse.mean
    if best.endpoint_mse.mean <= target:
        needed, ladder = plan.nfe, []
    else:
        ladder = climb(model, meter, screened, target, plan.guidance, integer, progress)
        needed = ladder[-1].nfe if ladder and ladder[-1].endpoint_mse <= target else 0
    frechets = [row.frechet_teacher.mean for row in rows if row.frechet_teacher]
    return Comparison(
        model=model.name,
        nfe=plan.nfe,
        guidance=plan.guidance,
        samples=len(teacher),
        seed=teacher.seed,
        ratio_endpoint_mse=target / best.endpoint_mse.mean,
        ratio_endpoint_median=_median(own) / min(map(_median, rows)),
        ratio_frechet_teacher=own.frechet_teacher.mean / min(frechets) if own.frechet_teacher else None,
        best_baseline=best.name,
        baseline_nfe_for_plan_error=needed or None,
        teacher_error=teacher.error,
        timing=timing(),
        stages=stages,
        ladder=(Rung(nfe=plan.nfe, name=best.name, endpoint_mse=best.endpoint_mse.mean), *ladder),
        rows=(own, *rows),
    )


def _median(row: Score) -> float:
    assert row.endpoint_mse.median is not None
    return row.endpoint_mse.median
