"""Intervals of paired, heavy-tailed errors: their values by formulas of others, and that they cover what they say."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from solversearch.judging import intervals
from solversearch.plan import Interval
from solversearch.schedules import Floats


def heavy(n: int, seed: int, tail: float = 1.0) -> tuple[Floats, Floats]:
    """Log-normal errors of two samplers on the same samples, a hundredth of them in another mode."""
    rng = np.random.default_rng(seed)
    shared, a, b = rng.standard_normal((3, n))
    left = rng.random((2, n)) < 0.01 * tail
    errors = np.exp([shared + 0.5 * a - 1, shared + 0.5 * b]) + 20 * left
    return errors[0], errors[1]


def test_the_share_is_wilsons() -> None:
    a, b = np.arange(50.0), np.full(50, 30.5)
    found = intervals.share(a, b)
    expected = stats.binomtest(31, 50).proportion_ci(method="wilson")
    assert (found.mean, found.low, found.high) == pytest.approx((31 / 50, expected.low, expected.high))


def test_a_tie_is_half_a_win() -> None:
    a, b = np.array([1.0, 1.0, 2.0, 3.0] * 10), np.array([1.0, 2.0, 1.0, 3.0] * 10)
    found = intervals.share(a, b)
    assert found.mean == 0.5 and found.low < 0.5 < found.high and 1 - found.high == pytest.approx(found.low)


def test_the_geometric_ratio_is_students() -> None:
    a, b = heavy(100, 0)
    expected = stats.ttest_rel(np.log(a), np.log(b)).confidence_interval(0.95)
    found = intervals.geometric_ratio(a, b)
    assert found.mean == pytest.approx(stats.gmean(a) / stats.gmean(b))
    assert (found.low, found.high) == pytest.approx((np.exp(expected.low), np.exp(expected.high)))


def test_the_median_ratio_is_scipys_bootstrap() -> None:
    a, b = heavy(201, 1)

    def ratio(a: Floats, b: Floats, axis: int = -1) -> Floats:
        return np.log(np.median(a, axis=axis)) - np.log(np.median(b, axis=axis))

    expected = stats.bootstrap((a, b), ratio, paired=True, n_resamples=5000, method="percentile", rng=0).confidence_interval
    found = intervals.median_ratio(a, b, 0)
    assert found.mean == pytest.approx(np.median(a) / np.median(b))
    assert np.log([found.low, found.high]) == pytest.approx([expected.low, expected.high], abs=0.04)
    assert intervals.median_ratio(a, b, 0) == found != intervals.median_ratio(a, b, 1)


def test_the_mean_ratio_of_light_tails_is_fiellers() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.uniform(1, 2, (2, 2000))
    ratio = a.mean() / b.mean()
    error = float(np.std(a - ratio * b, ddof=1)) / 2000**0.5 / b.mean()
    found = intervals.mean_ratio(a, b, 0)
    assert found.mean == pytest.approx(ratio)
    assert (found.low, found.high) == pytest.approx((ratio - 1.96 * error, ratio + 1.96 * error), abs=0.25 * error)


def test_the_mean_of_one_sampler_is_its_ratio_to_one() -> None:
    a, _ = heavy(500, 3, tail=0)
    found = intervals.mean_ratio(a, np.ones_like(a), 0)
    assert found.mean == pytest.approx(a.mean()) and found.low < a.mean() < found.high
    assert found.high - found.mean > found.mean - found.low  # the tail is above


def test_a_sampler_against_itself_is_surely_one() -> None:
    a, _ = heavy(100, 4)
    for found in (intervals.geometric_ratio(a, a), intervals.mean_ratio(a, a, 0), intervals.median_ratio(a, a, 0)):
        assert (found.mean, found.low, found.high) == (1, 1, 1)


def test_errors_of_zero_have_finite_ratios() -> None:
    a, b = np.zeros(50), np.ones(50)
    for found in (intervals.geometric_ratio(a, b), intervals.mean_ratio(a, b, 0), intervals.median_ratio(a, b, 0)):
        assert 0 < found.mean < 1e-90 and np.isfinite([found.low, found.high]).all()


def test_who_carries_a_mean() -> None:
    error = np.concatenate([np.ones(990), np.full(10, 99.0)])
    assert intervals.carried(error) == pytest.approx(0.5) and intervals.is_lower_bound(error)
    assert not intervals.is_lower_bound(np.ones(1000)) and intervals.is_lower_bound(np.ones(255))
    assert intervals.carried(np.array([1.0, 3.0])) == 0.75  # one sample at least


def test_how_many_samples_would_decide() -> None:
    half = np.log(1.2)
    found = intervals.samples_to_decide(Interval(mean=1.1, low=1.1 / 1.2, high=1.1 * 1.2), 1000)
    assert found == round(1.1 * 1000 * (half / np.log(1.1)) ** 2)
    assert intervals.samples_to_decide(Interval(mean=1.0, low=0.9, high=1.1), 1000) is None
    edge = Interval(mean=2.0, low=1.0, high=4.0)  # as wide as far from 1: as many samples again, or as few as say something
    assert intervals.samples_to_decide(edge, 1000) == 1100 and intervals.samples_to_decide(edge, 10**6) == 1_100_000
    assert intervals.samples_to_decide(Interval(mean=2.0, low=1.9, high=2.1), 1000) == 1001
    assert intervals.samples_to_decide(Interval(mean=1.0001, low=0.5, high=2.0), 1000) is None  # nobody would go so far


@pytest.mark.parametrize("n", [64, 256])
@pytest.mark.parametrize("name", ["share", "geometric", "median"])
def test_intervals_cover_what_they_say(name: str, n: int) -> None:
    """Of 400 draws 372 to 396 (93 to 99 %) are expected to; the bounds leave room for the draws' own chance."""
    estimates: dict[str, Callable[[Floats, Floats], Interval]] = {
        "share": intervals.share, "geometric": intervals.geometric_ratio, "median": lambda a, b: intervals.median_ratio(a, b, 0),
    }  # fmt: skip
    a, b = heavy(400_000, 5)
    truth = {"share": np.mean(a < b), "geometric": stats.gmean(a) / stats.gmean(b), "median": np.median(a) / np.median(b)}[name]
    found = [estimates[name](*heavy(n, 100 + seed)) for seed in range(400)]
    covered = np.mean([each.low <= truth <= each.high for each in found])
    assert 0.92 <= covered <= 0.99


