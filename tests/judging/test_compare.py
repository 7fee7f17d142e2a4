"""The comparison: every baseline spends what the plan spends, intervals and distances are right, and nobody is flattered."""

from dataclasses import replace
from math import isfinite
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.linalg import sqrtm
from torch import Tensor

import solversearch.judging.compare as module
from solversearch import models
from solversearch.errors import UserError
from solversearch.grids import GRIDS, grid
from solversearch.judging.baselines import Baseline, baselines, screen
from solversearch.judging.compare import Comparison, StageResult, climb, compare
from solversearch.judging.compatibility import check_model, reguided, rival
from solversearch.judging.distances import Moments, frechet
from solversearch.judging.measures import measured, rivals
from solversearch.judging.objectives.endpoint import endpoint_mse, tempered
from solversearch.judging.race import FRECHET, GEOMETRIC, MEAN, MEDIAN
from solversearch.judging.verdict import SMALL_PICTURES, Ratio, decide, needed, ratios
from solversearch.memo import NO_MEMO
from solversearch.models.base import Clock, Model, NotFinite
from solversearch.noise import draw
from solversearch.plan import Plan, Provenance, Score
from solversearch.report import tables
from solversearch.runtime import Node, Row, Tableau
from solversearch.sampling import sample
from solversearch.schedules import DiscreteVP, Flow
from solversearch.solvers import SOLVERS, get
from solversearch.teacher import Teacher, teach
from tests.cli.calling import COINS


@pytest.fixture(scope="module")
def teacher(coins: Model) -> Teacher:
    return teach(coins, "held_out", 200, trajectory=False)


def plan_of(table: Tableau, model: Model, guidance: float = 1.0, digest: str | None = None, scores: tuple[Score, ...] = ()) -> Plan:
    return Plan(
        prediction_type=model.prediction_type,
        guidance=guidance,
        nfe=table.nfe,
        network_calls=table.network_calls,
        nodes=table.nodes,
        rows=table.rows,
        scores=scores,
        provenance=Provenance(model=model.name, model_digest=model.digest if digest is None else digest),
    )


# Baselines -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nfe", [1, 3, 6])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_every_baseline_spends_exactly_the_budget(coins: Model, nfe: int, guidance: float) -> None:
    found = baselines(coins, nfe, guidance)
    assert {b.table.nfe for b in found} == {nfe}
    usual = {b.table.network_calls for b in found if b.solver != "pcg_ddim"}  # whose predictors go without guidance
    assert usual == {nfe * (2 if guidance != 1 else 1)} and all(b.table.network_calls <= max(usual) for b in found)
    assert all(node.guidance == guidance for b in found for node in b.table.nodes if b.solver != "pcg_ddim")
    assert len({b.name for b in found}) == len(found) and {b.grid for b in found} <= set(GRIDS)


def test_every_solver_is_a_baseline_at_some_cost(coins: Model) -> None:
    assert {b.solver for nfe in (3, 13) for b in baselines(coins, nfe, 1.0)} == set(SOLVERS)


def test_whole_timesteps_are_asked_for_and_given() -> None:
    digits = models.load("digits")
    for baseline in baselines(digits, 4, 1.0, integer=True):
        if baseline.solver not in ("dpm_2s", "dpm_3s", "dpmpp_2s"):  # which evaluate between the grid's times
            assert all(node.t == round(node.t) for node in baseline.table.nodes), baseline.name


def test_screening_is_sorted_and_equal_tables_get_equal_errors(coins: Model, teacher: Teacher) -> None:
    found = baselines(coins, 3, 1.0)
    told: list[tuple[int, int]] = []
    screened = screen(coins, found, teacher.first(64), progress=lambda done, total: told.append((done, total)))
    errors = [error for error, _ in screened]
    assert errors == sorted(errors) and len(screened) == len(found)
    different = {b.table for b in found}
    assert len(different) < len(found) and told[-1] == (len(different), len(different))
    by_table: dict[Tableau, set[float]] = {}
    for error, baseline in screened:
        by_table.setdefault(baseline.table, set()).add(error)
    assert all(len(errors) == 1 for errors in by_table.values())


