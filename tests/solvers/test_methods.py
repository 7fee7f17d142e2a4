"""Momentum, DualFast, history guidance and predictor-corrector guidance against loops written anew from the papers, on arrays."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from math import atan2, exp, log, sqrt

import numpy as np
import pytest
from numpy.typing import NDArray

from solversearch.grids import grid
from solversearch.runtime import Node, run
from solversearch.schedules import DiscreteVP, Flow, LinearVP
from solversearch.solvers import SOLVERS, get
from solversearch.solvers.mixed import Decision, mixed
from solversearch.tableau import Problem, trace

Array = NDArray[np.float64]
SCHEDULE = DiscreteVP.named()
X, NFE = np.linspace(-2.0, 2, 7), 6
NODES = grid("karras", SCHEDULE, NFE)


def denoise(x: Array, node: Node) -> Array:
    """The guidance is a part of it."""
    scale = np.hypot(node.alpha, node.sigma)
    return np.tanh(1.5 * x / scale) + 0.1 * node.guidance * np.cos(3 * x / scale)


def noises() -> Iterator[Array]:
    return iter(np.random.default_rng(0).standard_normal((20, 7)))


def sampled(rule_or_name: object, nodes: list[Node] = NODES) -> Array:
    rule = SOLVERS[rule_or_name].rule if isinstance(rule_or_name, str) else rule_or_name
    fresh = noises()
    return rule(Problem(SCHEDULE, denoise, lambda: next(fresh)), X, nodes)  # type: ignore[operator]


# Heavy ball ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "order"), [("hb_1.8", 2), ("hb_2.8", 3)])
def test_a_heavy_ball_of_adams_bashforth(name: str, order: int) -> None:
    """v <- .2 v + .8 (sum_j a_j eps_j), from v = eps_0; and an Euler step of x / alpha in sigma / alpha."""
    table = {1: [1.0], 2: [1.5, -0.5], 3: [23 / 12, -16 / 12, 5 / 12]}
    x, past, v = X, list[Array](), np.zeros(7)
    for s, t in pairwise(NODES):
        past.insert(0, (x - s.alpha * denoise(x, s)) / s.sigma)
        slope = sum(a * eps for a, eps in zip(table[min(order, len(past))], past, strict=False))
        v = past[0] if len(past) == 1 else 0.2 * v + 0.8 * slope
        x = t.alpha * (x / s.alpha + (t.sigma / t.alpha - s.sigma / s.alpha) * v)
    np.testing.assert_allclose(sampled(name), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("b", [0.8, 0.4])
def test_a_heavy_ball_of_dpm_solver(b: float) -> None:
    """v <- (1 - b) v + b (D + (D - D_before) / 2 r), and x_t = (sigma_t / sigma_s) x - alpha_t (e^{-h} - 1) v; not in the last step."""
    x, v, past = X, np.zeros(7), list[tuple[float, Array]]()
    for s, t in pairwise(NODES):
        d, lam = denoise(x, s), log(s.alpha / s.sigma)
        if t.sigma == 0:
            x = d
            continue
        h = log(t.alpha / t.sigma) - lam
        out = d + (d - past[0][1]) * h / (2 * (lam - past[0][0])) if past else d
        v = (1 - b) * v + b * out if past else out
        x = t.sigma / s.sigma * x - t.alpha * (exp(-h) - 1) * v
        past.insert(0, (lam, d))
    decided = mixed([Decision("dpmpp", 2, momentum=b)] * NFE)
    np.testing.assert_allclose(sampled(decided), x, rtol=0, atol=1e-12)
    if b == 0.8:
        np.testing.assert_allclose(sampled("hb_dpmpp_2m"), x, rtol=0, atol=1e-12)


def test_gradient_estimation_goes_on_from_the_change_of_the_noise_prediction() -> None:
    """As ComfyUI runs it in x / alpha and sigma / alpha: an Euler step, and once more the change of the slope."""
    x, before = X, None
    for s, t in pairwise(NODES):
        slope = (x - s.alpha * denoise(x, s)) / s.sigma
        change = 0 if before is None or t.sigma == 0 else slope - before
        x = t.alpha * (x / s.alpha + (t.sigma / t.alpha - s.sigma / s.alpha) * (slope + change))
        before = slope
    np.testing.assert_allclose(sampled("gradient_estimation"), x, rtol=0, atol=1e-12)


# DualFast ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.2, 0.5])
def test_dualfast_leads_the_first_order_term_of_a_multistep_solver(strength: float) -> None:
    """DPM-Solver++(2M), whose D in the first term is that of eps' = (1 + c) eps - c eps_first; the slope keeps D."""
    x, past, first = X, list[tuple[float, Array]](), (0.0, X)
    for s, t in pairwise(NODES):
        d, lam, phi = denoise(x, s), log(s.alpha / s.sigma), atan2(s.sigma, s.alpha)
        eps = (x - s.alpha * d) / s.sigma
        first = first if past else (phi, eps)
        c = strength * (1 - phi / first[0])
        other = (x - s.sigma * ((1 + c) * eps - c * first[1])) / s.alpha
        if t.sigma == 0:
            x = other
            continue
        h = log(t.alpha / t.sigma) - lam
        x = t.sigma / s.sigma * x - t.alpha * (exp(-h) - 1) * (other + ((d - past[0][1]) * h / (2 * (lam - past[0][0])) if past else 0))
        past.insert(0, (lam, d))
    np.testing.assert_allclose(sampled(mixed([Decision("dpmpp", 2, dualfast=strength)] * NFE)), x, rtol=0, atol=1e-12)
    if strength == 0.2:
        np.testing.assert_allclose(sampled("dualfast_dpmpp_2m"), x, rtol=0, atol=1e-12)


