"""Methods that learn by recipes of their own, each against a computation that shares no code with it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import minimize
from torch import Tensor

import solversearch.search.strategies.by_gradient as module
from solversearch.grids import grid
from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.memory import Backward
from solversearch.models.base import Clock, Model
from solversearch.runtime import Node, Tableau
from solversearch.sampling import sample
from solversearch.schedules import CLEAN, DiscreteVP, Floats, Flow, NoiseSchedule
from solversearch.search.evaluating.evaluations import Log
from solversearch.search.evaluating.evaluator import Evaluated
from solversearch.search.fitting.learnable import Learnable
from solversearch.search.fitting.polish import Gradients
from solversearch.search.pipeline import Found, run_stages
from solversearch.search.settings import Settings
from solversearch.search.stages import baseline, recipe, surrogate
from solversearch.search.stages.recipe import Given, starting
from solversearch.search.stages.task import Budget, Task
from solversearch.search.strategies import STRATEGIES, dmn, gits, oss
from solversearch.search.strategies import gs as generalised
from solversearch.search.strategies.by_gradient import ByGradient
from solversearch.search.strategies.gs import GS, Generalised
from solversearch.search.strategies.ld3 import LD3, RELAXED, Discretised
from solversearch.search.strategies.s4s import S4S, Multistep
from solversearch.spaces import Candidate, Domain, SearchSpace
from solversearch.teacher import Teacher, teach
from tests.assets import coins
from tests.contracts import docstring_lacks, lacks, one_line

MODEL = coins.factory()
RECIPES = {name: entry for name, entry in STRATEGIES.items() if entry.learns}
VP = DiscreteVP.named()
RNG = np.random.default_rng(0)


def task_of(space: str, log: Path | None = None, model: Model = MODEL, **asked: Any) -> Task:
    counts = {"nfe": 4, "fit_samples": 64, "validation_samples": 64, "samples": 64, "evaluations": 40_000}
    return Task(model, Settings.of(SearchSpace.named(space), **{**counts, **asked}).sized(model), lambda *_: None, Log(log))


def learned(space: str, **asked: Any) -> Found:
    return run_stages(task_of(space, **asked))


def results(space: str, log: Path | None = None, model: Model = MODEL, **asked: Any) -> list[Evaluated]:
    """Of the recipe alone, whether or not they are better than the best baseline."""
    task = task_of(space, log, model, **asked)
    fitting, validation = task.learning
    starts, best, evaluator = baseline.run(task, fitting, validation, surrogate.run(task, fitting, validation))
    budget = Budget(task.settings.evaluations, task.clock, task.clock.evaluations)
    return list(recipe.run(task, evaluator, budget, best, starts))


def start(space: str, nfe: int = 4, schedule: NoiseSchedule = VP, guidance: float = 1.0) -> Candidate:
    nodes = grid("quadratic", schedule, nfe)[:-1]
    domain = Domain.of(SearchSpace.named(space), schedule, nfe, guidance, [nodes])
    return domain.candidate(domain.seed(nodes))


# All of them -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("entry", RECIPES.values(), ids=RECIPES)
def test_a_recipe_says_what_it_is(entry: Any) -> None:
    loaded = import_module(f"solversearch.search.strategies.{entry.maker.partition(':')[0]}")
    space = SearchSpace.named(entry.name)
    lacks(entry.name, [
        *docstring_lacks(loaded),
        ("arXiv:" not in (loaded.__doc__ or ""), "a source in the docstring"),
        (not one_line(entry.about), "what it is, in one line"),
        (space.search.strategy != entry.name, f"a preset {entry.name} whose strategy it is"),
        (not entry.made().cost(Settings.of(space, nfe=4).sized(MODEL), 4) > 0, "what it costs"),
    ])  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("nfe", [1, 2, 4])
def test_a_recipe_stays_within_its_budget_and_takes_the_place_of_all_stages(name: str, nfe: int) -> None:
    for granted in (50, 12_000 * nfe):
        found = learned(name, nfe=nfe, evaluations=granted)
        judged = nfe * 64
        assert [stage.name for stage in found.stages] == ["best baseline", name]
        assert found.evaluations <= granted + judged
        assert found.best is not None and found.best.table.nfe == nfe and found.loop is None


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_recipe_costs_no_more_than_it_says(name: str, guidance: float, short: None) -> None:
    task = task_of(name, evaluations=10**9, guidance=guidance)
    most = RECIPES[name].made().cost(task.settings, 4 if guidance == 1 else 8)
    assert 0.4 * most < run_stages(task).evaluations <= most


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few batches a round."""
    for name, whole in (("gs", GS), ("ld3", LD3), ("s4s", S4S)):
        few = replace(whole, samples=min(whole.samples, 96), steps=30 if name == "gs" else 4)
        monkeypatch.setattr(f"solversearch.search.strategies.{name}.{name.upper()}", few)


