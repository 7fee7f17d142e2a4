"""Parameters of a search: their distributions, legal values, random values and nearest values."""

from collections.abc import Callable
from math import exp, isfinite, log
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from solversearch.spaces.grammar import Choice, Value, same


def distribution(name: str, choice: Choice) -> dict[str, BaseDistribution]:
    """None for a decision without choice."""
    if choice.fixed:
        return {}
    if choice.choose:
        return {name: CategoricalDistribution(choice.choose)}
    assert choice.low is not None and choice.high is not None
    return {name: FloatDistribution(choice.low, choice.high, log=choice.log)}


def check(distribution: BaseDistribution) -> Callable[[Any], bool]:
    if isinstance(distribution, CategoricalDistribution):
        choices = {(type(choice), choice) for choice in distribution.choices}
        return lambda value: isinstance(value, bool | int | float | str) and (type(value), value) in choices
    assert isinstance(distribution, FloatDistribution)
    low, high = distribution.low, distribution.high
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and low <= value <= high


def allowed(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return "one of " + ", ".join(map(str, distribution.choices))
    assert isinstance(distribution, FloatDistribution)
    return f"a number from {distribution.low:g} to {distribution.high:g}"


def drawn(distribution: BaseDistribution, rng: np.random.Generator) -> Value:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(rng.integers(len(distribution.choices)))]  # type: ignore[return-value]  # never None
    assert isinstance(distribution, FloatDistribution)
    low, high = distribution.low, distribution.high
    if distribution.log:
        return min(max(exp(rng.uniform(log(low), log(high))), low), high)
    return float(rng.uniform(low, high))


def closest(distribution: BaseDistribution, wanted: Any) -> Value:
    """The legal value that is wanted, or the number nearest to it, or the first."""
    if isinstance(distribution, FloatDistribution) and isinstance(wanted, str):
        wanted = {"data": 0.0, "noise": 1.0}.get(wanted)  # a prediction whose share is continuous
    numeric = isinstance(wanted, int | float) and not isinstance(wanted, bool)
    if isinstance(distribution, FloatDistribution):
        return min(max(float(wanted), distribution.low), distribution.high) if numeric else distribution.low
    assert isinstance(distribution, CategoricalDistribution)
    choices: list[Any] = [choice for choice in distribution.choices if choice is not None]
    if any(same(choice, wanted) for choice in choices):
        return next(choice for choice in choices if same(choice, wanted))
    numbers = [choice for choice in choices if isinstance(choice, int | float) and not isinstance(choice, bool)]
    return min(numbers, key=lambda choice: abs(choice - wanted)) if numeric and numbers else choices[0]


def idle(choice: Choice, default: Value) -> Value:
    return choice.first if choice.fixed or not choice.allows(default) else default
