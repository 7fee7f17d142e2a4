"""What the strategies of our own have in common: what has been tried, the starts first, and nothing twice."""

from abc import abstractmethod
from bisect import insort
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from solversearch.errors import UserError
from solversearch.search.strategies.context import Context
from solversearch.search.strategies.genome import Genome
from solversearch.spaces import Domain, Params

RECENT = 1000
"""Candidates whose signature is kept in mind: those of a group are looked at again and again."""
_TRIES = 1000
"""Random candidates that are looked at for a new one: a space where none is found has, as good as surely, none left."""


class Finished(NamedTuple):
    """A finished trial; the order is from good to bad, and pruned ones, whose loss is of fewer samples, come after all others."""

    pruned: bool
    loss: float
    number: int
    params: Params


class History:
    """The trials of a study, read once each: `results` from good to bad, and the signatures of all that has been proposed."""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.results: list[Finished] = []
        self.known: set[str] = set()
        self._open: list[int] = []
        self._seen = 0
        self._signature = lru_cache(maxsize=RECENT)(lambda items: domain.candidate(dict(items)).signature)

    def signature(self, params: Params) -> str:
        """The candidate's; raises `UserError` where the parameters are not of the domain."""
        return self._signature(tuple(params.items()))

    def update(self, study: Study, current: int) -> None:
        """Reads the trials that are new or were running; `current` is the trial that is being proposed."""
        trials = study.get_trials(deepcopy=False)
        waiting = [*self._open, *range(self._seen, len(trials))]
        self._seen = len(trials)
        self._open = [number for number in waiting if number == current or not self._read(trials[number])]

    def _read(self, trial: FrozenTrial) -> bool:
        """Whether all is known of the trial."""
        try:
            self.known.add(self.signature(trial.params))
        except UserError:  # no parameters yet, or of another space
            return trial.state.is_finished()
        if trial.state == TrialState.COMPLETE:
            insort(self.results, Finished(False, trial.values[0], trial.number, trial.params))
        elif trial.state == TrialState.PRUNED:
            last = max(trial.intermediate_values, default=None)
            loss = float("inf") if last is None else trial.intermediate_values[last]
            insort(self.results, Finished(True, float("inf") if np.isnan(loss) else loss, trial.number, trial.params))
        return trial.state.is_finished()


class Proposer(BaseSampler):
    """An Optuna sampler that proposes whole candidates, determined by the seed, the number of the trial and the study alone."""

    tries_starts = True

    def __init__(self, context: Context) -> None:
        self.context = context
        self.genome = Genome(context.domain.distributions)
        self.history = History(context.domain)

    @abstractmethod
    def propose(self, study: Study, number: int, rng: np.random.Generator) -> Params:
        """The candidate of trial `number`, once the starts have been tried."""

    def new(self, candidates: Iterable[Params]) -> Params | None:
        """The first that has not been proposed."""
        return next((params for params in candidates if self.history.signature(params) not in self.history.known), None)

    def random(self, rng: np.random.Generator) -> Params:
        """A random new candidate; any, where none is left."""
        domain = self.context.domain
        return self.new(domain.random(rng) for _ in range(_TRIES)) or domain.random(rng)

    # Optuna --------------------------------------------------------------------------------------------------------

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.context.domain.distributions

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> Params:
        self.history.update(study, trial.number)
        start = self.new(self.context.starts)
        return start or self.propose(study, trial.number, self._rng(trial))

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        """Of a parameter that the space does not have."""
        genome = Genome({param_name: param_distribution})
        return genome.decode(genome.random(self._rng(trial), 1))[0][param_name]

    def _rng(self, trial: FrozenTrial) -> np.random.Generator:
        return np.random.default_rng([self.context.seed, trial.number])
