"""The distances in feature space and along the trajectory, against independent formulas."""

from dataclasses import replace
from math import hypot

import numpy as np
import pytest
import scipy
import torch
from scipy.linalg import sqrtm

from solversearch.grids import grid
from solversearch.judging.distances import Moments, Reference, frechet, frechet_distance, frechet_influence, kernel_distance
from solversearch.judging.objectives import OBJECTIVES, Outcome, parse
from solversearch.judging.objectives.endpoint import endpoint_mse, tempered
from solversearch.models.base import Model
from solversearch.solvers import get
from solversearch.teacher import teach
from tests.judging.objectives.conftest import Ran

scipy_version = tuple(map(int, scipy.__version__.split(".")[:2]))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng([seed, *shape]).standard_normal(shape))


def test_kernel_distance_is_the_double_loop() -> None:
    x, y, n = normal(7, 3), normal(7, 3, seed=1) + 0.5, 7

    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        return (float(a @ b) / 3 + 1) ** 3

    total = sum(
        kernel(x[i], x[j]) + kernel(y[i], y[j]) - kernel(x[i], y[j]) - kernel(x[j], y[i]) for i in range(n) for j in range(n) if i != j
    )
    assert float(kernel_distance(x, y, paired=True)) == pytest.approx(total / (n * (n - 1)), rel=1e-12)


@pytest.mark.parametrize("paired", [0.0, 0.9])
def test_kernel_distance_is_unbiased_whether_or_not_pairs_resemble_each_other(paired: float) -> None:
    """Draws of one distribution, independent or correlated in pairs: the mean is 0 within 3 standard errors, and not by being blind."""
    values, shifted = [], []
    for seed in range(400):
        x, fresh = normal(20, 4, seed=seed), normal(20, 4, seed=seed + 1000)
        y = paired * x + (1 - paired**2) ** 0.5 * fresh
        values.append(float(kernel_distance(x, y, paired=True)))
        shifted.append(float(kernel_distance(x, y + 0.5, paired=True)))
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
    assert float(frechet_distance(a, b)) == pytest.approx(float(frechet(Moments.of(a), Moments.of(b))), rel=1e-5)
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


# Against clean-fid ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(scipy_version >= (1, 18), reason="clean-fid calls sqrtm(disp=), which SciPy 1.18 no longer has")
@pytest.mark.parametrize(("n", "m", "width"), [(200, 300, 12), (20, 300, 40)])
@pytest.mark.filterwarnings("ignore:The `disp`")
def test_frechet_is_clean_fids(n: int, m: int, width: int) -> None:
    """From features, and to statistics, also with fewer samples than features, where clean-fid's own root is rough."""
    from cleanfid.fid import frechet_distance as theirs

    mix = normal(width, width) / width**0.5
    a, b = normal(n, width) @ mix, normal(m, width, seed=1) @ mix * 1.3 + 0.2
    expected = float(theirs(a.numpy().mean(0), np.cov(a.numpy().T), b.numpy().mean(0), np.cov(b.numpy().T)))
    for other in (b, Moments.of(b)):
        assert float(frechet_distance(a, other)) == pytest.approx(expected, rel=1e-9 if n > width else 1e-5)


def test_kernel_distance_is_clean_fids() -> None:
    """One subset of all samples."""
    from cleanfid.fid import kernel_distance as theirs

    x, y = normal(60, 8), normal(60, 8, seed=1) + 0.3
    assert float(kernel_distance(x, y, paired=False)) == pytest.approx(theirs(y.numpy(), x.numpy(), num_subsets=1), rel=1e-9)
    fewer = float(kernel_distance(x, y[:25], paired=False))
    assert fewer == pytest.approx(float(kernel_distance(y[:25], x, paired=False)), rel=1e-12)


# To first order ------------------------------------------------------------------------------------------------


def repeated(a: torch.Tensor, b: torch.Tensor | Moments, counts: torch.Tensor) -> float:
    rows = torch.arange(len(a)).repeat_interleave(counts)
    return float(frechet_distance(a[rows], b if isinstance(b, Moments) else b[rows]))


