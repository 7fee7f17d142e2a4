"""The best of all baselines, found by racing them on the same noise: measured in full is only what could be the best.

Errors are heavy-tailed, so that a few samples decide a mean. Two kinds of samples are therefore looked at:

    hard    where the leaders, which are measured in full, have the largest errors: every baseline in the race runs on all of them
    others  the first 8, 16, 32 ... of the rest, each standing for as many samples as are not hard

and every value is that of the weighted sample. Whichever leads in a measure after a round is measured in full: where it is bad may not
have been seen. After each round a baseline is dropped when it can no longer be the best in *any* of the measures: when its value over the
least one, on the same samples, lies above 1 by more than `DEVIATIONS` standard errors (of a jackknife that leaves out groups of the other
samples; Shao and Tu 1995, chapter 2). The first round alone drops what is surely `COARSE` times worse in the geometric mean, whatever its
other values. What is left at the end has been measured on all samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from solversearch.judging.baselines import Baseline
from solversearch.judging.distances import FrechetToTwins
from solversearch.judging.intervals import TINY
from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.memo import NO_MEMO, Memo
from solversearch.models.base import Clock, Model, NotFinite
from solversearch.runtime import Tableau
from solversearch.sampling import sample_together
from solversearch.schedules import Floats
from solversearch.teacher import Teacher

Places = NDArray[np.int_]
"""Of samples, (n,)."""

MEAN, MEDIAN, GEOMETRIC, FRECHET = "mean", "median", "geometric mean", "Frechet distance"
FIRST, SMALL = 8, 4
"""Samples of the first round; of fewer than `MANY` in all."""
MANY = 512
HARD, HARD_SHARE = 10, 8
"""Hard samples: so many, but at most one in HARD_SHARE."""
MORE = 4
"""Hard samples of whatever leads later."""
LEADERS = ((GEOMETRIC, 2), (MEAN, 1))
"""The best of the first round, which say what is hard."""
COARSE, CARRIED = 12.0, 3.0
"""What surely is so many times worse than the best in the geometric mean after the first round is dropped at
once; or, where there is a target to reach."""
CLOSE = 2
"""Rounds after the first that something is in the race to be worth trying at the next NFE; none where there is a target to reach."""
DEVIATIONS, GROUPS = 3.25, 8
BLUR = 1.0
"""Least variance, times samples, of ln of a Frechet distance: what is wrong with covariances of a few samples, no group left out shows."""
WORTH, ROUGHLY = 0.981, 0.9
"""A baseline that cannot be better than the least value by this factor is not worth going on with; where there is a target to reach, the
second is enough."""


class Runs:
    """Errors (tables, samples) of tables on a teacher's samples, and features, as far as they have been run; NaN is not yet.

    A table that runs away on a sample has an infinite error there.
    """

    def __init__(
        self, model: Model, tables: Sequence[Tableau], teacher: Teacher, batch_size: int = 512, clock: Clock | None = None,
        memo: Memo = NO_MEMO,
    ) -> None:  # fmt: skip
        self.model, self.tables, self.teacher, self.batch_size, self.clock, self.memo = model, tables, teacher, batch_size, clock, memo
        self.errors = np.full((len(tables), len(teacher)), np.nan)
        self._features: dict[int, dict[int, Tensor]] = {}
        self.target = None if model.features is None else model.features(teacher.endpoint.clone()).cpu()

    def see(self, tables: Sequence[int], samples: Places) -> None:
        """Runs tables on those of the samples that each has not seen, as many together as a network batch has room for."""
        groups: dict[bytes, list[int]] = {}
        for table in tables:
            groups.setdefault(np.isnan(self.errors[table, samples]).tobytes(), []).append(table)
        for mask, group in groups.items():
            missing = samples[np.frombuffer(mask, bool)]
            together = max(1, self.batch_size // max(len(missing), 1))
            for first in range(0, len(group), together):
                for start in range(0, len(missing), self.batch_size):
                    self._see(group[first : first + together], missing[start : start + self.batch_size])

    def features(self, table: int, samples: Places) -> Tensor:
        """(n, F) float64, of samples that the table has seen."""
        seen = self._features[table]
        return torch.stack([seen[place] for place in samples.tolist()]).double()

    def _see(self, tables: Sequence[int], samples: Places) -> None:
        made = self.memo.tensors(partial(self._run, tables, samples))
        for k, table in enumerate(tables):
            self.errors[table, samples] = made["errors"][k].numpy()
            if self.target is not None:
                self._features.setdefault(table, {}).update(zip(samples.tolist(), made["features"][k], strict=True))

    def _run(self, tables: Sequence[int], samples: Places) -> dict[str, Tensor]:
        some, features = self.teacher.at(samples.tolist()), self.model.features
        outputs = sample_together(self.model, [self.tables[k] for k in tables], some, self.batch_size, self.clock, lenient=True)
        runaway = torch.full_like(some.endpoint, torch.nan)
        found = [runaway if isinstance(output, Exception) else output for output in outputs]
        errors = torch.stack([endpoint_mse(x, some.endpoint) for x in found]).nan_to_num(nan=torch.inf)
        if features is None:
            return {"errors": errors}
        return {"errors": errors, "features": torch.stack([features(x).cpu() for x in found])}


@dataclass
class Race:
    """What came of a race: places of tables. finalists were measured in full, close are worth trying at the next NFE."""

    candidates: Sequence[Baseline]
    runs: Runs
    finalists: list[int]
    close: list[int]
    hard: Places

    def baseline(self, table: int) -> Baseline:
        """The first with this table: at few evaluations several solvers are the same."""
        return next(each for each in self.candidates if each.table == self.runs.tables[table])

    def carried(self) -> set[tuple[str, str]]:
        """The pairs of solver and grid that are worth trying at the next NFE."""
        tables = {self.runs.tables[k] for k in self.close}
        return {(each.solver, each.grid) for each in self.candidates if each.table in tables}


def race(
    model: Model, candidates: Sequence[Baseline], teacher: Teacher, measures: Sequence[str], batch_size: int = 512,
    clock: Clock | None = None, memo: Memo = NO_MEMO, hard: Places | None = None, target: float | None = None,
    progress: Callable[[int, int], None] = lambda tables, samples: None,
) -> Race:  # fmt: skip
    """The race of the candidates on a teacher's samples; hard samples may be those of an earlier race on the same teacher.

    With a target the race ends when one is found whose mean error is at most that; else the best is found within `ROUGHLY`.
    progress is told how many tables are about to be run, on how many samples.
    Raises `NotFinite` where no candidate has a finite error on every sample that it was tried on.
    """
    tables, n = list(dict.fromkeys(candidate.table for candidate in candidates)), len(teacher)
    runs = Runs(model, tables, teacher, batch_size, clock, memo)
    first, everyone = np.arange(first_round(n)), list(range(len(tables)))
    progress(len(everyone), len(first))
    runs.see(everyone, first)
    if not np.isfinite(runs.errors[:, first]).all(1).any():
        raise NotFinite(f"the network of {model.name!r} returned NaN or inf with every baseline; check its weights and dtype")
    if len(first) == n:
        return Race(candidates, runs, everyone, everyone, first[:0])
    leaders: list[int] = []
    if hard is None:
        for measure, count in LEADERS:
            values = _values(runs, measure, everyone, first, np.ones((1, len(first))))[:, 0]
            leaders += [k for k in np.argsort(values, kind="stable")[:count].tolist() if k not in leaders]
        runs.see(leaders, np.arange(n))
        hard = _hardest(runs.errors[leaders], hard_samples(n))
    worse, size, rounds = _times_worse(runs, everyone, first), len(first), 0
    close = going = [k for k in everyone if worse[k] <= (COARSE if target is None else CARRIED) or k in leaders]
    while size < n and len(set(going) - set(leaders)):
        seen = np.union1d(hard, np.arange(size))
        progress(len(going), len(seen))
        runs.see(going, seen)
        still, best = _still(runs, going, measures, hard, size, target)
        if new := sorted(best - set(leaders)):  # before anything is dropped in favour of them
            runs.see(new, np.arange(n))
            leaders += new
            hard = np.unique([*hard, *(place for k in new for place in _hardest(runs.errors[[k]], MORE))])
            runs.see(going, hard)
            still, _ = _still(runs, going, measures, hard, size, target)
        going, rounds = still, rounds + 1
        if target is None and rounds <= CLOSE:
            close = going
        if target is not None and leaders and runs.errors[leaders].mean(1).min() <= target:
            going = []
        size *= 2
    progress(len(going), n)
    runs.see(going, np.arange(n))
    return Race(candidates, runs, sorted({*leaders, *going}), close, hard)


def first_round(n: int) -> int:
    """Samples on which everything is run."""
    return min(n, FIRST if n >= MANY else SMALL)


def hard_samples(n: int) -> int:
    return min(HARD, n // HARD_SHARE)


def _hardest(errors: Floats, count: int) -> Places:
    """Where tables have the largest errors, each in units of its mean."""
    finite = errors[np.isfinite(errors).all(1)]
    relative = (finite / np.maximum(finite.mean(1, keepdims=True), TINY)).sum(0)
    return np.sort(np.argsort(-relative, kind="stable")[:count])


def _times_worse(runs: Runs, tables: Sequence[int], samples: Places) -> Floats:
    """How many times the geometric mean of each is that of the best, at least; NaN of those that run away."""
    logs = np.log(np.maximum(runs.errors[tables][:, samples], TINY))
    apart = logs - logs[int(np.argmin(np.where(np.isfinite(logs).all(1), logs.mean(1), np.inf)))]
    with np.errstate(invalid="ignore", over="ignore"):
        return np.exp(apart.mean(1) - DEVIATIONS * apart.std(1, ddof=1) / len(samples) ** 0.5)


def _still(
    runs: Runs, going: Sequence[int], measures: Sequence[str], hard: Places, size: int, target: float | None
) -> tuple[list[int], set[int]]:
    """Those that may be the best in some measure (or as good as the target), as far as the hard samples and the first `size` tell; and
    those that are the best so far."""
    n, others = len(runs.teacher), np.setdiff1d(np.arange(size), hard)
    groups = min(GROUPS, len(others))
    if groups < 2:
        return list(going), set()
    weights = _weights(n, len(hard), len(others), groups)
    kept, leading = np.zeros(len(going), bool), set()
    for measure in measures:
        values = _values(runs, measure, going, np.concatenate([hard, others]), weights)
        if not np.isfinite(values[:, 0]).any():
            continue
        best = int(np.argmin(np.where(np.isfinite(values[:, 0]), values[:, 0], np.inf)))
        with np.errstate(invalid="ignore"):
            apart = values - values[best]
            worth = WORTH if target is None else np.clip(target / np.exp(values[best, 0]), ROUGHLY, WORTH)
            spread = ((apart[:, 1:] - apart[:, 1:].mean(1, keepdims=True)) ** 2).sum(1) * (groups - 1) / groups
            least = BLUR / len(others) if measure == FRECHET else 0.0
            error = np.sqrt(np.maximum(spread, least) * (1 - len(others) / (n - len(hard))))  # all samples are a finite population
            kept |= apart[:, 0] - DEVIATIONS * error <= np.log(worth)
        kept[best] = True
        leading.add(going[best])
    return [table for table, keep in zip(going, kept, strict=True) if keep], leading


def _weights(n: int, hard: int, others: int, groups: int) -> Floats:
    """How many of n samples each stands for: with all the others, then without one of their groups each. (1 + groups, hard + others)"""
    weights = np.ones((1 + groups, hard + others))
    for row, left_out in zip(weights[:, hard:], range(-1, groups), strict=True):
        kept = np.arange(others) % groups != left_out
        row[:] = kept * (n - hard) / kept.sum()
    return weights


def _values(runs: Runs, measure: str, tables: Sequence[int], samples: Places, weights: Floats) -> Floats:
    """ln of a measure of each table, with each row of weights (W, n): (tables, W); NaN or inf where a table runs away."""
    errors, share = runs.errors[tables][:, samples], weights / weights.sum(1, keepdims=True)
    with np.errstate(invalid="ignore"):
        if measure == MEAN:
            return np.log(np.maximum(errors @ share.T, TINY))
        if measure == GEOMETRIC:
            return np.log(np.maximum(errors, TINY)) @ share.T
    if measure == MEDIAN:
        order = np.argsort(errors, axis=1, kind="stable")
        sums = np.cumsum(share.T[order], axis=1)  # (tables, n, W)
        middle = (sums >= 0.5 - 1e-12).argmax(1)
        return np.log(np.maximum(np.take_along_axis(errors, np.take_along_axis(order, middle, 1), 1), TINY))
    assert runs.target is not None and measure == FRECHET
    distance = FrechetToTwins(runs.target[torch.from_numpy(samples)].double(), torch.from_numpy(weights))
    found = [runs.features(table, samples) for table in tables]
    infinite = torch.full((len(weights),), torch.inf, dtype=torch.float64)
    distances = torch.stack([distance(x) if bool(x.isfinite().all()) else infinite for x in found])
    return np.log(np.maximum(distances.numpy(), TINY))
