"""The weights of exponential integrators against closed forms and against SciPy's adaptive quadrature."""

from fractions import Fraction
from math import exp, expm1, factorial, inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from solversearch.solvers.integrals import lagrange, lagrange_slopes, lagrange_weights, moments, taylor_weights

steps = st.floats(1e-6, 40)


@pytest.mark.parametrize("h", [1e-8, 1e-3, 0.1, 0.7, 1.5, 2.0, 2.1, 7.0, 40.0])
def test_moments_against_their_power_series(h: float) -> None:
    """M_k = sum_n (-1)^n h^{n+1} / (n! (n + k + 1)), in exact fractions."""
    terms = [(-1) ** n * Fraction(h) ** (n + 1) / factorial(n) for n in range(200)]
    for count in range(1, 7):
        exact = [float(sum(term / (n + k + 1) for n, term in enumerate(terms))) for k in range(count)]
        assert moments(h, count) == pytest.approx(exact, rel=1e-13, abs=0)


@given(steps)
def test_taylor_weights_are_the_phi_functions(h: float) -> None:
    """Noise: (1 - e^{-h}, (1 - e^{-h} (1 + h)) / h); data: (1 - e^{-h}, 1 - (1 - e^{-h}) / h)."""
    rounding = 1e-15 / h
    assert taylor_weights(h, 2, "noise") == pytest.approx([-expm1(-h), (-expm1(-h) - h * exp(-h)) / h], rel=1e-13, abs=rounding)
    assert taylor_weights(h, 2, "data") == pytest.approx([-expm1(-h), 1 + expm1(-h) / h], rel=1e-13, abs=rounding)


@given(steps, st.lists(st.floats(0.05, 2), min_size=1, max_size=3))
def test_lagrange_weights_against_quadrature(h: float, gaps: list[float]) -> None:
    nodes = [h, *(h + h * float(gap) for gap in np.cumsum(gaps))]
    weights = lagrange_weights(nodes, h)
    for j in range(len(nodes)):
        exact, _ = quad(lambda u, j=j: exp(-u) * lagrange(nodes, np.array([u]))[j, 0], 0, h, epsabs=0, epsrel=1e-11, limit=200)
        assert weights[j] == pytest.approx(exact, rel=1e-9, abs=1e-11 * sum(map(abs, weights)))
    assert sum(weights) == pytest.approx(-expm1(-h), rel=1e-9)


def test_nodes_at_infinity_weigh_nothing() -> None:
    """That is the limit of a node that moves away."""
    assert lagrange_weights([1.0, inf], 1.0) == pytest.approx(lagrange_weights([1.0, 1e13], 1.0), abs=1e-12)
    assert lagrange_weights([inf, 0.0], inf) == [0.0, pytest.approx(1.0)]
    assert lagrange_weights([inf], inf) == [0.0]


def test_slopes_are_the_derivatives_of_the_basis() -> None:
    nodes, points, step = [0.3, 0.9, 1.7, 2.0], np.linspace(0, 2, 7), 1e-6
    numeric = (lagrange(nodes, points + step) - lagrange(nodes, points - step)) / (2 * step)
    np.testing.assert_allclose(lagrange_slopes(nodes, points), numeric, rtol=0, atol=1e-7)
