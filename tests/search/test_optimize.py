"""The main job, with budgets small enough for a test: what every preset writes, that it repeats, and what it refuses."""

import io
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from rich.console import Console
from scipy import linalg
from torch import Tensor

import solversearch.judging.baselines as peers
import solversearch.judging.compare as compared
import solversearch.judging.verdict as verdicts
import solversearch.search.optimize as module
import solversearch.search.surrogates.instant as stage_zero
from solversearch import models
from solversearch.errors import Interrupted, UserError
from solversearch.judging.compare import Comparison
from solversearch.judging.measures import rivals
from solversearch.judging.objectives import OBJECTIVES, Objective
from solversearch.judging.race import GEOMETRIC, MEAN
from solversearch.judging.verdict import Ratio, decide
from solversearch.models.base import Model, NotFinite, Variant
from solversearch.noise import draw
from solversearch.plan import Plan, PlanVariant
from solversearch.report import tables
from solversearch.report.page.run import run_page
from solversearch.report.plan_view import summary
from solversearch.runtime import Tableau
from solversearch.sampling import sample
from solversearch.schedules import CosineVP
from solversearch.search.estimate import estimate
from solversearch.search.evaluating.evaluations import Log
from solversearch.search.evaluating.evaluator import Evaluated, Evaluator
from solversearch.search.evaluating.warm_start import read_records
from solversearch.search.fitting.compensation import greedy_ratios
from solversearch.search.optimize import optimize
from solversearch.search.pipeline import Found, run_stages
from solversearch.search.settings import Settings
from solversearch.search.stages import baseline, instant, polish
from solversearch.search.stages import search as search_stage
from solversearch.search.stages.task import Progress, Task
from solversearch.search.strategies import Context, recipe
from solversearch.search.surrogates.predictor import Record
from solversearch.spaces import Domain, Params, SearchSpace, presets
from solversearch.teacher import teach
from tests.assets import coins, restoration
from tests.cli.calling import ASSETS

SMALL: dict[str, Any] = {"nfe": 4, "trials": 6, "samples": 128, "fit_samples": 64, "validation_samples": 64}
MODEL = coins.factory()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little of everything, and few good baselines; that all of them are compared is tested in test_compare.py."""
    monkeypatch.setattr(polish, "STEPS", 3)
    monkeypatch.setattr(baseline, "STARTS", 3)
    for name, value in (("RANDOM", 40), ("CHILDREN", 20)):
        monkeypatch.setattr(stage_zero, name, value)
    monkeypatch.setattr(search_stage, "Context", partial(Context, children=200))
    monkeypatch.setattr(search_stage, "greedy_ratios", partial(greedy_ratios, iterations=3))
    for name, kept in (
        ("SOLVERS", ("ddim", "unipc_2", "unipc_2_bh1", "ipndm_3", "dpmpp_2m_sde")),
        ("GRIDS", ("logsnr", "quadratic", "ays_sdxl")),
    ):
        monkeypatch.setattr(peers, name, {key: getattr(peers, name)[key] for key in kept})


def quiet(stage: str, done: int, total: int, note: str) -> None:
    pass


def run(
    folder: Path, space: str | SearchSpace = "default", model: Model = MODEL, records: tuple[Record, ...] = (), **asked: Any
) -> tuple[Plan, Comparison]:
    shutil.rmtree(folder, ignore_errors=True)
    space = SearchSpace.named(space) if isinstance(space, str) else space
    return optimize(model, Settings.of(space, **{**SMALL, **asked}), folder, "test", quiet, records)


def mean_ratio(comparison: Comparison) -> float:
    """Of the plan's mean error to the least of all baselines."""
    ratio = comparison.ratio(MEAN)
    assert ratio is not None
    return ratio.value


def task_of(space: str = "default", model: Model = MODEL, progress: Progress = quiet, log: Path | None = None, **asked: Any) -> Task:
    return Task(model, Settings.of(SearchSpace.named(space), **{**SMALL, **asked}).sized(model), progress, Log(log))


def learned(space: str = "default", model: Model = MODEL, **asked: Any) -> Found:
    """A search without the comparison."""
    return run_stages(task_of(space, model, **asked))


def test_a_network_that_does_not_look_at_its_input_leaves_nothing_to_search(tmp_path: Path) -> None:
    constant = Model("constant", lambda x, t: x * 0 + 0.5, CosineVP(), "sample", (4,))
    with pytest.raises(UserError, match=r"nothing to search: at 4 .* exactly the teacher's samples of model 'constant'") as caught:
        run(tmp_path / "run", model=constant)
    assert "\n" not in str(caught.value)


def params_of(search: Found) -> list[Params]:
    assert search.loop is not None
    return [trial.params for trial in search.loop.study.trials]


def trials_of(folder: Path) -> list[FrozenTrial]:
    """As any tool of Optuna reads them."""
    storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    return optuna.load_study(study_name="search", storage=storage).trials


