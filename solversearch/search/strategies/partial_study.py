"""A study as Optuna's samplers see it: they read, sort and model all trials at every proposal, which grows with the search."""

import copy
from bisect import bisect_left, insort
from collections.abc import Container, Sequence
from itertools import islice
from math import inf, isnan

import numpy as np
from optuna import Study
from optuna.study._multi_objective import _fast_non_domination_rank
from optuna.trial import FrozenTrial, TrialState

COMPLETE, PRUNED, FAILED = range(3)
"""Kinds of finished trials, from good to bad."""


class PartialStudy(Study):
    """A study that shows the given trials and no others."""

    def __init__(self, study: Study, trials: Sequence[FrozenTrial]) -> None:
        super().__init__(study.study_name, study._storage, study.sampler, study.pruner)
        self.shown = trials

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:  # all of Optuna's samplers read trials here
        shown = [trial for trial in self.shown if states is None or trial.state in states]
        return copy.deepcopy(shown) if deepcopy else shown


class Ranking:
    """The finished trials of a study from good to bad, each read once."""

    def __init__(self) -> None:
        self.trials: list[FrozenTrial] = []
        self._order: list[tuple[int, int, float, int]] = []
        self._open: list[int] = []

    def update(self, study: Study) -> None:
        waiting = [*self._open, *range(len(self.trials), len(trials := study.get_trials(deepcopy=False)))]
        self.trials, self._open = trials, [number for number in waiting if not trials[number].state.is_finished()]
        for number in waiting:
            if trials[number].state.is_finished():
                insort(self._order, (*_standing(trials[number]), number))

    def best(self) -> list[FrozenTrial]:
        """The best trial alone, where one has finished."""
        return [self.trials[number] for *_, number in self._order[:1]]

    def some(self, most: int, pruned: bool) -> list[FrozenTrial]:
        """Those that have not finished, and of complete (and pruned) ones the best half of `most`, and the latest of the others."""
        order = self._order[: bisect_left(self._order, (PRUNED + pruned,))]
        numbers = [number for *_, number in order]
        if len(order) > most:
            kinds = (TrialState.COMPLETE, TrialState.PRUNED)[: 1 + pruned]
            best = set(self._by_fronts(numbers, most)[: most - most // 2])
            others = (trial.number for trial in reversed(self.trials) if trial.state in kinds and trial.number not in best)
            numbers = [*best, *islice(others, most // 2)]
        return [self.trials[number] for number in sorted([*numbers, *self._open])]

    def _by_fronts(self, numbers: list[int], count: int) -> list[int]:
        """Of several objectives the first `count`, at least, by how many fronts dominate them."""
        values = [self.trials[number].values for number in numbers]
        if len(values[0] or ()) < 2:
            return numbers
        ranks = _fast_non_domination_rank(np.array(values), n_below=count)
        return [numbers[k] for k in np.argsort(ranks, kind="stable")]


def _standing(trial: FrozenTrial) -> tuple[int, int, float]:
    """Complete trials by their loss; then pruned ones, those that were stopped later first; then failures. As Optuna ranks them."""
    if trial.state == TrialState.COMPLETE:
        return COMPLETE, 0, trial.values[0]
    if trial.state == TrialState.PRUNED and trial.intermediate_values:
        step, loss = max(trial.intermediate_values.items())
        return PRUNED, -step, inf if isnan(loss) else loss
    return FAILED, 0, 0.0
