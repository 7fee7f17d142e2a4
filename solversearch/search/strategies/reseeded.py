"""Optuna's own samplers, made to propose the same after a search has been resumed."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState


class Reseeded(BaseSampler):
    """A new sampler for every trial, seeded by the seed and the trial's number: what it knows it then has from the study alone."""

    def __init__(self, make: Callable[[int], BaseSampler], seed: int, together: int | None = None) -> None:
        self._make, self._seed = make, seed
        if together is not None:
            self.group = lambda number: together
        self._sampler = self._made(0)

    def _made(self, number: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return self._make(int(np.random.default_rng([self._seed, number]).integers(2**31)))

    def __str__(self) -> str:
        return str(self._sampler)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._sampler = self._made(trial.number)
        self._sampler.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._sampler.after_trial(study, trial, state, values)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)
