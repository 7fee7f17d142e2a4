"""Whether a plan is better than the best baselines: on the same noise, sample by sample, with what the samples leave open.

    better       the interval of the geometric mean of the error ratio lies below 1, and the mean error does not contradict
    worse        the interval lies above 1, and the mean error does not contradict
    undecided    all else: the intervals hold 1, or most samples say one thing and the mean, which the worst samples decide, another

The mean contradicts where its interval lies on the other side of 1, or its ratio by more than `TOLERATED`. Under another objective the
plan's value over the least one of the baselines decides, by its own interval alone.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from scipy import stats
from torch import Tensor

from solversearch.judging import intervals
from solversearch.judging.measures import Measured, Rivals
from solversearch.judging.objectives import Objective, Outcome
from solversearch.judging.race import FRECHET, GEOMETRIC, MEAN, MEDIAN
from solversearch.memo import NO_MEMO, Memo
from solversearch.models.base import Clock
from solversearch.plan import Interval, Threshold
from solversearch.runtime import Tableau
from solversearch.sampling import sample
from solversearch.schedules import Floats

Verdict = Literal["better", "worse", "undecided"]

TOLERATED = 1.1
"""A mean that is larger by less, inside its interval, does not take back what nearly all samples say."""
GROUPS = 8
"""Of samples, each of which is left out once for the interval of an objective."""


class Ratio(BaseModel):
    """The plan's value over that of the baseline which is best in this measure, with a 95 % interval.

    Of an objective that need not be positive it is the difference instead, and 0 stands for no difference.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    measure: str
    value: float
    low: float
    high: float
    baseline: str
    plan_value: float
    baseline_value: float
    difference: bool = False

    @property
    def sign(self) -> int:
        """-1 where the interval says that the plan's value is less, 1 where it is more, 0 where that is open."""
        same = 0.0 if self.difference else 1.0
        return (self.low > same) - (self.high < same)


def ratios(own: Measured, rivals: Rivals, seed: int) -> tuple[Ratio, ...]:
    """Of each measure, the geometric mean first."""
    compared: dict[str, Callable[[Measured], Interval]] = {
        GEOMETRIC: lambda best: intervals.geometric_ratio(own.errors, best.errors),
        MEAN: lambda best: intervals.mean_ratio(own.errors, best.errors, seed),
        MEDIAN: lambda best: intervals.median_ratio(own.errors, best.errors, seed),
    }
    if (target := rivals.target) is not None:
        compared[FRECHET] = lambda best: own.frechet_ratio(best, target)
    found = []
    for measure, interval in compared.items():
        best = rivals.best(measure)
        values = own.value(measure, target), best.value(measure, target)
        each = interval(best)
        found.append(
            Ratio(measure=measure, value=each.mean, low=each.low, high=each.high, baseline=best.name, plan_value=values[0],
                  baseline_value=values[1])
        )  # fmt: skip
    return tuple(found)


def decide(geometric: Ratio, mean: Ratio) -> Verdict:
    """The verdict where the endpoint error is the objective."""
    if geometric.sign < 0 and not (mean.sign > 0 or mean.value > TOLERATED):
        return "better"
    if geometric.sign > 0 and not (mean.sign < 0 or mean.value < 1 / TOLERATED):
        return "worse"
    return "undecided"


def needed(geometric: Ratio, mean: Ratio, n: int) -> int | None:
    """How many samples would decide what is undecided; None where more samples would not, or nobody would go so far."""
    open_ratio = mean if geometric.sign else geometric
    if open_ratio.sign:  # most samples say one thing and the mean another, and both surely
        return None
    return intervals.samples_to_decide(Interval(mean=open_ratio.value, low=open_ratio.low, high=open_ratio.high), n)


# Other objectives ------------------------------------------------------------------------------------------------------


def objective_ratio(
    objective: Objective, own: Tableau, threshold: Threshold | None, rivals: Rivals, batch_size: int = 512, clock: Clock | None = None,
    memo: Memo = NO_MEMO,
) -> Ratio:  # fmt: skip
    """Of an objective's values on the teacher's samples: the plan against the least of the baselines that were measured in full.

    The interval is the jackknife's, which leaves out one of `GROUPS` groups of samples at a time, of the plan and the baseline alike
    (Shao and Tu 1995, chapter 2). Errors are not tempered here.
    """

    def values(table: Tableau, threshold: Threshold | None, groups: int) -> Floats:
        """On all samples, then without each group: (1 + groups,)."""
        return np.array(memo.numbers(lambda: _values(objective, table, threshold, rivals, batch_size, clock, groups)))

    best = min(rivals.measured, key=lambda each: values(each.table, None, 0)[0])
    ours, theirs = values(own, threshold, GROUPS), values(best.table, None, GROUPS)
    positive = min(ours.min(), theirs.min()) > 0
    apart = np.log(ours / theirs) if positive else ours - theirs
    spread = np.sqrt((GROUPS - 1) / GROUPS * ((apart[1:] - apart[1:].mean()) ** 2).sum())
    half = float(stats.t.ppf((1 + intervals.LEVEL) / 2, GROUPS - 1) * spread)
    ends = [float(np.exp(min(each, 690.0)) if positive else each) for each in (apart[0], apart[0] - half, apart[0] + half)]
    return Ratio(measure=objective.name, value=ends[0], low=ends[1], high=ends[2], baseline=best.name, plan_value=float(ours[0]),
                 baseline_value=float(theirs[0]), difference=not positive)  # fmt: skip


def _values(
    objective: Objective, table: Tableau, threshold: Threshold | None, rivals: Rivals, batch_size: int, clock: Clock | None, groups: int
) -> list[float]:
    model, teacher = rivals.model, rivals.teacher
    states: list[Tensor] = []
    keep = (lambda i, x, prediction: states.append(x)) if "states" in objective.needs else None
    x = sample(model, table, teacher, batch_size, clock, threshold, keep)
    every, found = np.arange(len(teacher)), []
    for some in (every, *(every[every % groups != group] for group in range(groups))):
        here = torch.from_numpy(some).to(x.device)
        visited = tuple(state[here] for state in states) or None
        found.append(objective.value(Outcome(model, teacher.at(some.tolist()), table, x[here], None, visited, batch_size, clock)))
    return found
