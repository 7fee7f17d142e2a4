"""What a candidate is worth: its table, fitted or as it is, run on validation noise and judged by the objectives."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from pydantic import JsonValue
from torch import Tensor

from solversearch.errors import UserError
from solversearch.models.base import Clock, Denoiser, Model, NotFinite
from solversearch.objectives import Objective, Outcome
from solversearch.objectives.endpoint import endpoint_mse
from solversearch.runtime import Tableau
from solversearch.sampling import sample
from solversearch.search.fit import fit
from solversearch.spaces import Candidate
from solversearch.teacher import Teacher

Origin = dict[str, JsonValue]
"""The decisions behind a table, for `Plan.decisions`."""


@dataclass(frozen=True)
class Result:
    """A table with its endpoint error on each validation sample, (n,) float64, and its value by each objective, lower being better."""

    table: Tableau
    error: Tensor
    values: tuple[float, ...]
    origin: Origin

    @property
    def value(self) -> float:
        return self.values[0]


class Failure(NamedTuple):
    """Why a candidate has no result."""

    reason: str


@dataclass(frozen=True)
class Evaluator:
    """Evaluates tables on the first n validation samples: the noise is paired, so differences between candidates are not noise.

    scale is `tempered`'s. split gives fitted rows coefficients for the guidance difference. Raises `NotFinite` where a table runs away.
    """

    model: Model
    fitting: Teacher
    validation: Teacher
    objectives: tuple[Objective, ...]
    scale: float
    split: bool
    batch_size: int
    clock: Clock
    parts: dict[int, tuple[Teacher, Teacher]] = field(default_factory=dict)

    def teachers(self, n: int | None) -> tuple[Teacher, Teacher]:
        """The first n samples for fitting and validation; always the same objects, for objectives keep what they make of them."""
        if n is None:
            return self.fitting, self.validation
        if n not in self.parts:
            self.parts[n] = self.fitting.first(n), self.validation.first(n)
        return self.parts[n]

    def splits(self, table: Tableau) -> bool:
        """Never where some evaluations go without guidance: they would cost as much as the rest."""
        return self.split and all(node.guidance != 1 for node in table.nodes)

    def table(self, table: Tableau, origin: Origin, n: int | None = None) -> Result:
        """The table as it is."""
        _, validation = self.teachers(n)
        states: list[Tensor] = []
        samples = sample(self.model, table, validation, self.batch_size, self.clock, callback=self._keeping(states))
        return self._judged(table, validation, samples, states, origin)

    @torch.no_grad()
    def fitted(self, prior: Tableau, ridge: float, origin: Origin, n: int | None = None) -> Result:
        """The table fitted to the teacher, on as many fitting samples (all, where n is None)."""
        fitting, validation = self.teachers(n)
        conditions = None
        if fitting.conditions is not None and validation.conditions is not None:
            conditions = torch.cat([fitting.conditions, validation.conditions])
        denoise = Denoiser(self.model, conditions, self.batch_size, self.splits(prior), self.clock)
        states: list[Tensor] = []
        noise = torch.cat([fitting.noise, validation.noise])
        table, samples = fit(prior, fitting, denoise, noise, ridge, robust=True, callback=self._keeping(states))
        skip = len(fitting)
        return self._judged(table, validation, samples[skip:], [state[skip:] for state in states], origin)

    def candidate(self, candidate: Candidate, n: int | None = None) -> Result:
        """Fitted where its space fits; a stochastic table stays as it is."""
        table = candidate.tableau(self.model.schedule)
        if candidate.ridge is None or table.stochastic:
            return self.table(table, candidate.describe(), n)
        return self.fitted(table, candidate.ridge, candidate.describe(), n)

    def candidates(self, candidates: Sequence[Candidate], n: int | None = None) -> list[Result | Failure]:
        """What each is worth on the first n samples (all, where n is None); one that fails takes none with it.

        Raises torch's OutOfMemoryError, which is no candidate's fault.
        """
        outcomes: list[Result | Failure] = []
        for candidate in candidates:
            try:
                outcomes.append(self.candidate(candidate, n))
            except torch.OutOfMemoryError:
                raise
            except (NotFinite, ValueError, RuntimeError, UserError) as failure:
                outcomes.append(Failure(str(failure)))
        return outcomes

    def _keeping(self, states: list[Tensor]) -> "_Keep | None":
        return _Keep(states) if any("states" in objective.needs for objective in self.objectives) else None

    def _judged(self, table: Tableau, validation: Teacher, samples: Tensor, states: Sequence[Tensor], origin: Origin) -> Result:
        error = endpoint_mse(samples, validation.endpoint)
        if not torch.isfinite(error).all():
            raise NotFinite("the candidate's error is not finite")
        outcome = Outcome(self.model, validation, table, samples, self.scale, tuple(states) or None, self.batch_size, self.clock)
        return Result(table, error, tuple(objective.value(outcome) for objective in self.objectives), origin)


@dataclass(frozen=True)
class _Keep:
    """A callback of the sampling loop that keeps the inputs of the network."""

    states: list[Tensor]

    def __call__(self, i: int, x: Tensor, prediction: Tensor) -> None:
        self.states.append(x)