# Presets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", presets())
def test_every_preset_writes_a_valid_plan_by_the_stages_of_its_file(name: str, tmp_path: Path) -> None:
    folder, wanted = tmp_path / "run", SearchSpace.named(name).search
    learns = recipe(wanted.strategy) is not None
    plan, comparison = run(folder, name, trials=9 * (not learns))
    assert Plan.read(folder / "plan.json") == plan
    assert Comparison.model_validate_json((folder / "comparison.json").read_text()) == comparison
    assert plan.nfe == plan.network_calls == comparison.nfe == 4 and plan.decisions["space"] == name
    last = {False: [], "decisions": ["descent"]}.get(wanted.stages.polish, ["polish"])
    passed = ["best baseline", *["instant"] * wanted.stages.instant, *["fit"] * wanted.stages.fit, "search", *last]
    if learns:
        passed = ["best baseline", wanted.strategy]
    assert [stage.name for stage in comparison.stages] == passed == plan.decisions["stages"]
    assert len(comparison.progress) == len(trials_of(folder)) == 9 * (not learns)
    predicted = wanted.strategy == "s3"
    assert [tau.evaluated for tau in comparison.predictor][-1:] == ([9] if predicted else [])
    assert all(-1 <= each <= 1 for tau in comparison.predictor for each in (tau.surrogate, tau.learned, tau.both))
    assert (folder / "evaluations.json").exists() is predicted
    assert not predicted or len(json.loads((folder / "evaluations.json").read_text())["records"]) == 9
    better = name in ("default", "full", "nonstationary", "times")
    if name in ("gs", "s4s"):  # which have little of their steps here
        return
    assert (mean_ratio(comparison) < 0.1) >= better and (comparison.deciding.high < 0.2) >= better
    assert (comparison.verdict == "better") >= better and (comparison.exported == "plan") == (comparison.verdict == "better")


@pytest.mark.parametrize("name", ["default", "s3", "full"])
def test_same_seed_gives_the_same_plan_whatever_the_batch_size(name: str, tmp_path: Path) -> None:
    plans = [run(tmp_path, name, guidance=2.0, trials=9, batch_size=size)[0] for size in (256, 100)]
    assert plans[0].nodes == plans[1].nodes and plans[0].rows == plans[1].rows and plans[0].decisions == plans[1].decisions
    proposed = [params_of(learned(name, instant=False, polish=False, seed=seed)) for seed in (0, 0, 1)]
    assert proposed[0] == proposed[1] != proposed[2]


@pytest.mark.parametrize(("name", "guidance"), [("default", 4.0), ("s3", 1.0)])
def test_batches_change_nothing_for_a_network(digits: Model, name: str, guidance: float) -> None:
    tables = [learned(name, digits, instant=False, guidance=guidance, trials=5, batch_size=size).best for size in (256, 100)]
    assert tables[0] is not None and tables[1] is not None and tables[0].table == tables[1].table


def test_digits_are_sampled_better_than_by_any_baseline(digits: Model, tmp_path: Path) -> None:
    plan, comparison = run(tmp_path, model=digits, trials=12)
    assert mean_ratio(comparison) < 0.8 and comparison.ratios[0].high < 0.8
    assert (comparison.verdict, comparison.exported, comparison.samples_to_decide) == ("better", "plan", None)
    assert comparison.share.low > 0.5 and [row.name for row in comparison.rows].count(comparison.best_baseline) == 1
    assert comparison.rows[0].kind == "plan" and {row.kind for row in comparison.rows[1:]} == {"baseline"}
    assert {score.kind for score in plan.scores} == {"plan", "baseline"}
    assert comparison.baseline_nfe_for_plan_error is not None and comparison.baseline_nfe_for_plan_error > 4
    values = [stage.value for stage in comparison.stages if stage.value is not None]
    assert values == sorted(values, reverse=True) and values[1] < values[0]  # the instant plan wins, too


@pytest.mark.parametrize("name", ["default", "s3", "dpm_v3"])
def test_from_noised_pictures_a_plan_is_better_than_every_baseline_that_starts_there(name: str, digits: Model, tmp_path: Path) -> None:
    plan, comparison = run(tmp_path, name, digits, start=0.6, trials=24, samples=512, validation_samples=128)
    start = digits.schedule.start_of(0.6)
    assert plan.start == comparison.start == start and plan.decisions["start"] == 0.6 and start is not None and start.t == 599
    assert Plan.read(tmp_path / "plan.json") == plan and plan.provenance.model_digest == digits.digest
    assert all(node.t <= 599 for node in plan.nodes) and comparison.nodes[0].t == 599 and comparison.price is None
    if name != "dpm_v3":
        assert comparison.verdict == "better" and comparison.deciding.high < 0.8
    again = run(tmp_path, name, digits, start=0.6, trials=24, samples=512, validation_samples=128, batch_size=100)[0]
    assert again.rows == plan.rows and again.nodes == plan.nodes
    assert "evaluations from pictures noised to t = 599" in tables.verdict(comparison)
    assert run_page(tmp_path).title == "digits: 4 evaluations from pictures noised to t = 599"


