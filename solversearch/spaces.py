"""Search spaces: which decisions a search may take, and how decisions become a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self, cast

import numpy as np
import yaml
from optuna import Trial
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from solversearch.errors import UserError, nearest
from solversearch.plan import first_error
from solversearch.runtime import Node, Tableau
from solversearch.schedules import NoiseSchedule, explicit
from solversearch.solvers.integrals import Prediction
from solversearch.solvers.mixed import FAMILIES, Decision, mixed
from solversearch.tableau import trace

_CLOSEST = 1e-4
"""Least distance of two times, as a fraction of the range: coinciding times make singular tables."""

_MARGIN = 0.03
"""How far beyond the good grids times are searched, as a fraction of the range."""


@dataclass(frozen=True)
class Candidate:
    """One point of a space: times from noise to data, one decision a step, and the ridge of the fit."""

    times: tuple[float, ...]
    decisions: tuple[Decision, ...]
    ridge: float

    def tableau(self, schedule: NoiseSchedule, guidance: float) -> Tableau:
        return trace(mixed(self.decisions), schedule, explicit(schedule, self.times)).guided(guidance)


class SearchSpace(BaseModel):
    """The decisions of a search. Every list holds the choices; `order` is chosen anew at every step, the rest once a plan.

    Times are always free: ordered positions (see `NoiseSchedule.position`) about those of the grids that a search starts from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    solver: Annotated[tuple[str, ...], Field(min_length=1)] = ("unip", "dpmpp", "deis_rhoab", "ipndm")
    order: Annotated[tuple[int, ...], Field(min_length=1)] = (1, 2, 3)
    prediction: Annotated[tuple[Prediction, ...], Field(min_length=1)] = ("data", "noise")
    corrector: Annotated[tuple[bool, ...], Field(min_length=1)] = (True, False)
    ridge: tuple[float, float] = (1e-6, 1e-2)

    @field_validator("solver")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in FAMILIES:
                raise ValueError(nearest(name, list(FAMILIES), "step solver"))
        return names

    @model_validator(mode="after")
    def _possible(self) -> Self:
        highest = min(FAMILIES[name][0] for name in self.solver)
        if min(self.order) < 1 or max(self.order) > highest:
            raise ValueError(f"order: {', '.join(self.solver)} have orders 1 to {highest}, got {list(self.order)}")
        if not 0 < self.ridge[0] <= self.ridge[1]:
            raise ValueError(f"ridge: needs 0 < low <= high, got {list(self.ridge)}")
        return self

    @classmethod
    def read(cls, path: Path) -> "SearchSpace":
        """Reads a space from YAML; raises `UserError` with one line."""
        try:
            content = yaml.safe_load(path.read_text())
        except OSError as error:
            raise UserError(f"{path}: cannot read the search space: {error.strerror}") from None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise UserError(f"{path}: {first_error(error)}") from None

    def size(self, nfe: int) -> int:
        """Number of combinations of the choices that are counted (times and ridge are continuous)."""
        return len(self.solver) * len(self.prediction) * len(self.corrector) * len(self.order) ** nfe

    def suggest(self, trial: Trial, schedule: NoiseSchedule, integer: bool, ranges: Sequence[tuple[float, float]]) -> Candidate:
        """The candidate of a trial; ranges has the bounds of each time, as fractions of the range of positions (see `ranges`)."""
        fractions = sorted((trial.suggest_float(f"time_{i}", *bounds) for i, bounds in enumerate(ranges)), reverse=True)
        solver = trial.suggest_categorical("solver", self.solver)
        prediction = cast(Prediction, trial.suggest_categorical("prediction", self.prediction))
        corrector = trial.suggest_categorical("corrector", self.corrector)
        orders = [trial.suggest_categorical(f"order_{i}", self.order) for i in range(len(ranges))]
        ridge = trial.suggest_float("ridge", *self.ridge, log=True)
        decisions = tuple(Decision(solver, order, prediction, corrector) for order in orders)
        return Candidate(self._times(schedule, fractions, integer), decisions, ridge)

    @staticmethod
    def _times(schedule: NoiseSchedule, fractions: Sequence[float], integer: bool) -> tuple[float, ...]:
        last, first = schedule.position([schedule.t_end, schedule.t_start])
        apart = np.array(fractions) - _CLOSEST * np.arange(len(fractions))
        apart = np.maximum(apart, _CLOSEST * np.arange(len(fractions) - 1, -1, -1))
        times = schedule.time_at(last + apart * (first - last))
        if integer and schedule.discrete:
            times = np.maximum(np.round(times), schedule.t_end + np.arange(len(times) - 1, -1, -1))
            for i in range(1, len(times)):
                times[i] = min(times[i], times[i - 1] - 1)
        return tuple(float(t) for t in times)

    @classmethod
    def ranges(cls, schedule: NoiseSchedule, starts: Sequence[Sequence[Node]]) -> list[tuple[float, float]]:
        """Where each time is worth searching: between its places on good grids, and a margin beyond."""
        places = np.array([list(cls.seed(schedule, nodes).values()) for nodes in starts])
        low, high = np.clip([places.min(0) - _MARGIN, places.max(0) + _MARGIN], 0, 1)
        return list(zip(low.tolist(), high.tolist(), strict=True))

    @staticmethod
    def seed(schedule: NoiseSchedule, nodes: Sequence[Node]) -> dict[str, Any]:
        """The parameters of given times, from which a search starts; what is not named is the strategy's to choose."""
        last, first = schedule.position([schedule.t_end, schedule.t_start])
        return {
            f"time_{i}": float(np.clip((schedule.position(node.t) - last) / (first - last) + _CLOSEST * i, 0, 1))
            for i, node in enumerate(nodes)
        }
