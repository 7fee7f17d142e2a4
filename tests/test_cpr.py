"""Cascade polynomial regression: the published table, exact recovery, plans there and back, refusals, and tuning."""

import json
from dataclasses import replace
from functools import cache
from math import sin
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from pydantic import JsonValue, ValidationError

from solversearch import cpr
from solversearch.cpr import Cpr, parameters, tuning
from solversearch.cpr.parameters import coefficient_curves, coefficient_table, decided, nodes_at, position, summed
from solversearch.cpr.polynomial import Cascade, degrees, fit_cascade
from solversearch.cpr.tuning import tune
from solversearch.errors import UserError
from solversearch.grids import explicit, grid
from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.models.base import Clock
from solversearch.plan import Plan, Provenance, Threshold
from solversearch.runtime import Row, Tableau
from solversearch.sampling import sample
from solversearch.schedules import DiscreteVP, Floats
from solversearch.search.fitting.compensation import table
from solversearch.solvers import get
from solversearch.solvers.mixed import Decision
from solversearch.teacher import teach
from tests.assets import coins

PUBLISHED = Path(__file__).parents[2] / "shared" / "data" / "dc_solver_cpr_sd21.json"

MODEL = coins.factory()


@cache
def published() -> tuple[Cascade, list[dict[str, object]]]:
    if not PUBLISHED.exists():
        pytest.skip("the published coefficients of DC-Solver lie outside the repository, at ../shared/data/dc_solver_cpr_sd21.json")
    content = json.loads(PUBLISHED.read_text())
    return Cascade.published(content["coefficients"]), content["checks"]


def ratios(cascade: Cascade, nfe: int, guidance: float) -> Floats:
    return cascade(np.arange(3, nfe + 1) / nfe, guidance, nfe)


def points(nfes: list[int], guidances: list[float]) -> Floats:
    return np.array([(i / n, g, n) for n in nfes for g in guidances for i in range(3, n + 1)])


def plan(tableau: Tableau, guidance: float, **decisions: JsonValue) -> Plan:
    return Plan(
        prediction_type=MODEL.prediction_type,
        guidance=guidance,
        nfe=tableau.nfe,
        network_calls=tableau.network_calls,
        nodes=tableau.nodes,
        rows=tableau.rows,
        decisions=decisions,
        provenance=Provenance(model=MODEL.name, model_digest=MODEL.digest),
    )


def compensated(nfe: int, guidance: float, ratio: float | None = None) -> Plan:
    """A plan of DC-Solver whose ratios are a polynomial of the configuration."""
    found = [1.0, 1.0, *(ratio or 0.7 + 0.1 * guidance + 0.3 * (i / nfe) ** 2 for i in range(3, nfe + 1))]
    nodes = [replace(node, guidance=guidance) for node in grid("quadratic", MODEL.schedule, nfe)]
    orders: list[JsonValue] = [min(3, nfe - i) for i in range(nfe)]
    return plan(table(MODEL.schedule, nodes, found), guidance, solver="unip_bh2", order=orders, corrector=True, compensation=[*found])


def fitted() -> Cpr:
    return cpr.fit([compensated(n, g) for n in (5, 6, 8) for g in (1.0, 2.0, 4.0)], MODEL)


# The cascade --------------------------------------------------------------------------------------------------


def test_the_published_form_reproduces_the_published_ratios() -> None:
    cascade, checks = published()
    for check in checks:
        nfe, guidance = check["nfe"], check["cfg"]
        assert isinstance(nfe, int) and isinstance(guidance, float)
        assert [f"{rho:.6f}" for rho in (1, 1, *ratios(cascade, nfe, guidance))] == [
            f"{rho:.6f}" for rho in cast(list[float], check["rho"])
        ]


def test_the_published_table_has_the_highest_powers_first() -> None:
    """[power of u][power of g, falling][power of n, falling], of u, g = guidance / 12 and n = NFE / 50."""
    table = [[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]], [[0.5, 0.0, 0.0], [0.0, 0.0, 0.25], [0.0, -1.0, 0.0]]]
    u, g, n = 0.4, 0.25, 0.2
    rows = [[sum(c * n ** (2 - i) for i, c in enumerate(row)) for row in plane] for plane in table]
    expected = sum(u**p * sum(d * g ** (2 - k) for k, d in enumerate(row)) for p, row in enumerate(rows))
    assert Cascade.published(table)(np.array(u), 12 * g, 50 * n) == pytest.approx(expected, rel=1e-12)


