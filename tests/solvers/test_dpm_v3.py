"""DPM-Solver-v3 against the published code, against the solvers that it contains, and what it solves exactly."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from solversearch.grids import grid
from solversearch.parametrization import DATA, NOISE, Parametrization, constant
from solversearch.runtime import Node, Tableau
from solversearch.schedules import VE, DiscreteVP, Flow, LinearVP, NoiseSchedule
from solversearch.solvers import get
from solversearch.solvers.base import Past, Stage, multistep, run_stages
from solversearch.solvers.dpm_v3 import advance, corrector, dpm_v3, predictor
from solversearch.solvers.mixed import Decision, mixed
from solversearch.solvers.taylor import low_order
from solversearch.solvers.unipc import unic, unip
from solversearch.tableau import Problem, Rule, trace

Array = NDArray[np.float64]


def of(lams: Array, l: Array, s: Array) -> Parametrization:  # noqa: E741
    return Parametrization(tuple(lams.tolist()), tuple(l.tolist()), tuple(s.tolist()))


def statistics(lams: Array) -> Parametrization:
    """Of no model."""
    l = 1 / (1 + 0.3 * np.exp(2 * lams)) + 0.05 * np.sin(lams)  # noqa: E741
    return of(lams, l, -0.5 / (1 + np.exp(-lams)) + 0.1 * np.cos(lams))


PUBLISHED = {
    "dpm_v3_2": (-1.8902077, 1.3112040, 1.5415942, 0.0161522),
    "dpm_v3_3": (-11.1886439, 1.1161066, 0.4177321, 6.6512847),
    "dpm_v3_3_pseudo": (1.3915319, -0.8017099, 1.7559744, 0.8702957),
    "dpm_v3_2_exact": (-0.7676621, 1.2484981, 1.6545356, -1.0143996),
    "dpm_v3_3_exact": (-3.2493763, -0.5741089, 0.6450978, 2.1683736),
    "no corrector": (0.9935163, -0.8965580, 0.9925233, -0.9124908),
}
"""What github.com/thu-ml/DPM-Solver-v3 returns, in float64, with these `statistics` on 48,001 points and b = 0, for six steps uniform in
lambda from sigma = 80 to .002, from the states below, with the denoiser below. "no corrector" is its order 3."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_agrees_with_the_published_code(name: str) -> None:
    rule = dpm_v3(3, corrects=False) if name == "no corrector" else get(name).rule
    start, end = -np.log(80.0), -np.log(0.002)
    nodes = [Node(sigma, 1.0, sigma) for sigma in np.exp(-np.linspace(start, end, 7)).tolist()]

    def denoise(x: Array, node: Node) -> Array:
        return np.tanh(0.3 + 2 * x / (1 + node.sigma**2))

    problem = Problem(VE(), denoise, lambda: 0.0, statistics(np.linspace(start, end, 6001)))
    found = rule(problem, np.array([80.0, -40.0, 16.0, -104.0]), nodes)
    np.testing.assert_allclose(found, PUBLISHED[name], rtol=0, atol=2e-6)


def coefficients(table: Tableau) -> Array:
    return np.array([[row.x, *row.d, *[0.0] * (table.nfe - len(row.d))] for row in table.rows])


def lowered(rule: Any, order: int, correct: Any = None) -> Rule:
    return lambda problem, x, nodes: run_stages(
        problem, x, nodes, [Stage(rule, min(order, len(nodes) - 1 - i), correct) for i in range(len(nodes) - 1)]
    )


@pytest.mark.parametrize(
    "schedule", [DiscreteVP.named(), DiscreteVP.named(zero_terminal_snr=True), VE(), Flow()], ids=lambda each: type(each).__name__
)
@pytest.mark.parametrize(("parametrization", "prediction"), [(DATA, "data"), (NOISE, "noise")], ids=["data", "noise"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_contains_the_solvers_of_data_and_of_noise_prediction(
    parametrization: Parametrization, prediction: Any, order: int, schedule: NoiseSchedule
) -> None:
    """l = 1, s = 0 is DPM-Solver++ and l = 0, s = -1 DPM-Solver, with exact weights (UniP); their exact corrector is UniC with an output
    less, the pseudo predictor the Taylor step with derivatives of low order. Up to the least noise: to none, every l takes D itself."""
    nodes = grid("karras", schedule, 8)[:-1]

    def unic_of_as_many(new: Past, past: Any) -> Any:
        return unic(prediction)(new, past[:-1]) if len(past) > 1 else new.x

    exact = unip(prediction)
    for ours, theirs in (
        (dpm_v3(order, corrects=False), lowered(exact, order)),
        (dpm_v3(order, pseudo_corrector=False), lowered(exact, order, unic_of_as_many)),
        (dpm_v3(order, pseudo=True, corrects=False), lowered(low_order(prediction), order)),
    ):
        one, other = coefficients(trace(ours, schedule, nodes, parametrization)), coefficients(trace(theirs, schedule, nodes))
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-10 * np.abs(other).max())


def test_without_a_model_it_is_the_degenerate_form() -> None:
    nodes = grid("logsnr", LinearVP(), 6)
    for name in ("dpm_v3_2", "dpm_v3_3_exact"):
        assert get(name).tableau(LinearVP(), nodes) == get(name).tableau(LinearVP(), nodes, DATA)


MEAN, VARIANCES = 0.3, np.array([0.05, 0.2, 0.5, 2.0])


def error(rule: Rule, n: int) -> float:
    """On data N(.3, VARIANCES), between two finite lambda, with steps that shrink at both ends: there low orders cost 1/n^4."""
    schedule = LinearVP()
    u = np.linspace(0, 1, n + 1)
    nodes = [schedule.node_at_lam(float(each)) for each in -2 + 4 * u**2 / (u**2 + (1 - u) ** 2)]
    s, t, x = nodes[0], nodes[-1], np.full(4, 1.7)

    def denoise(x: Array, node: Node) -> Array:
        shrunk = node.alpha * VARIANCES / (node.alpha**2 * VARIANCES + node.sigma**2)
        return MEAN + shrunk * (x - MEAN * node.alpha)

    found = rule(Problem(schedule, denoise, lambda: 0.0, statistics(np.linspace(-3, 3, 2001))), x, nodes)
    growth = np.sqrt((t.alpha**2 * VARIANCES + t.sigma**2) / (s.alpha**2 * VARIANCES + s.sigma**2))
    return float(np.sqrt(np.mean((found - MEAN * t.alpha - growth * (x - MEAN * s.alpha)) ** 2)))


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({"order": 1, "corrects": False}, 1),
        ({"order": 2, "corrects": False}, 2),
        ({"order": 3, "corrects": False}, 3),
        ({"order": 3, "corrects": False, "pseudo": True}, 2),
        ({"order": 1}, 2),
        ({"order": 2}, 2),
        ({"order": 3}, 2),
        ({"order": 2, "pseudo_corrector": False}, 2),
        ({"order": 3, "pseudo_corrector": False}, 3),
    ],
)
def test_the_order_with_statistics_of_its_own(options: dict[str, Any], order: int) -> None:
    measured = np.log2(error(dpm_v3(**options), 80) / error(dpm_v3(**options), 160))
    assert measured == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize("schedule", [LinearVP(), VE(), Flow()], ids=lambda each: type(each).__name__)
