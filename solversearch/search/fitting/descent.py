"""Descent on a few numbers that a table is made from: its times, input shifts, compensation ratios.

The way from such a number to the coefficients leads through a solver's rule, so the derivatives are central differences. All the tables
that one gradient needs are run together (`sample_together`), and the noise is paired, so differences are not noise.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from math import inf, isfinite

import numpy as np
from scipy.optimize import minimize

from solversearch.errors import UserError
from solversearch.judging.objectives.endpoint import endpoint_mse, tempered
from solversearch.memo import NO_MEMO, Memo
from solversearch.models.base import Clock, Model, NotFinite
from solversearch.runtime import Tableau
from solversearch.sampling import sample_together
from solversearch.schedules import Floats
from solversearch.teacher import Teacher

_TOO_FAR = 1e6  # in units of the loss at the start
_REACH = 0.05  # of the first step: L-BFGS-B begins with one of length 1


def descend(
    model: Model,
    table: Callable[[Floats], Tableau],
    start: Floats,
    fitting: Teacher,
    validation: Teacher,
    scale: float,
    bounds: Sequence[tuple[float, float]] | None = None,
    step: float = 1e-2,
    ridge: float = 0.0,
    iterations: int = 20,
    batch_size: int = 512,
    clock: Clock | None = None,
    enough: Callable[[], bool] = lambda: False,
    progress: Callable[[int, float], None] = lambda iteration, loss: None,
    memo: Memo = NO_MEMO,
) -> Floats:
    """The numbers (P,) of the least tempered endpoint error on the fitting samples, by L-BFGS-B from `start`.

    step is that of the differences: their error is of the order of its square, and single precision leaves 1e-5 of the slope at 1e-2.
    ridge weighs the mean square distance from 1 (of ratios) in units of the loss at the start; enough() ends it early. Returns the best
    of the iterates, the start included, on the validation teacher: never worse there than the start.
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
        if enough():  # here too, for a line search may take many of these
            raise StopIteration
        apart = step * np.eye(len(x))
        points = [x, *(x + apart), *(x - apart)]
        if bounds is not None:
            points = [np.clip(point, *np.transpose(bounds)) for point in points]
        try:
            here, *around = losses(points, fitting) / unit
        except UserError:  # of a table that cannot be made
            here, around = inf, []
        if not np.isfinite([here, *around]).all():  # a line search went too far: a bad, flat place sends it back
            return _TOO_FAR, np.zeros_like(x)
        up, down = np.split(np.array(around), 2)
        width = np.diagonal(np.array(points[1 : len(x) + 1]) - np.array(points[len(x) + 1 :]))
        slope = np.divide(up - down, width, out=np.zeros_like(x), where=width > 0)
        return here + ridge * float(np.mean((x - 1) ** 2)), slope + 2 * ridge * (x - 1) / len(x)

    unit = max(float(losses([start], fitting)[0]), 1e-300)
    if not isfinite(unit):
        raise NotFinite("the table that the descent starts from is not finite on the fitting samples")
    best, best_loss, iteration = start, float(losses([start], validation)[0]), 0

    def check(intermediate_result: object) -> None:
        nonlocal best, best_loss, iteration
        iteration += 1
        x = start + _REACH * intermediate_result.x  # type: ignore[attr-defined]
        loss = float(losses([x], validation)[0])
        if loss < best_loss:
            best, best_loss = x, loss
        progress(iteration, best_loss)
        if enough():
            raise StopIteration

    def from_start(y: Floats) -> tuple[float, Floats]:
        loss, gradient = loss_and_gradient(start + _REACH * y)
        return loss, _REACH * gradient

    within = None if bounds is None else [((a - x) / _REACH, (b - x) / _REACH) for (a, b), x in zip(bounds, start, strict=True)]
    options = {"maxiter": iterations}
    with suppress(StopIteration):
        minimize(from_start, np.zeros_like(start), jac=True, method="L-BFGS-B", bounds=within, callback=check, options=options)
    return best