def test_a_fit_to_ratios_of_the_published_form_is_the_published_function() -> None:
    cascade, _ = published()
    at = points([6, 8, 10, 15, 20], [1.5, 3.0, 5.0, 7.5, 10.0])
    found, residual, left_out = fit_cascade(at, cascade(*at.T))
    assert np.array(found.coefficients).shape == (4, 3, 3)  # 36 numbers
    np.testing.assert_allclose(found.coefficients, cascade.coefficients, rtol=1e-3, atol=0.1)
    for nfe, guidance in ((7, 4.0), (12, 9.0), (18, 2.0)):
        np.testing.assert_allclose(ratios(found, nfe, guidance), ratios(cascade, nfe, guidance), rtol=0, atol=1e-6)
    assert max(np.abs(residual).max(), np.abs(left_out).max()) < 1e-5


@pytest.mark.parametrize(
    ("nfes", "guidances", "expected"),
    [([5, 6, 8], [1.0, 2.0, 4.0], (3, 2, 2)), ([6, 8], [1.0, 2.0], (3, 1, 1)), ([6], [1.0, 2.0, 4.0, 5.0], (3, 2, 0)),
     ([4], [1.0], (1, 0, 0))],
)  # fmt: skip
def test_degrees_are_what_the_configurations_determine(nfes: list[int], guidances: list[float], expected: tuple[int, ...]) -> None:
    assert degrees(points(nfes, guidances)) == expected


def test_configurations_on_a_diagonal_determine_no_product() -> None:
    diagonal = np.concatenate([points([n], [float(n)]) for n in (4, 5, 6)])
    _, g, n = degrees(diagonal)
    assert (g + 1) * (n + 1) <= 3


def test_the_ridge_smooths_noise_that_has_no_form() -> None:
    rng = np.random.default_rng(0)
    at = points([5, 6, 8, 10], [1.0, 2.5, 4.0])
    truth = 1 + 0.2 * at[:, 0]
    found, _, _ = fit_cascade(at, truth + 0.1 * rng.standard_normal(len(at)))
    error = np.sqrt(np.mean((ratios(found, 7, 3.0) - (1 + 0.2 * np.arange(3, 8) / 7)) ** 2))
    assert error < 0.08


def test_errors_left_out_are_those_of_a_fit_without_the_configuration() -> None:
    """One step, one NFE, five guidance scales: a quadratic in guidance through the other four, by `polyfit`."""
    guidance = np.array([1.0, 2.0, 3.5, 5.0, 6.0])
    values = np.array([0.3, 0.8, 2.5, 4.9, 7.4])
    at = np.array([(1.0, g, 6) for g in guidance])
    _, residual, left_out = fit_cascade(at, values)
    np.testing.assert_allclose(residual, np.polyval(np.polyfit(guidance, values, 2), guidance) - values, rtol=1e-6)
    for i in range(5):
        others = np.arange(5) != i
        expected = np.polyval(np.polyfit(guidance[others], values[others], 2), guidance[i]) - values[i]
        assert left_out[i] == pytest.approx(expected, rel=1e-6)


# Plans as parameters -----------------------------------------------------------------------------------------


def test_hand_made_increments_sum_to_unip_2() -> None:
    nodes = explicit(MODEL.schedule, [1.0, 0.83, 0.6, 0.3, 0.05])
    expected = get("unip_2").tableau(MODEL.schedule, nodes)
    curves = coefficient_curves(expected, MODEL.schedule)
    # At alpha = 0 the first lambda is infinite, and 1e-30 stands for it.
    assert max(abs(value) for curve in curves.values() for value in curve.values()) < 2e-2
    inside = explicit(MODEL.schedule, [0.95, 0.83, 0.6, 0.3, 0.05])
    curves = coefficient_curves(get("unip_2").tableau(MODEL.schedule, inside), MODEL.schedule)
    assert max(abs(value) for curve in curves.values() for value in curve.values()) < 1e-12


