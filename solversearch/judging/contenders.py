"""The baselines that may be best in an objective that is no error, which `race` has no eye for: a sampler that leaves the teacher's path is
dropped there in the first round, though its samples may be the most like real ones.

Of each solver runs the grid of its least geometric mean error in the race's first round; of a stochastic solver, whose errors say nothing,
every grid. Their objective's values on more and more samples leave a quarter each time, and the last are measured in full.
"""

from dataclasses import replace
from functools import partial
from math import inf

import numpy as np

from solversearch.judging.baselines import Baseline, screening
from solversearch.judging.intervals import TINY
from solversearch.judging.measures import Measured, Rivals, measured
from solversearch.judging.objectives import Objective
from solversearch.judging.race import first_round
from solversearch.judging.verdict import values
from solversearch.memo import NO_MEMO, Memo
from solversearch.models.base import Clock
from solversearch.sampling import FAILURES
from solversearch.solvers import SOLVERS

KEPT = 4
"""One in so many goes on to as many times the samples."""


def contenders(
    objective: Objective, rivals: Rivals, batch_size: int = 512, clock: Clock | None = None, memo: Memo = NO_MEMO
) -> list[Measured]:
    """Those that the race has not measured in full already, none of which ran away on any sample."""
    going, count = _entered(rivals), screening(len(rivals.teacher))
    while count < len(rivals.teacher):
        some = replace(rivals, teacher=rivals.teacher.first(count))
        worth = {each: memo.numbers(partial(_value, objective, each, some, batch_size, clock))[0] for each in going}
        going, count = sorted(going, key=worth.__getitem__)[: max(KEPT, len(going) // KEPT)], KEPT * count
    known, found = {each.table for each in rivals.measured}, []
    for each in going:
        if each.table not in known:
            own = measured(
                rivals.model, each.table, rivals.teacher, batch_size, clock, None, memo, name=each.name, solver=each.solver, grid=each.grid
            )
            found.append(replace(own, kind="baseline"))
    return [each for each in found if np.isfinite(each.errors).all()]


def _entered(rivals: Rivals) -> list[Baseline]:
    """One a table."""
    runs, first = rivals.race.runs, np.arange(first_round(len(rivals.teacher)))
    errors = {table: float(np.log(np.maximum(own, TINY)).mean()) for table, own in zip(runs.tables, runs.errors[:, first], strict=True)}
    chosen: dict[str, Baseline] = {}
    for each in sorted(rivals.race.candidates, key=lambda each: errors[each.table]):
        chosen.setdefault(each.name if SOLVERS[each.solver].stochastic else each.solver, each)
    return list({each.table: each for each in reversed(chosen.values())}.values())


def _value(objective: Objective, each: Baseline, rivals: Rivals, batch_size: int, clock: Clock | None) -> list[float]:
    try:
        return values(objective, each.table, None, rivals, batch_size, clock)
    except FAILURES:
        return [inf]
