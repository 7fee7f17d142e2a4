"""What a candidate is worth."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from solversearch.grids import grid
from solversearch.judging.objectives import Objective, Outcome, parse_many
from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.judging.objectives.trajectory import OBJECTIVE as TRAJECTORY
from solversearch.models.base import Clock, Denoiser, Model, NotFinite
from solversearch.runtime import Tableau
from solversearch.sampling import sample
from solversearch.search.evaluating.evaluator import Evaluated, Evaluator, Failure
from solversearch.search.fitting.fit import fit
from solversearch.solvers import get
from solversearch.spaces import Candidate, Domain, SearchSpace
from solversearch.teacher import Teacher, teach
from tests.assets import coins

COINS = coins.factory()


def evaluator(model: Model, fitting: Teacher, validation: Teacher, objective: str = "endpoint", split: bool = False) -> Evaluator:
    return Evaluator(model, fitting, validation, parse_many(objective), 0.01, split, 512, Clock())


def of_coins(objective: str = "endpoint", guidance: float = 1.0, split: bool = False) -> Evaluator:
    return evaluator(COINS, teach(COINS, "fit", 64, guidance), teach(COINS, "validate", 96, guidance), objective, split)


def table(model: Model, solver: str = "unipc_2", nfe: int = 4, guidance: float = 1.0) -> Tableau:
    return get(solver).tableau(model.schedule, grid("quadratic", model.schedule, nfe)).guided(guidance)


def candidate(guidance: float = 1.0, model: Model = COINS, seed: int = 0, **space: object) -> Candidate:
    domain = Domain.of(SearchSpace.model_validate({"timesteps": "quadratic", **space}), model.schedule, 4, guidance)
    return domain.candidate(domain.random(np.random.default_rng(seed)))


def test_the_noise_is_paired(digits: Model, fitting: Teacher, validation: Teacher) -> None:
    judge = evaluator(digits, fitting, validation)
    whole, part = (judge.table(table(digits), {}, n) for n in (None, 32))
    assert torch.equal(part.error, whole.error[:32])
    assert judge.teachers(32)[0] is judge.teachers(32)[0] and len(judge.teachers(32)[0]) == 32
    samples = sample(digits, table(digits), validation)
    assert torch.equal(whole.error, endpoint_mse(samples, validation.endpoint)) and whole.value == whole.values[0]


def test_a_fitted_table_is_fitted_on_fitting_noise_and_judged_on_validation_noise(
    digits: Model, fitting: Teacher, validation: Teacher
) -> None:
    judge = evaluator(digits, fitting, validation)
    result = judge.fitted(table(digits, "ddim"), 1e-4, {"solver": "ddim"})
    alone, _ = fit(table(digits, "ddim"), fitting, Denoiser(digits, fitting.conditions), fitting.noise, 1e-4, robust=True)
    assert result.table == alone and result.origin == {"solver": "ddim"}
    torch.testing.assert_close(result.error, judge.table(alone, {}).error, rtol=1e-5, atol=0)
    assert result.value < 0.5 * judge.table(table(digits, "ddim"), {}).value
    assert len(judge.fitted(table(digits), 1e-4, {}, 32).error) == 32


def test_a_candidate_is_fitted_where_its_space_says_so() -> None:
    judge, by_hand = of_coins(), candidate(solver="dpmpp", search={"stages": {"fit": False}})
    assert judge.candidate(by_hand).table == by_hand.tableau(COINS.schedule)
    fitted = judge.candidate(candidate(solver="dpmpp"))
    assert fitted.table != by_hand.tableau(COINS.schedule) and fitted.table.nodes == by_hand.tableau(COINS.schedule).nodes
    assert fitted.value < judge.candidate(by_hand).value and fitted.origin["solver"] == "dpmpp"
    noisy = judge.candidate(candidate(solver="dpmpp", churn=0.5))  # noise cannot be fitted
    assert noisy.table.stochastic and noisy.table == candidate(solver="dpmpp", churn=0.5).tableau(COINS.schedule)


def test_differences_under_guidance_are_split_and_some_steps_save_them() -> None:
    judge = of_coins(guidance=3.0, split=True)
    assert judge.fitted(table(COINS, guidance=3.0), 1e-4, {}).table.split
    saving = candidate(3.0, guidance_interval={"above": 0.8})
    assert 4 < saving.tableau(COINS.schedule).network_calls < 8
    before = judge.clock.evaluations
    result, calls = judge.candidate(saving), saving.tableau(COINS.schedule).network_calls
    assert result.table.split and result.table.network_calls == calls
    assert [node.reuses for node in result.table.nodes] == [node.guidance == 1 for node in saving.tableau(COINS.schedule).nodes]
    assert judge.clock.evaluations - before == (64 + 96) * calls
    assert result.value < of_coins(guidance=3.0).candidate(saving).value


@pytest.mark.parametrize(("guidance", "calls"), [(1.0, 4), (3.0, 8)])
def test_every_evaluation_is_counted(guidance: float, calls: int) -> None:
    judge = of_coins(guidance=guidance)
    judge.table(table(COINS, guidance=guidance), {})
    assert judge.clock.evaluations == 96 * calls
    judge.fitted(table(COINS, guidance=guidance), 1e-4, {})
    assert judge.clock.evaluations == (96 + 96 + 64) * calls


def test_batches_change_nothing(digits: Model, fitting: Teacher, validation: Teacher) -> None:
    judges = [replace(evaluator(digits, fitting, validation), batch_size=size) for size in (512, 40)]
    for results in zip(*([judge.table(table(digits), {}), judge.fitted(table(digits), 1e-4, {})] for judge in judges), strict=True):
        assert results[0].table == results[1].table and torch.equal(results[0].error, results[1].error)


@pytest.mark.parametrize("objective", ["endpoint", "trajectory"])
@pytest.mark.parametrize("batch_size", [128, 512])
def test_candidates_together_are_those_alone(digits: Model, fitting: Teacher, validation: Teacher, batch_size: int, objective: str) -> None:
    """Fitted and stochastic ones; on all samples they have to go one after another, on 32 eight fit into a batch of 512."""
    spaces: list[dict[str, Any]] = [{}, {"search": {"stages": {"fit": False}}}, {"churn": 0.5}, {}, {"solver": "dpmpp"}, {}]
    mixed = [candidate(model=digits, seed=k, **space) for k, space in enumerate(spaces)]
    for n in (32, None):
        judges = [replace(evaluator(digits, fitting, validation, objective), batch_size=batch_size, clock=Clock()) for _ in range(2)]
        together = judges[0].candidates(mixed, n)
        for one, found in zip([judges[1].candidate(each, n) for each in mixed], together, strict=True):
            assert isinstance(found, Evaluated) and found.table == one.table and torch.equal(found.error, one.error)
            assert found.values == one.values and found.origin == one.origin
        assert judges[0].clock.evaluations == judges[1].clock.evaluations


def test_a_candidate_that_fails_says_why_and_costs_the_others_nothing() -> None:
    def network(x: torch.Tensor, t: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return torch.where((t < 0.3).view(-1, 1, 1, 1), torch.nan, COINS.network(x, t, condition))

    judge = replace(of_coins(), model=replace(COINS, network=network))
    times = [(1.0, 0.9, 0.7, 0.5), (1.0, 0.6, 0.2, 0.1), (1.0, 0.5, 0.5, 0.4), (1.0, 0.8, 0.6, 0.4)]
    given = [replace(candidate(), times=each) for each in times]
    first, wild, repeated, last = judge.candidates(given, 16)
    assert isinstance(wild, Failure) and "returned NaN or inf at t = 0.2" in wild.reason
    assert isinstance(repeated, Failure) and repeated.reason  # equal times cannot be solved for
    for each, found in ((given[0], first), (given[3], last)):
        assert isinstance(found, Evaluated) and torch.equal(found.error, judge.candidate(each, 16).error)


def test_values_are_those_of_the_objectives_in_their_order() -> None:
    judge = of_coins("network_calls, endpoint, endpoint + 0.5*network_calls, frechet")
    calls, endpoint, both, frechet = judge.table(table(COINS), {}).values
    assert calls == 4 and both == pytest.approx(endpoint + 2) and frechet > 0
    assert endpoint == of_coins().table(table(COINS), {}).value


def test_states_are_kept_where_an_objective_needs_them() -> None:
    judge, plain = of_coins("trajectory"), table(COINS)
    states: list[torch.Tensor] = []
    samples = sample(COINS, plain, judge.validation, callback=lambda i, x, prediction: states.append(x))
    outcome = Outcome(COINS, judge.validation, plain, samples, judge.scale, tuple(states))
    assert judge.table(plain, {}).value == pytest.approx(TRAJECTORY.value(outcome))
    fitted = judge.fitted(plain, 1e-4, {})
    assert fitted.value == pytest.approx(judge.table(fitted.table, {}).value, rel=1e-4) and fitted.value < judge.table(plain, {}).value

    def seen(outcome: Outcome) -> float:
        assert outcome.states is None
        return 1.0

    silent = replace(judge, objectives=(Objective("none", seen, "nothing", "here"),))
    assert silent.table(plain, {}).value == 1.0


def test_what_runs_away_is_told() -> None:
    judge, given = of_coins(), table(COINS)
    with pytest.raises(NotFinite, match="the candidate's error is not finite"):
        judge.table(Tableau(given.nodes, (*given.rows[:-1], replace(given.rows[-1], x=1e300))), {})
    farthest = judge.validation.noise.flatten(1).abs().amax(1)
    x = torch.finfo(torch.float32).max / float(farthest.median())  # which half of the samples survive
    with pytest.raises(NotFinite, match="the candidate's error is not finite"):
        judge.table(Tableau(given.nodes, (*given.rows[:-1], replace(given.rows[-1], x=x))), {})
    failing = replace(judge, objectives=(Objective("bad", lambda outcome: float("nan"), "nothing", "here"),))
    with pytest.raises(NotFinite, match="objective 'bad' is nan"):
        failing.table(table(COINS), {})
    unsound = Model("nan", lambda x, t, c: x * float("nan"), COINS.schedule, "sample", COINS.shape, COINS.conditions)
    with pytest.raises(NotFinite, match="returned NaN or inf"):
        replace(judge, model=unsound).table(table(COINS), {})
