"""Descent on a few numbers."""

from dataclasses import replace

import numpy as np

from solversearch.grids import explicit
from solversearch.models.base import Clock, Model
from solversearch.runtime import Tableau
from solversearch.sampling import sample
from solversearch.schedules import Floats
from solversearch.search.fitting.descent import descend
from solversearch.solvers import get
from solversearch.teacher import Teacher
from tests.search.fitting.test_fit import mean_error


def table_of(model: Model, x: Floats) -> Tableau:
    """DPM-Solver++(2M) at three fractions of the range of positions."""
    last, first = model.schedule.position([model.schedule.t_end, model.schedule.t_start])
    times = model.schedule.time_at(last + np.sort(x)[::-1] * (first - last))
    return get("dpmpp_2m").tableau(model.schedule, explicit(model.schedule, times.tolist()))


def test_finds_better_times(digits: Model, fitting: Teacher, validation: Teacher, held_out: Teacher) -> None:
    start, clock, seen = np.array([0.95, 0.6, 0.2]), Clock(), []
    x = descend(
        digits, lambda x: table_of(digits, x), start, fitting.first(64), validation, 1e-2, [(0.0, 1.0)] * 3, iterations=8, clock=clock,
        progress=lambda i, loss: seen.append(loss),
    )  # fmt: skip
    assert mean_error(digits, table_of(digits, x), held_out) < 0.8 * mean_error(digits, table_of(digits, start), held_out)
    assert seen == sorted(seen, reverse=True) and clock.evaluations > 0
    assert np.all((x >= 0) & (x <= 1))


def test_ends_with_the_best_of_the_iterates_on_validation_noise(digits: Model, fitting: Teacher) -> None:
    """Whichever of them that is: here validation asks for the samples of the start, then for those of the second iterate."""
    start, seen = np.array([0.95, 0.6, 0.2]), list[float]()

    def found(iterations: int, validation: Teacher) -> Floats:
        seen.clear()
        return descend(
            digits, lambda x: table_of(digits, x), start, fitting, validation, 1e-2, iterations=iterations,
            progress=lambda i, loss: seen.append(loss),
        )  # fmt: skip

    second = found(2, fitting)
    assert seen[1] < seen[0] and not np.array_equal(second, start)
    for wanted in (start, second):
        samples = sample(digits, table_of(digits, wanted), fitting)
        assert np.array_equal(found(5, replace(fitting, endpoint=samples)), wanted)
        assert len(seen) == 5 and seen[2:] == [0.0] * 3


def test_ends_when_told(digits: Model, fitting: Teacher, validation: Teacher) -> None:
    seen: list[int] = []
    descend(
        digits, lambda x: table_of(digits, x), np.array([0.95, 0.6, 0.2]), fitting.first(32), validation.first(32), 1e-2,
        enough=lambda: len(seen) >= 2, progress=lambda i, loss: seen.append(i),
    )  # fmt: skip
    assert seen == [1, 2]
