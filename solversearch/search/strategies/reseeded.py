"""Optuna's own samplers (Akiba et al. 2019, arXiv:1907.10902), made to propose the same after a search has been resumed."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from solversearch.search.strategies.context import Context
from solversearch.search.strategies.partial_study import PartialStudy, Ranking

RANDOM = 100
"""Trials that are asked for together, of the one that learns nothing."""
STARTUP = 8
"""Trials before Optuna's models of the loss begin, where there are fewer starts."""
FEW, FEWEST = 500, 200
"""Trials that CMA-ES looks at, whose choices have a model each, and the Gaussian process, whose cost grows with their cube."""
SEEN = 1000
"""Finished trials that a sampler sees, where there are more (`Ranking.some`)."""


class Reseeded(BaseSampler):
    """A new sampler for every trial, seeded by the seed and the trial's number: what it knows it then has from the study alone.

    together: trials that are asked for together. seen: how many complete trials it looks at, and pruned ones, if it learns from them;
    None is all.
    """

    def __init__(
        self, make: Callable[[int], BaseSampler], seed: int, together: int | None = None, seen: int | None = SEEN, pruned: bool = True
    ) -> None:
        self._make, self._seed, self._most, self._pruned = make, seed, seen, pruned
        self._ranking = Ranking()
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
        self._ranking.update(study)
        self._study = study if self._most is None else PartialStudy(study, self._ranking.some(self._most, self._pruned))
        self._sampler.before_trial(self._study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._sampler.after_trial(study, trial, state, values)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """From the best trial alone: all have the same parameters, and Optuna would compare those of all."""
        return self._sampler.infer_relative_search_space(PartialStudy(study, self._ranking.best()), trial)

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        return self._sampler.sample_relative(self._study, trial, search_space)

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        return self._sampler.sample_independent(self._study, trial, param_name, param_distribution)


def _startup(context: Context) -> int:
    return max(STARTUP, len(context.starts))


def uniform(context: Context) -> BaseSampler:
    return Reseeded(lambda seed: RandomSampler(seed=seed), context.seed, RANDOM, seen=None)


def tpe(context: Context) -> BaseSampler:
    return Reseeded(lambda seed: TPESampler(seed=seed, multivariate=True, n_startup_trials=_startup(context)), context.seed)


def cmaes(context: Context) -> BaseSampler:
    def made(seed: int) -> BaseSampler:
        return CmaEsSampler(seed=seed, independent_sampler=TPESampler(seed=seed), warn_independent_sampling=False)

    return Reseeded(made, context.seed, seen=FEW)


def gp(context: Context) -> BaseSampler:
    def made(seed: int) -> BaseSampler:
        startup = _startup(context)
        return GPSampler(seed=seed, n_startup_trials=startup, deterministic_objective=True, warn_independent_sampling=False)

    return Reseeded(made, context.seed, seen=FEWEST, pruned=False)


def nsga2(context: Context) -> BaseSampler:
    return Reseeded(lambda seed: NSGAIISampler(seed=seed), context.seed, seen=None)  # parents may be any
