"""Exact weights of exponential integrators: integrals of e^{-u} times a polynomial, for any step, also an infinite one.

With lambda = ln(alpha / sigma) and a step s -> t of h = lambda_t - lambda_s (Lu et al. 2022, arXiv:2211.01095, proposition 4.1,
and arXiv:2206.00927, proposition 3.1)

    data prediction    x_t = (sigma_t / sigma_s) x_s + alpha_t int_0^h e^{-u} D(lambda_t - u) du
    noise prediction   x_t = (alpha_t / alpha_s) x_s - alpha_t rho_s int_0^h e^{-u} eps(lambda_s + u) du,   rho = sigma / alpha

so one kind of integral, e^{-u} times a polynomial, serves both.
"""

from collections.abc import Callable, Sequence
from math import factorial, inf, isfinite
from typing import Literal

import numpy as np

from solversearch.schedules import Floats

Prediction = Literal["data", "noise"]

_LEGENDRE = np.polynomial.legendre.leggauss(64)
_LAGUERRE = np.polynomial.laguerre.laggauss(16)


def integral(values: Callable[[Floats], Floats], start: float, end: float) -> Floats:
    """int_start^end of a smooth function, whose points lie on the last axis, by Gauss-Legendre quadrature."""
    points, weights = _LEGENDRE
    half = (end - start) / 2
    return half * (values(start + half * (1 + points)) @ weights)


def exponential_integral(values: Callable[[Floats], Floats], h: float) -> Floats:
    """int_0^h e^{-u} p(u) du of a polynomial p of low degree, to full precision for any h > 0, also an infinite one."""
    if h == inf:
        points, weights = _LAGUERRE
        return values(points) @ weights
    # Beyond u = 80 the weight is 1e-35, and 64 points resolve it up to there.
    return integral(lambda u: np.exp(-u) * values(u), 0.0, min(h, 80.0))


def lagrange(nodes: Sequence[float], points: Floats) -> Floats:
    """Values L_j(p) of the Lagrange basis of the nodes at the points: shape (len(nodes), len(points))."""
    values = np.ones((len(nodes), len(points)))
    for j, node in enumerate(nodes):
        for other in (*nodes[:j], *nodes[j + 1 :]):
            values[j] *= (points - other) / (node - other)
    return values


def lagrange_weights(nodes: Sequence[float], h: float) -> list[float]:
    """int_0^h e^{-u} L_j(u) du for the Lagrange basis of the nodes. A node at infinity weighs nothing, which is the limit."""
    finite = [node for node in nodes if isfinite(node)]
    if not finite:
        return [0.0] * len(nodes)
    weights = iter(exponential_integral(lambda u: lagrange(finite, u), h))
    return [float(next(weights)) if isfinite(node) else 0.0 for node in nodes]


def lagrange_slopes(nodes: Sequence[float], points: Floats) -> Floats:
    """Derivatives L_j'(p) of the Lagrange basis of the nodes at the points: shape (len(nodes), len(points))."""
    slopes = np.zeros((len(nodes), len(points)))
    for j, node in enumerate(nodes):
        others = [*nodes[:j], *nodes[j + 1 :]]
        for k, other in enumerate(others):
            slopes[j] += lagrange([node, *others[:k], *others[k + 1 :]], points)[0] / (node - other)
    return slopes


def taylor_weights(h: float, order: int, prediction: Prediction) -> list[float]:
    """int_0^h e^{-u} tau^k / k! du for k = 0 .. order - 1, where tau = (lambda - lambda_s) / h runs from 0 at s to 1 at t; h finite."""

    def powers(u: Floats) -> Floats:
        tau = u / h if prediction == "noise" else 1 - u / h
        return np.array([tau**k / factorial(k) for k in range(order)])

    return [float(weight) for weight in exponential_integral(powers, h)]
