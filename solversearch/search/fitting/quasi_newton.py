"""Quasi-Newton minimisation (scipy's) that keeps the iterate which is best on other noise than the one it goes down on."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from solversearch.schedules import Floats

TOO_FAR = 1e6
"""Where a table runs away, in units of the loss at the start: a bad, flat place sends a line search back."""


def best_iterate(
    loss_and_gradient: Callable[[Floats], tuple[float, Floats]], validated: Callable[[Floats], float], start: Floats, method: str,
    iterations: int, every: int = 1, enough: Callable[[], bool] = lambda: False,
    progress: Callable[[int, float], None] = lambda iteration, loss: None, bounds: Sequence[tuple[float, float]] | None = None,
    **options: float,
) -> Floats:  # fmt: skip
    """The iterate (P,) of least `validated`, the start included; options are those of scipy's method.

    It ends after so many iterations, or anywhere where enough() holds. Every so many iterations are validated, and told to progress with
    the least value so far.
    """
    from scipy.optimize import minimize

    best, best_loss, iteration = start, validated(start), 0

    def function(x: Floats) -> tuple[float, Floats]:
        if enough():  # here too, for a line search may take twenty of these
            raise StopIteration
        return loss_and_gradient(x)

    def check(intermediate_result: Any) -> None:
        nonlocal best, best_loss, iteration
        iteration += 1
        if iteration % every:
            return
        x = intermediate_result.x.copy()
        loss = validated(x)
        if loss < best_loss:
            best, best_loss = x, loss
        progress(iteration, best_loss)
        if enough():
            raise StopIteration

    options["maxiter"] = iterations
    with suppress(StopIteration):
        minimize(function, start, jac=True, method=method, bounds=bounds, callback=check, options=options)
    return best
