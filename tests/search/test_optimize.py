"""The main job, with budgets small enough for a test: what it writes, that it repeats, and what it refuses."""

import json
import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

import solversearch.compare as peers
import solversearch.search.optimize as module
from solversearch.compare import Comparison
from solversearch.errors import UserError
from solversearch.models.base import Model, NotFinite
from solversearch.plan import Plan
from solversearch.search.optimize import Interrupted, Settings, check, estimate, optimize

SMALL: dict[str, Any] = {"trials": 6, "samples": 128, "fit_samples": 64, "validation_samples": 64}


@pytest.fixture(autouse=True)
def short_polish(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SHORT", 3), ("LONG", 6), ("POLISHED", 2), ("STARTS", 3)):
        monkeypatch.setattr(module, name, value)


@pytest.fixture(autouse=True)
def few_baselines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The good ones; that all of them are compared is tested in test_compare.py."""
    for name, kept in (
        ("SOLVERS", ("ddim", "unipc_2", "unipc_2_bh1", "ipndm_3", "dpmpp_2m_sde")),
        ("GRIDS", ("logsnr", "quadratic", "ays_sdxl")),
    ):
        monkeypatch.setattr(peers, name, {key: getattr(peers, name)[key] for key in kept})


def quiet(stage: str, done: int, total: int, note: str) -> None:
    pass


def run(model: Model, folder: Path, **settings: Any) -> tuple[Plan, Comparison]:
    shutil.rmtree(folder, ignore_errors=True)
    return optimize(model, Settings(**{"nfe": 4, **SMALL, **settings}), folder, "test", quiet)


def test_writes_a_plan_that_beats_the_baselines(digits: Model, tmp_path: Path) -> None:
    plan, comparison = run(digits, tmp_path / "run")
    assert Plan.read(tmp_path / "run" / "plan.json") == plan
    assert Comparison.model_validate_json((tmp_path / "run" / "comparison.json").read_text()) == comparison
    assert plan.nfe == plan.network_calls == comparison.nfe == 4
    assert comparison.ratio_endpoint_mse < 0.8
    assert [stage.name for stage in comparison.stages] == ["best baseline", "fit", "search", "polish"]
    assert comparison.rows[0].kind == "plan" and {row.kind for row in comparison.rows[1:]} == {"baseline"}
    assert {score.kind for score in plan.scores} == {"plan", "baseline"}
    assert comparison.baseline_nfe_for_plan_error is not None and comparison.baseline_nfe_for_plan_error > 4
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "run" / "journal.log")))
    assert len(optuna.load_study(study_name="search", storage=storage).trials) == 6


def test_fields_that_the_result_file_promises(digits: Model, tmp_path: Path) -> None:
    run(digits, tmp_path / "run", trials=0, polish=False)
    written = json.loads((tmp_path / "run" / "comparison.json").read_text())
    assert {
        "model", "nfe", "guidance", "samples", "seed", "ratio_endpoint_mse", "best_baseline", "baseline_nfe_for_plan_error", "timing",
        "stages", "rows",
    } <= set(written)  # fmt: skip
    assert {"wall_s", "network_s"} == set(written["timing"])
    for row in written["rows"]:
        assert {"name", "kind", "solver", "grid", "nfe", "network_calls", "endpoint_mse", "frechet_teacher", "frechet_data"} <= set(row)
        assert row["endpoint_mse"]["low"] <= row["endpoint_mse"]["mean"] <= row["endpoint_mse"]["high"]
        assert row["endpoint_mse"]["median"] is not None


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_same_seed_gives_the_same_plan_whatever_the_batch_size(digits: Model, tmp_path: Path, guidance: float) -> None:
    plans = [run(digits, tmp_path / "run", guidance=guidance, batch_size=size)[0] for size in (256, 37)]
    assert plans[0].nodes == plans[1].nodes and plans[0].rows == plans[1].rows
    other = run(digits, tmp_path / "run", guidance=guidance, seed=1)[0]
    assert other.rows != plans[0].rows


@pytest.mark.parametrize("strategy", ["tpe", "cmaes", "random"])
def test_strategies(digits: Model, tmp_path: Path, strategy: str) -> None:
    _, comparison = run(digits, tmp_path / "run", strategy=strategy, polish=False, trials=8)
    assert comparison.stages[-1].name == "search"


def test_stages_can_be_switched_off(digits: Model, tmp_path: Path) -> None:
    plan, comparison = run(digits, tmp_path / "run", fit=False, search=False, polish=False)
    assert [stage.name for stage in comparison.stages] == ["best baseline"]
    assert comparison.ratio_endpoint_mse >= 0.999
    assert "solver" in plan.decisions and "grid" in plan.decisions
    searched, _ = run(digits, tmp_path / "run", fit=False, polish=False)
    assert searched.decisions["stages"] == ["best baseline", "search"]


def test_the_baseline_is_exported_when_nothing_beats_it(digits: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiled(self: Any, prior: Any, ridge: float, origin: dict[str, str]) -> Any:
        result = original(self, prior, ridge, origin)
        result.error = result.error * 0  # a validation that lies: the comparison must not
        result.table = peers.baselines(self.model, self.settings.nfe, 1.0)[0].table
        return result

    original = module._Search._fitted
    monkeypatch.setattr(module._Search, "_fitted", spoiled)
    plan, comparison = run(digits, tmp_path / "run", trials=0, polish=False)
    assert plan.decisions["baseline"] == "no candidate was better"
    assert comparison.ratio_endpoint_mse == pytest.approx(1.0)
    assert comparison.baseline_nfe_for_plan_error == 4


def test_whole_timesteps(digits: Model, tmp_path: Path) -> None:
    plan, _ = run(digits, tmp_path / "run", integer=True)
    assert all(node.t == round(node.t) for node in plan.nodes)


def test_split_guidance_costs_what_guidance_costs(digits: Model, tmp_path: Path) -> None:
    plan, comparison = run(digits, tmp_path / "run", guidance=4.0)
    assert plan.tableau.split and plan.network_calls == 8
    assert {row.network_calls for row in comparison.rows} == {8}
    together, _ = run(digits, tmp_path / "run", guidance=4.0, split=False)
    assert not together.tableau.split


def test_failed_candidates_are_noted_and_the_search_goes_on(digits: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = module._Search._evaluated, 0

    def sometimes(self: Any, candidate: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise NotFinite("the network returned NaN")
        return original(self, candidate)

    monkeypatch.setattr(module._Search, "_evaluated", sometimes)
    run(digits, tmp_path / "run", polish=False)
    storage = JournalStorage(JournalFileBackend(str(tmp_path / "run" / "journal.log")))
    states = [trial.state.name for trial in optuna.load_study(study_name="search", storage=storage).trials]
    assert states == ["FAIL", "COMPLETE"] * 3


def test_interruption_keeps_the_best_plan(digits: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Any, *arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module._Search, "_polished", interrupt)
    with pytest.raises(Interrupted, match="interrupted after 6 trials") as caught:
        run(digits, tmp_path / "run")
    plan = Plan.read(tmp_path / "run" / "plan.json")
    assert str(tmp_path / "run" / "plan.json") in str(caught.value)
    assert "interrupted" in plan.decisions and not plan.scores


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"strategy": "tpee"}, "did you mean 'tpe'"), ({"integer": True, "nfe": 1000}, None), ({"guidance": 2.0}, None)],
)
def test_what_cannot_be_is_told_before_any_work(digits: Model, settings: dict[str, Any], message: str | None) -> None:
    wanted = Settings(**{"nfe": 5, **settings})
    if message is None:
        check(digits, wanted)
    else:
        with pytest.raises(UserError, match=message):
            check(digits, wanted)


def test_guidance_needs_a_null_condition(digits: Model) -> None:
    unconditional = Model("plain", lambda x, t: x, digits.schedule, "sample", (4,))
    for settings in (Settings(nfe=3, guidance=2.0), Settings(nfe=3, split=True)):
        with pytest.raises(UserError, match="no null condition"):
            check(unconditional, settings)


def test_estimate_counts_at_least_what_is_spent(digits: Model, tmp_path: Path) -> None:
    expected = estimate(digits, Settings(nfe=4, **SMALL))
    _, comparison = run(digits, tmp_path / "run")
    spent = {stage.name: stage.evaluations for stage in comparison.stages}
    for stage, name in (("fit", "fit"), ("search", "search"), ("polish", "polish"), ("baselines", "best baseline")):
        assert int(str(expected[f"network evaluations, {stage}"]).removeprefix("up to ").replace(",", "")) >= 0.6 * spent[name] > 0
    assert float(expected["estimated seconds"]) > 0
    assert torch.get_num_threads() >= 1