def test_a_corrected_step_is_led_too() -> None:
    """UniP-1 with UniC-1 by hand, where the corrector interpolates D linearly in lambda: the integral of alpha_t e^{-(l_t - l)} D(l)."""
    x, before = X, None
    first: tuple[float, Array] | None = None
    lams = [log(node.alpha / node.sigma) if node.sigma else np.inf for node in NODES]
    for i, (s, t) in enumerate(pairwise(NODES)):
        d = denoise(x, s)
        eps = (x - s.alpha * d) / s.sigma
        if before is not None:
            s0, x0, d0, lead0 = before
            h = lams[i] - lams[i - 1]
            slope = 1 + np.expm1(-h) / h  # of the linear interpolation
            x = s.sigma / s0.sigma * x0 + s.alpha * (-np.expm1(-h) * (d0 + lead0) + slope * (d - d0))
        phi = atan2(s.sigma, s.alpha)
        first = first or (phi, eps)
        c = 0.3 * (1 - phi / first[0])
        lead = -s.sigma / s.alpha * c * (eps - first[1])
        before = s, x, d, lead
        x = t.sigma / s.sigma * x + (t.alpha - s.alpha * t.sigma / s.sigma) * (d + lead)
    np.testing.assert_allclose(sampled(mixed([Decision("unip", 1, corrector=True, dualfast=0.3)] * NFE)), x, rtol=0, atol=1e-12)


# History -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("weight", "rate"), [(1.0, 0.75), (0.5, 1.0), (-0.5, 0.3)])
def test_history_guidance_leads_away_from_an_average(weight: float, rate: float) -> None:
    """g <- a D + (1 - a) g from nothing, over its own weights; DDIM on D + w (D - g)."""
    x, g, total = X, np.zeros(7), 0.0
    for s, t in pairwise(NODES):
        d = denoise(x, s)
        led = d + weight * (d - g / total) if total else d
        g, total = rate * d + (1 - rate) * g, rate + (1 - rate) * total
        x = t.sigma / s.sigma * x + (t.alpha - s.alpha * t.sigma / s.sigma) * led
    decided = mixed([Decision("unip", 1, history=weight, history_rate=rate)] * NFE)
    np.testing.assert_allclose(sampled(decided), x, rtol=0, atol=1e-12)


