"""The rows of a comparison: their numbers one by one, and intervals of Frechet distances, also of many features."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from solversearch import models
from solversearch.grids import grid
from solversearch.judging.distances import Moments, Reference, frechet_distance
from solversearch.judging.measures import ComparisonRow, Measured, finite, measured, rivals
from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.judging.race import FRECHET, GEOMETRIC, MEAN, MEDIAN
from solversearch.models.base import Model
from solversearch.plan import Score
from solversearch.runtime import Tableau
from solversearch.sampling import sample
from solversearch.solvers import get
from solversearch.teacher import Teacher, teach


@pytest.fixture(scope="module")
def teacher(coins: Model) -> Teacher:
    return teach(coins, "held_out", 512, trajectory=False)


def table(model: Model, steps: int = 3) -> Tableau:
    return get("ddim").tableau(model.schedule, grid("linspace", model.schedule, steps))


def row(model: Model, teacher: Teacher) -> ComparisonRow:
    target = None if model.features is None else model.features(teacher.endpoint).double()
    real = None if model.real is None else model.real.gaussian
    return measured(model, table(model), teacher).row(target, real, 0)


def wide(model: Model, width: int) -> Model:
    """Random waves of the samples: as many features as asked for."""
    rng = np.random.default_rng(0)
    mix, phase = (torch.from_numpy(rng.standard_normal(size)).float() for size in ((4, width), (width,)))

    def features(x: Tensor) -> Tensor:
        return torch.sin(x.flatten(1) @ mix + phase) / width**0.5

    return replace(model, features=features)


def test_a_row_has_the_numbers_of_its_errors(coins: Model, teacher: Teacher) -> None:
    found = row(coins, teacher)
    error = endpoint_mse(sample(coins, table(coins), teacher), teacher.endpoint).numpy()
    assert found.endpoint_mse.mean == pytest.approx(error.mean()) and found.geometric_mean == pytest.approx(np.exp(np.log(error).mean()))
    assert found.endpoint_mse.median == np.sort(error)[255] and found.samples == 512 and found.network_calls == found.nfe == 3
    assert (found.quantile_90, found.quantile_99) == pytest.approx(tuple(np.quantile(error, (0.9, 0.99))))
    assert found.worst_hundredth == pytest.approx(np.sort(error)[-5:].sum() / error.sum())
    assert 0 < found.endpoint_mse.low < found.endpoint_mse.mean < found.endpoint_mse.high
    few = row(coins, teacher.first(50))
    assert few.lower_bound and few.endpoint_mse.high - few.endpoint_mse.low > found.endpoint_mse.high - found.endpoint_mse.low
    assert type(found.score()) is Score and found.score().endpoint_mse == found.endpoint_mse


def test_the_values_of_a_race_are_those_of_the_row(coins: Model, teacher: Teacher) -> None:
    assert coins.features is not None
    target, own = coins.features(teacher.endpoint).double(), measured(coins, table(coins), teacher)
    found = own.row(target, None, 0)
    values = [own.value(measure, target) for measure in (MEAN, MEDIAN, GEOMETRIC, FRECHET)]
    assert found.frechet_teacher is not None
    expected = [found.endpoint_mse.mean, found.endpoint_mse.median, found.geometric_mean, found.frechet_teacher.mean]
    assert values == pytest.approx(expected)


def test_the_value_is_the_distance_itself(coins: Model, teacher: Teacher) -> None:
    model = wide(coins, 300)
    assert model.features is not None and model.data is not None
    score = row(model, teacher)
    seen = model.features(sample(model, table(model), teacher)).double()
    assert score.frechet_teacher is not None and score.frechet_data is not None
    expected = frechet_distance(seen, model.features(teacher.endpoint).double())
    assert score.frechet_teacher.mean == pytest.approx(float(expected), rel=1e-6)
    expected = frechet_distance(seen, Moments.of(model.features(model.data())))
    assert score.frechet_data.mean == pytest.approx(float(expected), rel=1e-6)
    for value in (score.frechet_teacher, score.frechet_data):
        assert 0 < value.low < value.mean < value.high


def test_intervals_of_distances_are_as_wide_as_redraws_differ(coins: Model) -> None:
    assert coins.features is not None
    n, draws = 256, 100
    whole, logs = teach(coins, "held_out", n * draws, trajectory=False), []
    for first in range(0, n * draws, n):
        some = whole.at(range(first, first + n))
        own, other = (measured(coins, table(coins, steps), some) for steps in (3, 5))
        target = coins.features(some.endpoint).double()
        found, ratio = own.row(target, None, 0).frechet_teacher, own.frechet_ratio(other, target)
        assert found is not None
        logs.append(np.log([found.mean, ratio.mean, found.high / found.low, ratio.high / ratio.low]))
    assert ratio.mean == pytest.approx(own.value(FRECHET, target) / other.value(FRECHET, target))
    values, widths = np.split(np.array(logs), 2, axis=1)
    assert np.median(widths, axis=0) / 2 / 1.96 == pytest.approx(values.std(0), rel=0.3)


def test_statistics_are_a_reference_without_data(coins: Model, teacher: Teacher) -> None:
    model = wide(coins, 8)
    assert model.features is not None and model.data is not None
    real = Moments.of(model.features(model.data()))
    given = replace(model, data=None, reference=lambda: Reference(real))
    assert row(given, teacher) == row(model, teacher)


def test_many_features_have_finite_distances(coins: Model, teacher: Teacher) -> None:
    score = row(wide(coins, 2048), teacher.first(256))
    assert score.frechet_teacher is not None and score.frechet_data is not None
    assert 0 < score.frechet_teacher.low < score.frechet_teacher.high < np.inf


def test_what_is_not_finite_is_found(coins: Model, teacher: Teacher) -> None:
    few = teacher.first(40)
    broken = replace(few, endpoint=few.endpoint.index_fill(0, torch.tensor([3]), torch.nan))
    assert finite(coins, few).tolist() == list(range(40))
    errors = np.ones(40)
    errors[7] = np.inf
    assert finite(coins, broken, errors).tolist() == [k for k in range(40) if k not in (3, 7)]
    part = Measured("x", "plan", "x", "x", table(coins), errors, torch.arange(40.0)[:, None]).at(np.array([5, 2]))
    assert part.errors.tolist() == [1, 1] and part.features is not None and part.features[:, 0].tolist() == [5, 2]

    patch = few.endpoint.clone()
    patch[5].view(-1)[0] = torch.inf  # one number of a sample is enough
    assert finite(coins, replace(few, endpoint=patch)).tolist() == [k for k in range(40) if k != 5]


def test_features_that_are_not_finite_are_infinitely_far(coins: Model) -> None:
    target = torch.arange(40.0, dtype=torch.float64)[:, None]
    features = target.clone()
    features[9] = torch.nan
    ran = Measured("x", "baseline", "x", "x", table(coins), np.ones(40), features)
    assert ran.value(FRECHET, target) == np.inf


def test_baselines_are_at_any_time_unless_whole_ones_are_asked_for() -> None:
    mixture = models.load("mixture")
    few = teach(mixture, "held_out", 16, trajectory=False)
    for found, asked in ((rivals(mixture, 3, 1.0, few), False), (rivals(mixture, 3, 1.0, few, integer=True), True)):
        assert all(node.t == round(node.t) for each in found.race.candidates for node in each.table.nodes) == asked
