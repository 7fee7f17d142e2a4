"""How a search chooses the next candidate: strategies by name, as Optuna samplers; see ADDING.md.

    sampler = strategy("s3", context)
    study = optuna.create_study(sampler=sampler, ...)
    enqueue_starts(study, sampler, context)
    trial = ask(study, context.domain, "s3")       # legal, or `UserError`
    study.tell(trial, loss(context.domain.candidate(trial.params)))

Optuna is imported with the strategy: who lists them does not wait for it.
"""

import importlib.util
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solversearch.errors import UserError, nearest
from solversearch.search.strategies.context import Context, Strategy

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

__all__ = ["STRATEGIES", "Context", "Strategy", "known", "predicts", "recipe", "strategy"]

STRATEGIES = {
    each.name: each
    for each in (
        Strategy("random", "reseeded:uniform", "uniform over the space", several=True, studied=True),
        Strategy("tpe", "reseeded:tpe", "multivariate tree-structured Parzen estimator", several=True, studied=True),
        Strategy(
            "cmaes",
            "reseeded:cmaes",
            "CMA-ES of the numbers; it has no notion of choices, which are left to a Parzen estimator one by one",
        ),
        Strategy(
            "gp",
            "reseeded:gp",
            "Gaussian process of up to 200 trials, with expected improvement; about a second a proposal",
            several=True,
            studied=True,
        ),
        Strategy("nsga2", "reseeded:nsga2", "genetic algorithm NSGA-II, for Pareto sets; also of one loss", several=True),
        Strategy("evolution", "evolution:Evolution", "AutoDiffusion's genetic algorithm: epochs of 50 from the best ten", studied=True),
        Strategy(
            "s3",
            "s3:S3",
            "mutation and crossover of the best, thousands of children ranked by the predictor, the top few evaluated",
            predicts=True,
            studied=True,
        ),
        Strategy("gs", "gs:GS", "generalised solver: all times and coefficients by Adam on small batches", learns=True),
        Strategy("ld3", "ld3:LD3", "LD3: times and told times by gradient, samples' start noise with them", learns=True),
        Strategy("s4s", "s4s:S4S", "S4S-Alt: times and coefficients by gradient in turn", learns=True),
        Strategy("gits", "gits:GITS", "GITS: times by the curvature of trajectories, a dynamic programme", learns=True, along=True),
        Strategy("dmn", "dmn:DMN", "DMN: times of the least bound on the error, which asks the network nothing", learns=True),
        Strategy("oss", "oss:OSS", "OSS: times by a dynamic programme on the states of the teacher", learns=True,
                 along=True),
    )
}  # fmt: skip


def known(name: str, objectives: int = 1) -> None:
    """Raises `UserError` with one line where there is no strategy of this name, or it cannot minimise as many objectives."""
    entry = STRATEGIES.get(name)
    if entry is None:
        _own(name)
    elif objectives > 1 and not entry.several:
        able = ", ".join(each for each, entry in STRATEGIES.items() if entry.several)
        raise UserError(f"strategy {name!r} minimises one objective, got {objectives}; for several there are: {able}")


def recipe(name: str) -> Strategy | None:
    """The strategy of this name, where it learns by a recipe of its own and proposes no candidates."""
    entry = STRATEGIES.get(name)
    return entry if entry and entry.learns else None


def predicts(name: str) -> bool:
    """Whether the strategy may use a predictor; a class of your own may."""
    return name not in STRATEGIES or STRATEGIES[name].predicts


def strategy(name: str, context: Context) -> "BaseSampler":
    """The sampler of a strategy by name, or of a class of your own by 'module:Class' or 'module.Class'; `UserError` with one line."""
    known(name, context.objectives)
    if name in STRATEGIES:
        return STRATEGIES[name](context)
    try:
        sampler = _own(name)(context)
    except Exception as error:
        raise UserError(f"strategy {name!r} raised {_told(error)} when called with the context") from error
    from optuna.samplers import BaseSampler

    if not isinstance(sampler, BaseSampler):
        raise UserError(f"strategy {name!r} returned a {type(sampler).__name__}; it must return an optuna.samplers.BaseSampler")
    return sampler


def _own(name: str) -> Callable[[Context], Any]:
    module, _, attribute = name.rpartition(":" if ":" in name else ".")
    if not module or not attribute:
        raise UserError(nearest(name, list(STRATEGIES), "strategy") + "; a class of your own is named module:Class")
    loaded = _module(module, name)
    made = getattr(loaded, attribute, None)
    if made is None:
        public = [each for each, value in vars(loaded).items() if callable(value) and not each.startswith("_")]
        raise UserError(f"strategy {name!r}: {nearest(attribute, public, f'attribute of {module}')}")
    if not callable(made):
        raise UserError(f"strategy {name!r}: {attribute} is a {type(made).__name__}, not a class that is called with the context")
    return made


def _module(module: str, name: str) -> Any:
    """The module of a strategy, with the working directory importable."""
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        found = None
    if found is None:
        raise UserError(f"strategy {name!r}: there is no module {module!r}; it must be importable, for example from the working directory")
    try:
        return import_module(module)
    except Exception as error:
        raise UserError(f"strategy {name!r}: importing {module} raised {_told(error)}") from error


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
