"""Stages alone: each gets what it needs, and is looked at without the others."""

from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import pytest
import torch

from solversearch.empirical import parametrization
from solversearch.grids import grid
from solversearch.judging.baselines import Baseline, baselines, screening
from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.models.base import Clock, NotFinite
from solversearch.sampling import sample
from solversearch.search.evaluating.evaluations import Log
from solversearch.search.evaluating.evaluator import Evaluated, Evaluator
from solversearch.search.fitting.polish import KEPT
from solversearch.search.settings import Settings
from solversearch.search.stages import baseline, descent, fit, polish, price, search, surrogate
from solversearch.search.stages.task import SOLVES, Budget, Task
from solversearch.search.surrogates import instant as stage_zero
from solversearch.solvers import get
from solversearch.spaces import SearchSpace
from solversearch.spaces.sections import ComponentChoice
from solversearch.teacher import teach
from tests.assets import coins

MODEL = coins.factory()


def task_of(space: str = "default", log: Path | None = None, **asked: Any) -> Task:
    counts = {"nfe": 3, "fit_samples": 32, "validation_samples": 32, "samples": 32}
    return Task(MODEL, Settings.of(SearchSpace.named(space), **{**counts, **asked}).sized(MODEL), lambda *_: None, Log(log))


def evaluator_of(task: Task) -> Evaluator:
    fitting, validation = task.teacher("fit", 32), task.teacher("validate", 32)
    return Evaluator(MODEL, fitting, validation, task.objectives, 0.01, False, 512, task.clock)


def start(name: str, solver: str = "unipc_2") -> Baseline:
    return Baseline(solver, name, get(solver).tableau(MODEL.schedule, grid(name, MODEL.schedule, 3)))


def results(task: Task, evaluator: Evaluator) -> list[Evaluated]:
    return [evaluator.table(start(name).table, {"grid": name}) for name in ("quadratic", "logsnr", "karras")]


ENDLESS, NOTHING = Budget(None, Clock(), 0), Budget(1, Clock(evaluations=1), 0)


def test_a_budget_counts_what_is_spent_after_it_was_begun() -> None:
    clock = Clock(evaluations=1000)
    budget = Budget(500, clock, 1000)
    assert (budget.left(), budget.left(0.4)) == (500, 200) and not budget.spent()
    clock.evaluations += 499
    assert (budget.left(), budget.left(0.4)) == (1, -299) and not budget.spent()
    clock.evaluations += 1
    assert budget.spent() and budget.left() == 0
    assert Budget(None, clock, 0).left() == inf and not Budget(None, clock, 0).spent()


def test_the_fit_is_a_result_a_start_and_what_an_earlier_process_found_is_not_fitted_again(tmp_path: Path) -> None:
    task = task_of(log=tmp_path / "log")
    evaluator, starts = evaluator_of(task), [start("quadratic"), start("logsnr")]
    found = list(fit.run(task, evaluator, ENDLESS, starts))
    for given, one in zip(starts, found, strict=True):
        before = endpoint_mse(sample(MODEL, given.table, evaluator.validation), evaluator.validation.endpoint)
        assert one.origin == {"solver": "unipc_2", "grid": given.grid} and one.error.mean() < before.mean()
    task = task_of(log=tmp_path / "log")
    again = list(fit.run(task, evaluator_of(task), ENDLESS, starts))
    assert [one.table for one in again] == [one.table for one in found]
    assert [key for key in Log(tmp_path / "log").entries if key.startswith("fit ")] == ["fit 0", "fit 1"]


def test_a_start_that_runs_away_is_left_out_of_the_fit() -> None:
    task, bad = task_of(), start("logsnr")
    rows = (replace(bad.table.rows[0], x=float("1e300")), *bad.table.rows[1:])
    starts = [replace(bad, table=replace(bad.table, rows=rows)), start("quadratic")]
    assert [each.origin["grid"] for each in fit.run(task, evaluator_of(task), ENDLESS, starts)] == ["quadratic"]


def test_tables_of_more_evaluations_cost_what_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANDOM", 20), ("CHILDREN", 10)):
        monkeypatch.setattr(stage_zero, name, value)
    task = task_of(guidance=3.0, budget=6.0)
    surrogates = surrogate.run(task, *task.learning)
    evaluator = Evaluator(MODEL, *task.learning, task.objectives, 0.01, True, 512, task.clock)
    before = task.clock.evaluations
    found = list(price.run(task, evaluator, ENDLESS, surrogates))
    patterns = ["".join("r" if node.reuses else "c" for node in each.table.nodes) for each in found]
    assert len(set(patterns)) == len(patterns) and patterns[-1] == "crrrr"
    assert {(len(each), each.count("r")) for each in patterns} == {(4, 2), (5, 4)} and all(each[0] == "c" for each in patterns)
    assert {each.table.network_calls for each in found} == {6}
    assert task.clock.evaluations - before == len(found) * 6 * 64
    assert [each.table for each in price.run(task, evaluator, ENDLESS, surrogates)] == [each.table for each in found]
    assert not list(price.run(task, evaluator, NOTHING, surrogates))