def test_errors_that_move_together_have_a_narrow_ratio() -> None:
    """Its standard error is that of a - r b, by the delta method: what both share does not count."""
    rng = np.random.default_rng(7)
    b = rng.uniform(1, 2, 1000)
    a = 2 * b + 0.01 * rng.standard_normal(1000)
    ratio = a.mean() / b.mean()
    error = float(np.std(a - ratio * b, ddof=1)) / 1000**0.5 / b.mean()
    found = intervals.mean_ratio(a, b, 0)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.15)
    value, spread = intervals._log_ratio(a, b, np.full((1, 1000), 1 / 1000))  # what the interval is studentised with
    assert (value[0], spread[0]) == pytest.approx((np.log(ratio), error / ratio), rel=1e-2)


def test_resampling_in_parts_draws_as_often() -> None:
    a, b = heavy(50, 8)
    whole, parts = intervals._resampled_medians(a, b, 0), intervals._resampled_medians(a, b, 0, together=300 * 50)
    assert len(whole) == len(parts) == intervals.RESAMPLES
    assert np.quantile(parts, [0.1, 0.9]) == pytest.approx(np.quantile(whole, [0.1, 0.9]), abs=0.1)


def test_nobody_goes_beyond_a_million_samples() -> None:
    for half, expected in ((0.3, round(1.1 * 900_000)), (0.5, None)):  # (half / 0.01)^2 times 1,000
        ratio = Interval(mean=np.exp(0.01), low=np.exp(0.01 - half), high=np.exp(0.01 + half))
        assert intervals.samples_to_decide(ratio, 1000) == expected