def test_normal_data_take_one_step(schedule: NoiseSchedule) -> None:
    """With their own l = sigma^2 / (alpha^2 v + sigma^2), f is zero: a step between any two nodes is exact, whatever s."""
    v, lams = 0.4, np.linspace(-6, 6, 6001)
    known = of(lams, 1 / (1 + v * np.exp(2 * lams)), np.sin(lams))
    s, t = schedule.node_at_lam(-3.0), schedule.node_at_lam(2.5)
    x = np.array([1.3, -0.2])
    start = Past(s, x, x * (s.alpha * v / (s.alpha**2 * v + s.sigma**2)), x)
    found = advance(start, t, [], known, pseudo=False)
    exact = x * np.sqrt((t.alpha**2 * v + t.sigma**2) / (s.alpha**2 * v + s.sigma**2))
    np.testing.assert_allclose(found, exact, rtol=1e-6)


def test_an_output_that_changes_as_s_says_takes_one_step() -> None:
    """f(lambda) = f_0 e^{int s}: the state is a quadrature, done here on a fine grid."""
    schedule, known = VE(), statistics(np.linspace(-5, 7, 3001))
    s, t = schedule.node_at_lam(-1.0), schedule.node_at_lam(2.0)
    lams = np.linspace(-1, 2, 200_001)
    steps = np.diff(lams)

    def total(values: Array) -> Array:
        return np.concatenate([[0.0], np.cumsum(steps * (values[1:] + values[:-1]) / 2)])

    l, s_values = np.interp(lams, known.lams, known.l), np.interp(lams, known.lams, known.s)  # noqa: E741
    x, f = 1.7, -0.6
    exact = np.exp(-total(l)[-1]) * (x - total(np.exp(total(l) + total(s_values)))[-1] * f)
    start = Past(s, x, (1 - known.l_at(-1.0)) * x - f, x)
    assert advance(start, t, [], known, pseudo=False) == pytest.approx(exact, rel=1e-8)


def test_exponents_are_exact_integrals() -> None:
    """Of straight lines between the points, and of constants beyond them, in both directions."""
    known = Parametrization((0.0, 1.0, 3.0), (0.0, 2.0, 4.0), (1.0, 1.0, -1.0))
    l, s = known.exponents(np.array([-2.0, 0.5, 1.0, 2.0, 3.0, 5.0]), 0.5)  # noqa: E741
    np.testing.assert_allclose(l, [-0.25, 0, 0.75, 0.75 + 2.5, 0.75 + 6, 0.75 + 14])
    np.testing.assert_allclose(s, [-2.5, 0, 0.5, 0.5 + 0.5, 0.5, 0.5 - 2])
    for known, l_and_s in ((DATA, (1.0, 0.0)), (constant(0.25, -2.0), (0.25, -2.0))):
        np.testing.assert_allclose(np.ravel(known.exponents(np.array([7.5]), 3.5)), np.multiply(4.0, l_and_s))


def test_steps_of_a_space_are_those_of_the_solver() -> None:
    schedule, known = DiscreteVP.named(), statistics(np.linspace(-6, 6, 101))
    nodes = grid("logsnr", schedule, 6)
    decisions = [Decision("dpm_v3", min(3, 6 - i), corrector=True) for i in range(6)]
    assert trace(mixed(decisions), schedule, nodes, known) == get("dpm_v3_3").tableau(schedule, nodes, known)
    plain = [Decision("dpm_v3", 2, prediction=0.5)] * 6
    assert trace(mixed(plain), schedule, nodes, known) == trace(multistep(predictor(known), 2), schedule, nodes)


def test_a_first_order_step_is_not_corrected_by_an_exact_corrector() -> None:
    node, to = LinearVP().node_at_lam(-1.0), LinearVP().node_at_lam(0.0)
    past, new = Past(node, 1.0, 0.2, 1.0), Past(to, 0.8, 0.4, 0.8)
    assert corrector(DATA, pseudo=False)(new, [past]) == 0.8 != corrector(DATA)(new, [past])