def test_history_keeps_constant_outputs() -> None:
    """Of D = 1 the state is alpha plus noise, at every node."""
    rows = trace(mixed([Decision("dpmpp", 2, history=1.7)] * NFE), SCHEDULE, NODES).rows
    scale = SCHEDULE.initial_scale(NODES[0].t)
    assert [row.x / scale * NODES[0].alpha + sum(row.d) for row in rows] == pytest.approx([node.alpha for node in NODES], abs=1e-12)


# Predictor-corrector guidance -----------------------------------------------------------------------------------


def test_predictor_corrector_guidance_by_hand() -> None:
    """Three steps: the predictors at guidance 1, the correctors at 2 w - 1 for w = 3, Ornstein-Uhlenbeck toward alpha G."""
    nodes = [replace(node, guidance=3.0) for node in grid("karras", SCHEDULE, 3)]
    z, x = noises(), X
    for s, t in pairwise(nodes):
        x = t.sigma / s.sigma * x + (t.alpha - s.alpha * t.sigma / s.sigma) * denoise(x, replace(s, guidance=1.0))
        if t.sigma:
            h = log(t.alpha / t.sigma) - log(s.alpha / s.sigma)
            mean = t.alpha * denoise(x, replace(t, guidance=5.0))
            x = mean + exp(-h) * (x - mean) + t.sigma * sqrt(1 - exp(-2 * h)) * next(z)
    np.testing.assert_allclose(sampled("pcg_ddim", nodes), x, rtol=0, atol=1e-12)
    table = get("pcg_ddim").tableau(SCHEDULE, grid("karras", SCHEDULE, 3), guidance=3.0)
    assert [node.guidance for node in table.nodes] == [1, 5, 1, 5, 1] and (table.nfe, table.network_calls) == (5, 7)
    scale = SCHEDULE.initial_scale(nodes[0].t)
    found = run(table.nodes, table.rows, denoise, X / scale, draw=lambda k: list(noises())[k])
    np.testing.assert_allclose(found, x, rtol=0, atol=1e-12)


def test_predictor_corrector_guidance_becomes_ancestral_sampling_with_guidance() -> None:
    """Theorem 3, on two Gaussians whose guided denoiser is linear: mean and variance of both samplers meet with the step."""
    schedule, w = LinearVP(), 2.5
    conditional, free = (0.6, 0.3), (0.0, 1.0)

    def guided(x: Array, node: Node) -> Array:
        def d(mean: float, v: float) -> Array:
            one = np.eye(len(x))[0]
            return mean * one + (x - mean * node.alpha * one) * (node.alpha * v / (node.alpha**2 * v + node.sigma**2))

        return d(*free) + node.guidance * (d(*conditional) - d(*free))

    def moments(name: str, steps: int) -> Array:
        lams = np.linspace(-2, 2.5, steps + 1)
        nodes = [replace(schedule.node_at_lam(float(lam)), guidance=w) for lam in lams]
        basis = np.eye(steps + 2)
        fresh = iter(basis[2:])
        x = SOLVERS[name].rule(Problem(schedule, guided, lambda: next(fresh)), basis[1], nodes)
        return np.array([x[0], (x[1:] ** 2).sum()])

    apart = [np.abs(moments("pcg_ddim", n) - moments("ddim_eta1", n)).max() for n in (40, 160, 640)]
    assert apart[2] < 0.01 and apart[0] > 3 * apart[1] > 9 * apart[2]


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "pcg_ddim"])
def test_other_solvers_are_guided_alike_everywhere(name: str) -> None:
    schedule, solver = Flow(), SOLVERS[name]
    nodes = grid("linspace", schedule, solver.steps(13))
    assert solver.tableau(schedule, nodes, guidance=4.0) == solver.tableau(schedule, nodes).guided(4.0)