def test_screening_agrees_with_sampling_one_by_one(coins: Model, teacher: Teacher) -> None:
    few = teacher.first(64)
    found = [b for b in baselines(coins, 4, 3.0) if b.grid in ("linspace", "karras_tmin")]
    guided = teach(coins, "held_out", 64, 3.0, trajectory=False)
    assert len(guided) == len(few)
    for error, baseline in screen(coins, found, guided):
        alone = endpoint_mse(sample(coins, baseline.table, guided), guided.endpoint).mean()
        assert error == pytest.approx(float(alone), rel=1e-4) or not isfinite(error)


# Objectives ----------------------------------------------------------------------------------------------------


def test_endpoint_mse_is_a_mean_over_everything_but_samples() -> None:
    a, b = torch.zeros(3, 2, 4), torch.arange(3.0).view(3, 1, 1).expand(3, 2, 4)
    torch.testing.assert_close(endpoint_mse(a, b), torch.tensor([0.0, 1.0, 4.0], dtype=torch.float64))


def test_tempered_is_linear_below_its_scale_and_logarithmic_above() -> None:
    error = torch.tensor([0.0, 1e-6, 1.0, 1e6], dtype=torch.float64)
    torch.testing.assert_close(tempered(error, None), error)
    small, large = tempered(error, 1e-2), tempered(error, 1e3)
    assert float(small[1]) == pytest.approx(1e-6, rel=1e-3) and float(large[2]) == pytest.approx(1, rel=1e-3)
    assert float(large[3]) == pytest.approx(1e3 * np.log(1001)) and bool((small.diff() > 0).all())


def test_frechet_is_the_textbook_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(60, 5, generator=generator, dtype=torch.float64)
    b = torch.randn(80, 5, generator=generator, dtype=torch.float64) @ torch.randn(5, 5, generator=generator, dtype=torch.float64) + 1
    ca, cb = np.cov(a.numpy().T), np.cov(b.numpy().T)
    expected = float(((a.mean(0) - b.mean(0)) ** 2).sum()) + np.trace(ca + cb - 2 * np.real(sqrtm(ca @ cb)))
    assert float(frechet(Moments.of(a), Moments.of(b))) == pytest.approx(expected, rel=1e-9)
    assert float(frechet(Moments.of(b), Moments.of(a))) == pytest.approx(expected, rel=1e-9)
    assert float(frechet(Moments.of(a), Moments.of(a))) == pytest.approx(0, abs=1e-9)


def test_frechet_of_shifted_and_scaled_features() -> None:
    a = torch.randn(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shift = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    assert float(frechet(Moments.of(a), Moments.of(a + shift))) == pytest.approx(float((shift**2).sum()), rel=1e-9)
    centred = a - a.mean(0)
    total = float(torch.trace(torch.cov(a.T)))
    assert float(frechet(Moments.of(centred), Moments.of(3 * centred))) == pytest.approx(4 * total, rel=1e-9)


def test_frechet_survives_features_that_never_vary() -> None:
    a = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 0.0, 1.0])
    assert float(frechet(Moments.of(a), Moments.of(a + 1))) == pytest.approx(3, rel=1e-6)


# Measuring -----------------------------------------------------------------------------------------------------


def compared(model: Model, table: Tableau, teacher: Teacher, guidance: float = 1.0, **more: Any) -> Comparison:
    return compare(model, plan_of(table, model, guidance), teacher, Clock(), **more)


def test_a_model_without_features_has_no_distances() -> None:
    free = models.load(f"{COINS}:unconditional")
    comparison = compared(free, baselines(free, 2, 1.0)[0].table, teach(free, "held_out", 64, trajectory=False))
    assert [ratio.measure for ratio in comparison.ratios] == [GEOMETRIC, MEAN, MEDIAN]
    assert all(row.frechet_teacher is None for row in comparison.rows) and comparison.teacher_frechet_data is None