def test_coefficients_are_found_again_from_their_curves() -> None:
    rng = np.random.default_rng(1)
    nodes = explicit(MODEL.schedule, [1.0, 0.7, 0.4, 0.1])[:-1]
    rows = [Row(1.0), *(Row(rng.normal(), tuple(rng.normal(size=i)), tuple(rng.normal(size=i))) for i in range(1, 5))]
    given = Tableau(tuple(nodes), tuple(rows))
    found = coefficient_table(coefficient_curves(given, MODEL.schedule), MODEL.schedule, nodes)
    for a, b in zip(given.rows, found.rows, strict=True):
        np.testing.assert_allclose([a.x, *a.d, *a.delta], [b.x, *b.d, *b.delta], atol=1e-12)


def test_tables_are_differentiable_in_times_and_residuals() -> None:
    angles = torch.tensor([1.4, 1.1, 0.8, 0.3], dtype=torch.float64, requires_grad=True)
    residuals = torch.zeros(5, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, r: summed(a.cos(), a.sin(), 1.0, r), (angles, residuals))


def test_predicted_times_fall_and_stay_within_the_schedule() -> None:
    schedule = MODEL.schedule
    end, start = schedule.position([schedule.t_end, schedule.t_start])
    nodes = nodes_at({"position": dict(enumerate([start + 1, -1.0, -0.5, -0.5, end - 3, end - 3]))}, schedule, 2.0)
    times = [node.t for node in nodes[:-1]]
    assert times == sorted(set(times), reverse=True)
    assert times[0] == pytest.approx(schedule.t_start, abs=1e-3)
    assert times[-1] == pytest.approx(schedule.t_end, rel=0.01)
    assert {node.guidance for node in nodes[:-1]} == {2.0}


def test_predicted_times_that_are_apart_are_kept() -> None:
    places = [-0.4, -1.0, -1.7, -2.9]
    nodes = nodes_at({"position": dict(enumerate(places))}, MODEL.schedule, 2.0)
    assert [position(node) for node in nodes[:-1]] == pytest.approx(places, abs=1e-9)


def test_predicted_decisions_are_legal() -> None:
    curves = {"prediction": {1: 1.4, 2: -0.2, 3: 0.3}, "epsilon_scale": {1: 0.2, 2: 1.02, 3: 1.5}}
    steps = decided(curves, [Decision(solver="unip_bh2")] * 3)
    assert [(step.prediction, step.epsilon_scale) for step in steps] == [(1.0, 0.5), (0.0, 1.02), (0.3, 1.5)]


@pytest.mark.parametrize("coefficients", [[], [[]], [[[]]], [[[1.0]], [[1.0], [2.0]]], [[[1.0], [2.0, 3.0]]]])
def test_a_cascade_is_a_full_table(coefficients: list[Any]) -> None:
    with pytest.raises(ValidationError, match="coefficients: lists of equal lengths"):
        Cascade.model_validate_json(json.dumps({"coefficients": coefficients}))


def test_whole_timesteps_stay_whole() -> None:
    schedule = DiscreteVP.named()
    nodes = nodes_at({"position": dict(enumerate([-0.1, -1.0, -1.0003, -4.0, -9.0, -9.0]))}, schedule, 1.0, whole=True)
    times = [node.t for node in nodes[:-1]]
    assert times == sorted({float(round(t)) for t in times}, reverse=True) and times[-1] >= schedule.t_end


def test_shifts_of_the_told_times_are_regressed_apart() -> None:
    def shifted(p: Plan) -> Plan:
        nodes = tuple(replace(node, t=node.t * 0.95) for node in p.nodes)
        return plan(Tableau(nodes, p.rows), p.guidance, **p.decisions)

    found = cpr.fit([shifted(compensated(n, g)) for n in (5, 6, 8) for g in (1.0, 2.0, 4.0)], MODEL)
    assert found.kind == "decisions" and "input_shift" in found.cascades
    for node in found.predict(7, 3.0, MODEL).nodes:
        assert node.t == pytest.approx(0.95 * (1 - node.alpha), rel=0.01)  # for this flow t = sigma = 1 - alpha


# Regression --------------------------------------------------------------------------------------------------


