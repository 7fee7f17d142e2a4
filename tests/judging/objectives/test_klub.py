"""KLUB and the times of least KLUB, against the closed forms of the Gaussian N(0, c^2)."""

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.special import softmax

from solversearch.errors import UserError
from solversearch.grids import grid
from solversearch.judging.klub import inverse_psi, klub, noises, psi, spread
from solversearch.judging.objectives import OBJECTIVES
from solversearch.judging.objectives.ays import ays_times, step_costs
from solversearch.models.base import Clock, Model
from solversearch.runtime import Node
from solversearch.schedules import VE, DiscreteVP, Floats, Flow, NoiseSchedule
from solversearch.solvers import get
from solversearch.teacher import Teacher, teach
from tests.judging.objectives.conftest import Ran

C = 0.5
WIDTH = 64
SCHEDULES = [VE(0.02, 80.0), Flow(), DiscreteVP.named()]


def gaussian(schedule: NoiseSchedule, n: int) -> tuple[Model, Teacher]:
    """The exact denoiser alpha c^2 x / (alpha^2 c^2 + sigma^2), and n samples of the data, of covariance c^2 exactly."""

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = (torch.as_tensor(f(t.numpy())).view(-1, 1) for f in (schedule.alpha, schedule.sigma))
        return alpha * C**2 / (alpha**2 * C**2 + sigma**2) * x

    x = torch.from_numpy(np.random.default_rng(0).standard_normal((n, WIDTH)))
    x = C * (x - x.mean(0)) / x.std(0)
    none = torch.empty(0)
    return Model("gaussian", network, schedule, "sample", (WIDTH,), dtype=torch.float64), Teacher(
        "validate", 0, x, None, x, none, none, none, 0.0, range(n)
    )


def nodes_at(schedule: NoiseSchedule, logs: Floats) -> list[Node]:
    """Nodes where ln(1 + c^2 / t^2) has the given values."""
    return [schedule.node(float(t)) for t in schedule.time_of_angle(np.arctan2(C, np.sqrt(np.expm1(logs))))]


def ends(schedule: NoiseSchedule) -> tuple[float, float]:
    first, last = (schedule.node(t) for t in (schedule.t_start, schedule.t_end))
    return float(np.log1p((C * first.alpha / first.sigma) ** 2)), float(np.log1p((C * last.alpha / last.sigma) ** 2))


def best_times(schedule: NoiseSchedule, nfe: int) -> list[float]:
    """Uniform in ln(1 + c^2 / t^2)."""
    return [node.t for node in nodes_at(schedule, np.linspace(*ends(schedule), nfe + 1)[:-1])]