def test_the_teacher_has_a_distance_to_the_data_of_its_own(coins: Model, teacher: Teacher) -> None:
    assert coins.data is not None
    comparison = compared(coins, get("ddim").tableau(coins.schedule, grid("karras", coins.schedule, 2)), teacher)
    a, b = (each.flatten(1).double().numpy() for each in (teacher.endpoint, coins.data()))
    ca, cb = np.cov(a.T), np.cov(b.T)
    expected = float(((a.mean(0) - b.mean(0)) ** 2).sum()) + np.trace(ca + cb - 2 * np.real(sqrtm(ca @ cb)))
    distance = comparison.teacher_frechet_data
    assert distance is not None and distance.mean == pytest.approx(expected, rel=1e-6) and distance.low < distance.mean < distance.high
    plan = comparison.rows[0].frechet_data
    assert plan is not None and plan.mean > distance.mean, "two steps of DDIM are farther from the data than the teacher"


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_best_baseline_as_a_plan_is_itself(coins: Model, guidance: float) -> None:
    held_out = teach(coins, "held_out", 150, guidance, trajectory=False)
    best = rivals(coins, 4, guidance, held_out).best(GEOMETRIC)
    comparison = compared(coins, best.table, held_out, guidance)
    assert comparison.is_baseline and comparison.verdict == "undecided" and comparison.samples_to_decide is None
    assert comparison.best_baseline == best.name and comparison.guidance == guidance and comparison.share.mean == 0.5
    by_mean = rivals(coins, 4, guidance, held_out).best(MEAN)
    again = compared(coins, by_mean.table, held_out, guidance)
    ratio = again.ratio(MEAN)
    assert ratio is not None and ratio.value == 1 and ratio.baseline == by_mean.name
    assert again.baseline_nfe_for_plan_error == 4 and [rung.nfe for rung in again.ladder] == [4]


def test_a_bad_plan_is_told_so(coins: Model, teacher: Teacher) -> None:
    table = get("ddim").tableau(coins.schedule, grid("karras", coins.schedule, 4))
    comparison = compared(coins, table, teacher)
    assert comparison.verdict == "worse" and all(ratio.value > 1 for ratio in comparison.ratios)
    assert comparison.baseline_nfe_for_plan_error == 4 and comparison.share.mean < 0.2
    assert comparison.rows[0].kind == "plan" and {row.kind for row in comparison.rows[1:]} == {"baseline"}
    errors = [row.endpoint_mse.mean for row in comparison.rows[1:]]
    assert errors == sorted(errors) and all(row.nfe == 4 and row.samples == 200 for row in comparison.rows)
    assert comparison.pairs == len(baselines(coins, 4, 1.0)) and comparison.evaluations > 0


def test_a_good_plan_is_better_with_true_numbers(coins: Model, teacher: Teacher) -> None:
    """Two steps less far from the teacher: the plan of seven evaluations is shown beside the baselines of four."""
    table = rivals(coins, 8, 1.0, teacher, measures=(MEAN,)).best(MEAN).table
    four = rivals(coins, 4, 1.0, teacher)
    own = endpoint_mse(sample(coins, table, teacher), teacher.endpoint).numpy()
    best = four.best(GEOMETRIC)
    assert np.mean(own < best.errors) > 0.9
    geometric, mean, *_ = ratios(measured(coins, table, teacher), four, 0)
    assert decide(geometric, mean) == "better"
    assert geometric.value == pytest.approx(float(np.exp(np.log(own / best.errors).mean())), rel=1e-3)


def test_the_variance_is_of_the_data_or_of_the_teachers_samples(coins: Model, teacher: Teacher) -> None:
    table = get("ddim").tableau(coins.schedule, grid("linspace", coins.schedule, 2))
    for model, samples in ((coins, coins.data and coins.data()), (replace(coins, data=None), teacher.endpoint)):
        assert samples is not None
        found = compare(model, plan_of(table, model), teacher, Clock())
        assert found.variance == pytest.approx(float(np.var(samples.double().numpy(), axis=0).mean()))
        assert "variance" not in tables.verdict(found)


def test_what_is_undecided_says_how_many_samples_would_decide(coins: Model, teacher: Teacher) -> None:
    few, found = teacher.first(24), []
    ddim = get("ddim").tableau(coins.schedule, grid("linspace", coins.schedule, 4))
    for table in (ddim, *(each.table for each in rivals(coins, 4, 1.0, few).measured[:8])):
        comparison = compared(coins, table, few)
        geometric, mean, *_ = comparison.ratios
        more = needed(geometric, mean, 24) if comparison.verdict == "undecided" else None
        assert comparison.samples_to_decide == more and comparison.verdict == decide(geometric, mean)
        found.append(comparison.samples_to_decide)
    assert any(found) and not all(found)


