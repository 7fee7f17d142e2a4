"""Exact weights of exponential integrators: integrals of e^{-u} times a polynomial, for any step, also an infinite one.

With lambda = ln(alpha / sigma) and a step s -> t of h = lambda_t - lambda_s (Lu et al. 2022, arXiv:2211.01095, proposition 4.1,
and arXiv:2206.00927, proposition 3.1)

    data prediction    x_t = (sigma_t / sigma_s) x_s + alpha_t int_0^h e^{-u} D(lambda_t - u) du
    noise prediction   x_t = (alpha_t / alpha_s) x_s - alpha_t rho_s int_0^h e^{-u} eps(lambda_s + u) du,   rho = sigma / alpha

so one kind of integral, e^{-u} times a polynomial, serves both; `moments` has it in closed form. Other integrands, `integral`, are smooth.
"""

from collections.abc import Callable, Sequence
from math import comb, exp, expm1, factorial, inf, isfinite
from operator import mul
from typing import Literal

import numpy as np

from solversearch.schedules import Floats

Prediction = Literal["data", "noise"]

_LEGENDRE = np.polynomial.legendre.leggauss(64)


def integral(values: Callable[[Floats], Floats], start: float, end: float) -> Floats:
    """int_start^end of a smooth function, whose points lie on the last axis, by Gauss-Legendre quadrature."""
    points, weights = _LEGENDRE
    half = (end - start) / 2
    return half * (values(start + half * (1 + points)) @ weights)


def moments(h: float, count: int) -> list[float]:
    """M_k = int_0^h e^{-u} (u / h)^k du for k < count, and int_0^inf e^{-u} u^k du = k! for an infinite h.

    By parts, M_k = (k / h) M_{k-1} - e^{-h}: upwards that is stable for large h, downwards for small ones, from the positive series
    M_k = e^{-h} sum_n h^{n+1} / ((k + 1) ... (k + n + 1)).
    """
    if h == inf:
        return [float(factorial(k)) for k in range(count)]
    decay, found = exp(-h), [-expm1(-h)]
    if h > 2:
        for k in range(1, count):
            found.append(k / h * found[-1] - decay)
        return found
    n, term, last = count, h * decay / count, 0.0
    while term > 1e-17 * last:
        last, n = last + term, n + 1
        term *= h / n
    found = [last]
    for k in range(count - 1, 0, -1):
        found.insert(0, (found[0] + decay) * h / k)
    return found


def basis(nodes: Sequence[float]) -> list[list[float]]:
    """Coefficients, lowest degree first, of the Lagrange basis polynomials of the nodes."""
    polynomials = []
    for j, node in enumerate(nodes):
        polynomial = [1.0]
        for other in (*nodes[:j], *nodes[j + 1 :]):
            factor = 1 / (node - other)
            polynomial = [(low - other * high) * factor for low, high in zip((0.0, *polynomial), (*polynomial, 0.0), strict=True)]
        polynomials.append(polynomial)
    return polynomials


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
    unit = h if isfinite(h) else 1.0
    known = moments(h, len(finite))
    weights = iter([sum(map(mul, polynomial, known)) for polynomial in basis([node / unit for node in finite])])
    return [next(weights) if isfinite(node) else 0.0 for node in nodes]


def polynomial_weights(nodes: Sequence[float], end: float) -> list[float]:
    """int of L_j over [first node, end] for the Lagrange basis of the nodes."""
    start, length = nodes[0], end - nodes[0]
    known = [length / (k + 1) for k in range(len(nodes))]
    return [sum(map(mul, polynomial, known)) for polynomial in basis([(node - start) / length for node in nodes])]


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
    known = moments(h, order)
    if prediction == "data":  # (1 - u/h)^k, multiplied out
        known = [sum((-1) ** i * comb(k, i) * known[i] for i in range(k + 1)) for k in range(order)]
    return [moment / factorial(k) for k, moment in enumerate(known)]