def test_the_result_file_has_what_it_promises(tmp_path: Path) -> None:
    run(tmp_path, trials=0, polish=False)
    written = json.loads((tmp_path / "comparison.json").read_text())
    assert {
        "model", "nfe", "guidance", "samples", "left_out", "seed", "objective", "verdict", "samples_to_decide", "exported", "share",
        "ratios", "pairs", "evaluations", "best_baseline", "baseline_nfe_for_plan_error", "timing",
        "stages", "progress", "predictor", "pareto", "rows",
    } <= set(written)  # fmt: skip
    assert {"wall_s", "network_s"} == set(written["timing"]) and written["version"] == 2
    assert [each["measure"] for each in written["ratios"]] == ["geometric mean", "mean", "median", "Frechet distance"]
    for each in (*written["ratios"], {**written["share"], "value": written["share"]["mean"]}):
        assert each["low"] <= each["value"] <= each["high"]
    for row in written["rows"]:
        assert {"name", "kind", "solver", "grid", "nfe", "network_calls", "endpoint_mse", "frechet_teacher", "frechet_data"} <= set(row)
        assert row["endpoint_mse"]["low"] <= row["endpoint_mse"]["mean"] <= row["endpoint_mse"]["high"]
        assert row["endpoint_mse"]["median"] is not None
        assert row["geometric_mean"] <= row["endpoint_mse"]["mean"] and row["quantile_90"] <= row["quantile_99"]
        assert 1 / 128 <= row["worst_hundredth"] <= 1 and row["lower_bound"]  # of few samples


# Stages ------------------------------------------------------------------------------------------------------------


def test_instant_stops_after_stage_zero_and_says_whether_it_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, comparison = run(tmp_path, only_instant=True)
    assert [stage.name for stage in comparison.stages] == ["best baseline", "instant"]
    assert plan.decisions["solver"] == "instant" and comparison.verdict == "better" and mean_ratio(comparison) < 0.7
    assert not comparison.progress and not comparison.predictor and not trials_of(tmp_path)
    # A surrogate that is wrong finds a plan that loses: the best baseline is exported, and called that.
    monkeypatch.setattr(instant, "instant", lambda surrogates, nfe, *_: peers.baselines(MODEL, nfe, 1.0)[0].table)
    plan, comparison = run(tmp_path, only_instant=True)
    assert comparison.verdict == "worse" and mean_ratio(comparison) > 1 and comparison.exported == "baseline"
    assert comparison.exported_row.name == comparison.best_baseline
    assert plan.decisions["solver"] == comparison.exported_row.solver and comparison.exported_ratio(GEOMETRIC) == pytest.approx(1.0)


def test_without_instant_no_plan_is_made_on_a_surrogate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ranks the baselines alone."""
    monkeypatch.setattr(instant, "instant", None)
    _, comparison = run(tmp_path, instant=False, polish=False)
    assert [stage.name for stage in comparison.stages] == ["best baseline", "fit", "search"]


def test_stages_can_be_switched_off(tmp_path: Path) -> None:
    off: dict[str, Any] = {"instant": False, "fit": False, "polish": False}
    plan, comparison = run(tmp_path, **off, search=False)
    assert [stage.name for stage in comparison.stages] == ["best baseline"]
    assert mean_ratio(comparison) >= 0.999 and comparison.ratios[0].value >= 0.999
    assert "solver" in plan.decisions and "grid" in plan.decisions
    assert [stage.name for stage in learned(**off).stages] == ["best baseline", "search"]
    from_grid = learned("times", search=False)  # the descent is then LD3 as it was published
    assert [stage.name for stage in from_grid.stages] == ["best baseline", "descent"]
    assert from_grid.stages[1].endpoint_mse < from_grid.stages[0].endpoint_mse


@pytest.mark.parametrize("name", ["random", "cmaes", "gp", "nsga2", "evolution"])
def test_strategies(name: str) -> None:
    search = learned(strategy=name, instant=False, polish=False)
    assert search.loop is not None and len(search.loop.progress) == 6 and len(search.loop.tried) >= 1


def test_whole_timesteps(digits: Model) -> None:
    search = learned(model=digits, integer=True, instant=False)
    assert search.best is not None and all(node.t == round(node.t) for node in search.best.table.nodes)


def test_split_guidance_costs_what_guidance_costs(tmp_path: Path) -> None:
    plan, comparison = run(tmp_path, guidance=4.0, instant=False)
    assert plan.tableau.split and plan.network_calls == 8
    assert {row.network_calls for row in comparison.rows} == {8}
    together = learned(guidance=4.0, instant=False, split=False).best
    assert together is not None and not together.table.split


def test_a_plan_that_reuses_is_compared_at_its_price(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All others are spoiled, so that one of more evaluations is exported."""
    judged = Evaluator._judged

    def spoiled(self: Evaluator, table: Tableau, *arguments: Any) -> Evaluated:
        result = judged(self, table, *arguments)
        return result if any(node.reuses for node in table.nodes) else replace(result, values=(1e3,))

    monkeypatch.setattr(Evaluator, "_judged", spoiled)
    plan, comparison = run(tmp_path, guidance=4.0, budget=8.0, trials=0, undecided="plan")
    assert comparison.exported == "plan" and plan.version == 3 and plan.nfe > 4 and plan.network_calls == 8
    assert comparison.nfe == plan.rival_nfe == 4 and {row.network_calls for row in comparison.rows} == {8}
    assert comparison.rows[0].nfe == plan.nfe and {row.nfe for row in comparison.rows[1:]} == {4}
    names = [stage.name for stage in comparison.stages]
    assert names == ["best baseline", "instant", "price", "polish"] == plan.decisions["stages"]
    assert Plan.read(tmp_path / "plan.json") == plan and "reuses differences" in repr(run_page(tmp_path))


