"""Optuna's own samplers (Akiba et al. 2019, arXiv:1907.10902), made to propose the same after a search has been resumed."""

from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from solversearch.search.strategies.context import Context, Strategy
from solversearch.search.strategies.reseeded import Reseeded

RANDOM = 100
"""Trials that are asked for together, of the one that learns nothing."""
STARTUP = 8
"""Trials before Optuna's models of the loss begin, where there are fewer starts."""
FEW, FEWEST = 500, 200
"""Trials that CMA-ES looks at, whose choices have a model each, and the Gaussian process, whose cost grows with their cube."""


def _startup(context: Context) -> int:
    return max(STARTUP, len(context.starts))


def _random(context: Context) -> BaseSampler:
    return Reseeded(lambda seed: RandomSampler(seed=seed), context.seed, RANDOM, seen=None)


def _tpe(context: Context) -> BaseSampler:
    return Reseeded(lambda seed: TPESampler(seed=seed, multivariate=True, n_startup_trials=_startup(context)), context.seed)


def _cmaes(context: Context) -> BaseSampler:
    def made(seed: int) -> BaseSampler:
        return CmaEsSampler(seed=seed, independent_sampler=TPESampler(seed=seed), warn_independent_sampling=False)

    return Reseeded(made, context.seed, seen=FEW)


def _gp(context: Context) -> BaseSampler:
    def made(seed: int) -> BaseSampler:
        startup = _startup(context)
        return GPSampler(seed=seed, n_startup_trials=startup, deterministic_objective=True, warn_independent_sampling=False)

    return Reseeded(made, context.seed, seen=FEWEST, pruned=False)


def _nsga2(context: Context) -> BaseSampler:
    return Reseeded(lambda seed: NSGAIISampler(seed=seed), context.seed, seen=None)  # parents may be any


STRATEGIES = (
    Strategy("random", "uniform over the space", _random, several=True, studied=True),
    Strategy("tpe", "multivariate tree-structured Parzen estimator", _tpe, several=True, studied=True),
    Strategy("cmaes", "CMA-ES of the numbers; it has no notion of choices, which are left to a Parzen estimator one by one", _cmaes),
    Strategy(
        "gp", "Gaussian process of up to 200 trials, with expected improvement; about a second a proposal", _gp, several=True, studied=True
    ),
    Strategy("nsga2", "genetic algorithm NSGA-II, for Pareto sets; also of one loss", _nsga2, several=True),
)