def test_psi_and_its_inverse() -> None:
    assert float(psi(1.0)) == pytest.approx(1 - np.log(2), rel=1e-15)
    y = np.logspace(-12, 6, 40)
    np.testing.assert_allclose(psi(inverse_psi(y)), y, rtol=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_value_is_the_quadrature_of_the_closed_form(schedule: NoiseSchedule) -> None:
    """int t^-3 c^4 [1 / (c^2 + t^2) - 1 / (c^2 + t_i^2)] dt, here over ln t, for times that are nowhere near the best."""
    model, teacher = gaussian(schedule, 1024)
    nodes = [node for node in grid("quadratic", schedule, 4) if node.sigma]
    levels = [node.sigma / node.alpha if node.alpha else np.inf for node in [*nodes, schedule.node(schedule.t_end)]]

    def integrand(log_t: float, held: float) -> float:
        t = np.exp(log_t)
        return C**4 * (1 / (C**2 + t**2) - 1 / (C**2 + held**2)) / t**2

    expected = WIDTH * sum(quad(integrand, np.log(low), np.log(min(high, 1e4)), (high,), limit=200)[0] for high, low in pairwise(levels))
    assert klub(model, nodes, teacher) == pytest.approx(expected, rel=0.01)
    # Another c moves the points, not the value.
    assert klub(model, nodes, teacher, c=2 * C) == pytest.approx(expected, rel=0.03)
    assert klub(model, nodes[::-1], teacher) == klub(model, nodes, teacher)


def test_times_of_least_value_are_the_closed_form() -> None:
    """Found by a general optimiser on the estimate itself: the same noise for all times makes it smooth."""
    schedule, nfe = SCHEDULES[0], 4
    model, teacher = gaussian(schedule, 2048)
    first, last = ends(schedule)

    def nodes(theta: Floats) -> list[Node]:
        return nodes_at(schedule, first + (last - first) * np.concatenate([[0.0], np.cumsum(softmax(theta))[:-1]]))

    found = minimize(lambda theta: np.log(klub(model, nodes(theta), teacher)), [0.5, 0.0, -0.5, 0.3], method="BFGS", options={"gtol": 1e-4})
    np.testing.assert_allclose([node.t for node in nodes(found.x)], best_times(schedule, nfe), rtol=0.01)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_dynamic_programme_finds_the_closed_form(schedule: NoiseSchedule) -> None:
    costs = step_costs(*gaussian(schedule, 512))
    for nfe in (1, 2, 5, 10):
        times = costs.times(nfe)
        assert len(times) == nfe and all(later < earlier for earlier, later in pairwise(times))
        np.testing.assert_allclose(times, best_times(schedule, nfe), rtol=0.01)


def test_dynamic_programme_is_the_best_of_all_ways() -> None:
    costs = step_costs(*gaussian(Flow(), 64), levels=12)
    ways = [[0, *inner, 11] for inner in combinations(range(1, 11), 3)]
    best = min(ways, key=lambda way: costs.cost(costs.s[way[:-1]], costs.s[way[1:]]).sum())
    assert costs.best_levels(4) == best
    assert costs.best_levels(1) == [0, 11] and costs.best_levels(11) == list(range(12))


def test_step_costs_are_the_terms_of_the_value(coins: Model) -> None:
    """On a model with two modes, guided: the two estimates share no formula but the definition."""
    teacher, schedule = teach(coins, "fit", 1024, guidance=3.0), coins.schedule
    nodes = [replace(node, guidance=3.0) for node in grid("logsnr", schedule, 4) if node.sigma]
    costs = step_costs(coins, teacher, guidance=3.0)
    s = np.arcsinh([costs.c * node.alpha / node.sigma for node in [*nodes, schedule.node(schedule.t_end)]])
    assert costs.cost(s[:-1], s[1:]).sum() == pytest.approx(klub(coins, nodes, teacher), rel=0.05)
    assert klub(coins, [replace(node, guidance=1.0) for node in nodes], teacher) != klub(coins, nodes, teacher)
    assert klub(coins, [nodes[0], *(replace(node, guidance=1.0) for node in nodes[1:])], teacher) == klub(coins, nodes, teacher)


def test_no_found_time_can_be_moved_to_advantage(coins: Model) -> None:
    """On two modes, guided, by the other estimate."""
    teacher, schedule = teach(coins, "fit", 1024, guidance=3.0), coins.schedule
    found = [replace(schedule.node(t), guidance=3.0) for t in ays_times(coins, teacher, 5, guidance=3.0)]
    value = klub(coins, found, teacher)
    for i in range(1, 5):
        for factor in (0.8, 0.9, 1.1, 1.25):
            moved = [*found[:i], replace(schedule.node(found[i].t * factor), guidance=3.0), *found[i + 1 :]]
            assert klub(coins, moved, teacher) > 0.99 * value


def test_found_times_beat_every_grid_on_other_noise(digits: Model, teacher: Teacher) -> None:
    found = [digits.schedule.node(t) for t in ays_times(digits, teach(digits, "fit", 96), 5)]
    value = klub(digits, found, teacher)
    for name in ("quadratic", "logsnr", "karras", "ays_sdxl"):
        assert value < 0.6 * klub(digits, grid(name, digits.schedule, 5)[:-1], teacher)


def test_what_is_skipped_at_the_noisy_end_is_paid_for() -> None:
    """Down to t_0 the output is held at 0, for the Gaussian psi(1 + c^2 / t^2) / 2 an element since infinite noise."""
    schedule = SCHEDULES[0]
    model, teacher = gaussian(schedule, 1024)
    w_start, w_first, w_last = (1 + (C / t) ** 2 for t in (80.0, 0.1, 0.02))
    skipped, step = float(psi(w_first - 1) - psi(w_start - 1)) / 2, float(psi(w_last / w_first - 1)) / 2
    assert skipped > step / 2  # or this test would show little
    assert klub(model, [schedule.node(0.1)], teacher) == pytest.approx(WIDTH * (skipped + step), rel=0.01)


def test_noise_is_the_samples_own_and_batches_change_nothing(digits: Model, teacher: Teacher) -> None:
    for all_of_them, few in zip(noises(teacher), noises(teacher.first(10)), strict=True):
        assert torch.equal(all_of_them[:10], few)
    assert not torch.equal(*noises(teacher)) and not torch.equal(noises(teacher)[0], teacher.noise)
    assert ays_times(digits, teacher, 4, batch_size=64) == ays_times(digits, teacher, 4)


def test_costs_what_it_says(ran: Ran) -> None:
    """Two evaluations a sample for every evaluation of the table, on the clock."""
    clock = Clock()
    outcome = replace(ran("ddim", 5), clock=clock)
    OBJECTIVES["klub"].value(outcome)
    assert clock.evaluations == 2 * 5 * len(outcome.teacher)


def test_solver_does_not_matter_and_repeated_times_cost_nothing(digits: Model, teacher: Teacher) -> None:
    nodes = grid("quadratic", digits.schedule, 3)
    heun = get("heun").tableau(digits.schedule, nodes)
    assert heun.nfe == 5
    assert klub(digits, heun.nodes, teacher) == pytest.approx(klub(digits, nodes[:-1], teacher), rel=0.05)


@pytest.mark.parametrize("nfe", [0, 64])
def test_counts_that_the_levels_do_not_allow(nfe: int) -> None:
    with pytest.raises(UserError, match=rf"64 noise levels allow 1 to 63 evaluations, not {nfe}"):
        ays_times(*gaussian(Flow(), 8), nfe)


def test_spread_is_about_the_mean() -> None:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((4000, 3))) * torch.tensor([1.0, 2.0, 3.0]) + 10
    assert spread(x) == pytest.approx((14 / 3) ** 0.5, rel=0.02)
