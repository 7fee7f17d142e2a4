"""95 % intervals of two samplers' errors on the same noise, one error a sample and sampler.

Errors e are positive and heavy-tailed: 1 % of the samples can carry half of a mean. What does not depend on the tail has intervals that
cover what they say from a few dozen samples on:

    share        P(a < b)                          Wilson 1927, a tie counting as half
    geometric    exp E ln(a / b)                   Student's t of the log ratios
    median       median a / median b               percentile bootstrap, both resampled together

The ratio of the means does, too, but not before the tail has been seen. Its interval is studentised (Efron 1979; Hall 1988), of ln(mean a /
mean b), which covers the most of those tried; where a few samples carry the mean (`carried`), it still is only a lower bound.
"""

from math import exp, inf, log

import numpy as np
from scipy.special import ndtri, stdtrit

from solversearch.plan import Interval
from solversearch.schedules import Floats

RESAMPLES = 1000
LEVEL = 0.95
TINY = 1e-100
"""Stands for an error of zero where a logarithm is taken."""
CARRIED, FEW = 0.1, 256
"""Share of the worst hundredth of the samples from which on they carry a mean; and samples of which the worst are not known."""
MOST = 10**6
"""Samples beyond which nobody would go to decide."""


def share(a: Floats, b: Floats) -> Interval:
    """Of the samples on which a is less than b, (n,) each."""
    wins = (np.sum(a < b) + np.sum(a <= b)) / 2
    n, z = len(a), float(ndtri((1 + LEVEL) / 2))
    centre, half = (wins + z**2 / 2) / (n + z**2), z * np.sqrt(wins * (n - wins) / n + z**2 / 4) / (n + z**2)
    return Interval(mean=float(wins / n), low=float(max(centre - half, 0.0)), high=float(min(centre + half, 1.0)))


def geometric_ratio(a: Floats, b: Floats) -> Interval:
    """Of the geometric means."""
    ratios = np.log(np.maximum(a, TINY)) - np.log(np.maximum(b, TINY))
    half = float(stdtrit(len(a) - 1, (1 + LEVEL) / 2) * ratios.std(ddof=1)) / len(a) ** 0.5
    return _exponential(float(ratios.mean()), -half, half)


def median_ratio(a: Floats, b: Floats, seed: int) -> Interval:
    """Of the medians, the lower one of an even number."""
    low, high = np.quantile(_resampled_medians(a, b, seed), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    value = log(max(lower_median(a), TINY)) - log(max(lower_median(b), TINY))
    return _exponential(value, float(low) - value, float(high) - value)


def mean_ratio(a: Floats, b: Floats, seed: int) -> Interval:
    """Of the means; b of ones gives the mean of a."""
    value, error = (float(each[0]) for each in _log_ratio(a, b, np.full((1, len(a)), 1 / len(a))))
    counts = np.random.default_rng([seed, len(a)]).multinomial(len(a), [1 / len(a)] * len(a), size=RESAMPLES)
    resampled, errors = _log_ratio(a, b, counts / len(a))
    deviations = np.divide(resampled - value, errors, out=np.zeros_like(errors), where=errors > 0)
    high, low = np.quantile(deviations, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return _exponential(value, -float(low) * error, -float(high) * error)


def carried(error: Floats) -> float:
    """The share of the sum that the worst hundredth of the samples has, one sample at least."""
    return float(np.sort(error)[::-1][: worst(len(error))].sum() / max(error.sum(), TINY))


def worst(n: int) -> int:
    return max(1, n // 100)


def is_lower_bound(error: Floats) -> bool:
    """Whether the interval of a mean may miss the truth, which then lies above: a few samples carry it, or there are few samples."""
    return len(error) < FEW or carried(error) > CARRIED


def samples_to_decide(ratio: Interval, n: int) -> int | None:
    """How many samples it takes until the interval leaves 1, the ratio staying as it is; None where nobody would go so far."""
    value = abs(log(max(ratio.mean, TINY)))
    half = log(max(ratio.high, TINY) / max(ratio.low, TINY)) / 2
    needed = n * (half / value) ** 2 if value > 0 else inf
    return None if needed > MOST else max(n + 1, round(1.1 * needed))


def lower_median(values: Floats) -> float:
    return float(np.quantile(values, 0.5, method="lower"))


def _resampled_medians(a: Floats, b: Floats, seed: int, together: int = 2**22) -> Floats:
    """ln of the ratio, of bootstrap samples, (RESAMPLES,)."""
    rng, found = np.random.default_rng([seed, len(a)]), []
    for first in range(0, RESAMPLES, size := max(1, together // len(a))):
        chosen = rng.integers(len(a), size=(min(size, RESAMPLES - first), len(a)))
        medians = [np.maximum(np.quantile(each[chosen], 0.5, axis=1, method="lower"), TINY) for each in (a, b)]
        found.append(np.log(medians[0]) - np.log(medians[1]))
    return np.concatenate(found)


def _log_ratio(a: Floats, b: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """ln of the ratio of weighted means, and its standard error to first order, of each row of weights (R, n) that add up to 1."""
    top, bottom = np.maximum(weights @ a, TINY), np.maximum(weights @ b, TINY)
    squares = (weights @ a**2) / top**2 + (weights @ b**2) / bottom**2 - 2 * (weights @ (a * b)) / (top * bottom)
    return np.log(top) - np.log(bottom), np.sqrt(np.maximum(squares, 0.0) / len(a))


def _exponential(value: float, low: float, high: float) -> Interval:
    """exp, of a value and what its interval has below and above it."""
    return Interval(mean=_exp(value), low=_exp(value + min(low, 0.0)), high=_exp(value + max(high, 0.0)))


def _exp(value: float) -> float:
    return exp(min(max(value, -600.0), 600.0))