def test_a_spent_budget_leaves_stages_out() -> None:
    task = task_of("times")
    evaluator = evaluator_of(task)
    candidates = results(task, evaluator)
    before = task.clock.evaluations
    assert not list(fit.run(task, evaluator, NOTHING, [start("quadratic")]))
    assert not list(descent.run(task, evaluator, NOTHING, [start("quadratic")], ()))
    assert all(each in candidates for each in polish.run(task, evaluator, NOTHING, candidates))
    assert task.clock.evaluations == before


def test_the_polish_goes_on_from_the_best_and_hands_on_what_it_comes_by(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    task, asked = task_of(log=tmp_path / "log", objective="mean"), list[dict[str, Any]]()
    evaluator = evaluator_of(task)
    candidates = sorted(results(task, evaluator), key=lambda each: each.value)

    def polished(model: Any, table: Any, fitting: Any, count: int, bound: float, batch: int, seed: int, **options: Any) -> Any:
        asked.append({"table": table, "samples": len(fitting), "count": count, "bound": bound, "batch": batch})
        yield candidates[1].table
        raise NotFinite("ran away")

    monkeypatch.setattr(polish, "polish", polished)
    found = list(polish.run(task, evaluator, ENDLESS, candidates[::-1]))
    assert asked == [{"table": candidates[0].table, "samples": 8 * 32, "count": 20 * 3, "bound": 30.0, "batch": 4}]
    assert [each.table for each in found] == [candidates[1].table] and found[0].origin == candidates[0].origin
    assert "polish 0" in Log(tmp_path / "log").entries


def test_ends_take_the_fewest_steps_that_are_exact_enough() -> None:
    task = task_of(validation_samples=64)
    validation = task.learning[1]
    best = Evaluator(MODEL, *task.learning, task.objectives, 0.01, False, 512, task.clock).table(start("quadratic").table, {})
    off = [endpoint_mse(teach(MODEL, "validate", 64, trajectory=False, steps=n).endpoint, validation.endpoint) for n in SOLVES]
    for share in (1.0, 0.01, 1e-4):
        exact = [bool(each.mean() <= share * best.error.mean() and each.median() <= share * best.error.median()) for each in off]
        steps = SOLVES[exact.index(True)] if any(exact) else 64
        found = task.ends("held_out", 32, best, share)
        assert torch.equal(found.endpoint, teach(MODEL, "held_out", 32, trajectory=False, steps=steps).endpoint) and found.steps == steps
        assert not any(exact) or found.error == pytest.approx(float(off[exact.index(True)].mean()))
    assert torch.equal(task.ends("held_out", 32, best, 0.0).endpoint, teach(MODEL, "held_out", 32, trajectory=False).endpoint)


def test_samples_have_trajectories_where_something_is_fitted_to_them() -> None:
    kept = {
        (space, trials): [len(teacher.angles) for teacher in task_of(space, trials=trials).learning]
        for space in ("default", "times") for trials in (0, 2)
    }  # fmt: skip
    assert kept == {("default", 0): [64, 64], ("default", 2): [64, 64], ("times", 0): [64, 64], ("times", 2): [64, 64]}
    task = task_of(trials=0)
    plain = task.settings.space.model_copy(update={"components": ComponentChoice(bands=(1,), channels=(False,))})
    scalar = replace(task, settings=task.settings.model_copy(update={"space": plain}))
    assert [len(teacher.angles) for teacher in scalar.learning] == [0, 64]  # the polish goes on from the instant plan at once


@pytest.mark.parametrize(("guidance", "calls"), [(1.0, 3), (4.0, 6)])
def test_the_polish_takes_as_many_steps_as_the_budget_has_room_for(guidance: float, calls: int) -> None:
    task = task_of(guidance=guidance)
    step = calls * 3 * 4  # of four samples; backward is worth two forward passes
    anyhow = calls // 3 * 64 * (12 + 16 + 24 + 32) + 3 * calls * 32 + calls * 256 + 16 * step
    more = 60 * step + calls // 3 * 32 * 256
    assert task.calls == calls and polish.most(task.settings, calls) == (anyhow, more)
    assert polish._share(task, ENDLESS) == polish._share(task, Budget(10**9, Clock(), 0)) == 1
    assert polish._share(task, Budget(anyhow + more // 4, Clock(), 0)) == pytest.approx(0.25, abs=1e-3)
    assert polish._share(task, Budget(anyhow, Clock(), 0)) == 0 > polish._share(task, NOTHING)
    first = calls * 256 + 16 * step  # of each of three starts, whose races are three quarters of a polish
    raced = (anyhow + 3 * (first + calls * 32), more + 30 * step)
    assert polish.most(task.settings, calls, starts=3) == raced
    assert polish._share(task, Budget(raced[0] + raced[1] // 4, Clock(), 0), 3) == pytest.approx(0.25, abs=1e-3)


def test_the_polish_has_the_first_claim_on_a_budget() -> None:
    task = task_of("full", trials=9)
    anyhow, more = polish.most(task.settings, task.calls)
    for granted, share in ((2 * (anyhow + more), 0.5), (anyhow + more, 0.1), (anyhow + 1, 1.0)):
        assert search.share(task, Budget(granted, Clock(), 0)) == pytest.approx(share, abs=1e-6)
    assert search.share(task_of("full", polish=False), Budget(10**9, Clock(), 0)) == 1
    assert search.share(task_of("dc", polish="decisions"), Budget(10**9, Clock(), 0)) == pytest.approx(1 - search.DESCENDED)


def test_patterns_of_cheaper_evaluations_race_for_the_polish(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the race shows counts, not what they begin with: here the worse start wins it."""
    task, asked = task_of(), list[tuple[Any, int, Any]]()
    evaluator = evaluator_of(task)
    plain, other = sorted(results(task, evaluator), key=lambda each: each.value)[:2]
    cheap = replace(other.table.nodes[-1], variant="small")
    priced = replace(other, table=replace(other.table, nodes=(*other.table.nodes[:-1], cheap)))
    won = replace(priced, values=(plain.value / 2,))

    def polished(model: Any, table: Any, fitting: Any, count: int, *rest: Any, kept: Any, **options: Any) -> Any:
        asked.append((table, count, kept))
        yield table

    monkeypatch.setattr(polish, "polish", polished)
    monkeypatch.setattr(Evaluator, "table", lambda self, table, origin: won if table.cheaper else plain)
    found = list(polish.run(task, evaluator, ENDLESS, [priced, other, plain]))
    assert asked == [(plain.table, 15, (1.0,)), (priced.table, 15, (1.0,)), (priced.table, 45, KEPT)]
    assert [each.table for each in found] == [plain.table, priced.table, priced.table]


def test_the_search_begins_no_more_candidates_than_the_budget_has_room_for() -> None:
    task = task_of(trials=77)
    candidate = 3 * (32 + 32)
    assert search._room(task, ENDLESS, 0.4, False) == 77
    assert search._room(task, Budget(10 * candidate, Clock(), 0), 1.0, False) == 10
    assert search._room(task, Budget(10 * candidate, Clock(), 0), 0.4, False) == 4
    assert search._room(task, Budget(10 * candidate + 1, Clock(), 0), 1.0, False) == 11  # the last may go beyond
    assert search._room(task, NOTHING, 1.0, False) == 0
    seen = 3 * 8 * 64  # what the surrogates observe after it: eight tables on 64 samples
    assert search._room(task, Budget(10 * candidate + seen, Clock(), 0), 1.0, True) == 10
    assert search._room(task, Budget(1, Clock(), 0), 1.0, True) == 1


def test_the_network_is_asked_about_baselines_that_the_surrogates_rank_first() -> None:
    task, clock = task_of(), Clock()
    parametrization(MODEL)  # from the cache, as the teachers
    fitting, validation = (teach(MODEL, split, 32, clock=clock) for split in ("fit", "validate"))
    surrogates = surrogate.run(task, fitting, validation)
    found, best, evaluator = baseline.run(task, fitting, validation, surrogates)
    assert task.clock.evaluations == 3 * (baseline.SCREENED * screening(32) + 2 * 32)
    assert len({each.grid for each in found}) == len(found) <= baseline.STARTS and not best.table.stochastic
    assert best.table == found[0].table and evaluator.scale == pytest.approx(float(best.error.median()))
    everyone = [each.table for each in baselines(MODEL, 3, 1.0) if not each.table.stochastic]
    errors = [float(endpoint_mse(sample(MODEL, table, validation), validation.endpoint).mean()) for table in everyone]
    assert sum(error < float(best.error.mean()) for error in errors) < len(errors) / 20