def test_a_plan_of_two_networks_is_compared_at_its_price(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other network is as good as the model's own, so that more evaluations of it are better."""
    model = replace(MODEL, variants={"twin": Variant(MODEL.network, 0.25, "twin")})
    for name, value in (("RANDOM", 20), ("CHILDREN", 10)):
        monkeypatch.setattr(stage_zero, name, value)
    plan, comparison = run(tmp_path, model=model, nfe=2, budget=2.0, trials=0, undecided="plan")
    assert plan.variants == {"twin": PlanVariant(cost=0.25, digest="twin")} and plan.nfe > 2 and plan.price <= 2 == comparison.nfe
    assert comparison.verdict == "better" and comparison.price is not None and comparison.price.nominal == plan.price
    assert comparison.price.measured > 1.5 * plan.price and "what the variants save is not real here" in comparison.price.told
    assert "another network (twin); a call costs 0.25" in repr(summary(plan)) and comparison.price.told in repr(run_page(tmp_path))
    assert [comparison.calls(row) for row in comparison.rows[:2]] == [plan.price, 2]
    with Console(width=200, record=True, file=io.StringIO()) as console:
        console.print(tables.comparison_table(comparison))
    plans = next(line for line in console.export_text().splitlines() if " plan " in line)
    assert plans.split("│")[-2].strip() == f"{plan.price:.4g}" != str(plan.network_calls)
    again, _ = run(tmp_path, model=model, nfe=2, budget=2.0, trials=0, undecided="plan")
    assert again.tableau == plan.tableau


def test_the_baseline_is_exported_when_nothing_beats_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiled(self: Evaluator, *arguments: Any) -> Evaluated:
        table = peers.baselines(self.model, 4, 1.0)[0].table
        return Evaluated(table, original(self, *arguments).error * 0, (0.0,), {})  # a validation that lies: the comparison must not

    original = Evaluator.fitted
    monkeypatch.setattr(Evaluator, "fitted", spoiled)
    plan, comparison = run(tmp_path, trials=0, polish=False, instant=False)
    assert comparison.verdict == "worse" and comparison.exported == "baseline"
    assert plan.decisions["baseline"] == "the verdict on the searched plan: worse"
    assert comparison.ratios[0].low > 1 and comparison.exported_ratio(GEOMETRIC) == pytest.approx(1.0)
    assert comparison.baseline_nfe_for_plan_error == 4 and [rung.nfe for rung in comparison.ladder] == [4]


@pytest.mark.parametrize(("geometric", "verdict"), [(0.5, "better"), (1.0, "undecided"), (2.0, "worse")])
@pytest.mark.parametrize("undecided", ["baseline", "plan"])
def test_what_is_exported_follows_the_verdict(
    geometric: float, verdict: str, undecided: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The searched plan is not what the ratios below say: they alone decide."""

    def ratios(*arguments: Any) -> tuple[Ratio, ...]:
        first, second, *rest = original(*arguments)
        ends = {"value": geometric, "low": geometric / 1.3, "high": geometric * 1.3}
        return first.model_copy(update=ends), second.model_copy(update=ends), *rest

    original = verdicts.ratios
    monkeypatch.setattr(compared, "ratios", ratios)
    plan, comparison = run(tmp_path, trials=0, polish=False, undecided=undecided)
    assert comparison.verdict == verdict
    assert comparison.exported == ("plan" if verdict == "better" or (verdict, undecided) == ("undecided", "plan") else "baseline")
    assert Plan.read(tmp_path / "plan.json") == plan and plan.scores[0].endpoint_mse == comparison.exported_row.endpoint_mse
    assert plan.scores[0].name == "plan" and plan.scores[1].name == comparison.best_baseline
    table = next((each.table for each in peers.baselines(MODEL, 4, 1.0) if each.name == comparison.best_baseline), None)
    assert (plan.tableau == table) == (comparison.exported == "baseline")
    assert plan.decisions.get("baseline") == (None if comparison.exported == "plan" else f"the verdict on the searched plan: {verdict}")
    assert (f"plan.json holds the baseline, {comparison.best_baseline}." in tables.verdict(comparison)) == (
        comparison.exported == "baseline"
    )


@pytest.mark.parametrize("name", ["default", "nonstationary", "autodiffusion", "s3", "times"])
@pytest.mark.parametrize("granted", [1500, 9000])
def test_the_granted_evaluations_are_not_exceeded_by_more_than_what_runs(name: str, granted: int) -> None:
    task = task_of(name, evaluations=granted, trials=10_000)
    search = run_stages(task)
    candidate = 4 * (64 + 64)
    # Of the polish: what it begins and ends with, and a gradient, which is worth three evaluations.
    iteration = 4 * (3 * 64 + 4 * 64)
    spent = search.evaluations
    if name == "times":  # central differences of four times and four shifts
        iteration = 4 * (17 * 64 + 3 * 64)
    assert spent <= granted + (iteration if task.settings.polish else candidate)
    assert granted == 1500 or spent > 0.7 * granted
    assert search.loop is not None and len(search.loop.progress) < 10_000


# Failures and interruptions ------------------------------------------------------------------------------------------


def test_a_score_that_is_no_number_fails_its_trial_and_the_search_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def sometimes(outcome: Any) -> float:
        nonlocal calls
        calls += 1
        return float("nan") if calls % 2 == 0 else original.function(outcome)

    original = OBJECTIVES["endpoint"]
    monkeypatch.setitem(OBJECTIVES, "endpoint", Objective("endpoint", sometimes, original.cost, original.source))
    monkeypatch.setattr(search_stage, "screening", lambda samples: samples)  # every candidate is judged once
    _, comparison = run(tmp_path, "autodiffusion")
    trials = trials_of(tmp_path)
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE"] * 3
    assert all("objective 'endpoint' is nan" in trial.user_attrs["failure"] for trial in trials[::2])
    assert comparison.progress[0] is None and comparison.progress[1] == trials[1].value
    # The first best is not known, and the file says so in a way that JSON has.
    assert json.loads((tmp_path / "comparison.json").read_text())["progress"][0] is None
    assert Comparison.model_validate_json((tmp_path / "comparison.json").read_text()) == comparison


@pytest.mark.parametrize(("kind", "asked"), [("build", {}), ("numbered", {"start": 0.8})])
def test_the_plan_of_a_mean_reverting_model_gives_what_the_search_sampled(kind: str, asked: dict[str, Any], tmp_path: Path) -> None:
    """Through the file and the network alone, given the anchors; whatever the batch size."""
    model = models.load(f"python:{ASSETS / 'restoration.py'}:{kind}")
    plan, comparison = run(tmp_path, "default", model, samples=256, validation_samples=128, **asked)
    assert comparison.verdict == "better" and plan.version == 5 and (plan.start is None) == (not asked)
    assert all(node.beta == float(model.schedule.beta(node.t)) for node in plan.nodes)
    again = run(tmp_path / "again", "default", model, samples=256, validation_samples=128, batch_size=100, **asked)[0]
    assert again.nodes == plan.nodes and again.rows == plan.rows
    noise, conditions = draw(model, "held_out", 40)
    assert conditions is not None and model.anchor is not None
    y, own = model.anchor(conditions), model.started(plan.start)
    network = restoration.Restorer(model.schedule, noise=False)
    clean = Plan.read(tmp_path / "plan.json").sample(lambda x, node: network(x, torch.full((40,), node.t), y), noise, anchor=y)
    teacher = teach(own, "held_out", 40, trajectory=False)
    if plan.start is not None:
        teacher = replace(teacher, noise=plan.start.noised(y, noise))
    table = replace(plan.tableau, nodes=tuple(replace(node, beta=None) for node in plan.nodes))
    assert float((sample(own, table, teacher) - clean).abs().max()) < (1e-6 if kind == "build" else 1e-5)


def test_starts_that_run_away_do_not_end_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Evaluated:
        raise NotFinite("the network returned NaN")

    monkeypatch.setattr(Evaluator, "_fitted", fails)
    monkeypatch.setattr(instant, "instant", fails)
    search = learned(polish=False)
    assert search.loop is not None and search.loop.tried == [] and len(search.loop.progress) == 6
    assert search.best is not None and "grid" in search.best.origin


def test_no_guidance_at_all_is_a_guidance() -> None:
    search = learned(guidance=0.0, trials=3, polish=False)  # the network without its condition, which the surrogate may not serve
    assert search.best is not None and search.best.table.network_calls == 8


def test_the_journal_has_every_trial(tmp_path: Path) -> None:
    # 256 validation samples: candidates are seen on 64 first, and most are pruned there.
    _, comparison = run(tmp_path, "s3", trials=24, validation_samples=256)
    trials = trials_of(tmp_path)
    states = [trial.state.name for trial in trials]
    assert [trial.number for trial in trials] == list(range(24)) and set(states) == {"COMPLETE", "PRUNED"}
    domain = Domain.of(SearchSpace.named("s3"), MODEL.schedule, 4, 1.0)
    for trial, best in zip(trials, comparison.progress, strict=True):
        assert set(trial.params) == set(trial.distributions) == set(domain.distributions)
        assert trial.value is not None and best is not None and trial.value > 0
        assert trial.intermediate_values == ({64: trial.value} if trial.state.name == "PRUNED" else {})
    complete = [trial.value for trial in trials if trial.state.name == "COMPLETE" and trial.value is not None]
    assert comparison.progress[-1] == min(complete)


def test_interruption_keeps_the_best_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(polish, "run", interrupt)
    with pytest.raises(Interrupted, match="interrupted after 6 trials") as caught:
        run(tmp_path, instant=False)
    plan = Plan.read(tmp_path / "plan.json")
    best = min(trial.value for trial in trials_of(tmp_path) if trial.value is not None)
    assert str(tmp_path / "plan.json") in str(caught.value)
    assert f"the best so far, tempered validation error {best:.3g}, not compared yet" in str(caught.value)
    assert "interrupted" in plan.decisions and not plan.scores
    assert len(trials_of(tmp_path)) == 6
    monkeypatch.setattr(module, "run_stages", interrupt)
    with pytest.raises(Interrupted, match="before any candidate was evaluated"):
        run(tmp_path)
    assert not (tmp_path / "plan.json").exists()


# Pareto sets -----------------------------------------------------------------------------------------------------------

INTERVAL = """
name: interval
timesteps: [quadratic, logsnr]
solver: [unip, dpmpp]
order: [1, 2]
guidance_interval: {above: [0.0, 0.6, 0.8]}
search: {strategy: nsga2, objective: "endpoint, network_calls", stages: {instant: false, fit: false, polish: false}}
"""


def test_a_pareto_set_of_error_against_network_calls(tmp_path: Path) -> None:
    (tmp_path / "interval.yaml").write_text(INTERVAL)
    space = SearchSpace.read(tmp_path / "interval.yaml")
    plan, comparison = run(tmp_path / "run", space, guidance=3.0, trials=40)
    points = comparison.pareto
    assert sorted(each.name for each in (tmp_path / "run" / "pareto").iterdir()) == [f"plan-{k}.json" for k in range(len(points))]
    assert len(points) >= 2
    for point in points:
        written = Plan.read(tmp_path / "run" / point.file)
        assert written.network_calls == point.network_calls == point.values["network_calls"]
        assert written.nfe == 4 and written.guidance == 3.0 and not written.tableau.split
    # Best error first; what costs less is worse, so that none is dominated.
    calls, errors = [point.network_calls for point in points], [point.values["endpoint"] for point in points]
    assert calls == sorted(set(calls), reverse=True) and errors == sorted(set(errors))
    assert 4 <= calls[-1] < calls[0] <= 8
    assert [trial.values for trial in trials_of(tmp_path / "run")]
    assert plan.decisions.get("baseline") or Plan.read(tmp_path / "run" / points[0].file).rows == plan.rows


def test_the_best_plan_is_in_the_pareto_set_wherever_it_was_found(tmp_path: Path) -> None:
    plan, comparison = run(tmp_path, objective="endpoint, network_calls", strategy="nsga2", instant=False)
    assert Plan.read(tmp_path / comparison.pareto[0].file).rows == plan.rows and len(comparison.pareto) == 1


# Earlier runs ----------------------------------------------------------------------------------------------------------


def test_a_search_starts_with_what_earlier_ones_have_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Found] = []
    monkeypatch.setattr(module, "run_stages", lambda *arguments: seen.append(run_stages(*arguments)))
    run(tmp_path / "three", "s3", nfe=3, trials=7)
    run(tmp_path / "guided", "s3", guidance=2.0)
    records = [record for name in ("three", "guided") for record in read_records(tmp_path / name, MODEL)]
    with pytest.raises(UserError, match=r"three/evaluations.json: of a search from another start; .* the same --start"):
        read_records(tmp_path / "three", MODEL.started(MODEL.schedule.start_of(0.5)))
    assert [(record.nfe, record.guidance) for record in records] == [(3, 1.0)] * 7 + [(4, 2.0)] * 6
    run(tmp_path / "warm", "s3", records=tuple(records), trials=8)
    run(tmp_path / "cold", "s3")
    *_, warm, cold = seen
    # What was learnt elsewhere changes what is expected here, but it is not passed on as this run's own.
    assert len(json.loads((tmp_path / "warm" / "evaluations.json").read_text())["records"]) == 8
    assert warm.predictor is not None and cold.predictor is not None and cold.loop is not None
    tables = [result.table for _, result in cold.loop.tried]
    assert warm.predictor.predict(tables)[0].tolist() != cold.predictor.predict(tables)[0].tolist()


def test_stages_are_told_by_what_the_best_is_chosen_by(tmp_path: Path) -> None:
    search = learned("ays", trials=3)
    assert search.best is not None
    last = search.stages[-1]
    assert (last.value, last.unit) == (search.best.value, "klub, validation noise") and last.endpoint_mse == float(search.best.error.mean())
    notes: list[str] = []
    search = run_stages(task_of(progress=lambda stage, done, total, note: notes.append(note), log=tmp_path / "log", trials=2))
    assert search.best is not None and search.stages[-1].unit == "tempered validation error"
    (scale,) = Log(tmp_path / "log").entries["scale"].numbers  # without guidance
    assert search.stages[-1].value == pytest.approx(float((scale * (1 + search.best.error / scale).log()).mean()))
    assert search.stages[-1].reached < search.stages[-1].endpoint_mse
    told = [note for note in notes if "best" in note]
    assert told and all(note.startswith("best tempered validation error ") for note in told)


def test_a_held_out_sample_that_the_network_fails_on_is_left_out(tmp_path: Path) -> None:
    held_out = draw(MODEL, "held_out", SMALL["samples"]).noise[-1]

    def network(x: Tensor, *told: Tensor) -> Tensor:
        bad = (x / x.flatten(1).norm(dim=1).view(-1, 1, 1, 1) - held_out / held_out.norm()).flatten(1).norm(dim=1) < 1e-5
        return MODEL.network(x, *told).where(~bad.view(-1, 1, 1, 1), torch.nan)

    _, comparison = run(tmp_path, model=replace(MODEL, network=network), trials=2)
    assert (comparison.left_out, comparison.samples) == (1, 127) and {row.samples for row in comparison.rows} == {127}
    whole = run(tmp_path, trials=2)[1]
    assert (whole.left_out, whole.samples) == (0, 128)
    assert "1 of 128 samples are left out: the network returned NaN or inf there." in tables.verdict(comparison)
    assert "left out" not in tables.verdict(whole)


def test_a_network_that_fails_on_held_out_noise_alone_is_found_out_and_the_plan_is_kept(tmp_path: Path) -> None:
    held_out = draw(MODEL, "held_out", SMALL["samples"], seed=1).noise[10:].flatten(1)  # 118 of 128; functions share cached teachers

    def network(x: Tensor, *told: Tensor) -> Tensor:
        along = (x.flatten(1) / x.flatten(1).norm(dim=1, keepdim=True)) @ (held_out / held_out.norm(dim=1, keepdim=True)).T.to(x.dtype)
        return MODEL.network(x, *told).where((along.amax(1) < 1 - 1e-5).view(-1, 1, 1, 1), torch.nan)

    with pytest.raises(UserError, match=r"10 of 128 held-out samples are finite, too few for any verdict: .* returns NaN or inf"):
        run(tmp_path, model=replace(MODEL, network=network), seed=1)
    assert Plan.read(tmp_path / "plan.json").nfe == SMALL["nfe"]


def test_another_objective_decides_by_its_own_interval(tmp_path: Path) -> None:
    """The Frechet distance of the coins' features, which are their pixels, to the teacher's."""
    plan, comparison = run(tmp_path, objective="frechet", trials=3)
    *others, confirming, own = comparison.ratios
    assert [each.measure for each in others] == ["geometric mean", "mean", "median", "Frechet distance"]
    assert comparison.deciding == own and (comparison.objective, own.measure, own.difference) == ("frechet", "frechet", False)
    assert comparison.verdict == decide(own, confirming) and comparison.confirming == confirming
    assert comparison.samples_to_decide is None and "The objective, frechet, decides" in tables.verdict(comparison)
    teacher = teach(MODEL, "held_out", SMALL["samples"], trajectory=False)

    def distance(table: Tableau) -> float:
        a, b = (x.flatten(1).double().numpy() for x in (sample(MODEL, table, teacher), teacher.endpoint))
        root = linalg.sqrtm(np.cov(a.T) @ np.cov(b.T)).real
        return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * root))

    found = rivals(MODEL, 4, 1.0, teacher).measured
    least = min(found, key=lambda each: distance(each.table))
    assert own.baseline == least.name and own.baseline_value == pytest.approx(distance(least.table), rel=2e-2)
    assert comparison.exported == ("plan" if comparison.verdict == "better" else "baseline")
    assert own.plan_value == pytest.approx(distance(plan.tableau), rel=2e-2) or comparison.exported == "baseline"


# Estimates -----------------------------------------------------------------------------------------------------------


def test_estimate_counts_the_pictures_to_start_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLVERSEARCH_CACHE", str(tmp_path))

    def told(start: float) -> int:
        facts = estimate(MODEL, Settings.of(SearchSpace(), start=start, **SMALL))
        return int(str(facts["network evaluations, teacher"]).removeprefix("up to ").replace(",", ""))

    task = task_of(model=MODEL.started(MODEL.schedule.start_of(0.5)), start=0.5)
    _ = task.learning
    task.teacher("held_out", SMALL["samples"], trajectory=False, steps=20)
    assert told(0.5) == task.clock.evaluations > told(1.0)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_estimate_counts_at_least_what_is_spent(monkeypatch: pytest.MonkeyPatch, guidance: float) -> None:
    expected = estimate(MODEL, Settings.of(SearchSpace(), guidance=guidance, instant=False, **SMALL))
    spent = {stage.name: stage.evaluations for stage in learned(guidance=guidance, instant=False).stages}
    for stage, name in (("fit", "fit"), ("search", "search"), ("polish", "polish"), ("baselines", "best baseline")):
        room = 2 if name == "polish" else 1  # where a plan is as exact as here, the teacher of the polish takes all its steps
        assert room * int(str(expected[f"network evaluations, {stage}"]).removeprefix("up to ").replace(",", "")) >= spent[name] > 0
    assert float(expected["estimated seconds"]) > 0 and expected["space"] == "default" and expected["strategy"] == "tpe"


@pytest.mark.parametrize(
    ("space", "asked", "kind"), [("s3", {}, "observation"), ("dc", {}, "greedy ratios"), ("ays", {"guidance": 2.0}, "times of least KLUB")]
)
def test_estimate_counts_what_a_search_evaluates_beside_its_candidates(
    space: str, asked: dict[str, Any], kind: str, tmp_path: Path
) -> None:
    task = task_of(space, log=tmp_path / "log", **{"trials": 1, **asked})
    run_stages(task)
    spent = sum(entry.evaluations for key, entry in Log(tmp_path / "log").entries.items() if key.startswith(kind))

    def told(trials: int) -> int:
        facts = estimate(MODEL, task.settings.model_copy(update={"trials": trials}))
        return int(str(facts["network evaluations, search"]).removeprefix("up to ").replace(",", ""))

    assert 2 * told(1) - told(2) >= spent > 0  # without a candidate


def test_estimate_counts_baselines_that_an_objective_judges(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"nfe": 3, "samples": 64, "fit_samples": 16, "validation_samples": 16, "only_instant": True}

    def counts(objective: str) -> tuple[int, int]:
        settings = Settings.of(SearchSpace(), objective=objective, **asked)
        told = estimate(MODEL, settings)["network evaluations, comparison"]
        spent = optimize(MODEL, settings, tmp_path / objective, "", quiet)[1].evaluations
        return int(str(told).removeprefix("up to ").replace(",", "")), spent

    (raced, least), (judged, spent) = counts("mean"), counts("frechet")
    assert judged - raced >= spent - least > 0


def test_estimate_knows_what_is_granted_and_left_out() -> None:
    def count(stage: str, **asked: Any) -> str:
        return str(estimate(MODEL, Settings.of(SearchSpace(), **SMALL, **asked))[f"network evaluations, {stage}"])

    assert count("search", evaluations=1000) == "up to 1,000"
    assert {count(stage, only_instant=True) for stage in ("fit", "search", "polish")} == {"up to 0"}


def evaluations_told(settings: Settings) -> int:
    facts = estimate(MODEL, settings)
    return sum(int(str(fact).removeprefix("up to ").replace(",", "")) for name, fact in facts.items() if "evaluations, " in name)


@pytest.mark.parametrize("speed", [1000.0, 100.0, 30.0])
def test_a_slow_network_gets_what_an_hour_has_room_for(speed: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solversearch.search.estimate._speed", lambda *_, **__: speed)
    asked = Settings.of(SearchSpace(), nfe=4, validation_samples=48)
    whole, most = evaluations_told(asked.model_copy(update={"hours": 1000.0})), int(3600 * speed)
    told = estimate(MODEL, asked)
    assert evaluations_told(asked) <= min(whole, most)
    assert (evaluations_told(asked) == whole) == (most >= whole)
    assert ("1024 held out, 256 to fit" in str(told["samples"])) == (most >= whole) and "48 to validate" in str(told["samples"])
    assert evaluations_told(asked.model_copy(update={"evaluations": 10**9})) == whole  # who bounds the evaluations bounds no hours


def test_what_an_hour_had_room_for_is_kept_by_a_resumed_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the network is faster then."""
    monkeypatch.setattr("solversearch.search.estimate._speed", lambda *_, **__: 30.0)
    asked = Settings.of(SearchSpace(), nfe=3)
    with pytest.warns(UserWarning, match=r"^--hours 1 has room for 110,000 network evaluations here: \d+ samples held out"):
        plan, comparison = optimize(MODEL, asked, tmp_path / "whole", "", quiet)
    assert 64 <= comparison.samples < 1024

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.warns(UserWarning, match="--hours 1"), pytest.raises(Interrupted):
        patched.setattr("solversearch.search.optimize.compare", stop)
        optimize(MODEL, asked, tmp_path / "parts", "", quiet)
    monkeypatch.setattr("solversearch.search.estimate._speed", lambda *_, **__: 1e9)
    with pytest.warns(UserWarning, match="--hours 1 has room for 110,000"):
        assert optimize(MODEL, asked, tmp_path / "parts", "", quiet, resume=True)[0].digest == plan.digest


@pytest.mark.parametrize(("space", "fit"), [("default", False), ("s3", True)])
def test_the_fit_of_candidates_is_what_is_asked_for_not_what_the_file_says(space: str, fit: bool) -> None:
    search = learned(space, nfe=3, fit=fit, instant=False, polish=False, strategy="random", fit_samples=32)
    assert search.loop is not None and search.loop.tried
    for params, result in search.loop.tried:
        candidate = search.loop.domain.candidate(params)
        assert (candidate.ridge is not None) == fit
        assert (result.table == candidate.tableau(MODEL.schedule)) != fit