def test_ratios_are_regressed_as_decisions_and_predicted_at_unseen_configurations() -> None:
    found = fitted()
    assert found.kind == "decisions" and {"position", "compensation"} == set(found.cascades)
    predicted = found.predict(7, 3.0, MODEL, "the command")
    expected = [1.0, 1.0, *(0.7 + 0.3 + 0.3 * (i / 7) ** 2 for i in range(3, 8))]
    np.testing.assert_allclose(predicted.decisions["compensation"], expected, atol=1e-5)  # type: ignore[arg-type]
    assert (predicted.nfe, predicted.guidance, predicted.provenance.command) == (7, 3.0, "the command")
    nodes = [replace(node, guidance=3.0) for node in [*predicted.nodes, grid("quadratic", MODEL.schedule, 7)[-1]]]
    assert predicted.rows[-1].d == pytest.approx(table(MODEL.schedule, nodes, expected).rows[-1].d, abs=1e-4)
    quadratic = [node.t for node in grid("quadratic", MODEL.schedule, 7)[:-1]]
    np.testing.assert_allclose([node.t for node in predicted.nodes], quadratic, atol=0.03)


def test_cells_tell_residuals_and_errors_left_out() -> None:
    plans = [compensated(n, g) for n in (5, 6, 8) for g in (1.0, 2.0, 4.0)]
    smooth = cpr.fit(plans, MODEL)
    assert max(cell.left_out_parameters for cell in smooth.cells) < 0.05
    assert [cell.plan for cell in smooth.cells] == [p.digest for p in plans]
    times_alone = cpr.fit([compensated(p.nfe, p.guidance, 1.0) for p in plans], MODEL)
    assert {cell.residual_parameters for cell in times_alone.cells} == {cell.left_out_parameters for cell in times_alone.cells} == {0.0}
    at = np.arange(6) / 6
    assert smooth.cascades["position"](at, 2.0, 6) == pytest.approx(np.array([position(node) for node in plans[4].nodes]), abs=0.05)
    assert smooth.cascades["compensation"](at, 2.0, 6) == pytest.approx(0.9 + 0.3 * at**2, abs=1e-4)
    rough = cpr.fit([compensated(p.nfe, p.guidance, 1 + 0.5 * sin(40 * p.guidance + p.nfe)) for p in plans], MODEL)
    assert np.mean([cell.left_out_parameters for cell in rough.cells]) > 10 * np.mean([cell.left_out_parameters for cell in smooth.cells])
    assert [cell.left_out_times for cell in rough.cells] == [cell.left_out_times for cell in smooth.cells]


def test_changed_tables_are_regressed_in_coefficients() -> None:
    def changed(p: Plan) -> Plan:
        last = p.rows[-1]
        return plan(Tableau(p.nodes, (*p.rows[:-1], replace(last, x=0.01 * p.guidance))), p.guidance, **p.decisions)

    plans = [changed(compensated(n, g)) for n in (5, 6, 8) for g in (1.0, 2.0, 4.0)]
    found = cpr.fit(plans, MODEL)
    assert found.kind == "coefficients" and found.steps == ()
    assert found.predict(6, 3.0, MODEL).rows[-1].x == pytest.approx(0.03, abs=1e-3)


def test_weights_of_the_difference_are_in_units_of_guidance_minus_one() -> None:
    """What is (w - 1) times a quadratic in w is found again; without guidance the difference is not even asked for."""

    def weight(guidance: float) -> float:
        return 0.01 * (guidance - 1) * guidance**2

    def split(guidance: float) -> Plan:
        table = get("ddim").tableau(MODEL.schedule, grid("quadratic", MODEL.schedule, 4)).guided(guidance)
        last = replace(table.rows[-1], delta=() if guidance == 1 else (0.0, 0.0, 0.0, weight(guidance)))
        return plan(replace(table, rows=(*table.rows[:-1], last)), guidance)

    found = cpr.fit([split(guidance) for guidance in (1.0, 2.0, 3.0, 5.0)], MODEL)
    for guidance in (1.3, 2.5, 4.0):
        assert found.predict(4, guidance, MODEL).rows[-1].delta[-1] == pytest.approx(weight(guidance), rel=1e-5)
    without = found.predict(4, 1.0, MODEL)
    assert not without.tableau.split and without.network_calls == 4


