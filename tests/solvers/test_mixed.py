"""A mixed solver with constant decisions is the named solver; decisions act on their own step."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solversearch.errors import UserError
from solversearch.grids import grid
from solversearch.schedules import CLEAN, VE, DiscreteVP, Flow, NoiseSchedule
from solversearch.solvers import get
from solversearch.solvers.base import Solver, lam
from solversearch.solvers.dc import compensated
from solversearch.solvers.epsilon_scaling import epsilon_scaling
from solversearch.solvers.mixed import FAMILIES, Decision, mixed
from solversearch.spaces.candidate import canonical
from solversearch.tableau import Tableau, trace
from tests.solvers.test_contract import gaussian_error

STEPS = 7
SCHEDULE = DiscreteVP.named()


def lowered(decision: Decision) -> list[Decision]:
    return [replace(decision, order=min(decision.order, STEPS - i)) for i in range(STEPS)]


def singlestep(prediction: Any) -> list[Decision]:
    """The second of every two evaluations is an inner point; the odd one at the end is a first-order step."""
    inner = Decision("unip_bh2", 2, prediction, start="singlestep")
    return [inner if i % 2 else Decision(order=1) for i in range(STEPS)]


@pytest.mark.parametrize(
    ("name", "decisions"),
    [
        ("ddim", [Decision(order=1)] * STEPS),
        ("ddim", [Decision("ipndm", 1, "noise")] * STEPS),
        ("ddim", [Decision(order=1, prediction=0.3)] * STEPS),
        ("unip_2", [Decision("unip", 2)] * STEPS),
        ("unip_3_full", [Decision("unip", 3)] * STEPS),
        ("unip_4", lowered(Decision("unip", 4))),
        ("unipc_3", lowered(Decision("unip_bh2", 3, corrector=True))),
        ("unipc_3_bh1", lowered(Decision("unip_bh1", 3, corrector=True))),
        ("unipc_3_noise", lowered(Decision("unip_bh2", 3, "noise", corrector=True))),
        ("dpmpp_2m", [Decision("dpmpp", 2)] * STEPS),
        ("dpmpp_3m_full", [Decision("dpmpp", 3)] * STEPS),
        ("dpm_3m", lowered(Decision("dpmpp", 3, "noise"))),
        ("deis_logrho3", lowered(Decision("unip", 3, "noise"))),
        ("deis_rhoab2", [Decision("deis_rhoab", 3)] * STEPS),
        ("deis_tab3", [Decision("deis_tab", 4)] * STEPS),
        ("ipndm_4", [Decision("ipndm", 4)] * STEPS),
        ("dpmpp_2s", singlestep("data")),
        ("dpm_2s", singlestep("noise")),
        ("es_unipc_3", lowered(Decision("unip_bh2", 3, corrector=True, epsilon_scale=1.01))),
    ],
)
def test_constant_decisions_are_the_named_solver(name: str, decisions: list[Decision]) -> None:
    nodes = grid("logsnr", SCHEDULE, STEPS)
    ours, theirs = trace(mixed(decisions), SCHEDULE, nodes), get(name).tableau(SCHEDULE, nodes)
    assert ours.nodes == theirs.nodes
    for mine, other in zip(ours.rows, theirs.rows, strict=True):
        np.testing.assert_allclose([mine.x, *mine.d], [other.x, *other.d], rtol=0, atol=1e-13)


def test_compensation_is_that_of_dc_solver() -> None:
    ratios = [1, 1, 0.4, 0.9, 1.06, 1.04, 0.94]
    decisions = [replace(d, compensation=r) for d, r in zip(lowered(Decision("unip_bh2", 3, corrector=True)), ratios, strict=True)]
    nodes = grid("linspace", SCHEDULE, STEPS)
    assert trace(mixed(decisions), SCHEDULE, nodes) == trace(compensated(ratios), SCHEDULE, nodes)


def test_epsilon_scale_acts_on_its_own_evaluation() -> None:
    nodes = grid("linspace", SCHEDULE, 2)
    scaled = trace(mixed([Decision(order=1), Decision(order=1, epsilon_scale=1.1)]), SCHEDULE, nodes)
    plain, every = get("ddim").tableau(SCHEDULE, nodes), trace(epsilon_scaling(get("ddim").rule, 1.1), SCHEDULE, nodes)
    assert scaled.rows[1] == plain.rows[1] != every.rows[1]
    assert scaled.rows[2].d[1] == pytest.approx(1 / 1.1)


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    name = draw(st.sampled_from(list(FAMILIES)))
    return Decision(
        name,
        draw(st.integers(1, FAMILIES[name][0])),
        draw(st.sampled_from(["data", "noise", 0.0, 0.3, 1.0])),
        draw(st.sampled_from(["exact", "low"])),
        draw(st.sampled_from([0.0, 0.1, -0.2])),
        draw(st.booleans()),
        draw(st.sampled_from(["multistep", "singlestep"])),
        compensation=draw(st.sampled_from([1.0, 0.7, 1.2])),
        churn=draw(st.sampled_from([0.0, 0.0, 0.4, 1.0])),
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(decisions(), min_size=1, max_size=6), st.sampled_from(["vp", "zero_snr", "ve", "flow"]), st.booleans())
def test_any_decisions_reproduce_constant_and_zero_denoisers(choice: list[Decision], kind: str, free: bool) -> None:
    """On D = c the exact state is alpha c + sigma e, at every node: its noise, old and fresh together, has variance sigma^2."""
    schedules: dict[str, NoiseSchedule] = {
        "vp": SCHEDULE, "zero_snr": DiscreteVP.named(zero_terminal_snr=True), "ve": VE(), "flow": Flow(),
    }  # fmt: skip
    schedule = schedules[kind]
    free = free and float(schedule.alpha(schedule.t_start)) > 0
    nodes = grid("linspace", schedule, len(choice) + free)
    tableau = trace(mixed(choice), schedule, nodes[free:])
    assert tableau.nfe == len(choice)
    assert tableau.stochastic == any(decision.churn for decision in choice[:-1])
    scale = schedule.initial_scale(nodes[free].t)
    for node, row in zip((*tableau.nodes, CLEAN), tableau.rows, strict=True):
        x = row.x / scale
        size = 1 + abs(x) + sum(map(abs, row.d))
        assert abs(x * nodes[free].alpha + sum(row.d) - node.alpha) < 1e-10 * size
        assert abs(np.hypot(x * nodes[free].sigma, np.linalg.norm(row.z)) - node.sigma) < 1e-10 * size


@settings(max_examples=150, deadline=None)
@given(st.lists(decisions(), min_size=1, max_size=6), st.booleans())
def test_canonical_decisions_are_the_same_table(choice: list[Decision], free: bool) -> None:
    simple = canonical(choice, free)
    assert canonical(simple, free) == simple
    nodes = grid("linspace", SCHEDULE, len(choice) + free)
    first, second = (trace(mixed(each, free), SCHEDULE, nodes) for each in (choice, simple))
    noise, outputs, fresh = np.random.default_rng(0).standard_normal((3, 7))
    for one, other in zip(first.rows, second.rows, strict=True):
        values = [r.x * noise[0] + np.dot(r.d, outputs[: len(r.d)]) + np.dot(r.z, fresh[: len(r.z)]) for r in (one, other)]
        assert values[0] == pytest.approx(values[1], rel=1e-9, abs=1e-9 * (1 + sum(map(abs, one.d))))


def test_a_blend_lies_between_its_ends() -> None:
    nodes = grid("logsnr", SCHEDULE, STEPS)

    def table(prediction: Any) -> Tableau:
        return trace(mixed([Decision("unip", 3, prediction)] * STEPS), SCHEDULE, nodes)

    assert table(0.0) == table("data") and table(1.0) == table("noise")
    # A table is bent by the blends of all its steps; where only the last step is blended, it is linear in the share.
    plain, shares = [Decision("unip", 3)] * 2, ("data", 0.25, "noise")
    ends = [trace(mixed([*plain, Decision("unip", 3, share)]), SCHEDULE, nodes[:4]).rows[3] for share in shares]  # type: ignore[arg-type]
    np.testing.assert_allclose(np.array(ends[1].d), 0.75 * np.array(ends[0].d) + 0.25 * np.array(ends[2].d), rtol=0, atol=1e-13)


def test_low_order_derivatives_are_divided_differences() -> None:
    """At order 3 against the written-out formula; at order 2 as with exact weights."""
    nodes = grid("linspace", SCHEDULE, STEPS)[:4]
    low = trace(mixed([Decision("unip", 3, derivative="low")] * 3), SCHEDULE, nodes)
    exact = trace(mixed([Decision("unip", 3)] * 3), SCHEDULE, nodes)
    assert low.rows[:3] == exact.rows[:3] and low.rows[3] != exact.rows[3]
    l2, l1, l0, end = (lam(node) for node in nodes)
    h, alpha = end - l0, nodes[3].alpha
    first = np.array([0, -1, 1]) / (l0 - l1)
    second = 2 * (first - np.array([-1, 1, 0]) / (l1 - l2)) / (l0 - l2)
    phi1 = h - 1 + np.exp(-h)  # int e^{-u} (h - u) du
    phi2 = h**2 / 2 - phi1  # int e^{-u} (h - u)^2 / 2 du
    ratio = nodes[3].sigma / nodes[2].sigma
    written = (
        np.array([*low.rows[2].d, 0]) * ratio + np.array([0, 0, alpha - ratio * nodes[2].alpha]) + alpha * (phi1 * first + phi2 * second)
    )
    np.testing.assert_allclose(low.rows[3].d, written, rtol=0, atol=1e-12)


def test_the_derivative_scale_multiplies_weights_on_differences() -> None:
    nodes = grid("linspace", SCHEDULE, STEPS)[:3]
    tables = [trace(mixed([Decision("unip", 2, derivative_scale=c)] * 2), SCHEDULE, nodes) for c in (0.0, 0.1)]
    h = lam(nodes[2]) - lam(nodes[1])
    assert tables[1].rows[2].d[0] - get("ddim").tableau(SCHEDULE, nodes).rows[2].d[0] == pytest.approx(
        (1 + 0.1 * h) * (tables[0].rows[2].d[0] - get("ddim").tableau(SCHEDULE, nodes).rows[2].d[0]), rel=1e-12
    )


@pytest.mark.parametrize(
    ("decision", "order"),
    [
        (Decision("unip", 3, 0.5), 3),
        (Decision("unip", 3, start="singlestep"), 3),
        (Decision("unip", 2, "noise", start="singlestep"), 2),
        (Decision("unip", 3, derivative="low"), 2),
        (Decision("unip", 2, 0.5, corrector=True), 3),
        (Decision("unip", 2, derivative_scale=0.3), 2),
    ],
)
def test_measured_order(decision: Decision, order: int) -> None:
    """The slope of the error on a Gaussian, whose solution is known, as the count of steps doubles."""
    solver = Solver("mixed", lambda problem, x, nodes: mixed([decision] * (len(nodes) - 1))(problem, x, nodes), order, "")
    errors = [gaussian_error(solver, n) for n in (40, 80, 160)]
    assert abs(np.log2(errors[1] / errors[2]) - order) < 0.4, errors


def test_churn_of_first_order_is_ancestral_sampling() -> None:
    """DDIM with eta = 1 draws the share sqrt(1 - e^{-2 h}) of the noise afresh."""
    nodes = grid("linspace", SCHEDULE, STEPS)
    lams = [lam(node) for node in nodes]
    fresh = [np.sqrt(-np.expm1(-2 * (end - start))) for start, end in pairwise(lams)]
    ours = trace(mixed([Decision(order=1, churn=float(share)) for share in fresh]), SCHEDULE, nodes)
    theirs = get("ddim_eta1").tableau(SCHEDULE, nodes)
    for mine, other in zip(ours.rows, theirs.rows, strict=True):
        np.testing.assert_allclose([mine.x, *mine.d, *mine.z], [other.x, *other.d, *other.z], rtol=0, atol=1e-13)


def test_a_step_with_churn_is_not_corrected() -> None:
    nodes = grid("linspace", SCHEDULE, 4)
    tables = [trace(mixed([Decision("unip", 2, corrector=c, churn=0.5)] * 4), SCHEDULE, nodes) for c in (True, False)]
    assert tables[0] == tables[1]


def test_an_analytic_first_step_is_free() -> None:
    """It is DDIM with D = (x - sigma eps) / alpha, eps = x; and joins the history."""
    nodes = grid("linspace", SCHEDULE, 4)
    table = trace(mixed([Decision("unip", 2)] * 3, analytic_first_step=True), SCHEDULE, nodes)
    assert [node.t for node in table.nodes] == [node.t for node in nodes[1:4]]
    start, first = nodes[:2]
    d = (1 - start.sigma) / start.alpha
    assert table.rows[0].x == pytest.approx(first.alpha * d + first.sigma / start.sigma * (1 - start.alpha * d), rel=1e-12)
    evaluated = get("unip_2").tableau(SCHEDULE, nodes)  # the same solver, with the first evaluation paid for
    assert table.rows[1].x == pytest.approx(evaluated.rows[2].x + evaluated.rows[2].d[0] * d, rel=1e-12)
    np.testing.assert_allclose(table.rows[1].d, evaluated.rows[2].d[1:], rtol=1e-12)
    assert trace(mixed([Decision()] * 3, True), VE(), grid("karras", VE(), 4)).rows[0].x == pytest.approx(grid("karras", VE(), 4)[1].sigma)


def test_no_analytic_first_step_without_signal() -> None:
    with pytest.raises(UserError, match="alpha > 0"):
        trace(mixed([Decision()] * 3, True), Flow(), grid("linspace", Flow(), 4))


@pytest.mark.parametrize(
    "wrong",
    [
        {"solver": "unipp"},
        {"order": 0},
        {"order": 5},
        {"order": 2.0},
        {"solver": "dpmpp", "order": 4},
        {"prediction": "noize"},
        {"epsilon_scale": 0.0},
        {"prediction": 1.1},
        {"prediction": float("nan")},
        {"derivative": "lower"},
        {"derivative_scale": float("inf")},
        {"start": "multi"},
        {"churn": 1.5},
        {"churn": -0.1},
        {"compensation": float("nan")},
    ],
)
def test_wrong_decisions_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        Decision(**wrong)


def test_the_number_of_decisions_is_that_of_the_steps() -> None:
    with pytest.raises(UserError, match="4 steps"):
        trace(mixed([Decision()] * 3), SCHEDULE, grid("linspace", SCHEDULE, 4))
