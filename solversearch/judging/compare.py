"""The comparison: a plan against every published solver on every grid at the same cost, on held-out noise."""

import time
from collections.abc import Callable
from dataclasses import replace
from math import inf, isfinite
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from solversearch.grids import GRIDS
from solversearch.judging import intervals
from solversearch.judging.baselines import LIMIT, SMALL
from solversearch.judging.contenders import contenders
from solversearch.judging.measures import ComparisonRow, Rivals, finite, measured, rivals
from solversearch.judging.objectives import parse_many
from solversearch.judging.race import GEOMETRIC, MEAN
from solversearch.judging.verdict import Ratio, Verdict, confirmation, decide, needed, objective_ratio, ratios
from solversearch.memo import NO_MEMO, Memo
from solversearch.models.base import Clock, Model
from solversearch.notebook import Shown
from solversearch.plan import Count, Interval, Many, Plan
from solversearch.runtime import Node, Start, Tableau
from solversearch.sampling import sample
from solversearch.teacher import STEPS, Teacher

ENDPOINT = "endpoint"
"""The objective whose verdict the geometric mean of the error ratio gives."""
RACED = (ENDPOINT, "mean")
"""Objectives whose best baseline the race finds."""
POINTS = 65
"""Of the noise schedule, in the file of a comparison."""
TIMED, REPEATS = 256, 3
"""Samples, and how often, of which the least time is a plan's price."""
REAL = 1.15
"""A measured price over the nominal one, from which on a saving is not real."""


_STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StageResult(BaseModel):
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
    """Seconds of the driver; seconds inside the network (forward and backward), of all workers together where there are any."""

    model_config = _STRICT
    wall_s: float
    network_s: float

    @property
    def told(self) -> str:
        where = "of it in the network" if self.network_s <= self.wall_s else "in the network, on all workers together"
        return f"{self.wall_s:.0f} s, {self.network_s:.0f} s {where}"


class Tau(BaseModel):
    """Kendall's tau between the errors of the last candidates and what was predicted before they were evaluated.

    evaluated is how many had been by then; surrogate alone, the learned model alone, and both together.
    """

    model_config = _STRICT
    evaluated: Count
    surrogate: float
    learned: float
    both: float


class Trial(BaseModel):
    """A candidate of a search: its value on as many validation samples as it was worth; None where it failed."""

    model_config = _STRICT
    value: float | None
    samples: Count


class Prediction(BaseModel):
    """What was predicted of a candidate's value before it was evaluated, and what the network said, on the samples it saw last."""

    model_config = _STRICT
    predicted: float
    measured: float


class ParetoPoint(BaseModel):
    """A plan that no other candidate beats in every objective, with its values on validation noise."""

    model_config = _STRICT
    file: str
    network_calls: Count
    values: dict[str, float]


class Price(BaseModel):
    """What a plan of cheaper evaluations costs a sample, in calls of the model's own network: by their declared costs, and as it took here,
    beside the best baseline, the whole sampling each."""

    model_config = _STRICT
    nominal: float
    measured: float

    @property
    def told(self) -> str:
        unreal = "; what the variants save is not real here" if self.measured > REAL * self.nominal else ""
        return f"A sample costs {self.nominal:.3g} calls of the network by the plan, and took {self.measured:.3g} here{unreal}."


class Rung(BaseModel):
    """The baseline of the least mean error at one NFE, measured in full."""

    model_config = _STRICT
    nfe: Count
    name: str
    endpoint_mse: float