@pytest.mark.parametrize(("n", "width"), [(40, 90), (90, 12)])
@pytest.mark.parametrize("paired", [True, False])
def test_influence_is_the_slope_in_the_weights(n: int, width: int, paired: bool) -> None:
    """Weights of 1 +- 0.01, some samples more and others less."""
    a = normal(n, width).relu()
    b = a + 0.3 * normal(n, width, seed=1) if paired else Moments.of(normal(500, width, seed=2).relu())
    value, influence = frechet_influence(a, b)
    assert float(value) == pytest.approx(float(frechet_distance(a, b)), rel=1e-7)
    moves = torch.from_numpy(np.random.default_rng(0).permutation([0.01, -0.01] * (n // 2)))

    def distance(weights: torch.Tensor) -> float:
        """From moments; the weights sum to n."""

        def moments(x: torch.Tensor) -> Moments:
            return Moments(weights @ x / n, torch.cov(x.T, correction=0, aweights=weights) * n / (n - 1))

        return float(frechet(moments(a), b if isinstance(b, Moments) else moments(b)))

    assert float(moves @ influence) == pytest.approx((distance(1 + moves) - distance(1 - moves)) / 2, rel=0.002)


@pytest.mark.parametrize("paired", [True, False])
def test_influence_stands_for_a_bootstrap(paired: bool) -> None:
    """200 resamples of 400 samples: the spread agrees within a fifth, and they go together."""
    a = normal(400, 10)
    b = a + 0.5 * normal(400, 10, seed=1) if paired else Moments.of(normal(4000, 10, seed=2) * 1.3)
    counts = torch.from_numpy(np.random.default_rng(0).multinomial(400, [1 / 400] * 400, size=200))
    real = np.array([repeated(a, b, each) for each in counts])
    linear = ((counts - 1).double() @ frechet_influence(a, b)[1]).numpy()
    assert linear.std() == pytest.approx(real.std(), rel=0.2) and np.corrcoef(real, linear)[0, 1] > 0.85


def test_influence_of_features_that_never_vary() -> None:
    a = normal(30, 50) * (torch.arange(50) % 3 > 0)
    for b in (a + 0.1 * normal(30, 50, seed=1) * (torch.arange(50) % 3 > 0), Moments.of(torch.zeros(9, 50))):
        value, influence = frechet_influence(a, b)
        assert torch.isfinite(influence).all() and float(value) > 0
    assert float(frechet_influence(a, a)[1].abs().max()) < 1e-9


# Objectives ----------------------------------------------------------------------------------------------------


def test_fid_is_to_the_reference_the_data_or_the_teacher(ran: Ran) -> None:
    outcome = ran("ddim", 3)
    features, data = outcome.model.features, outcome.model.data
    assert features is not None and data is not None
    seen, own = features(outcome.samples).double(), features(outcome.teacher.endpoint).double()
    statistics = Moments.of(own * 1.1 + 0.3)
    given = replace(outcome.model, reference=lambda: Reference(statistics))
    for model, other in ((given, statistics), (outcome.model, Moments.of(features(data()))), (replace(outcome.model, data=None), own)):
        assert OBJECTIVES["fid"].value(replace(outcome, model=model)) == pytest.approx(float(frechet_distance(seen, other)), rel=1e-12)
    assert OBJECTIVES["fid"].value(replace(outcome, model=replace(outcome.model, data=None))) == OBJECTIVES["frechet"].value(outcome)


def test_kid_is_to_a_reference_that_kept_features(ran: Ran) -> None:
    outcome = ran("ddim", 3)
    features, data = outcome.model.features, outcome.model.data
    assert features is not None and data is not None
    seen, real = features(outcome.samples).double(), features(data()).double()
    kept = replace(outcome.model, reference=lambda: Reference(Moments.of(real), real))
    lost = replace(outcome.model, reference=lambda: Reference(Moments.of(real)))
    expected = float(kernel_distance(seen, real, paired=False))
    assert OBJECTIVES["kid"].value(replace(outcome, model=kept)) == pytest.approx(expected, rel=1e-12)
    assert OBJECTIVES["kid"].value(replace(outcome, model=lost)) == OBJECTIVES["kid"].value(outcome) != expected


def test_a_sum_looks_at_the_samples_once(ran: Ran) -> None:
    outcome, calls = ran("ddim", 3), 0
    features = outcome.model.features
    assert features is not None

    def counting(x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return features(x)

    model = replace(outcome.model, features=counting, data=None)
    parse("frechet + fid + kid + feature").value(replace(outcome, model=model))
    assert calls == 2  # the samples, and the teacher
