"""The comparison: a plan against every published solver on every grid at the same cost, on held-out noise."""

from collections.abc import Callable, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from solversearch.baselines import LIMIT, SMALL, Baseline, baselines, best_of_each_solver, screen, screening
from solversearch.meter import Meter
from solversearch.models.base import Clock, Model
from solversearch.objectives.endpoint import endpoint_mse
from solversearch.plan import Count, Many, Plan, Score
from solversearch.runtime import Node, Tableau
from solversearch.sampling import sample
from solversearch.schedules import GRIDS
from solversearch.teacher import Teacher

LADDER_WIDTH = 80
"""Baselines that are carried to the next NFE when the plan's error is looked for."""
UNDECIDED = 3.0
"""Ratio of two means from which on outliers are no excuse."""
POINTS = 65
"""Of the noise schedule, in the file of a comparison."""


_STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Stage(BaseModel):
    """What one stage of a search reached on validation noise; evaluations are the network's, a sample each.

    value is what the best was chosen by, and unit what that is called; files of earlier versions have the mean alone.
    """

    model_config = _STRICT
    name: str
    endpoint_mse: float
    median: float
    seconds: float
    evaluations: Count
    value: float | None = None
    unit: str = "endpoint MSE, validation noise"

    @property
    def reached(self) -> float:
        return self.endpoint_mse if self.value is None else self.value


class Timing(BaseModel):
    """Seconds, of which network_s inside the network (forward and backward)."""

    model_config = _STRICT
    wall_s: float
    network_s: float


class Tau(BaseModel):
    """Kendall's tau between the errors of the last candidates and what was predicted before they were evaluated.

    evaluated is how many had been by then; surrogate alone, the learned model alone, and both together.
    """

    model_config = _STRICT
    evaluated: Count
    surrogate: float
    learned: float
    both: float


class ParetoPoint(BaseModel):
    """A plan that no other candidate beats in every objective, with its values on validation noise."""

    model_config = _STRICT
    file: str
    network_calls: Count
    values: dict[str, float]


class Rung(BaseModel):
    """The best baseline at one NFE, measured in full."""

    model_config = _STRICT
    nfe: Count
    name: str
    endpoint_mse: float


class Comparison(BaseModel):
    """A plan beside its peers. ratio_* is the plan's value over the best baseline's in that value.

    baseline_nfe_for_plan_error is the least NFE at which some baseline's mean error is the plan's or less; None where none
    was found up to ladder's last NFE.
    """

    model_config = _STRICT
    model: str
    nfe: Count
    guidance: float
    samples: Count
    seed: Count
    ratio_endpoint_mse: float
    ratio_endpoint_median: float
    ratio_frechet_teacher: float | None
    features: str = ""
    """What Frechet distances look at, where that is not the model's own features."""
    best_baseline: str
    baseline_nfe_for_plan_error: Count | None
    teacher_error: float
    timing: Timing
    stages: Many[Stage] = ()
    ladder: Many[Rung] = ()
    progress: Many[float | None] = ()
    """Of a search: the best value so far after each trial, in `unit`; None before the first that did not fail."""
    predictor: Many[Tau] = ()
    pareto: Many[ParetoPoint] = ()
    note: str = ""
    """What the person should know of the search."""
    rows: Many[Score]
    nodes: Many[Node] = ()
    """Where the best baseline evaluates the network."""
    schedule: Many[Node] = ()
    """Points of the model's noise schedule, from noise to data, to draw the nodes on."""

    @property
    def unit(self) -> str:
        """What `progress` has. Files of earlier versions do not say it."""
        return self.stages[0].unit if self.stages and self.stages[0].value is not None else "value, validation noise"

    @property
    def won(self) -> bool:
        """Whether the plan is the better one: by its mean error, or by its median where outliers leave the means undecided.

        Undecided: the bootstrap intervals of the two means overlap, and neither mean is more than `UNDECIDED` times the other.
        """
        own, best = self.rows[0].endpoint_mse, self.rows[1].endpoint_mse
        undecided = own.low <= best.high and self.ratio_endpoint_mse < UNDECIDED
        return self.ratio_endpoint_mse < 1 or (self.ratio_endpoint_median < 1 and undecided)


def climb(
    model: Model, meter: Meter, screened: Sequence[tuple[float, Baseline]], target: float, guidance: float, integer: bool,
    progress: Callable[[str], None], limit: int | None = None,
) -> list[Rung]:  # fmt: skip
    """The best baseline at each higher NFE until one reaches the target error, or up to `LIMIT`.

    The best combinations of one NFE are screened at the next; the three best there are measured in full.
    """
    rungs: list[Rung] = []
    nfe = screened[0][1].table.nfe
    limit = limit or (LIMIT if model.numbers <= SMALL else min(2 * nfe, LIMIT))
    few = meter.teacher.first(screening(len(meter.teacher)))
    while (not rungs or rungs[-1].endpoint_mse > target) and nfe < limit:
        nfe += 1
        progress(f"best baseline at NFE {nfe}")
        good = {(c.solver, c.grid) for _, c in screened[:LADDER_WIDTH]}
        good |= {(solver, name) for solver in ("heun", "plms", "pndm") for name in GRIDS}  # these skip some counts
        found = baselines(model, nfe, guidance, integer, good)
        screened = screen(model, found, few, meter.batch_size, meter.clock, of_each=0)
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
    few = teacher.first(screening(len(teacher)))
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
        features=model.looks,
        best_baseline=best.name,
        baseline_nfe_for_plan_error=needed or None,
        teacher_error=teacher.error,
        timing=timing(),
        stages=stages,
        ladder=(Rung(nfe=plan.nfe, name=best.name, endpoint_mse=best.endpoint_mse.mean), *ladder),
        rows=(own, *rows),
        nodes=next(candidate.table.nodes for _, candidate in screened if candidate.name == best.name),
        schedule=tuple(map(model.schedule.node, np.linspace(model.schedule.t_start, model.schedule.t_end, POINTS).tolist())),
    )


def _median(row: Score) -> float:
    assert row.endpoint_mse.median is not None
    return row.endpoint_mse.median