class Comparison(BaseModel, Shown):
    """A plan beside its peers, on the same held-out noise.

    share is that of the samples on which the plan's error is less than that of best_baseline, the baseline of the least geometric mean.
    ratios has the plan's value over the least one of all baselines, by measure; the objective's own, where that is another one, comes last.
    left_out counts samples on which the teacher or the plan was not finite, ran_away those on which the plan alone was not: one is enough
    for "worse", as it rules out a baseline. pairs is how many solver and grid pairs were raced, evaluations
    what the comparison took of the network. exported is what plan.json holds. baseline_nfe_for_plan_error is the least NFE at which some
    baseline's mean error is the plan's or less; None where none was found up to ladder's last NFE.
    """

    model_config = _STRICT
    version: Literal[2] = 2
    model: str
    nfe: Count
    guidance: float
    start: Start | None = None
    samples: Count
    left_out: Count = 0
    ran_away: Count = 0
    seed: Count
    objective: str = "endpoint"
    confirmed_by: str = ""
    """The measure, of `ratios`, on which nothing was searched and that may contradict an objective other than the endpoint error."""
    verdict: Verdict
    samples_to_decide: Count | None = None
    exported: Literal["plan", "baseline"] = "plan"
    share: Interval
    ratios: Many[Ratio]
    price: Price | None = None
    features: str = ""
    """What Frechet distances look at, where that is not the model's own features."""
    best_baseline: str
    baseline_nfe_for_plan_error: Count | None
    teacher_error: float
    teacher_steps: Count = STEPS
    """Evaluations of a sample of the teacher; files of earlier versions do not say it, all of them have the default."""
    teacher_frechet_data: Interval | None = None
    variance: float | None = None
    """Of one number of the data about its mean, or of the teacher's samples where there are no data: what an error of nothing right is."""
    pairs: Count
    evaluations: Count
    timing: Timing
    stages: Many[StageResult] = ()
    ladder: Many[Rung] = Field(min_length=1)
    progress: Many[float | None] = ()
    """Of a search: the best value so far after each trial, in `unit`; None before the first that did not fail."""
    trials: Many[Trial] = ()
    predictions: Many[Prediction] = ()
    predictor: Many[Tau] = ()
    pareto: Many[ParetoPoint] = ()
    note: str = ""
    """What the person should know of the search."""
    rows: Many[ComparisonRow]
    """The plan, then every baseline that was measured in full, least mean error first."""
    nodes: Many[Node] = ()
    """Where the best baseline evaluates the network."""
    schedule: Many[Node] = ()
    """Points of the model's noise schedule, from noise to data, to draw the nodes on."""

    @model_validator(mode="after")
    def _has_what_the_verdict_rests_on(self) -> Self:
        if [each.measure for each in self.ratios[:2]] != [GEOMETRIC, MEAN]:
            raise ValueError(f"ratios: the first must be of the {GEOMETRIC}, the second of the {MEAN}")
        if len(self.rows) < 2:
            raise ValueError("rows: a plan and at least one baseline are needed")
        if self.exported == "baseline" and self.deciding.baseline not in {row.name for row in self.rows}:
            raise ValueError("exported: rows do not have the baseline")
        return self

    @property
    def unit(self) -> str:
        """What `progress` has. Files of earlier versions do not say it."""
        return self.stages[0].unit if self.stages and self.stages[0].value is not None else "value, validation noise"

    def ratio(self, measure: str) -> Ratio | None:
        return next((each for each in self.ratios if each.measure == measure), None)

    @property
    def deciding(self) -> Ratio:
        """What the verdict rests on: the geometric mean of the error ratio, or the objective's own value."""
        return self.ratios[0] if self.objective == ENDPOINT else self.ratios[-1]

    def calls(self, row: ComparisonRow) -> float:
        """What a sample costs by that sampler, in calls of the model's own network."""
        return self.price.nominal if self.price and row is self.rows[0] else row.network_calls

    @property
    def confirming(self) -> Ratio | None:
        """What may contradict the objective; files of earlier versions have none."""
        return self.ratio(self.confirmed_by)

    @property
    def is_baseline(self) -> bool:
        """Whether the plan samples exactly as the best baseline does."""
        return self.ratios[0].low == self.ratios[0].high == 1

    def exported_ratio(self, measure: str) -> float:
        """Of what plan.json holds, to the baseline that is best in this measure: the mean error, or its geometric mean."""
        ratio = self.ratio(measure)
        assert ratio is not None
        row = self.exported_row
        return (row.endpoint_mse.mean if measure == MEAN else row.geometric_mean) / ratio.baseline_value

    @property
    def exported_row(self) -> ComparisonRow:
        """The row of what plan.json holds."""
        return self.rows[0] if self.exported == "plan" else next(row for row in self.rows if row.name == self.deciding.baseline)


def climb(
    model: Model, base: Rivals, nfe: int, target: float, guidance: float, integer: bool, batch_size: int, clock: Clock, memo: Memo,
    progress: Callable[[str], None], limit: int | None = None,
) -> list[Rung]:  # fmt: skip
    """The baseline of the least mean error at each higher NFE until one reaches the target, or up to `LIMIT`.

    Those that the first round of the race has not dropped at one NFE race at the next, on the same hard samples.
    """
    rungs: list[Rung] = []
    limit = limit or (LIMIT if model.numbers <= SMALL else min(2 * nfe, LIMIT))
    found = base
    while (not rungs or rungs[-1].endpoint_mse > target) and nfe < limit:
        nfe += 1
        among = found.race.carried() | {(solver, name) for solver in ("heun", "plms", "pndm") for name in GRIDS}  # these skip some counts
        found = rivals(
            model, nfe, guidance, base.teacher, integer, batch_size, clock, memo, (MEAN,), among, base.race.hard, target, progress
        )
        best = found.best(MEAN)
        rungs.append(Rung(nfe=nfe, name=best.name, endpoint_mse=best.value(MEAN, None)))
    return rungs


