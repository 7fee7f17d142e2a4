"""What a candidate is worth: its table, fitted or as it is, run on validation noise and judged by the objectives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from pydantic import JsonValue
from torch import Tensor

from solversearch.judging.objectives import Objective, Outcome
from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.models.base import Clock, Denoiser, Model, NotFinite
from solversearch.runtime import Tableau, steps
from solversearch.sampling import FAILURES, Sampler, alone, drawing, lockstep
from solversearch.search.fitting.fit import fitting
from solversearch.spaces import Candidate
from solversearch.teacher import Teacher

Origin = dict[str, JsonValue]
"""The decisions behind a table, for `Plan.decisions`."""


@dataclass(frozen=True)
class Evaluated:
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
        """Whether the table's rows, fitted, have coefficients for guidance differences: those of the nodes that guide, see `frugal`."""
        return self.split and any(node.guidance != 1 for node in table.nodes)

    def table(self, table: Tableau, origin: Origin, n: int | None = None) -> Evaluated:
        """The table as it is."""
        return alone(self._denoiser(False, table.split, n).anew(table.nodes), self._plain(table, origin, n))

    def fitted(self, prior: Tableau, ridge: float, origin: Origin, n: int | None = None) -> Evaluated:
        """The table fitted to the teacher, on as many fitting samples (all, where n is None)."""
        return alone(self._denoiser(True, self.splits(prior), n).anew(prior.nodes), self._fitted(prior, ridge, origin, n))

    def candidate(self, candidate: Candidate, n: int | None = None) -> Evaluated:
        """Fitted where its space fits; a stochastic table stays as it is."""
        fitted, split, sampler = self._run(candidate, n)
        return alone(self._denoiser(fitted, split, n), sampler)

    def candidates(self, candidates: Sequence[Candidate], n: int | None = None) -> list[Evaluated | Failure]:
        """The same of several, as many at a time as a network batch has room for."""
        found: dict[int, Evaluated | Exception] = {}
        groups: dict[tuple[bool, bool], dict[int, Sampler[Evaluated]]] = {}
        for k, candidate in enumerate(candidates):
            try:
                fitted, split, sampler = self._run(candidate, n)
                groups.setdefault((fitted, split), {})[k] = sampler
            except FAILURES as failure:
                found[k] = failure
        fitting, validation = self.teachers(n)
        for (fitted, split), samplers in groups.items():
            count = len(validation) + len(fitting) * fitted
            results = lockstep(self._denoiser(fitted, split, n), list(samplers.values()), count)
            found.update(zip(samplers, results, strict=True))
        ordered = [found[k] for k in range(len(candidates))]
        return [Failure(str(each)) if isinstance(each, Exception) else each for each in ordered]

    def together(self, n: int | None) -> int:
        """How many candidates share a network batch, where they are fitted."""
        return max(1, self.batch_size // sum(map(len, self.teachers(n))))

    def _run(self, candidate: Candidate, n: int | None) -> tuple[bool, bool, Sampler[Evaluated]]:
        """Whether the candidate is fitted, whether its denoiser is split, and the loop that ends with its result."""
        table = candidate.tableau(self.model.schedule)
        if candidate.ridge is None or table.stochastic:
            return False, table.split, self._plain(table, candidate.describe(), n)
        return True, self.splits(table), self._fitted(table, candidate.ridge, candidate.describe(), n)

    def _denoiser(self, fitted: bool, split: bool, n: int | None) -> Denoiser:
        """Of the validation samples; after those for fitting, where the table is fitted."""
        given = [teacher.conditions for teacher in self.teachers(n)[0 if fitted else 1 :] if teacher.conditions is not None]
        return Denoiser(self.model, torch.cat(given) if given else None, self.batch_size, split, self.clock)

    def _plain(self, table: Tableau, origin: Origin, n: int | None) -> Sampler[Evaluated]:
        _, validation = self.teachers(n)
        states: list[Tensor] = []
        draw = drawing(self.model, validation)
        samples = yield from steps(
            table.nodes, table.rows, validation.noise, draw, callback=self._keeping(states), components=table.components
        )
        return self._judged(table, validation, samples, states, origin)

    def _fitted(self, prior: Tableau, ridge: float, origin: Origin, n: int | None) -> Sampler[Evaluated]:
        known, validation = self.teachers(n)
        states: list[Tensor] = []
        noise, split = torch.cat([known.noise, validation.noise]), self.splits(prior)
        table, samples = yield from fitting(prior, known, noise, ridge, True, split, self._keeping(states))
        skip = len(known)
        return self._judged(table, validation, samples[skip:], [state[skip:] for state in states], origin)

    def _keeping(self, states: list[Tensor]) -> Callable[[int, Tensor, Tensor], None] | None:
        """A callback that keeps the inputs of the network."""
        if not any("states" in objective.needs for objective in self.objectives):
            return None
        return lambda i, x, prediction: states.append(x)

    def _judged(self, table: Tableau, validation: Teacher, samples: Tensor, states: Sequence[Tensor], origin: Origin) -> Evaluated:
        error = endpoint_mse(samples, validation.endpoint)
        if not torch.isfinite(error).all():
            raise NotFinite("the candidate's error is not finite")
        outcome = Outcome(self.model, validation, table, samples, self.scale, tuple(states) or None, self.batch_size, self.clock)
        return Evaluated(table, error, tuple(objective.value(outcome) for objective in self.objectives), origin)
