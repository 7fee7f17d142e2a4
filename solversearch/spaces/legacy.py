"""How the first search driver asks for candidates. To be removed with it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna import Trial

from solversearch.runtime import Node
from solversearch.schedules import NoiseSchedule
from solversearch.solvers.mixed import Decision
from solversearch.spaces.candidate import Candidate
from solversearch.spaces.domain import CLOSEST, fractions_of, ranges, times_at


class Legacy:
    def suggest(self, trial: Trial, schedule: NoiseSchedule, integer: bool, ranges: Sequence[tuple[float, float]]) -> Candidate:
        space: Any = self
        fractions = sorted((trial.suggest_float(f"time_{i}", *bounds) for i, bounds in enumerate(ranges)), reverse=True)
        solver = trial.suggest_categorical("solver", space.solver.choose)
        prediction = trial.suggest_categorical("prediction", space.prediction.choose)
        corrector = trial.suggest_categorical("corrector", space.corrector.choose)
        orders = [trial.suggest_categorical(f"order_{i}", space.order.choose) for i in range(len(ranges))]
        ridge = trial.suggest_float("ridge", space.ridge.low, space.ridge.high, log=True)
        decisions = tuple(Decision(solver, order, prediction, corrector=corrector) for order in orders)
        n = len(orders)
        times = tuple(times_at(schedule, fractions, integer and schedule.discrete).tolist())
        return Candidate(times, decisions, (0.0,) * n, (1.0,) * n, False, ridge)

    @classmethod
    def ranges(cls, schedule: NoiseSchedule, starts: Sequence[Sequence[Node]]) -> list[tuple[float, float]]:
        return list(ranges(schedule, len(starts[0]), starts))

    @staticmethod
    def seed(schedule: NoiseSchedule, nodes: Sequence[Node]) -> dict[str, Any]:
        places = fractions_of(schedule, [node.t for node in nodes])
        return {f"time_{i}": float(np.clip(place + CLOSEST * i, 0, 1)) for i, place in enumerate(places)}