def _price(model: Model, plan: Plan, rival: Tableau, teacher: Teacher, batch_size: int, clock: Clock) -> Price | None:
    """None for a plan of the network's own evaluations."""
    if not plan.tableau.cheaper:
        return None
    some, seconds = teacher.first(min(TIMED, len(teacher))), {True: inf, False: inf}
    for own in (True, False) * REPEATS:
        start = time.perf_counter()
        sample(model, plan.tableau if own else rival, some, batch_size, clock)
        seconds[own] = min(seconds[own], time.perf_counter() - start)
    return Price(nominal=plan.price, measured=rival.network_calls * seconds[True] / seconds[False])


def _variance(samples: Tensor) -> float | None:
    value = float((samples.double() - samples.double().mean(0)).square().mean())
    return value if isfinite(value) else None


def compare(
    model: Model,
    plan: Plan,
    teacher: Teacher,
    clock: Clock,
    batch_size: int = 512,
    integer: bool = False,
    timing: Callable[[], Timing] = lambda: Timing(wall_s=0.0, network_s=0.0),
    stages: tuple[StageResult, ...] = (),
    progress: Callable[[str], None] = lambda what: None,
    objective: str = ENDPOINT,
    memo: Memo = NO_MEMO,
) -> Comparison:
    """Measures a plan and races every baseline at its price and guidance on the teacher's (held-out) noise.

    Of several objectives the first decides. memo keeps what has been run, for when the comparison is interrupted. Raises `NotFinite`
    where fewer than `LEAST` samples are finite.
    """
    before, count = clock.evaluations, len(teacher)
    progress("the plan")
    words = {"solver": str(plan.decisions.get("solver", "table")), "grid": str(plan.decisions.get("grid", "searched"))}
    own = measured(model, plan.tableau, teacher, batch_size, clock, plan.threshold, memo, **words)
    ran_away = int(np.isinf(own.errors[finite(model, teacher)]).sum())
    if len(places := finite(model, teacher, own.errors)) < count:
        own, teacher = own.at(places), teacher.at(places.tolist())
    found = rivals(model, plan.rival_nfe, plan.guidance, teacher, integer, batch_size, clock, memo, progress=progress)
    decider = parse_many(objective)[0]
    if decider.name not in RACED:
        progress(f"baselines by the objective {decider.name}")
        found = replace(found, others=contenders(decider, found, batch_size, clock, memo))
    compared = ratios(own, found, teacher.seed)
    geometric, mean = compared[0], next(each for each in compared if each.measure == MEAN)
    verdict, more, confirming = decide(geometric, mean), None, None
    if decider.name != ENDPOINT:
        progress(f"objective {decider.name}")
        deciding = objective_ratio(decider, plan.tableau, plan.threshold, found, batch_size, clock, memo)
        confirming = confirmation(decider, own, plan.threshold, deciding, found, batch_size, clock, memo)
        compared, verdict = (*compared, confirming, deciding), decide(deciding, confirming)
    elif verdict == "undecided":
        more = needed(geometric, mean, len(teacher))
    if ran_away:
        verdict, more = "worse", None
    ladder = [Rung(nfe=plan.rival_nfe, name=mean.baseline, endpoint_mse=mean.baseline_value)]
    if mean.baseline_value > mean.plan_value:
        ladder += climb(model, found, plan.rival_nfe, mean.plan_value, plan.guidance, integer, batch_size, clock, memo, progress)
    best = found.best(GEOMETRIC)
    real = model.real.gaussian if model.real is not None else None
    return Comparison(
        model=model.name,
        nfe=plan.rival_nfe,
        guidance=plan.guidance,
        start=plan.start,
        samples=len(teacher),
        left_out=count - len(teacher),
        ran_away=ran_away,
        seed=teacher.seed,
        objective=decider.name,
        confirmed_by=confirming.measure if confirming else "",
        verdict=verdict,
        samples_to_decide=more,
        share=intervals.share(own.errors, best.errors),
        ratios=compared,
        price=_price(model, plan, best.table, teacher, batch_size, clock),
        features=model.looks,
        best_baseline=best.name,
        baseline_nfe_for_plan_error=ladder[-1].nfe if ladder[-1].endpoint_mse <= mean.plan_value else None,
        teacher_error=teacher.error,
        teacher_steps=teacher.steps,
        teacher_frechet_data=found.teacher_distance(real),
        variance=_variance(teacher.endpoint if model.data is None else model.data()),
        pairs=len(found.race.candidates),
        evaluations=clock.evaluations - before,
        timing=timing(),
        stages=stages,
        ladder=tuple(ladder),
        rows=tuple(each.row(found.target, real, teacher.seed) for each in (own, *found.measured)),
        nodes=best.table.nodes,
        schedule=tuple(map(model.schedule.node, np.linspace(model.schedule.t_start, model.schedule.t_end, POINTS).tolist())),
    )
