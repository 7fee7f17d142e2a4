"""Distances of many features: to first order they have the intervals of the bootstrap, and they are quick."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from solversearch.meter import Meter
from torch import Tensor

from solversearch import meter as module
from solversearch import models
from solversearch.distances import Gaussian, Reference, frechet_distance
from solversearch.models.base import Model
from solversearch.plan import Score
from solversearch.runtime import Tableau
from solversearch.sampling import sample
from solversearch.schedules import grid
from solversearch.solvers import get
from solversearch.teacher import Teacher, teach

COINS = f"python:{Path(__file__).parent / 'assets' / 'coins.py'}:factory"


@pytest.fixture(scope="module")
def coins() -> Model:
    return models.load(COINS)


@pytest.fixture(scope="module")
def teacher(coins: Model) -> Teacher:
    return teach(coins, "held_out", 512, trajectory=False)


def measured(model: Model, teacher: Teacher) -> Score:
    return Meter(model, teacher).measure("ddim", "baseline", "ddim", "linspace", table(model))


def table(model: Model) -> Tableau:
    return get("ddim").tableau(model.schedule, grid("linspace", model.schedule, 3))


def wide(model: Model, width: int) -> Model:
    """Random waves of the samples: as many features as asked for."""
    rng = np.random.default_rng(0)
    mix, phase = (torch.from_numpy(rng.standard_normal(size)).float() for size in ((4, width), (width,)))

    def features(x: Tensor) -> Tensor:
        return torch.sin(x.flatten(1) @ mix + phase) / width**0.5

    return replace(model, features=features)


def test_the_value_is_the_distance_itself(coins: Model, teacher: Teacher) -> None:
    model = wide(coins, 300)
    assert model.features is not None and model.data is not None
    score = measured(model, teacher)
    seen = model.features(sample(model, table(model), teacher)).double()
    assert score.frechet_teacher is not None and score.frechet_data is not None
    expected = frechet_distance(seen, model.features(teacher.endpoint).double())
    assert score.frechet_teacher.mean == pytest.approx(float(expected), rel=1e-6)
    expected = frechet_distance(seen, Gaussian.of(model.features(model.data())))
    assert score.frechet_data.mean == pytest.approx(float(expected), rel=1e-6)
    for value in (score.frechet_teacher, score.frechet_data):
        assert 0 <= value.low < value.mean < value.high


def test_intervals_to_first_order_are_the_bootstraps(coins: Model, teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    model = wide(coins, 8)
    full = measured(model, teacher)
    monkeypatch.setattr(module, "WIDE", 1)
    linear = measured(model, teacher)
    assert linear.endpoint_mse == full.endpoint_mse
    for a, b in ((full.frechet_teacher, linear.frechet_teacher), (full.frechet_data, linear.frechet_data)):
        assert a is not None and b is not None
        assert b.mean == pytest.approx(a.mean, rel=1e-6) and b.high - b.low == pytest.approx(a.high - a.low, rel=0.25)


def test_statistics_are_a_reference_without_data(coins: Model, teacher: Teacher) -> None:
    model = wide(coins, 8)
    assert model.features is not None and model.data is not None
    real = Gaussian.of(model.features(model.data()))
    given = replace(model, data=None, reference=lambda: Reference(real))
    assert measured(given, teacher) == measured(model, teacher)


def test_as_many_features_as_inceptions_are_quick(coins: Model, teacher: Teacher) -> None:
    """512 samples of 2,048 features, to twins and to statistics: well below what one resampled covariance takes."""
    meter, start = Meter(wide(coins, 2048), teacher), time.perf_counter()
    score = meter.measure("ddim", "baseline", "ddim", "linspace", table(coins))
    assert score.frechet_teacher is not None and score.frechet_data is not None
    assert time.perf_counter() - start < 5
