"""The loop of a search: halving, duplicates, failures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
import pytest
import torch

from solversearch.errors import UserError
from solversearch.schedules import DiscreteVP
from solversearch.search.evaluating.evaluator import Evaluated, Failure
from solversearch.search.loop import REPEATS, Halving, Loop
from solversearch.search.strategies import Context, strategy
from solversearch.search.strategies.evolution import POPULATION
from solversearch.search.strategies.proposals import GROUP, enqueue_starts, group_of
from solversearch.search.strategies.s3 import BATCH, RANDOM
from solversearch.spaces import Candidate, Domain, Params, SearchSpace

DOMAIN = Domain.of(SearchSpace(), DiscreteVP.named(), nfe=3, guidance=1.0)


class Evaluator:
    """Values a candidate by its first time; counts samples."""

    def __init__(self, objectives: int = 1) -> None:
        self.objectives = objectives
        self.spent: list[int] = []
        self.groups: list[int] = []

    def candidates(self, candidates: Sequence[Candidate], n: int | None) -> list[Evaluated | Failure]:
        self.groups += [len(candidates)] if n else []
        return [self.candidate(each, n or 256) for each in candidates]

    def candidate(self, candidate: Candidate, size: int) -> Evaluated | Failure:
        self.spent.append(size)
        table = candidate.tableau(DOMAIN.schedule)
        return Evaluated(table, torch.zeros(size), (abs(candidate.times[0] - 700.0),) * self.objectives, {})


def predict(candidates: Sequence[Params]) -> tuple[Any, Any]:
    times = np.array([each["time.1"] for each in candidates])
    return np.abs(times - 0.3), np.full(len(times), 0.1)


def loop_of(
    name: str = "random", domain: Domain = DOMAIN, predictor: Any = None, several: int = 1, seed: int = 0, predict: Any = None
) -> Loop:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    context = Context(domain, seed, (domain.random(np.random.default_rng(1)),), predict, several, children=200)
    study = optuna.create_study(sampler=strategy(name, context), directions=["minimize"] * several)
    enqueue_starts(study, study.sampler, context)
    return Loop(study, name, domain, Halving.up_to(256, 64), predictor)


def run(loop: Loop, trials: int, evaluator: Evaluator | None = None) -> list[Evaluated]:
    return list(loop.run(evaluator or Evaluator(), trials, lambda: trials))


@pytest.mark.parametrize(("samples", "sizes"), [(256, [64, 256]), (255, [255]), (1024, [64, 256, 1024]), (64, [64])])
def test_sizes_of_halving(samples: int, sizes: list[int]) -> None:
    assert Halving.up_to(samples, 64).sizes == sizes


def test_halving_lets_the_best_quarter_pass() -> None:
    halving = Halving([64, 256])
    assert halving.passes(64, 5.0)  # the first is the best so far
    assert not halving.passes(64, 6.0)
    assert halving.passes(64, 4.0)
    values = np.random.default_rng(0).permutation(400) + 10.0
    passed = [value for value in values if halving.passes(64, value)]
    assert 80 < len(passed) < 140
    assert np.mean(passed) < 0.4 * values.mean()


def test_few_samples_first_and_all_for_the_best() -> None:
    evaluator = Evaluator()
    loop = loop_of()
    kept = run(loop, 40, evaluator)
    assert evaluator.spent.count(64) == 40
    assert len(kept) == len(loop.tried) == evaluator.spent.count(256) < 25
    states = [trial.state.name for trial in loop.study.trials]
    assert states.count("PRUNED") + states.count("COMPLETE") == 40 == len(loop.progress)
    assert loop.progress == sorted(loop.progress, reverse=True)
    best = min(result.value for result in kept)
    assert loop.progress[-1] == best == loop.study.best_value
    assert [samples for _, samples in loop.trials] == [256 if state == "COMPLETE" else 64 for state in states]
    assert min(value for value, samples in loop.trials if value is not None and samples == 256) == best


def test_of_several_objectives_none_is_halved() -> None:
    evaluator = Evaluator(objectives=2)
    kept = run(loop_of("nsga2", several=2), 12, evaluator)
    assert evaluator.spent == [256] * 12 and len(kept) == 12


def test_nothing_is_evaluated_twice_and_an_exhausted_space_ends_the_search() -> None:
    space = SearchSpace.model_validate({"timesteps": ["logsnr", "karras"], "solver": "unip", "order": [1, 2]})
    evaluator = Evaluator()
    loop = loop_of("random", Domain.of(space, DOMAIN.schedule, 3, 1.0))
    run(loop, 10_000, evaluator)
    assert len(evaluator.spent) <= 8  # four candidates, on few samples and some on all
    assert REPEATS <= len(loop.progress) < 10_000


def test_a_failure_is_told_and_the_search_goes_on() -> None:
    class Failing(Evaluator):
        def candidate(self, candidate: Candidate, size: int) -> Evaluated | Failure:
            if len(self.spent) % 3 == 1:
                self.spent.append(0)
                return Failure("the network returned NaN")
            return super().candidate(candidate, size)

    loop = loop_of()
    run(loop, 12, Failing())
    failed = [trial for trial in loop.study.trials if trial.state.name == "FAIL"]
    assert failed and all("NaN" in trial.user_attrs["failure"] for trial in failed)
    assert len(loop.study.trials) == 12 and len(failed) < 12
    assert [number for number, trial in enumerate(loop.trials) if trial == (None, 0)] == [trial.number for trial in failed]


def test_the_budget_ends_the_search() -> None:
    evaluator = Evaluator()
    list(loop_of().run(evaluator, 10**6, lambda: max(0, (2000 - sum(evaluator.spent)) // 320)))
    assert 2000 - 320 <= sum(evaluator.spent) <= 2000


def test_candidates_are_asked_for_in_groups_and_trials_are_exact() -> None:
    evaluator = Evaluator()
    loop = loop_of("nsga2")
    run(loop, 2 * GROUP + 3, evaluator)
    assert len(loop.progress) == len(loop.study.trials) == 2 * GROUP + 3
    assert evaluator.groups == [GROUP, GROUP, 3]


def test_a_strategy_says_what_it_asks_for_together() -> None:
    def asked(name: str) -> list[int]:
        return [group_of(loop_of(name).study.sampler, number) for number in (0, 3, 5, 13)]

    assert asked("s3") == [1 + RANDOM, 1 + RANDOM - 3, BATCH, BATCH]  # the start and the random ones, then batch by batch
    assert asked("evolution") == [POPULATION, POPULATION - 3, POPULATION - 5, POPULATION - 13]
    assert asked("tpe") == [GROUP] * 4 and min(asked("random")) > GROUP


def test_earlier_proposals_are_followed() -> None:
    def proposed(earlier: Sequence[Params], seed: int) -> list[Params]:
        loop = loop_of(seed=seed)
        loop.earlier = earlier
        run(loop, 24)
        return [trial.params for trial in loop.study.trials]

    first, other = proposed((), 0), proposed((), 1)
    assert first[1:] != other[1:]
    assert proposed(first[:11], 0) == first  # killed in the second group
    assert proposed(first[:11], 1) == first[:11] + other[11:]


@pytest.mark.parametrize("name", ["random", "tpe", "evolution", "s3", "gp"])
def test_earlier_proposals_are_not_proposed_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, notes, groups, asked = loop_of(name, predict=predict), list[dict[str, Any]](), list[int](), list[int]()

    def record(trials: Sequence[Any], noted: Any) -> None:
        notes.append(dict(noted))
        groups.append(len(trials))

    whole.record = record
    run(whole, 37)
    loop = loop_of(name, predict=predict)
    loop.earlier = [trial.params for trial in whole.study.trials[:23]]  # the process was killed while it wrote down a group
    for key, note in notes[int(np.searchsorted(np.cumsum(groups), 23))].items():
        loop.study.set_user_attr(key, note)
    sample = loop.study.sampler.sample_relative

    def counted(study: Any, trial: Any, space: Any) -> Any:
        asked.append(trial.number)
        return sample(study, trial, space)

    monkeypatch.setattr(loop.study.sampler, "sample_relative", counted)
    run(loop, 37)
    assert asked == list(range(23, 37))
    assert [trial.params for trial in loop.study.trials] == [trial.params for trial in whole.study.trials]


def test_the_predictor_is_told_every_candidate() -> None:
    told: list[float] = []

    class Predictor:
        def tell(self, tables: Any, losses: list[float]) -> None:
            assert len(tables) == len(losses) <= 15 and all(table.nfe == 3 for table in tables)
            told.extend(losses)

        def refresh(self) -> None:
            pass

    loop = loop_of(predictor=Predictor())
    run(loop, 15)
    assert len(told) == 15


def test_an_illegal_proposal_ends_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    class Illegal(optuna.samplers.RandomSampler):
        def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
            return 7.0 if name == "time.1" else super().sample_independent(study, trial, name, distribution)

    loop = loop_of()
    loop.study.sampler = Illegal(seed=0)
    with pytest.raises(UserError, match=r"proposed time\.1 = 7\.0"):
        run(loop, 5)
