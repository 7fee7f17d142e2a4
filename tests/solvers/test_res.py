"""RES against its published loop, written here on noise levels alone as ComfyUI and RES4LYF run it, and what it integrates exactly."""

from itertools import pairwise
from math import exp, expm1, log

import numpy as np
import pytest
from numpy.typing import NDArray

from solversearch.grids import GRIDS, grid
from solversearch.runtime import Node
from solversearch.schedules import CLEAN, VE, DiscreteVP, LinearVP
from solversearch.solvers import get
from solversearch.tableau import Problem

Array = NDArray[np.float64]
X = np.linspace(-100.0, 100, 5)


def denoised(x: Array, sigma: float) -> Array:
    return np.tanh(x / (1 + sigma)) + 0.1 * np.cos(sigma)


def weights(h: float, c: float) -> tuple[float, float]:
    """b1 and b2 of the exponential Runge-Kutta method with the node c, in phi functions of -h."""
    phi_1 = expm1(-h) / -h
    phi_2 = (phi_1 - 1) / -h
    return phi_1 - phi_2 / c, phi_2 / c


def multistep_loop(x: Array, sigmas: list[float]) -> Array:
    before: tuple[float, Array] | None = None
    for sigma, then in pairwise(sigmas):
        d = denoised(x, sigma)
        if then == 0:
            x = d
        elif before is None:
            x = x + (x - d) / sigma * (then - sigma)
        else:
            h = log(sigma / then)
            b1, b2 = weights(h, log(sigma / before[0]) / h)
            x = exp(-h) * x + h * (b1 * d + b2 * before[1])
        before = sigma, d
    return x


def singlestep_loop(x: Array, sigmas: list[float]) -> Array:
    """Inner points halfway in ln sigma."""
    for sigma, then in pairwise(sigmas):
        d = denoised(x, sigma)
        if then == 0:
            return d
        h, inner = log(sigma / then), (sigma * then) ** 0.5
        at_inner = exp(-h / 2) * x + h / 2 * (expm1(-h / 2) / (-h / 2)) * d
        b1, b2 = weights(h, 0.5)
        x = exp(-h) * x + h * (b1 * d + b2 * denoised(at_inner, inner))
    return x


def ours(name: str, sigmas: list[float]) -> Array:
    schedule = VE(0.01, 60.0)
    nodes = [schedule.node(sigma) if sigma else CLEAN for sigma in sigmas]
    return get(name).rule(Problem(schedule, lambda x, node: denoised(x, node.sigma), lambda: X), X, nodes)


@pytest.mark.parametrize("end", [0.0, 0.02])
def test_res_2m_is_the_published_loop(end: float) -> None:
    sigmas = [60.0, 22.0, 9.0, 2.5, 0.4, 0.1, end]
    np.testing.assert_allclose(ours("res_2m", sigmas), multistep_loop(X, sigmas), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("end", [[0.0], [0.02 * 5**0.5, 0.02]])
def test_res_2s_is_the_published_loop_where_inner_nodes_are_halfway(end: list[float]) -> None:
    """The grid has the inner points of the published loop; the step to no noise has none."""
    steps = [60.0, 9.0, 2.5, 0.1]
    sigmas = [60.0, (60.0 * 9) ** 0.5, 9.0, (9 * 2.5) ** 0.5, 2.5, 0.5, 0.1]
    np.testing.assert_allclose(ours("res_2s", [*sigmas, *end]), singlestep_loop(X, [*steps, end[-1]]), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ["res_2m", "res_2s"])
def test_what_is_linear_in_lambda_is_integrated_exactly(name: str) -> None:
    """D = 1 + lambda / 3 on an uneven grid: x_t / sigma_t = x_s / sigma_s + [e^lambda (lambda + 2) / 3]. 2M starts at first order."""
    schedule = LinearVP()
    nodes = [schedule.node_at_lam(lam) for lam in (-2.0, -1.4, -0.5, 0.6, 0.9)]
    states: list[Array] = []

    def lam(node: Node) -> float:
        return log(node.alpha / node.sigma)

    def denoise(x: Array, node: Node) -> Array:
        states.append(x)
        return np.full(1, 1 + lam(node) / 3)

    states.append(get(name).rule(Problem(schedule, denoise, lambda: X), np.zeros(1), nodes))
    first, last = (1 if name == "res_2m" else 0), len(nodes) - 1
    s, t = nodes[first], nodes[last]
    grown = exp(lam(t)) * (lam(t) + 2) / 3 - exp(lam(s)) * (lam(s) + 2) / 3
    assert states[last] / t.sigma == pytest.approx(states[first] / s.sigma + grown, rel=1e-12)


@pytest.mark.parametrize("name", GRIDS)
def test_res_2m_is_unip_2_to_the_last_bit(name: str) -> None:
    """So that it is run once as a baseline, under the older name."""
    schedule = DiscreteVP.named()
    nodes = grid(name, schedule, 6)
    assert get("res_2m").tableau(schedule, nodes) == get("unip_2").tableau(schedule, nodes)
