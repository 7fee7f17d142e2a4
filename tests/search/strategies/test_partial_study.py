"""What Optuna's samplers see of a study: all of a small one, and of a large one the best and the latest."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from solversearch.search.strategies.partial_study import PartialStudy, Ranking
from solversearch.search.strategies.reseeded import Reseeded

SPACE: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1)}


def trial(state: TrialState = TrialState.COMPLETE, loss: float | Sequence[float] = 0.0, step: int = 1) -> FrozenTrial:
    values: dict[str, Any] = {"values": list(np.atleast_1d(loss))} if state == TrialState.COMPLETE else {}
    steps = {step: float(np.ravel(loss)[0])} if state == TrialState.PRUNED else {}
    return create_trial(state=state, params={"x": 0.5, "y": 0.5}, distributions=SPACE, intermediate_values=steps, **values)


def study_of(trials: Sequence[FrozenTrial], objectives: int = 1) -> optuna.Study:
    study = optuna.create_study(directions=["minimize"] * objectives)
    study.add_trials(trials)
    return study


def seen(study: optuna.Study, most: int, pruned: bool = True) -> list[int]:
    ranking = Ranking()
    ranking.update(study)
    return [each.number for each in ranking.some(most, pruned)]


def test_the_best_half_and_the_latest_of_the_others() -> None:
    losses = np.random.default_rng(0).permutation(100).astype(float)
    study = study_of([trial(loss=loss) for loss in losses])
    best = {int(k) for k in np.argsort(losses)[:10]}
    latest = [k for k in range(100) if k not in best][-10:]
    assert seen(study, 20) == sorted([*best, *latest])
    assert len(seen(study, 21)) == 21 and {int(np.argsort(losses)[10])} < set(seen(study, 21)), "the middle one is a best one"
    assert seen(study, 100) == list(range(100))


def test_kinds_of_trials() -> None:
    """Complete ones before pruned ones, of which those that were stopped later come first; failures never, those that run always."""
    kinds = [
        trial(TrialState.PRUNED, 0.1, step=1), trial(TrialState.PRUNED, 9.0, step=2), trial(TrialState.PRUNED, float("nan"), step=2),
        trial(loss=5.0), trial(TrialState.FAIL), trial(loss=4.0), trial(TrialState.PRUNED, 0.2, step=1), trial(TrialState.FAIL),
    ]  # fmt: skip
    study = study_of(kinds)
    running = study.ask().number
    assert seen(study, 6) == [0, 1, 2, 3, 5, 6, running]
    assert seen(study, 5) == [1, 2, 3, 5, 6, running], "the best three, and the latest two of the others"
    assert seen(study, 4) == [2, 3, 5, 6, running]
    assert seen(study, 4, pruned=False) == [3, 5, running]
    assert seen(study, 1, pruned=False) == [5, running]


def test_several_objectives_are_ranked_by_fronts() -> None:
    fronts = {0: [(1.0, 9.0), (5.0, 5.0), (9.0, 1.0)], 1: [(2.0, 10.0), (6.0, 6.0), (10.0, 2.0)], 2: [(20.0, 20.0)] * 6}
    study = study_of([trial(loss=values) for front in (2, 0, 1, 2) for values in fronts[front][: 3 if front == 2 else None]], 2)
    assert seen(study, 6) == [3, 4, 5, 9, 10, 11], "the first front, and the latest"
    assert seen(study, 12) == list(range(12))


def test_trials_are_read_as_they_finish() -> None:
    """As if all had been read at once."""
    study, ranking, rng = optuna.create_study(), Ranking(), np.random.default_rng(0)
    running = [study.ask(SPACE) for _ in range(40)]
    for k in rng.permutation(40):
        ranking.update(study)
        study.tell(running[k], float(rng.random()) if k % 4 else None, state=TrialState.COMPLETE if k % 4 else TrialState.FAIL)
    ranking.update(study)
    assert [each.number for each in ranking.some(10, True)] == seen(study, 10) and len(seen(study, 10)) == 10
    assert ranking.best() == [study.best_trial]


def test_a_study_shows_what_it_is_given() -> None:
    study = study_of([trial(loss=1.0), trial(TrialState.FAIL), trial(loss=2.0)])
    shown = PartialStudy(study, study.get_trials(deepcopy=False)[:2])
    assert [each.number for each in shown.trials] == [0, 1]
    assert [each.number for each in shown.get_trials(states=(TrialState.COMPLETE,))] == [0]
    assert shown.trials[0] is not shown.trials[0] and shown.directions == study.directions


MAKERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed, multivariate=True),
    "cmaes": lambda seed: CmaEsSampler(seed=seed),
    "nsga2": lambda seed: NSGAIISampler(seed=seed, population_size=10),
}


class Whole(BaseSampler):
    """A new sampler for every trial, that is shown the study itself."""

    def __init__(self, make: Callable[[int], BaseSampler]) -> None:
        self.make = make

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self.sampler = self.make(int(np.random.default_rng([0, trial.number]).integers(2**31)))
        self.sampler.before_trial(study, trial)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self.sampler.after_trial(study, trial, state, values)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        return self.sampler.infer_relative_search_space(study, trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        return self.sampler.sample_relative(study, trial, search_space)

    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: Any) -> Any:
        return self.sampler.sample_independent(study, trial, param_name, param_distribution)


def proposals(sampler: BaseSampler, trials: int = 60) -> list[dict[str, Any]]:
    """Of a search with failures, and with pruned trials at the beginning."""
    study = optuna.create_study(sampler=sampler)
    for k in range(trials):
        asked = study.ask(SPACE)
        loss = (asked.params["x"] - 0.3) ** 2 + (asked.params["y"] - 0.7) ** 2
        if k < 4 or k % 5 == 3:
            asked.report(loss, 1)
            study.tell(asked, state=TrialState.PRUNED)
        else:
            study.tell(asked, loss if k % 5 else None, state=TrialState.COMPLETE if k % 5 else TrialState.FAIL)
    return [each.params for each in study.trials]


@pytest.mark.parametrize("name", MAKERS)
def test_proposals_are_those_of_the_whole_study_up_to_the_bound(name: str) -> None:
    whole = proposals(Whole(MAKERS[name]))
    assert proposals(Reseeded(MAKERS[name], 0, seen=60)) == whole
    assert proposals(Reseeded(MAKERS[name], 0, seen=None)) == whole
    if name == "tpe":
        assert proposals(Reseeded(MAKERS[name], 0, seen=20)) != whole


@pytest.mark.parametrize("name", MAKERS)
def test_beyond_the_bound_a_resumed_search_goes_on_the_same(name: str) -> None:
    def make() -> BaseSampler:
        return Reseeded(MAKERS[name], 0, seen=None if name == "nsga2" else 12)

    study = optuna.create_study(sampler=make())
    halves = optuna.create_study(sampler=make())
    for k in range(50):
        if k in (17, 33):
            halves.sampler = make()
        for each in (study, halves):
            asked = each.ask(SPACE)
            each.tell(asked, (asked.params["x"] - 0.3) ** 2 + asked.params["y"])
    assert [each.params for each in study.trials] == [each.params for each in halves.trials]