@pytest.mark.parametrize("name", RECIPES)
def test_the_seed_decides_whatever_the_batch_size_and_nothing_is_evaluated_twice(name: str, short: None, tmp_path: Path) -> None:
    def tables(log: Path | None = None, **asked: Any) -> tuple[list[Tableau], int]:
        calls: list[int] = []

        def network(*given: Tensor) -> Tensor:
            calls.append(len(given[0]))
            return MODEL.network(*given)

        counted = replace(MODEL, network=network)
        return [each.table for each in results(name, log, counted, **asked)], sum(calls)

    whole, _ = tables(tmp_path / "log")
    again, paid = tables(tmp_path / "log")
    assert whole == again == tables(batch_size=100)[0] != [] and paid <= 16  # what tells that the model is the same


@pytest.mark.parametrize("name", ["gs", "ld3", "s4s"])
def test_what_is_learned_is_better_than_its_start(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solversearch.search.strategies.ld3.LD3", replace(LD3, steps=5))
    found = results(name, guidance=2.0, evaluations=150_000)
    validation = task_of(name, guidance=2.0).learning[1]
    nodes = grid("linspace", MODEL.schedule, 4)[:-1]
    domain = Domain.of(SearchSpace.named(name), MODEL.schedule, 4, 2.0, [nodes])
    for start, result in zip(starting(domain, nodes), found, strict=True):
        first = endpoint_mse(sample(MODEL, start.tableau(MODEL.schedule), validation), validation.endpoint)
        assert result.error.mean() < 0.8 * first.mean() and not result.table.split and result.origin == {"learned by": name}


def test_fewer_validation_samples_than_a_recipe_wants_are_all_looked_at(short: None) -> None:
    assert [len(each.error) for each in results("ld3", validation_samples=16)] == [16, 16]


def test_every_solver_of_the_space_is_learned_with() -> None:
    found = starting(Domain.of(SearchSpace.named("oss"), VP, 4, 1.0, []), grid("quadratic", VP, 4)[:-1])
    orders = {(each.decisions[1].solver, each.decisions[1].order) for each in found}
    assert {(solver, order) for solver in ("dpmpp", "unip_bh2", "ipndm") for order in (2,)} < orders and len(found) == 7
    assert all(each.times == pytest.approx([node.t for node in grid("quadratic", VP, 4)[:-1]], abs=1e-6) for each in found)


# What is learned by gradient -----------------------------------------------------------------------------------------

FORMS = [(Generalised, "gs"), (Discretised, "ld3"), (Multistep, "s4s")]


@pytest.mark.parametrize("schedule", [VP, Flow(shift=3.0, scale=1000.0)], ids=["vp", "flow"])
@pytest.mark.parametrize(("form", "space"), FORMS)
def test_learning_starts_at_the_solver_and_times_stay_in_order(form: type[Learnable], space: str, schedule: NoiseSchedule) -> None:
    candidate = start(space, 5, schedule)
    learnable = form(schedule, candidate)
    given, table = candidate.tableau(schedule), learnable.table_of(learnable.start)
    for one, other in zip(given.nodes, table.nodes, strict=True):
        assert (other.t, other.alpha, other.sigma) == pytest.approx((one.t, one.alpha, one.sigma), rel=1e-6, abs=1e-9)
    for a, b in zip(given.rows, table.rows, strict=True):
        assert (b.x, *b.d) == pytest.approx((a.x, *a.d), rel=1e-5, abs=1e-8)
    for scale in (0.1, 1.0, 3.0):
        theta = learnable.start + scale * RNG.standard_normal(len(learnable.start))
        times = learnable.times(theta[learnable.places["times"]])
        assert times[0] == schedule.t_start and np.all(np.diff(times) < 0) and times[-1] > schedule.t_end
        told = np.array([node.t for node in learnable.table_of(theta).nodes])
        assert np.all((told >= schedule.t_end) & (told <= schedule.t_start))
        if form is not Generalised:
            gaps = -np.diff([*times, schedule.t_end])
            assert told[0] == times[0] and np.abs(told - times).max() <= 0.5 * gaps.min() * (1 + 1e-9)


def by_hand(step: Callable[[list[Floats], list[Floats], int], Floats], nfe: int) -> list[Floats]:
    """The rows of a loop on basis vectors: the noise first, then an output for every evaluation."""
    basis = np.eye(nfe + 1)
    states, outputs = [basis[0]], [basis[1]]
    for n in range(nfe):
        states.append(step(states, outputs, n))
        if n + 1 < nfe:
            outputs.append(basis[n + 2])
    return states


def rows_of(table: Tableau) -> list[Floats]:
    return [np.array([row.x, *row.d, *[0.0] * (table.nfe - len(row.d))]) for row in table.rows]


def test_gs_takes_the_step_of_its_paper() -> None:
    """Its update, with residuals on coefficients of outputs and of states, written as its loop is."""
    candidate = start("gs", 5)
    learnable = Generalised(VP, candidate)
    theta = learnable.start.copy()
    theta[learnable.places["coefficients"]] = numbers = 0.1 * RNG.standard_normal(30)
    c = {(n, k): numbers[n * (n + 1) // 2 + k] for n in range(5) for k in range(n + 1)}
    a = {(n, i): numbers[15 + n * (n + 1) // 2 + i] for n in range(5) for i in range(n + 1)}
    plain = learnable.table_of(learnable.start)
    nodes = [*plain.nodes, CLEAN]
    # The coordinate in which steps are divided: -position, and that of t_end for the last one, which goes to infinity.
    lam = [-float(VP.position(node.t)) for node in plain.nodes] + [-float(VP.position(VP.t_end))]

    def own(x: list[Floats], m: list[Floats], n: int) -> Floats:
        """DPM-Solver++(3M) itself, as diffusers and the paper have it."""
        here, there = nodes[n], nodes[n + 1]
        if there.sigma == 0:
            return m[n]
        lams = [np.log(node.alpha / node.sigma) for node in nodes[: n + 2]]
        h = lams[n + 1] - lams[n]
        found = there.sigma / here.sigma * x[n] - there.alpha * np.expm1(-h) * m[n]
        if n == 1:
            found = found - 0.5 * there.alpha * np.expm1(-h) * (m[1] - m[0]) / ((lams[1] - lams[0]) / h)
        if n >= 2:
            r0, r1 = (lams[n] - lams[n - 1]) / h, (lams[n - 1] - lams[n - 2]) / h
            d0, d1 = (m[n] - m[n - 1]) / r0, (m[n - 1] - m[n - 2]) / r1
            first, second = d0 + r0 / (r0 + r1) * (d0 - d1), (d0 - d1) / (r0 + r1)
            found = found + there.alpha * (np.expm1(-h) / h + 1) * first - there.alpha * ((np.expm1(-h) / h + 1) / h - 0.5) * second
        return found

    def step(x: list[Floats], m: list[Floats], n: int) -> Floats:
        h = lam[n + 1] - lam[n]
        found = own(x, m, n) + c[n, 0] * m[n] + sum(a[n, i] * x[i] for i in range(n + 1))
        if n >= 1:
            d0 = (m[n] - m[n - 1]) * h / (lam[n] - lam[n - 1])
            if n == 1:
                return found + c[n, 1] * d0
            r0, r1 = (lam[n] - lam[n - 1]) / h, (lam[n - 1] - lam[n - 2]) / h
            d1 = (m[n - 1] - m[n - 2]) / r1
            found = found + c[n, 1] * (d0 + r0 / (r0 + r1) * (d0 - d1)) + c[n, 2] * (d0 - d1) / (r0 + r1)
            found = found + sum(c[n, k] * m[n - k] for k in range(3, n + 1))
        return found

    for mine, theirs in zip(rows_of(learnable.table_of(theta)), by_hand(step, 5), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-9)


def test_s4s_takes_the_step_of_a_linear_multistep_method() -> None:
    candidate = replace(start("s4s", 4), decisions=tuple(replace(each, order=1) for each in start("s4s", 4).decisions))
    learnable = Multistep(VP, candidate)
    theta = learnable.start.copy()
    theta[learnable.places["coefficients"]] = numbers = 0.1 * RNG.standard_normal(9)
    b = dict(zip([(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3)], numbers, strict=True))
    nodes = [*learnable.table_of(learnable.start).nodes, CLEAN]

    def step(x: list[Floats], m: list[Floats], n: int) -> Floats:
        here, there = nodes[n], nodes[n + 1]
        ratio = there.sigma / here.sigma
        weight = there.alpha - here.alpha * ratio  # alpha (1 - e^-h)
        return ratio * x[n] + weight * (m[n] + sum(b.get((n, i), 0.0) * m[i] for i in range(n + 1)))

    for mine, theirs in zip(rows_of(learnable.table_of(theta)), by_hand(step, 4), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(("form", "space"), FORMS)
def test_gradients_are_those_of_finite_differences(digits: Model, fitting: Teacher, form: type[Learnable], space: str) -> None:
    teacher, learnable = fitting.first(8), form(digits.schedule, start(space, 4, digits.schedule))
    function = Gradients(digits, learnable, teacher, False, Clock(), Backward(64, False), start_noise=True)
    theta = torch.tensor(learnable.start + 0.01 * RNG.standard_normal(len(learnable.start)))
    error, gradient, by_noise = function(theta, range(8))

    def errors(theta: Tensor, noise: Tensor = teacher.noise) -> Tensor:
        return endpoint_mse(sample(digits, learnable.table_at(theta), replace(teacher, noise=noise)), teacher.endpoint)

    assert torch.allclose(error, errors(theta), rtol=1e-4)
    for k in range(len(theta)):
        if learnable.places["told"].start == k:
            continue  # the first told time is at the end of the schedule
        h = 1e-3 * torch.eye(len(theta), dtype=torch.float64)[k]
        slope = (errors(theta + h) - errors(theta - h)) / 2e-3
        assert torch.allclose(slope, gradient[:, k], rtol=0.03, atol=2e-2 * float(gradient.abs().max()))
    direction = torch.from_numpy(RNG.standard_normal(teacher.noise.shape)).float()
    slope = (errors(theta, teacher.noise + 1e-3 * direction) - errors(theta, teacher.noise - 1e-3 * direction)) / 2e-3
    assert torch.allclose(slope, (by_noise * direction).flatten(1).sum(1).double(), rtol=0.05, atol=1e-5)


def learning(recipe: ByGradient, space: str) -> Any:
    task = task_of(space)
    given = Given(task, Stub(task.learning[1]), None, None, ())  # type: ignore[arg-type]
    return module._Learning(recipe, given, start(space, 4, MODEL.schedule), task.learning[0], task.parts("x"))


class Stub:
    """What stands for an evaluator."""

    def __init__(self, validation: Teacher) -> None:
        self.validation = validation


def test_start_noise_moves_within_its_ball_where_the_error_falls() -> None:
    ball = replace(RELAXED, step=lambda nfe: 40.0, radius=lambda numbers, nfe: 0.05)
    mine = learning(replace(LD3, ball=ball, batch=8, validated=16), "ld3")
    before, origin = mine.fitting.errors(mine.numbers, range(16), mine.fitting.teacher.noise[:16]), mine.fitting.teacher.noise
    for _ in range(4):
        for places in (range(8), range(8, 16)):
            error, _, slope = mine.fitting(mine.numbers, places)
            mine._relax(mine.fitting, places, error, slope)
    noise = mine.fitting.teacher.noise
    away = (noise - origin).flatten(1).norm(dim=1)
    after = mine.fitting.errors(mine.numbers, range(16), noise[:16])
    assert torch.all(after <= before * (1 + 1e-5)) and (after < before).sum() >= 12 and float(away.max()) <= 0.05 * (1 + 1e-5)
    assert torch.equal(noise[16:], origin[16:]) and float(away.max()) > 0.04


def test_groups_move_in_their_rounds_alone() -> None:
    mine = learning(S4S, "s4s")
    first = mine.numbers
    mine.step(range(24), ("coefficients",))
    moved = mine.numbers != first
    place = mine.learnable.places["coefficients"]
    assert moved[place].all() and not moved[: place.start].any()
    mine.step(range(24), ("times", "told"))
    assert (mine.numbers != first)[mine.learnable.places["times"]].all()


def test_adam_goes_down_the_mean_gradient_and_the_average_follows() -> None:
    """A first step of Adam is its rate against the sign; the average of the first two numbers is 9/11 of the newer."""
    mine = learning(GS, "gs")
    first = mine.numbers
    gradient = mine.fitting(first, list(range(24)))[1].mean(0)
    mine.step(range(24), Generalised.groups)
    told = gradient.abs() > 1e-5 * gradient.abs().max()
    assert (mine.numbers - first)[told].numpy() == pytest.approx(-1e-3 * gradient[told].sign().numpy(), rel=0.05)
    assert mine.kept.numpy() == pytest.approx((2 / 11 * first + 9 / 11 * mine.numbers).numpy(), abs=1e-12)


def test_rates_fall_and_the_best_comes_back_where_validation_gets_worse() -> None:
    mine = learning(replace(LD3, patience=2), "ld3")
    mine.least = -1.0  # nothing is better
    best = mine.kept.clone()
    rates = []
    for _ in range(4):
        mine.step([0, 1], ("times", "told"))
        rates.append([optimizer.param_groups[0]["lr"] for optimizer in mine.optimizers])
    assert rates[1] == rates[2] == pytest.approx([0.8 * rate for rate in rates[0]]) and torch.equal(mine.numbers, best)
    assert rates[0] == [5e-3, 0.1 / 4]


# Dynamic programmes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
@pytest.mark.parametrize("gamma", [1.0, 1.15])
def test_the_path_of_gits_is_the_best_of_all_paths(steps: int, gamma: float) -> None:
    for seed in range(5):
        cost = np.random.default_rng(seed).random((8, 8))
        found = gits.path(cost, steps, gamma)

        def total(path: Sequence[int], cost: Floats = cost) -> float:
            return sum(gamma**k * cost[i, j] for k, (i, j) in enumerate(pairwise(path)))

        every = [(0, *inner, 7) for inner in combinations(range(1, 7), steps - 1)]
        assert tuple(found) == min(every, key=total)


@pytest.mark.parametrize("model", [MODEL, None], ids=["coins", "digits"])
def test_the_costs_of_gits_are_deviations_of_euler_steps(model: Model | None, digits: Model, fitting: Teacher) -> None:
    """Point by point, from the states at the teacher's nodes; coins start without signal, at rho = 3000 here."""
    model, teacher = model or digits, teach(MODEL, "fit", 6) if model else fitting.first(6)
    found = gits.costs(teacher)
    rho = np.minimum(np.tan(teacher.angles.numpy()), 3000.0)
    scale = np.sqrt(1 + rho**2)
    states, slopes = (each.double().flatten(2).numpy() for each in (teacher.states, teacher.slopes))

    def deviation(point: Floats, start: Floats, end: Floats) -> float:
        unit = (end - start) / np.linalg.norm(end - start)
        return float(np.linalg.norm((point - start) - ((point - start) @ unit) * unit))

    for i, j in [(0, 1), (0, 40), (5, 6), (20, 50), (30, 63), (62, 63)]:
        total = 0.0
        for s in range(6):
            x, u, v = states[:, s] * scale[:, None], states[i, s], slopes[i, s]
            eps = rho[i] / scale[i] * u + v / scale[i]
            step = deviation(x[i] + (rho[j] - rho[i]) * eps, x[0], x[-1])
            total += step - (deviation(x[j], x[0], x[-1]) if j < 63 else 0.0)
        assert found[i, j] == pytest.approx(total / 6, rel=1e-5, abs=1e-7)


def test_the_paths_of_oss_are_those_of_its_recursion() -> None:
    """Sample by sample, from the definition, on a network that is not linear."""
    times = [0.95, 0.8, 0.6, 0.5, 0.3, 0.2, 0.05]
    nodes = [Node(t, 1 - t, t) for t in times] + [CLEAN]
    rng = np.random.default_rng(1)
    states = [torch.from_numpy(rng.standard_normal((5, 3))) for _ in nodes]

    def network(x: Tensor, node: Node) -> Tensor:
        return torch.tanh(x) * (1 + node.t)

    for steps in (1, 2, 3, 4):
        found = oss.places(nodes, states, steps, network)
        for s in range(5):

            @cache
            def reached(k: int, j: int, s: int = s) -> tuple[float, tuple[float, ...], tuple[int, ...]] | None:
                """The error, state and path of z_k(j)."""
                if k == 0:
                    return (0.0, tuple(states[0][s].tolist()), ()) if j == 0 else None
                best = None
                for i in range(j):
                    if (before := reached(k - 1, i)) is None:
                        continue
                    x = np.array(before[1])
                    d = np.tanh(x) * (1 + nodes[i].t)
                    eps = (x - nodes[i].alpha * d) / nodes[i].sigma
                    z = nodes[j].alpha * d + nodes[j].sigma * eps
                    error = float(np.mean((z - states[j][s].numpy()) ** 2))
                    if best is None or error < best[0]:
                        best = error, tuple(z), (*before[2], i)
                return best

            own = reached(steps, len(nodes) - 1)
            assert own is not None and tuple(found[s].tolist()) == own[2]


def test_the_network_is_asked_where_states_are_of_use_alone() -> None:
    calls: list[Node] = []

    def network(x: Tensor, node: Node) -> Tensor:
        calls.append(node)
        return x

    nodes = [Node(t, 1 - t, t) for t in np.linspace(0.99, 0.01, 64)] + [CLEAN]
    oss.places(nodes, [torch.ones(2, 3)] * 65, 5, network)
    assert len(calls) == oss._each(5)


# The bound -------------------------------------------------------------------------------------------------------------


def independent_bound(lam: Sequence[float], power: int) -> float:
    """The formula with integrals by quad, and no shared code."""
    n = len(lam) - 1
    alpha, sigma = 1 / np.sqrt(1 + np.exp(-2 * np.array(lam))), 1 / np.sqrt(1 + np.exp(2 * np.array(lam)))
    eps = sigma**power / alpha
    single, joint = 0.0, np.zeros(n)
    for s in range(n):
        order = {0: 1, n - 1: 1}.get(s) or {1: 2, n - 2: 2}.get(s) or 3
        known = list(range(s - order + 1, s + 1))
        terms = []
        for k in known:
            others = [lam[m] for m in known if m != k]

            def weight(y: float, k: int = k, others: Sequence[float] = others) -> float:
                return float(np.exp(y) * np.prod([(y - o) / (lam[k] - o) for o in others]))

            integral, _ = quad(weight, lam[s], lam[s + 1])
            terms.append(integral * eps[k])
        if s in (0, n - 1) or (n <= 7 and s < 3):
            single += np.sqrt(sum(t * t for t in terms))
        else:
            joint[known] += terms
    return float(single + np.abs(joint).sum())


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("nfe", [1, 2, 3, 5, 9])
def test_the_bound_is_the_papers(nfe: int, power: int) -> None:
    lam = np.sort(RNG.uniform(-4, 4, nfe + 1))
    assert dmn.bound(lam, power) == pytest.approx(independent_bound(lam.tolist(), power), rel=1e-7)


@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("nfe", [3, 5])
def test_no_generic_optimisation_finds_a_lesser_bound(nfe: int, power: int) -> None:
    """Nelder-Mead over shares of the range, from several starts."""
    first, last = -2.7, 3.5

    def places(x: Floats) -> Floats:
        shares = np.exp(np.array([0.0, *x]))
        return first + (last - first) * np.array([0.0, *np.cumsum(shares / shares.sum())])

    least = np.inf
    for seed in range(3):
        begin = 0.3 * np.random.default_rng(seed).standard_normal(nfe - 1)
        found = minimize(lambda x: independent_bound(places(x).tolist(), power), begin, method="Nelder-Mead", options={"maxiter": 400})
        least = min(least, found.fun)
    own = dmn.least(np.linspace(first, last, nfe + 1), power)
    assert np.all(np.diff(own) > 0) and (own[0], own[-1]) == (first, last)
    assert independent_bound(own.tolist(), power) <= least * (1 + 2e-3)
    assert dmn.bound(own, power) < 0.99 * dmn.bound(np.linspace(first, last, nfe + 1), power)


def test_differences_of_a_line_are_its_slope() -> None:
    """On outputs that are linear in lambda the second difference is zero and the first the slope times the step."""
    lam = np.array([-3.0, -1.5, -1.0, 0.2, 1.0, 2.5])
    for n in range(5):
        found = generalised.differences(lam, n) @ (2.0 + 0.7 * lam[: n + 1])
        assert found[0] == pytest.approx(2.0 + 0.7 * lam[n])
        if n >= 1:
            assert found[1] == pytest.approx(0.7 * (lam[n + 1] - lam[n]))
        if n >= 2:
            assert found[2] == pytest.approx(0.0, abs=1e-12)
