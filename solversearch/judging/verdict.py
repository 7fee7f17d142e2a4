"""Whether a plan is better than the best baselines: on the same noise, sample by sample, with what the samples leave open.

    better       the interval of the geometric mean of the error ratio lies below 1, and the mean error does not contradict
    worse        the interval lies above 1, and the mean error does not contradict
    undecided    all else: the intervals hold 1, or most samples say one thing and the mean, which the worst samples decide, another

The mean contradicts where its interval lies on the other side of 1, or its ratio by more than `TOLERATED`. Under another objective the
plan's value over the least one of the baselines takes the place of the geometric mean, and another metric, on which nothing was searched,
that of the mean: `confirmation`.
"""

from collections.abc import Callable
from dataclasses import replace
from math import log
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from scipy.special import stdtrit
from torch import Tensor

from solversearch.judging import intervals
from solversearch.judging.distances import Moments
from solversearch.judging.intervals import TINY
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
SIDE, SMALL_PICTURES = 8, "Frechet distance of small pictures"
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


def decide(deciding: Ratio, other: Ratio) -> Verdict:
    """What the deciding ratio says, unless the other contradicts: the geometric mean and the mean, or an objective and what confirms it."""
    if not deciding.sign or contradicts(deciding, other):
        return "undecided"
    return "better" if deciding.sign < 0 else "worse"


def contradicts(deciding: Ratio, other: Ratio) -> bool:
    apart = 0.0 if other.difference else log(max(other.value, TINY))
    return deciding.sign * other.sign < 0 or -deciding.sign * apart > log(TOLERATED)


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

    def kept(table: Tableau, threshold: Threshold | None, groups: int) -> Floats:
        return np.array(memo.numbers(lambda: values(objective, table, threshold, rivals, batch_size, clock, groups)))

    best = min(rivals.measured, key=lambda each: kept(each.table, None, 0)[0])
    ours, theirs = kept(own, threshold, GROUPS), kept(best.table, None, GROUPS)
    positive = min(ours.min(), theirs.min()) > 0
    apart = np.log(ours / theirs) if positive else ours - theirs
    spread = np.sqrt((GROUPS - 1) / GROUPS * ((apart[1:] - apart[1:].mean()) ** 2).sum())
    half = float(stdtrit(GROUPS - 1, (1 + intervals.LEVEL) / 2) * spread)
    ends = [float(np.exp(min(each, 690.0)) if positive else each) for each in (apart[0], apart[0] - half, apart[0] + half)]
    return Ratio(measure=objective.name, value=ends[0], low=ends[1], high=ends[2], baseline=best.name, plan_value=float(ours[0]),
                 baseline_value=float(theirs[0]), difference=not positive)  # fmt: skip


def values(
    objective: Objective, table: Tableau, threshold: Threshold | None, rivals: Rivals, batch_size: int = 512, clock: Clock | None = None,
    groups: int = 0,
) -> list[float]:  # fmt: skip
    """An objective's value on all samples, then without each group: (1 + groups,)."""
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


def confirmation(
    objective: Objective, own: Measured, threshold: Threshold | None, compared: Ratio, rivals: Rivals, batch_size: int = 512,
    clock: Clock | None = None, memo: Memo = NO_MEMO,
) -> Ratio:  # fmt: skip
    """What nothing was searched on, of the plan over the baseline that is best in the objective: the Frechet distance of `small_pictures`,
    to the data where the objective is a distance to these, else to the teacher's samples. Of a reference features alone are kept."""
    best = next(each for each in rivals.measured if each.name == compared.baseline)
    real = rivals.model.data if "fid" in objective.name and rivals.model.reference is None else None
    target: Tensor | Moments
    target = small_pictures(rivals.teacher.endpoint) if real is None else Moments.of(small_pictures(real()))

    def seen(each: Measured, limit: Threshold | None) -> Measured:
        def run() -> dict[str, Tensor]:
            return {"features": small_pictures(sample(rivals.model, each.table, rivals.teacher, batch_size, clock, limit))}

        return replace(each, features=memo.tensors(run)["features"])

    ours, theirs = seen(own, threshold), seen(best, None)
    found = ours.frechet_ratio(theirs, target)
    return Ratio(
        measure=SMALL_PICTURES, value=found.mean, low=found.low, high=found.high, baseline=best.name, plan_value=ours.frechet(target),
        baseline_value=theirs.frechet(target),
    )  # fmt: skip


def small_pictures(samples: Tensor) -> Tensor:
    """Features that no network made, (n, F) float64 on the CPU: samples (n, ...) averaged to at most `SIDE` x `SIDE` numbers a channel."""
    samples = samples.double().cpu()
    if samples.ndim > 3:
        height, width = samples.shape[-2:]
        samples = torch.nn.functional.adaptive_avg_pool2d(samples.flatten(1, -3), (min(SIDE, height), min(SIDE, width)))
    return samples.flatten(1)
