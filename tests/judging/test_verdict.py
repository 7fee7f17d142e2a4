"""Better, worse or undecided: by hand-made ratios, by errors whose answer is known, and under another objective."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg, stats

from solversearch.judging.baselines import baselines
from solversearch.judging.contenders import contenders
from solversearch.judging.measures import Measured, Rivals, rivals
from solversearch.judging.objectives import Objective, Outcome, parse
from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.judging.race import FRECHET, GEOMETRIC, MEAN, MEDIAN
from solversearch.judging.verdict import Ratio, confirmation, decide, needed, objective_ratio, ratios, small_pictures
from solversearch.models.base import Model
from solversearch.runtime import Tableau
from solversearch.sampling import sample
from solversearch.schedules import Floats
from solversearch.teacher import Teacher, teach


@pytest.fixture(scope="module")
def teacher(coins: Model) -> Teacher:
    return teach(coins, "held_out", 256, trajectory=False)


@pytest.fixture(scope="module")
def found(coins: Model, teacher: Teacher) -> Rivals:
    return rivals(coins, 4, 1.0, teacher)


Ends = tuple[float, float, float]


def ratio(value: float, low: float, high: float, difference: bool = False) -> Ratio:
    return Ratio(measure="x", value=value, low=low, high=high, baseline="b", plan_value=1, baseline_value=1, difference=difference)


@pytest.mark.parametrize(
    ("geometric", "mean", "verdict"),
    [
        ((0.5, 0.4, 0.6), (0.6, 0.4, 0.9), "better"),
        ((0.5, 0.4, 0.6), (0.9, 0.4, 1.9), "better"),
        ((0.5, 0.4, 0.6), (1.05, 0.4, 1.9), "better"),  # within what is tolerated, and the mean is open
        ((0.5, 0.4, 0.6), (1.05, 1.01, 1.1), "undecided"),  # the mean is surely larger
        ((0.99, 0.985, 0.995), (2.9, 0.9, 5.0), "undecided"),  # three times worse in the mean
        ((0.5, 0.4, 0.6), (2.9, 1.5, 5.0), "undecided"),
        ((0.9, 0.8, 1.01), (0.5, 0.4, 0.6), "undecided"),
        ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0), "undecided"),
        ((3.0, 2.5, 3.5), (0.999, 0.7, 1.3), "worse"),  # a thousandth better in the mean, three times worse on most samples
        ((3.0, 2.5, 3.5), (0.5, 0.4, 0.7), "undecided"),
        ((3.0, 2.5, 3.5), (2.0, 0.4, 4.0), "worse"),
        ((1.1, 1.02, 1.2), (0.8, 0.5, 1.3), "undecided"),
    ],
)
def test_verdicts(geometric: Ends, mean: Ends, verdict: str) -> None:
    assert decide(ratio(*geometric), ratio(*mean)) == verdict


def test_how_many_samples_would_decide() -> None:
    open_ratio = ratio(0.9, 0.9 / 1.2, 0.9 * 1.2)
    expected = round(1.1 * 500 * (np.log(1.2) / np.log(0.9)) ** 2)
    assert needed(open_ratio, ratio(1, 0.5, 2), 500) == expected
    assert needed(ratio(0.5, 0.4, 0.6), ratio(1.2, 1 / 1.1, 1.2**2 * 1.1), 500) == round(1.1 * 500 * (np.log(1.2 * 1.1) / np.log(1.2)) ** 2)
    assert needed(ratio(0.5, 0.4, 0.6), ratio(2, 1.5, 3), 500) is None  # both are sure, and contradict each other


def test_the_sign_of_a_difference_is_by_zero() -> None:
    differences: list[Ends] = [(-1, -2, -0.5), (1, 0.5, 2), (0.1, -1, 1)]
    found: list[Ends] = [(0.5, 0.4, 0.6), (2, 1.5, 3), (1, 0.5, 2)]
    assert [ratio(a, b, c, difference=True).sign for a, b, c in differences] == [-1, 1, 0] == [ratio(*each).sign for each in found]


def test_ratios_name_the_best_of_each_measure(found: Rivals) -> None:
    own = replace(found.measured[0], errors=found.measured[0].errors / 2)
    errors = {each.name: each.errors for each in found.measured}
    by = {each.measure: each for each in ratios(own, found, 0)}
    assert list(by) == [GEOMETRIC, MEAN, MEDIAN, FRECHET]
    centre: dict[str, Callable[[Floats], Any]] = {
        GEOMETRIC: lambda e: np.exp(np.log(e).mean()),
        MEAN: np.mean,
        MEDIAN: lambda e: np.sort(e)[(len(e) - 1) // 2],
    }
    for measure, of in centre.items():
        values = {name: float(of(each)) for name, each in errors.items()}
        best = min(values, key=lambda name: values[name])
        assert by[measure].baseline == best and by[measure].baseline_value == pytest.approx(values[best])
        assert by[measure].value == pytest.approx(float(of(own.errors)) / values[best])
        assert by[measure].low <= by[measure].value <= by[measure].high


def test_a_sampler_on_other_noise_is_undecided(coins: Model) -> None:
    """A plan against itself, each on noise of its own: 40 times, of which one in 40 may be called better by chance."""
    table = baselines(coins, 4, 1.0)[0].table
    errors = []
    for seed in (0, 1):
        teacher = teach(coins, "held_out", 40 * 64, seed=seed, trajectory=False)
        errors.append(endpoint_mse(sample(coins, table, teacher), teacher.endpoint).numpy().reshape(40, 64))
    outcomes = []
    for a, b in zip(*errors, strict=True):
        own, other = (Measured("x", "plan", "x", "x", table, each, None) for each in (a, b))
        fake = Pair(other)
        geometric, mean, *_ = ratios(own, fake, 0)  # type: ignore[arg-type]
        outcomes.append(decide(geometric, mean))
    assert outcomes.count("better") <= 3 and outcomes.count("worse") <= 3


class Pair:
    """Rivals of one baseline."""

    target = None

    def __init__(self, one: Measured) -> None:
        self.one = one

    def best(self, measure: str) -> Measured:
        return self.one


# Other objectives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["frechet", "feature", "endpoint + 0.1*frechet", "fid"])
def test_an_objective_is_compared_by_its_own_value(coins: Model, teacher: Teacher, found: Rivals, name: str) -> None:
    objective = parse(name)
    worst = max(found.measured, key=lambda each: each.value(MEAN, None))
    compared = objective_ratio(objective, worst.table, None, found)

    values = {
        each.name: objective.value(Outcome(coins, teacher, each.table, sample(coins, each.table, teacher))) for each in found.measured
    }
    best = min(values, key=lambda each: values[each])
    assert compared.baseline == best and compared.baseline_value == pytest.approx(values[best], rel=1e-4)
    assert compared.value == pytest.approx(values[worst.name] / values[best], rel=1e-3)
    assert compared.low <= compared.value <= compared.high and not compared.difference


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_the_interval_of_an_objective_is_the_jackknifes(found: Rivals, shift: float) -> None:
    """Of the mean error; less 1 it is negative, and differences take the place of ratios."""
    mean = mean_less(shift)
    ordered = sorted(found.measured, key=lambda each: each.errors.mean())
    compared = objective_ratio(mean, ordered[-1].table, None, found)
    without = [np.arange(256) % 8 != group for group in range(8)]
    ours, theirs = (
        np.array([each.errors.mean(), *(each.errors[some].mean() for some in without)]) - shift for each in (ordered[-1], ordered[0])
    )
    apart = ours - theirs if shift else np.log(ours / theirs)
    half = stats.t.ppf(0.975, 7) * np.sqrt(7 / 8 * ((apart[1:] - apart[1:].mean()) ** 2).sum())
    ends = np.array([apart[0], apart[0] - half, apart[0] + half])
    assert compared.difference == bool(shift) and compared.baseline == ordered[0].name
    assert (compared.value, compared.low, compared.high) == pytest.approx(tuple(ends if shift else np.exp(ends)), rel=1e-3)
    assert (compared.plan_value, compared.baseline_value) == pytest.approx((ours[0], theirs[0]), rel=1e-4)
    assert compared.sign == 1


def test_an_objective_that_is_positive_for_one_only_is_compared_by_its_difference(found: Rivals) -> None:
    ordered = sorted(found.measured, key=lambda each: each.errors.mean())
    between = float(ordered[0].errors.mean() + ordered[-1].errors.mean()) / 2
    for shift in (between, float(ordered[0].errors.mean())):
        shifted = mean_less(shift)
        assert objective_ratio(shifted, ordered[-1].table, None, found).difference


def test_the_best_baseline_in_an_objective_is_looked_for_where_the_race_does_not_look(coins: Model) -> None:
    """Of the error's other end: the race drops at once what is far from the teacher."""
    teacher = teach(coins, "held_out", 512, trajectory=False)
    raced = rivals(coins, 4, 1.0, teacher)

    def far(outcome: Outcome) -> float:
        return -float(endpoint_mse(outcome.samples, outcome.teacher.endpoint).mean())

    more = contenders(Objective("far", far, "nothing", "no paper"), raced)
    known = {each.table for each in raced.measured}
    assert more and not known & {each.table for each in more} and {each.kind for each in more} == {"baseline"}
    errors = {
        each.name: float(endpoint_mse(sample(coins, each.table, teacher), teacher.endpoint).mean()) for each in baselines(coins, 4, 1.0)
    }
    noisy = max(error for name, error in errors.items() if name.startswith(("ddim_eta1", "dpmpp_2m_sde")))
    assert max(each.errors.mean() for each in more) >= noisy * (1 - 1e-6) > max(each.errors.mean() for each in raced.measured)
    assert all(each.errors.mean() == pytest.approx(errors[each.name], rel=1e-5) for each in more)
    assert {each.name for each in replace(raced, others=more).measured} == {each.name for each in (*raced.measured, *more)}


