"""Descent on a few numbers that a table is made from: its times, input shifts, compensation ratios.

The way from such a number to the coefficients leads through a solver's rule, so the derivatives are central differences. All the tables
that one gradient needs are run together (`sample_together`), and the noise is paired, so differences are not noise.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import inf, isfinite

import numpy as np

from solversearch.errors import Halted, UserError
from solversearch.judging.objectives.endpoint import endpoint_mse, tempered
from solversearch.memo import NO_MEMO, Memo
from solversearch.models.base import Clock, Model, NotFinite
from solversearch.runtime import Tableau
from solversearch.sampling import sample_together
from solversearch.schedules import Floats
from solversearch.search.fitting.quasi_newton import TOO_FAR, best_iterate
from solversearch.teacher import Teacher

REACH = 0.05
"""Length of the first step, which L-BFGS-B makes 1 long: a twentieth of a range stays where differences tell."""
STEP = 1e-2
"""Of the differences: their error is of the order of its square, and single precision leaves 1e-5 of the slope."""
ITERATIONS = 20
"""Each costs two tables a number, and more in a line search."""


def descend(
    model: Model, table: Callable[[Floats], Tableau], start: Floats, fitting: Teacher, validation: Teacher, scale: float,
    bounds: Sequence[tuple[float, float]] | None = None, ridge: float = 0.0, iterations: int = ITERATIONS, batch_size: int = 512,
    clock: Clock | None = None, enough: Callable[[], bool] = lambda: False,
    progress: Callable[[int, float], None] = lambda iteration, loss: None, memo: Memo = NO_MEMO,
) -> Floats:  # fmt: skip
    """The numbers (P,) of the least tempered endpoint error on the fitting samples, by L-BFGS-B from `start`.

    ridge weighs the mean square distance from 1 (of ratios) in units of the loss at the start; enough()
    ends it early. Returns the best of the iterates, the start included, on the validation teacher: never worse there than the start.
    """

    def losses(points: Sequence[Floats], teacher: Teacher) -> Floats:
        """Infinite where a table runs away; as many at a time as a network batch has room for."""
        tables, values = [table(point) for point in points], list[float]()
        together = max(1, batch_size // len(teacher))
        for first in range(0, len(tables), together):
            values += memo.numbers(partial(errors, tables[first : first + together], teacher))
        return np.array(values)

    def errors(tables: Sequence[Tableau], teacher: Teacher) -> list[float]:
        values: list[float] = []
        for samples in sample_together(model, tables, teacher, batch_size, clock):
            if isinstance(samples, UserError):
                values.append(inf)
            elif isinstance(samples, Exception):
                raise samples
            else:
                values.append(float(tempered(endpoint_mse(samples, teacher.endpoint), scale).mean()))
        return values

    def loss_and_gradient(x: Floats) -> tuple[float, Floats]:
        apart = STEP * np.eye(len(x))
        points = [x, *(x + apart), *(x - apart)]
        if bounds is not None:
            points = [np.clip(point, *np.transpose(bounds)) for point in points]
        try:
            here, *around = losses(points, fitting) / unit
        except Halted:
            raise
        except UserError:  # of a table that cannot be made
            here, around = inf, []
        if not np.isfinite([here, *around]).all():
            return TOO_FAR, np.zeros_like(x)
        up, down = np.split(np.array(around), 2)
        width = np.diagonal(np.array(points[1 : len(x) + 1]) - np.array(points[len(x) + 1 :]))
        slope = np.divide(up - down, width, out=np.zeros_like(x), where=width > 0)
        return here + ridge * float(np.mean((x - 1) ** 2)), slope + 2 * ridge * (x - 1) / len(x)

    unit = max(float(losses([start], fitting)[0]), 1e-300)
    if not isfinite(unit):
        raise NotFinite("the table that the descent starts from is not finite on the fitting samples")

    def from_start(y: Floats) -> tuple[float, Floats]:
        loss, gradient = loss_and_gradient(start + REACH * y)
        return loss, REACH * gradient

    within = None if bounds is None else [((a - x) / REACH, (b - x) / REACH) for (a, b), x in zip(bounds, start, strict=True)]
    best = best_iterate(
        from_start, lambda y: float(losses([start + REACH * y], validation)[0]), np.zeros_like(start), "L-BFGS-B", iterations,
        enough=enough, progress=progress, bounds=within,
    )  # fmt: skip
    return start + REACH * best
