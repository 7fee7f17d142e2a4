"""Parameters of a search, each a `Choice`: legal values, random values, nearest values, and what Optuna calls its distribution."""

from collections.abc import Callable
from math import exp, isfinite, log
from typing import TYPE_CHECKING, Any

import numpy as np

from solversearch.spaces.grammar import Choice, Value, same

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def distribution(choice: Choice) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    return CategoricalDistribution(choice.choose) if choice.choose else FloatDistribution(*_range(choice), log=choice.log)


def check(choice: Choice) -> Callable[[Any], bool]:
    if choice.choose:
        choices = {(type(each), each) for each in choice.choose}
        return lambda value: isinstance(value, bool | int | float | str) and (type(value), value) in choices
    low, high = _range(choice)
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and low <= value <= high


def allowed(choice: Choice) -> str:
    return f"one of {', '.join(map(str, choice.choose))}" if choice.choose else "a number from {:g} to {:g}".format(*_range(choice))


def drawn(choice: Choice, rng: np.random.Generator) -> Value:
    if choice.choose:
        return choice.choose[int(rng.integers(len(choice.choose)))]
    low, high = _range(choice)
    return min(max(exp(rng.uniform(log(low), log(high))), low), high) if choice.log else float(rng.uniform(low, high))


def closest(choice: Choice, wanted: Any) -> Value:
    """The legal value that is wanted, or the number nearest to it, or the first."""
    if not choice.choose and isinstance(wanted, str):
        wanted = {"data": 0.0, "noise": 1.0}.get(wanted)  # a prediction whose share is continuous
    numeric = isinstance(wanted, int | float) and not isinstance(wanted, bool)
    if not choice.choose:
        low, high = _range(choice)
        return min(max(float(wanted), low), high) if numeric else low
    if any(same(each, wanted) for each in choice.choose):
        return next(each for each in choice.choose if same(each, wanted))
    numbers = [each for each in choice.choose if isinstance(each, int | float) and not isinstance(each, bool)]
    return min(numbers, key=lambda each: abs(each - wanted)) if numeric and numbers else choice.first


def idle(choice: Choice, default: Value) -> Value:
    return choice.first if choice.fixed or not choice.allows(default) else default


def _range(choice: Choice) -> tuple[float, float]:
    assert choice.low is not None and choice.high is not None
    return choice.low, choice.high