def test_the_comparison_has_the_best_of_all_pairs(coins: Model, teacher: Teacher) -> None:
    comparison = compared(coins, get("ddim").tableau(coins.schedule, grid("linspace", coins.schedule, 3)), teacher)
    errors = {b.name: endpoint_mse(sample(coins, b.table, teacher), teacher.endpoint) for b in baselines(coins, 3, 1.0)}
    for measure, of in ((MEAN, torch.mean), (MEDIAN, torch.median), (GEOMETRIC, lambda e: e.log().mean().exp())):
        ratio = comparison.ratio(measure)
        assert ratio is not None and ratio.baseline_value <= 1.02 * min(float(of(each)) for each in errors.values())
        assert ratio.baseline_value == pytest.approx(float(of(errors[ratio.baseline])), rel=1e-4)
    frechet = comparison.ratio(FRECHET)
    assert frechet is not None and frechet.baseline in errors


def test_the_ladder_finds_the_cost_of_an_error(coins: Model, teacher: Teacher) -> None:
    """With the mean error of the best baseline at NFE 6 as target, the climb from 4 stops at 6, and not before."""
    base = rivals(coins, 4, 1.0, teacher)
    means = {nfe: rivals(coins, nfe, 1.0, teacher).best(MEAN).value(MEAN, None) for nfe in (5, 6)}
    assert means[6] < means[5]
    rungs = climb(coins, base, 4, means[6], 1.0, False, 512, Clock(), NO_MEMO, lambda note: None)
    assert [rung.nfe for rung in rungs] == [5, 6] and rungs[-1].endpoint_mse <= means[6]
    assert means[5] <= rungs[0].endpoint_mse <= means[5] / 0.9 and rungs[0].endpoint_mse > means[6]


def test_an_error_out_of_reach_ends_at_the_limit(coins: Model, teacher: Teacher) -> None:
    rungs = climb(coins, rivals(coins, 2, 1.0, teacher), 2, 0.0, 1.0, False, 512, Clock(), NO_MEMO, lambda note: None, limit=5)
    assert [rung.nfe for rung in rungs] == [3, 4, 5]


def test_the_ladder_is_for_the_plans_mean_error(coins: Model, teacher: Teacher) -> None:
    """A plan of three evaluations with the error of five."""
    six = rivals(coins, 6, 1.0, teacher, measures=(MEAN,)).best(MEAN)
    three = rivals(coins, 3, 1.0, teacher)
    target = six.value(MEAN, None)
    rungs = climb(coins, three, 3, target, 1.0, False, 512, Clock(), NO_MEMO, lambda note: None)
    assert rungs[-1].nfe <= 6 and rungs[-1].endpoint_mse <= target < rungs[-2].endpoint_mse


