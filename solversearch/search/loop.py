"""The loop of a search: ask a strategy, evaluate with more and more noise samples, tell it and the predictor."""

from bisect import bisect_right, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from solversearch.errors import UserError
from solversearch.models.base import NotFinite
from solversearch.search.evaluator import Evaluator, Result
from solversearch.search.predictor import Predictor
from solversearch.search.strategies import ask
from solversearch.spaces import Candidate, Domain, Params

REDUCTION = 4
"""Of the candidates that reach a number of samples, the best 1/REDUCTION go on to REDUCTION times as many."""
REPEATS = 100
"""Known candidates that are proposed in a row before a search is over."""


@dataclass
class Halving:
    """Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934, algorithm 2): who goes on is decided as candidates arrive.

    sizes are the numbers of samples, the last being all. reached has the sorted values of all candidates that reached each.
    """

    sizes: Sequence[int]
    reached: dict[int, list[float]] = field(default_factory=dict)

    @classmethod
    def up_to(cls, samples: int, least: int) -> "Halving":
        sizes = [samples]
        while sizes[0] >= REDUCTION * least:
            sizes.insert(0, sizes[0] // REDUCTION)
        return cls(sizes)

    def passes(self, size: int, value: float) -> bool:
        """Notes a value at a size, and says whether its candidate is worth the next."""
        values = self.reached.setdefault(size, [])
        insort(values, value)
        return bisect_right(values, value) <= max(1, len(values) // REDUCTION)


@dataclass
class Loop:
    """A search of a domain. tried has the candidates seen on all samples, in order; progress the best value after each trial."""

    study: optuna.Study
    strategy: str
    domain: Domain
    evaluator: Evaluator
    halving: Halving
    predictor: Predictor | None
    record: Callable[[FrozenTrial], None] = lambda trial: None
    tried: list[tuple[Params, Result]] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)
    known: dict[str, Result | None] = field(default_factory=dict)
    """By candidate, None for one that failed: nothing is evaluated twice."""

    def run(self, trials: int, spent: Callable[[], bool], kept: Callable[[Result], object], told: Callable[[int, float], None]) -> None:
        """Tries candidates until as many are done, the budget is spent, or the strategy has nothing new; a failure does not end it."""
        repeats = 0
        while len(self.progress) < trials and not spent() and repeats < REPEATS:
            trial = ask(self.study, self.domain, self.strategy)
            candidate = self.domain.candidate(trial.params)
            repeats = repeats + 1 if candidate.signature in self.known else 0
            if not repeats:
                self._try(trial, candidate, kept)
            self._tell(trial, self.known[candidate.signature])
            self.progress.append(min([*self.progress[-1:], *(result.value for _, result in self.tried[-1:])], default=inf))
            told(len(self.progress), self.progress[-1])

    def _try(self, trial: Trial, candidate: Candidate, kept: Callable[[Result], object]) -> None:
        self.known[candidate.signature] = None
        try:
            result = self._evaluated(candidate)
        except (NotFinite, ValueError, RuntimeError, UserError) as failure:
            trial.set_user_attr("failure", str(failure))
            return
        self.known[candidate.signature] = result
        if self.predictor is not None:
            self.predictor.tell([candidate.tableau(self.domain.schedule)], [result.value])
        if self._whole(result):
            self.tried.append((trial.params, result))
            kept(result)

    def _whole(self, result: Result) -> bool:
        """Whether the candidate has seen all samples."""
        return len(result.error) == self.halving.sizes[-1]

    def _evaluated(self, candidate: Candidate) -> Result:
        """The result on as many samples as the candidate is worth."""
        # Of a Pareto set none is worse than the rest by one number.
        sizes = self.halving.sizes[:-1] if len(self.evaluator.objectives) == 1 else ()
        for size in sizes:
            result = self.evaluator.candidate(candidate, size)
            if not self.halving.passes(size, result.value):
                return result
        return self.evaluator.candidate(candidate)

    def _tell(self, trial: Trial, result: Result | None) -> None:
        if result is None:
            self._finish(trial, TrialState.FAIL)
        elif self._whole(result):
            self._finish(trial, TrialState.COMPLETE, list(result.values))
        else:
            trial.report(result.value, len(result.error))
            self._finish(trial, TrialState.PRUNED)

    def _finish(self, trial: Trial, state: TrialState, values: list[float] | None = None) -> None:
        """Tells the strategy, whose study is in memory, and writes the trial down at once."""
        done = self.study.tell(trial, values, state)
        self.record(
            create_trial(
                state=state, values=done.values, params=done.params, distributions=done.distributions, user_attrs=done.user_attrs,
                intermediate_values=done.intermediate_values,
            )
        )  # fmt: skip