@pytest.mark.parametrize(("name", "data"), [("frechet", False), ("fid", True), ("tail", False)])
def test_an_objective_is_confirmed_by_features_that_no_network_made(
    coins: Model, teacher: Teacher, found: Rivals, name: str, data: bool
) -> None:
    """Here all 4 x 4 numbers of a sample."""
    own = max(found.measured, key=lambda each: each.value(MEAN, None))
    compared = objective_ratio(parse(name), own.table, None, found)
    confirming = confirmation(parse(name), own, None, compared, found)
    assert coins.data is not None
    real = (coins.data() if data else teacher.endpoint).flatten(1).double().numpy()

    def distance(table: Tableau) -> float:
        x = sample(coins, table, teacher).flatten(1).double().numpy()
        root = linalg.sqrtm(np.cov(x.T) @ np.cov(real.T)).real
        return float(((x.mean(0) - real.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(real.T) - 2 * root))

    best = next(each for each in found.measured if each.name == compared.baseline)
    assert confirming.baseline == best.name and confirming.low < confirming.value < confirming.high
    assert (confirming.plan_value, confirming.baseline_value) == pytest.approx((distance(own.table), distance(best.table)), rel=2e-2)
    assert confirming.value == pytest.approx(confirming.plan_value / confirming.baseline_value)


def test_pictures_are_made_small_channel_by_channel() -> None:
    x = torch.arange(2 * 3 * 16 * 12, dtype=torch.float32).reshape(2, 3, 16, 12)
    small = small_pictures(x).reshape(2, 3, 8, 8)
    assert small[1, 2, 0, 0] == x[1, 2, :2, :2].double().mean() and small_pictures(torch.ones(5, 2)).shape == (5, 2)


@pytest.mark.parametrize(
    ("other", "verdict"), [((0.9, 0.8, 1.05), "better"), ((1.3, 0.8, 2.0), "undecided"), ((1.05, 1.01, 1.1), "undecided")]
)
def test_what_contradicts_an_objective_leaves_it_undecided(other: Ends, verdict: str) -> None:
    assert decide(ratio(-0.2, -0.3, -0.1, difference=True), ratio(*other)) == verdict == decide(ratio(0.5, 0.4, 0.6), ratio(*other))


def mean_less(shift: float) -> Objective:
    def value(outcome: Outcome) -> float:
        return float(endpoint_mse(outcome.samples, outcome.teacher.endpoint).mean()) - shift

    return Objective("mean", value, "nothing", "the mean error, less a number")