def test_files_keep_everything_and_betray_changes(tmp_path: Path) -> None:
    found = fitted()
    found.write(tmp_path / "cpr.json")
    again = Cpr.read(tmp_path / "cpr.json")
    assert again == found and again.predict(7, 3.0, MODEL) == found.predict(7, 3.0, MODEL)
    with pytest.raises(ValidationError, match="frozen"):
        again.model = "other"
    text = (tmp_path / "cpr.json").read_text()
    for changed, message in (
        (text.replace('"coins"', '"other"'), "the digest does not match"),
        (text.replace('"version": 1', '"version": 2'), "version"),
        (text.replace('"compensation": {', '"comfort": {'), "cascades: unknown parameter 'comfort'"),
        (text.replace('"format"', '"extra": 1, "format"', 1), "extra: unknown key"),
        (text.replace(f',\n "digest": "{found.digest}"', ""), "digest: missing"),
        ("", "JSON"),
        ("[1", "JSON"),
    ):
        (tmp_path / "changed.json").write_text(changed)
        with pytest.raises(UserError, match=message) as raised:
            Cpr.read(tmp_path / "changed.json")
        assert "\n" not in str(raised.value) and "changed.json" in str(raised.value)
    with pytest.raises(UserError, match="cannot read the regression"):
        Cpr.read(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("nfe", "guidance", "message"),
    [(4, 2.0, "--nfe 4 is outside the fitted range 5 .. 8"), (9, 2.0, "does not extrapolate"), (6, 4.5, "--guidance 4.5 .* 1 .. 4"),
     (6, float("nan"), "guidance nan is outside"), (6.5, 2.0, "whole number"), (float("nan"), 2.0, "whole number")],
)  # fmt: skip
def test_no_extrapolation(nfe: float, guidance: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        fitted().predict(nfe, guidance, MODEL)


def test_only_plans_that_belong_together_are_regressed() -> None:
    one, two = compensated(5, 2.0), compensated(6, 2.0)
    with pytest.raises(UserError, match=r"at least 3 configurations .* got 1"):
        cpr.fit([one], MODEL)
    with pytest.raises(UserError, match=r"at least 3 configurations .* got 2: through two goes a line, and nothing says whether"):
        cpr.fit([one, two], MODEL)
    with pytest.raises(UserError, match="two plans are for NFE 5 and guidance 2"):
        cpr.fit([one, two, compensated(5, 2.0, 0.9)], MODEL)
    with pytest.raises(UserError, match="other weights than 'other'"):
        cpr.fit([one, two], coins.other_weights())
    with pytest.raises(UserError, match="other weights than model 'other'"):
        fitted().predict(6, 2.0, coins.other_weights())
    mixed = Tableau((replace(one.nodes[0], guidance=1.0), *one.nodes[1:]), one.rows)
    with pytest.raises(UserError, match="guidance of its own"):
        cpr.fit([plan(mixed, 2.0), two], MODEL)
    noisy = get("ddim_eta1").tableau(MODEL.schedule, grid("quadratic", MODEL.schedule, 5)).guided(2.0)
    with pytest.raises(UserError, match="adds fresh noise"):
        cpr.fit([plan(noisy, 2.0), two], MODEL)
    clipped = one.model_copy(update={"threshold": Threshold(kind="clamp")})
    with pytest.raises(UserError, match="clip their data predictions differently"):
        cpr.fit([clipped, two], MODEL)
    with pytest.raises(UserError, match="no plans to regress"):
        cpr.read_plans([])


def test_plans_are_read_from_run_folders_and_files(tmp_path: Path) -> None:
    one, two, three = compensated(5, 2.0), compensated(6, 2.0), compensated(8, 2.0)
    one.write(tmp_path / "run" / "plan.json")
    two.write(tmp_path / "two.json")
    assert cpr.read_plans([tmp_path / "run", tmp_path / "two.json"]) == [one, two]
    only_nfe = cpr.fit_runs([one, two, three], MODEL)
    assert only_nfe.guidance == (2.0, 2.0) and only_nfe.predict(5, 2.0, MODEL).nfe == 5


def test_the_loss_that_is_tuned_is_the_error_of_the_table() -> None:
    """ln of the mean error of samples by the plan's own loop, under guidance with columns for its difference."""
    nfe, guidance = 3, 3.0
    surfaces = tuning._Surfaces([(nfe, g) for g in (1.0, 2.0, 3.0)], split=True)
    teacher = teach(MODEL, "fit", 32, guidance, trajectory=False)
    start = {"position": {i: position(node) for i, node in enumerate(grid("quadratic", MODEL.schedule, nfe)[:-1])}}
    cell = tuning._Cell(MODEL, nfe, guidance, start, surfaces, teacher, teacher, None, Clock())
    theta = torch.from_numpy(0.02 * np.random.default_rng(0).standard_normal(surfaces.size))
    tableau = cell.table(theta)
    assert all(len(row.delta) == i and all(row.delta) for i, row in enumerate(tableau.rows))
    expected = endpoint_mse(sample(MODEL, tableau, teacher), teacher.endpoint).mean().log()
    loss = cell.loss(theta.requires_grad_(), teacher)
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, theta)
    for k in range(surfaces.places["position"].start, surfaces.places["position"].stop):
        step = 1e-3 * torch.nn.functional.one_hot(torch.tensor(k), surfaces.size).double()
        with torch.no_grad():
            slope = float(cell.loss(theta + step, teacher) - cell.loss(theta - step, teacher)) / 2e-3
        assert slope == pytest.approx(float(gradient[k]), abs=1e-2 * float(gradient.abs().max()))


