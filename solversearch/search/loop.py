"""The loop of a search: ask a strategy for a group, evaluate it with more and more noise samples, tell it and the predictor.

What is asked together, and what goes on to more samples, depends on the order of the candidates alone: not on how many workers evaluate
them, nor on which result arrives first.
"""

from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Protocol

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from solversearch.search.evaluating.evaluator import Evaluated, Failure
from solversearch.search.strategies.proposals import ask, follow, group_of
from solversearch.search.surrogates.predictor import Predictor
from solversearch.spaces import Candidate, Domain, Params

REDUCTION = 4
"""Of the candidates that reach a number of samples, the best 1/REDUCTION go on to REDUCTION times as many: 4 is Li et al.'s (`Halving`)."""
REPEATS = 100
"""Known candidates that are proposed in a row before a search is over."""


class Candidates(Protocol):
    """What evaluates: each candidate on the first n samples, or all; here, or on many machines."""

    def candidates(self, candidates: Sequence[Candidate], n: int | None) -> list[Evaluated | Failure]: ...


@dataclass
class Halving:
    """Asynchronous successive halving (Li et al. 2020, arXiv:1810.05934, algorithm 2): who goes on is decided one after the other.

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
    """A search of a domain. tried has the candidates seen on all samples, in order; trials the value of each and the samples it
    has seen, None where it failed; progress the best value after each trial.

    earlier are the proposals of a search that is resumed: they are followed, whatever the strategy would propose now. record is told
    the finished trials of a group, and the notes of the study.
    """

    study: optuna.Study
    strategy: str
    domain: Domain
    halving: Halving
    predictor: Predictor | None
    record: Callable[[Sequence[FrozenTrial], Mapping[str, Any]], None] = lambda trials, notes: None
    earlier: Sequence[Params] = ()
    tried: list[tuple[Params, Evaluated]] = field(default_factory=list)
    trials: list[tuple[float | None, int]] = field(default_factory=list)
    progress: list[float] = field(default_factory=list)
    known: dict[str, Evaluated | Failure] = field(default_factory=dict)
    """By candidate: nothing is evaluated twice."""

    def run(
        self, evaluator: Candidates, trials: int, room: Callable[[], int], told: Callable[[int, float], None] = lambda done, best: None
    ) -> Iterator[Evaluated]:
        """Tries candidates until as many are done, the budget has no room for one, or the strategy has nothing new.

        Yields what is new and seen on all samples. A failure does not end it.
        """
        repeats = 0
        while repeats < REPEATS:
            first = len(self.progress)
            size = min(group_of(self.study.sampler, first), trials - first, room())
            if size <= 0:
                break
            if self.predictor is not None:
                self.predictor.refresh()  # whether or not the strategy predicts now, so that it is the same after a resume
            group = [self._ask(number) for number in range(first, first + size)]
            new = {candidate.signature: candidate for _, candidate in group if candidate.signature not in self.known}
            self._try(evaluator, list(new.values()))
            finished = []
            for trial, candidate in group:
                repeats = 0 if new.pop(candidate.signature, None) else repeats + 1
                finished.append(self._tell(trial, candidate))
                result = self.known[candidate.signature]
                if repeats == 0 and isinstance(result, Evaluated) and self._whole(result):
                    self.tried.append((trial.params, result))
                    yield result
                told(len(self.progress), self.progress[-1])
            self.record(finished, self.study.user_attrs)

    def _ask(self, number: int) -> tuple[Trial, Candidate]:
        if number < len(self.earlier):
            trial = follow(self.study, self.domain, self.strategy, self.earlier[number])
        else:
            trial = ask(self.study, self.domain, self.strategy)
        return trial, self.domain.candidate(trial.params)

    def _try(self, evaluator: Candidates, candidates: Sequence[Candidate]) -> None:
        """Evaluates new candidates, each with as many samples as it is worth, and teaches the predictor."""
        # Of a Pareto set none is worse than the rest by one number.
        rungs = [*self.halving.sizes[:-1], None] if len(self.study.directions) == 1 else [None]
        going = list(candidates)
        for size in rungs:
            outcomes = evaluator.candidates(going, size) if going else []
            self.known |= {candidate.signature: outcome for candidate, outcome in zip(going, outcomes, strict=True)}
            if size is not None:
                going = [
                    candidate for candidate, outcome in zip(going, outcomes, strict=True)
                    if isinstance(outcome, Evaluated) and self.halving.passes(size, outcome.value)
                ]  # fmt: skip
        results = [(candidate, self.known[candidate.signature]) for candidate in candidates]
        if self.predictor is not None:
            told = [
                (candidate.tableau(self.domain.schedule), result.value) for candidate, result in results if isinstance(result, Evaluated)
            ]
            self.predictor.tell([table for table, _ in told], [value for _, value in told])

    def _whole(self, result: Evaluated) -> bool:
        """Whether the candidate has seen all samples."""
        return len(result.error) == self.halving.sizes[-1]

    def _tell(self, trial: Trial, candidate: Candidate) -> FrozenTrial:
        """Tells the strategy, whose study is in memory; returns the trial as it is to be written down."""
        result = self.known[candidate.signature]
        state, values = TrialState.PRUNED, None
        if isinstance(result, Failure):
            state = TrialState.FAIL
            trial.set_user_attr("failure", result.reason)
        elif not self._whole(result):
            trial.report(result.value, len(result.error))
        else:
            state, values = TrialState.COMPLETE, list(result.values)
        done = self.study.tell(trial, values, state)
        self.trials.append((None, 0) if isinstance(result, Failure) else (result.value, len(result.error)))
        self.progress.append(min([*self.progress[-1:], *(values or [])[:1]], default=inf))
        return create_trial(
            state=state, values=done.values, params=done.params, distributions=done.distributions, user_attrs=done.user_attrs,
            intermediate_values=done.intermediate_values,
        )  # fmt: skip
