"""The distances in feature space and along the trajectory, against independent formulas."""

from dataclasses import replace
from math import hypot

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from solversearch.models.base import Model
from solversearch.objectives import OBJECTIVES, Outcome
from solversearch.objectives.endpoint import endpoint_mse, tempered
from solversearch.objectives.frechet import Gaussian, frechet, frechet_distance
from solversearch.objectives.kid import kernel_distance
from solversearch.schedules import grid
from solversearch.solvers import get
from solversearch.teacher import teach
from tests.objectives.conftest import Ran


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng([seed, *shape]).standard_normal(shape))


def test_kernel_distance_is_the_double_loop() -> None:
    x, y, n = normal(7, 3), normal(7, 3, seed=1) + 0.5, 7

    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        return (float(a @ b) / 3 + 1) ** 3

    total = sum(
        kernel(x[i], x[j]) + kernel(y[i], y[j]) - kernel(x[i], y[j]) - kernel(x[j], y[i]) for i in range(n) for j in range(n) if i != j
    )
    assert float(kernel_distance(x, y)) == pytest.approx(total / (n * (n - 1)), rel=1e-12)


@pytest.mark.parametrize("paired", [0.0, 0.9])
def test_kernel_distance_is_unbiased_whether_or_not_pairs_resemble_each_other(paired: float) -> None:
    """Draws of one distribution, independent or correlated in pairs: the mean is 0 within 3 standard errors, and not by being blind."""
    values, shifted = [], []
    for seed in range(400):
        x, fresh = normal(20, 4, seed=seed), normal(20, 4, seed=seed + 1000)
        y = paired * x + (1 - paired**2) ** 0.5 * fresh
        values.append(float(kernel_distance(x, y)))
        shifted.append(float(kernel_distance(x, y + 0.5)))
    error = np.std(values) / len(values) ** 0.5
    assert abs(np.mean(values)) < 3 * error
    assert np.mean(shifted) > 20 * error


@pytest.mark.parametrize(("n", "m", "width"), [(300, 200, 6), (40, 40, 64), (5, 90, 64), (65, 64, 64)])
def test_frechet_of_features_is_the_textbook_formula(n: int, m: int, width: int) -> None:
    """Also with fewer samples than features; the root is scipy's Schur method, with rounding of 1e-8 where ranks are lacking."""
    mix = normal(width, width) / width**0.5
    a, b = normal(n, width) @ mix, normal(m, width, seed=1) @ mix * 1.3 + 0.2
    root = sqrtm(np.cov(a.numpy().T) @ np.cov(b.numpy().T)).real
    expected = float((a.mean(0) - b.mean(0)).square().sum()) + np.trace(np.cov(a.numpy().T) + np.cov(b.numpy().T) - 2 * root)
    assert float(frechet_distance(a, b)) == pytest.approx(expected, rel=2e-4)
    assert float(frechet_distance(a, b)) == pytest.approx(float(frechet(Gaussian.of(a), Gaussian.of(b))), rel=1e-5)
    assert float(frechet_distance(b, a)) == pytest.approx(float(frechet_distance(a, b)), rel=1e-10)


def test_frechet_of_few_samples_keeps_small_distances() -> None:
    """A copy that is moved by 1e-4, at the tenth part of the samples that the features have: |shift|^2, to 1e-12 of the variance."""
    a = normal(20, 200)
    assert float(frechet_distance(a, a)) == pytest.approx(0, abs=1e-12 * float(a.var(0).sum()))
    assert float(frechet_distance(a, a + 1e-4)) == pytest.approx(200 * 1e-8, rel=1e-5)
    assert float(frechet_distance(a, 2 * (a - a.mean(0)) + a.mean(0))) == pytest.approx(float(a.var(0).sum()), rel=1e-10)


def test_feature_has_its_unit_from_the_teacher(ran: Ran) -> None:
    """Twins in other pairs are 2 apart, whatever the scale of the features."""
    outcome = ran("ddim", 3)
    strangers = replace(outcome, samples=outcome.teacher.endpoint.roll(1, dims=0))
    assert OBJECTIVES["feature"].value(strangers) == pytest.approx(2, rel=0.15)
    features = outcome.model.features
    assert features is not None
    scaled = replace(outcome.model, features=lambda x: 7 * features(x) + 3)
    assert OBJECTIVES["feature"].value(replace(outcome, model=scaled)) == pytest.approx(OBJECTIVES["feature"].value(outcome), rel=1e-5)


def test_endpoint_is_the_tempered_error(ran: Ran) -> None:
    outcome = ran("ddim", 3)
    error = endpoint_mse(outcome.samples, outcome.teacher.endpoint)
    assert OBJECTIVES["endpoint"].value(outcome) == float(tempered(error, 0.01).mean())
    assert OBJECTIVES["endpoint"].value(replace(outcome, scale=None)) == float(error.mean())


def test_trajectory_is_the_mean_over_states_in_the_unit_frame(coins: Model) -> None:
    """States off by a tenth of their noise level's own scale, which for a flow is not 1, and the result by 0.3: (2 * 0.01 + 0.09) / 3."""
    table, teacher = get("ddim").tableau(coins.schedule, grid("linspace", coins.schedule, 3)), teach(coins, "validate", 32)
    nodes, outcome = table.nodes, Outcome(coins, teacher, table, teacher.endpoint)
    states = tuple(teacher.state(node) + 0.1 * hypot(node.alpha, node.sigma) for node in nodes)
    moved = replace(outcome, states=states, samples=teacher.endpoint + 0.3, scale=None)
    assert OBJECTIVES["trajectory"].value(moved) == pytest.approx(0.11 / 3, rel=1e-5)
    first_only = replace(moved, states=(states[0] + 100, *states[1:]))  # given, not computed: it is every table's noise
    assert OBJECTIVES["trajectory"].value(first_only) == OBJECTIVES["trajectory"].value(moved)