def test_tuning_lowers_the_error_at_configurations_that_no_plan_was_for() -> None:
    def changed(nfe: int, guidance: float) -> Plan:
        table = get("unip_2").tableau(MODEL.schedule, grid("quadratic", MODEL.schedule, nfe)).guided(guidance)
        return plan(replace(table, rows=(*table.rows[:-1], replace(table.rows[-1], x=1e-3))), guidance)

    def error(p: Plan) -> float:
        held_out = teach(MODEL, "held_out", 256, p.guidance, trajectory=False)
        return float(endpoint_mse(sample(MODEL, p.tableau, held_out), held_out.endpoint).median())  # coins near an edge decide the mean

    plans = [changed(n, g) for n in (3, 5) for g in (1.0, 3.0)]
    start = cpr.fit(plans, MODEL)
    told: list[int] = []
    tuned = tune(start, plans, MODEL, iterations=10, progress=lambda done, total, note: told.append(done))
    assert told == [5, 10]
    for guidance in (1.4, 2.4):
        assert error(tuned.predict(4, guidance, MODEL)) < 0.5 * error(start.predict(4, guidance, MODEL))
    assert all(cell.ratio is not None and cell.ratio < 1 for cell in tuned.cells)
    assert tune(start, plans, MODEL, iterations=10) == tuned
    with pytest.raises(UserError, match="need no tuning"):
        tune(fitted(), plans, MODEL)


# What plans are as numbers --------------------------------------------------------------------------------------


def test_numbers_begin_where_they_have_an_effect() -> None:
    steps = [Decision(compensation=1.0, epsilon_scale=1.01, derivative_scale=1.0, prediction=0.5)] * 4
    found = parameters.decision_curves(steps)
    assert {name: list(values) for name, values in found.items()} == {
        "compensation": [3, 4], "epsilon_scale": [1, 2, 3, 4], "derivative_scale": [1, 2, 3, 4], "prediction": [1, 2, 3, 4],
    }  # fmt: skip


@pytest.mark.parametrize("column", [3, 5])
def test_a_table_is_split_where_any_difference_counts(column: int) -> None:
    nodes = grid("quadratic", MODEL.schedule, 3)[:-1]
    matrix = parameters.matrix_of(get("ddim").tableau(MODEL.schedule, grid("quadratic", MODEL.schedule, 3)))
    assert not parameters.table_of(nodes, matrix).split
    matrix[3, 1 + column] = 0.25
    table = parameters.table_of(nodes, matrix)
    assert table.split and table.rows[-1].delta[column - 3] == 0.25 and torch.equal(parameters.matrix_of(table), matrix)


def test_plans_whose_decisions_differ_are_regressed_in_coefficients() -> None:
    plans = [compensated(n, g) for n in (5, 6, 8) for g in (1.0, 2.0, 4.0)]
    assert cpr.fit(plans, MODEL).kind == "decisions"
    other = plans[0].decisions
    table = get("dpmpp_2m").tableau(MODEL.schedule, [replace(node, guidance=1.0) for node in grid("quadratic", MODEL.schedule, 5)])
    changed = plan(table, 1.0, solver="dpmpp", order=[1, 2, 2, 2, 1], corrector=False, compensation=other["compensation"])
    assert cpr.fit([changed, *plans[1:]], MODEL).kind == "coefficients"


def test_surfaces_are_of_coefficients_that_every_configuration_has() -> None:
    names = set(tuning._Surfaces([(3, 1.0), (3, 2.0), (5, 1.0), (5, 2.0)], split=False).bases)
    assert names == {"position", "x", "d0", "d1", "end_x", "end_d0", "end_d1", "end_d2"}
