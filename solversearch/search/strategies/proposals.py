"""What a strategy proposes: asked of the study, followed after a resume, and checked.

What a strategy proposes depends on the seed, the number of the trial and the trials of the study, so that a search that is resumed goes on
as if it had never stopped, once it has followed the earlier proposals (`follow`). A trial that was left running counts as proposed: fail
it and enqueue its parameters anew.
"""

from typing import Any

from optuna import Study, Trial
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from solversearch.errors import UserError, nearest
from solversearch.search.strategies import STRATEGIES
from solversearch.search.strategies.context import Context
from solversearch.spaces import Domain, Params

GROUP = 8
"""Trials that are asked for together, of most strategies."""


def enqueue_starts(study: Study, sampler: BaseSampler, context: Context) -> None:
    """Puts the starts that are not in the study yet before all else, where the strategy does not try them itself."""
    if not getattr(sampler, "tries_starts", False):
        for start in context.starts:
            study.enqueue_trial(start, skip_if_exists=True)


def group_of(sampler: BaseSampler, number: int) -> int:
    """How many trials, from this number on, the driver asks for before it tells the first: what its workers share.

    `GROUP`, or what the sampler's own method `group(number)` says. More workers do not make it more, so that the search stays the same.
    """
    own = getattr(sampler, "group", None)
    return GROUP if own is None else int(own(number))


def ask(study: Study, domain: Domain, name: str) -> Trial:
    """The next trial, with every parameter of the domain. Raises `UserError` when the strategy of this name proposes an illegal value."""
    try:
        trial = study.ask(fixed_distributions=domain.distributions)
    except ValueError as error:  # Optuna's, of a value that it cannot even compare
        raise UserError(f"strategy {name!r} proposed an illegal value: {' '.join(str(error).split())}") from error
    check_proposal(trial, domain, name)
    return trial


class _Known(BaseSampler):
    """Proposes what an earlier process has proposed."""

    def __init__(self, params: Params, distributions: dict[str, BaseDistribution]) -> None:
        self.params, self.distributions = params, distributions

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.distributions

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> Params:
        return self.params

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        raise UserError(f"an earlier trial has no parameter {param_name!r}; begin another run with --out")


def follow(study: Study, domain: Domain, name: str, params: Params) -> Trial:
    """Like `ask`, of what an earlier process has proposed. One that is `studied` is not asked, which takes time; others are, in vain."""
    if name not in STRATEGIES or not STRATEGIES[name].studied:
        waiting = (TrialState.WAITING,)
        if not study.get_trials(deepcopy=False, states=waiting):
            study.enqueue_trial(params)
        return ask(study, domain, name)
    own, study.sampler = study.sampler, _Known(params, domain.distributions)
    try:
        return ask(study, domain, name)
    finally:
        study.sampler = own


def check_proposal(trial: Trial, domain: Domain, name: str) -> None:
    """Raises `UserError` when the strategy proposed an unknown parameter or an illegal value.

    An illegal value of a relative sampler Optuna passes over, and samples the parameter anew; one of an independent sampler it takes.
    """
    for parameter, value in [*trial.relative_params.items(), *trial.params.items()]:
        if parameter not in domain.distributions:
            raise UserError(f"strategy {name!r}: {nearest(parameter, list(domain.distributions), 'parameter')}")
        distribution = domain.distributions[parameter]
        if not _legal(value, distribution):
            raise UserError(f"strategy {name!r} proposed {parameter} = {value!r}; allowed: {_allowed(distribution)}")


def _legal(value: Any, distribution: BaseDistribution) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except ValueError:
        return False


def _allowed(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(map(repr, distribution.choices))
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    kind = "whole numbers " if isinstance(distribution, IntDistribution) else ""
    step = f" in steps of {distribution.step:g}" if distribution.step not in (None, 1) else ""
    return f"{kind}{distribution.low:g} to {distribution.high:g}{step}"