def test_a_held_out_sample_that_is_not_finite_is_left_out() -> None:
    coins = models.load(f"{COINS}:factory")
    limit = float(draw(coins, "held_out", 100).noise.flatten(1).max(1).values.topk(2).values.mean())

    class Fragile(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
            broken = (t > 0.999) & (x.flatten(1).max(1).values > limit)
            return torch.where(broken.view(-1, 1, 1, 1), torch.nan, coins.network(x, t, condition))

    model = replace(coins, network=Fragile())
    held_out = teach(model, "held_out", 100, trajectory=False)
    assert int(held_out.endpoint.flatten(1).isnan().any(1).sum()) == 1
    table = get("unipc_2").tableau(coins.schedule, grid("linspace", coins.schedule, 3))
    comparison = compared(model, table, held_out)
    assert (comparison.samples, comparison.left_out) == (99, 1) and all(row.samples == 99 for row in comparison.rows)
    whole = teach(coins, "held_out", 100, trajectory=False)
    kept = [k for k in range(100) if bool(held_out.endpoint[k].isfinite().all())]
    expected = endpoint_mse(sample(coins, table, whole), whole.endpoint)[kept]
    assert comparison.rows[0].endpoint_mse.mean == pytest.approx(float(expected.mean()), rel=1e-4)
    with pytest.raises(NotFinite, match="10 of 11 held-out samples are finite, too few for any verdict"):
        compared(model, table, held_out.at([*kept[:10], *(k for k in range(100) if k not in kept)]))


def test_a_plan_that_runs_away_somewhere_is_worse(coins: Model) -> None:
    """At a time that only the plan asks for the network fails on one sample; on all others the plan is far better."""
    held_out = teach(coins, "held_out", 100, trajectory=False)
    table = get("unipc_3").tableau(coins.schedule, grid("quadratic_tmin", coins.schedule, 14))
    limit = float(held_out.noise.flatten(1).max(1).values.topk(2).values.mean())
    failing = table.nodes[3].t

    class Fragile(torch.nn.Module):
        def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
            answer = coins.network(x, t, condition)
            broken = ((t - failing).abs() < 1e-6) & (x.flatten(1).max(1).values > 0.5 * limit)
            return torch.where(broken.view(-1, 1, 1, 1), torch.nan, answer)

    model = replace(coins, network=Fragile())
    comparison = compared(model, table, held_out)
    assert comparison.ran_away == comparison.left_out > 0 and comparison.verdict == "worse" and comparison.samples_to_decide is None
    assert f"On {comparison.ran_away} samples" in tables.verdict(comparison)
    assert compared(coins, table, held_out).ran_away == 0


@pytest.mark.parametrize("objective", ["frechet", "trajectory", "endpoint + 0.1*frechet", "network_calls", "frechet, endpoint"])
def test_the_objective_decides(coins: Model, objective: str) -> None:
    held_out = teach(coins, "held_out", 96, trajectory=True)
    table = get("ddim").tableau(coins.schedule, grid("karras", coins.schedule, 4))
    comparison = compared(coins, table, held_out, objective=objective)
    name = objective.split(",", maxsplit=1)[0]
    assert comparison.objective == name == comparison.deciding.measure == comparison.ratios[-1].measure
    assert comparison.verdict == ("undecided" if name == "network_calls" else "worse")
    assert comparison.confirming == comparison.ratios[-2] and comparison.confirmed_by == SMALL_PICTURES
    told = f"The objective, {name}, decides"
    told += (
        "." if name == "network_calls" else ", and another measure, on which nothing was searched, confirms it: Frechet distance of small"
    )
    said = tables.verdict(comparison)
    assert told in said and said.count(SMALL_PICTURES) == (name != "network_calls")
    assert comparison.exported_row == comparison.rows[0]


@pytest.mark.parametrize(("objective", "asked"), [("frechet", True), ("mean", False), ("endpoint", False)])
def test_baselines_that_an_objective_judges_are_compared_with(
    coins: Model, teacher: Teacher, monkeypatch: pytest.MonkeyPatch, objective: str, asked: bool
) -> None:
    table = get("ddim_eta1").tableau(coins.schedule, grid("karras", coins.schedule, 3))
    found = replace(measured(coins, table, teacher.first(64), name="noisy"), kind="baseline")
    monkeypatch.setattr(module, "contenders", lambda decider, *_: [found] if decider.name == "frechet" else pytest.fail("not asked for"))
    few = teacher.first(64)
    comparison = compared(coins, get("ddim").tableau(coins.schedule, grid("karras", coins.schedule, 3)), few, objective=objective)
    assert ("noisy" in {row.name for row in comparison.rows}) == asked


def test_what_contradicts_the_objective_is_told(coins: Model, teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Ratio(measure="other", value=0.1, low=0.05, high=0.2, baseline="b", plan_value=1, baseline_value=10)
    monkeypatch.setattr(module, "confirmation", lambda *_: other)
    monkeypatch.setattr(module, "contenders", lambda *_: [])
    table = get("ddim").tableau(coins.schedule, grid("karras", coins.schedule, 3))
    comparison = compared(coins, table, teacher.first(64), objective="tail")
    assert comparison.deciding.sign == 1 and comparison.verdict == "undecided" and comparison.confirming == other
    assert "on which nothing was searched, contradicts it: other 0.1 [0.05, 0.2]" in tables.verdict(comparison)


def test_batch_size_changes_nothing(coins: Model, teacher: Teacher) -> None:
    plan = plan_of(get("unipc_2").tableau(coins.schedule, grid("karras", coins.schedule, 3)), coins)
    one, other = (compare(coins, plan, teacher.first(100), Clock(), size) for size in (7, 256))
    assert one.best_baseline == other.best_baseline
    for a, b in zip(one.rows, other.rows, strict=True):
        assert a.endpoint_mse.mean == pytest.approx(b.endpoint_mse.mean, rel=1e-6)


# Whether plan and model belong together ------------------------------------------------------------------------


@pytest.fixture
def plan(coins: Model) -> Plan:
    return plan_of(get("unipc_2").tableau(coins.schedule, grid("karras", coins.schedule, 3)), coins)


def test_a_plan_serves_its_own_model_only(coins: Model, plan: Plan) -> None:
    check_model(plan, coins)
    with pytest.raises(UserError, match=r"made for model 'coins' with weights \w{12}, not for 'other' with weights \w{12}; make one"):
        check_model(plan, models.load(f"{COINS}:other_weights"))
    with pytest.raises(UserError, match="predicts 'sample', but model 'flowing' predicts 'flow'"):
        check_model(plan, replace(coins, name="flowing", prediction_type="flow"))


def test_a_plan_of_no_model_serves_those_with_its_noise_levels(coins: Model, plan: Plan) -> None:
    free = plan_of(plan.tableau, coins, digest="")
    check_model(free, coins)
    check_model(free, models.load(f"{COINS}:other_weights"))
    with pytest.raises(UserError, match="another noise schedule: its evaluation 0"):
        check_model(free, replace(coins, schedule=Flow(scale=2.0)))


def test_a_plan_moves_to_another_guidance(plan: Plan) -> None:
    assert reguided(plan, plan.guidance) is plan
    moved = reguided(plan, 4.0)
    assert moved.guidance == 4 and all(node.guidance == 4 for node in moved.nodes)
    assert moved.network_calls == 6 and moved.rows == plan.rows and moved.digest != plan.digest
    assert reguided(moved, 1.0) == plan


def test_split_or_mixed_guidance_stays(coins: Model) -> None:
    nodes = (Node(0.9, 0.1, 0.9, 2.0), Node(0.5, 0.5, 0.5, 2.0))
    split = Tableau(nodes, (Row(1.0), Row(0.5, (0.5,), (0.1,)), Row(0.0, (0.0, 1.0))))
    mixed = Tableau((nodes[0], replace(nodes[1], guidance=3.0)), (Row(1.0), Row(0.5, (0.5,)), Row(0.0, (0.0, 1.0))))
    for table, reason in ((split, "split guidance"), (mixed, "a guidance of its own")):
        with pytest.raises(UserError, match=f"hold for guidance 2 only, since it has {reason}"):
            reguided(plan_of(table, coins, 2.0), 4.0)


def test_the_rival_is_that_of_the_scores_else_of_a_race(coins: Model, teacher: Teacher, plan: Plan) -> None:
    few = teacher.first(64)
    table = get("dpmpp_2m").tableau(coins.schedule, grid("karras", coins.schedule, 3))
    row = measured(coins, table, few, name="dpmpp_2m on karras", solver="dpmpp_2m", grid="karras").row(None, None, 0)
    score = row.score().model_copy(update={"kind": "baseline"})
    assert rival(plan.with_scores((score,)), coins, teacher) == Baseline("dpmpp_2m", "karras", table)
    gone = score.model_copy(update={"solver": "no more"})
    best = rivals(coins, 3, 1.0, teacher).best(GEOMETRIC)
    for unknown in (plan, plan.with_scores((gone,))):
        assert rival(unknown, coins, teacher).table == best.table


def test_no_baseline_at_all_is_said(coins: Model) -> None:
    short = replace(coins, schedule=DiscreteVP([0.1, 0.2]))
    with pytest.raises(UserError, match="no baseline can spend 5 evaluations"):
        baselines(short, 5, 1.0, integer=True)


def test_a_stochastic_baseline_is_the_same_each_time(coins: Model, teacher: Teacher) -> None:
    table = get("ddim_eta1").tableau(coins.schedule, grid("linspace", coins.schedule, 3))
    first: Tensor = sample(coins, table, teacher)
    torch.testing.assert_close(sample(coins, table, teacher, batch_size=17), first, atol=1e-6, rtol=1e-6)


def test_a_large_model_is_not_compared_far_beyond_its_cost(coins: Model, teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SMALL", 0)
    rungs = climb(coins, rivals(coins, 2, 1.0, teacher), 2, 0.0, 1.0, False, 512, Clock(), NO_MEMO, lambda note: None)
    assert [rung.nfe for rung in rungs] == [3, 4]


def test_a_comparison_alone_has_no_stages_and_no_time_of_a_search(coins: Model, teacher: Teacher) -> None:
    comparison = compared(coins, get("ddim").tableau(coins.schedule, grid("karras", coins.schedule, 2)), teacher.first(16))
    assert comparison.unit == "value, validation noise" and (comparison.timing.wall_s, comparison.timing.network_s) == (0, 0)
    with pytest.raises(ValidationError, match="finite"):
        StageResult(name="fit", endpoint_mse=float("nan"), median=0.1, seconds=1, evaluations=1)
