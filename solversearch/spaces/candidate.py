"""One point of a search space, and the table that it compiles to."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import JsonValue

from solversearch.errors import UserError
from solversearch.parametrization import DATA, Parametrization
from solversearch.runtime import Node, Tableau
from solversearch.schedules import CLEAN, NoiseSchedule
from solversearch.solvers.mixed import EMPIRICAL, NOISE_ONLY, Decision, mixed
from solversearch.spaces.grammar import KINDS
from solversearch.tableau import trace


@dataclass(frozen=True)
class Candidate:
    """Times from noise to data with a decision, an input shift and a guidance scale each.

    input_shift moves the time that the network is told, in `NoiseSchedule.position`, and nothing else; integer rounds the told times
    to whole ones. analytic_first_step is a step from t_start to times[0] that costs no evaluation, see `mixed`. ridge is that of the
    closed-form fit, None where there is none. parametrization is the model's own, where a decision is empirical.
    """

    times: tuple[float, ...]
    decisions: tuple[Decision, ...]
    input_shift: tuple[float, ...]
    guidance: tuple[float, ...]
    analytic_first_step: bool = False
    ridge: float | None = None
    integer: bool = False
    parametrization: Parametrization = DATA

    def __post_init__(self) -> None:
        if not len(self.times) == len(self.decisions) == len(self.input_shift) == len(self.guidance):
            raise UserError(f"{len(self.times)} times need as many decisions, input shifts and guidance scales")

    def tableau(self, schedule: NoiseSchedule) -> Tableau:
        times = (schedule.t_start, *self.times) if self.analytic_first_step else self.times
        alphas, sigmas = schedule.alpha(times), schedule.sigma(times)
        nodes = [Node(float(t), float(alpha), float(sigma)) for t, alpha, sigma in zip(times, alphas, sigmas, strict=True)]
        table = trace(mixed(self.decisions, self.analytic_first_step), schedule, [*nodes, CLEAN], self.parametrization)
        told = zip(table.nodes, self._told(schedule), self.guidance, strict=True)
        return Tableau(tuple(Node(t, node.alpha, node.sigma, guidance) for node, t, guidance in told), table.rows)

    def _told(self, schedule: NoiseSchedule) -> Sequence[float]:
        """The times that the network is told."""
        if not any(self.input_shift):
            return self.times
        moved = schedule.time_at(schedule.position(self.times) + np.array(self.input_shift))
        moved = np.round(moved) if self.integer else moved
        return [float(new) if shift else t for t, new, shift in zip(self.times, moved, self.input_shift, strict=True)]

    @cached_property
    def signature(self) -> str:
        """SHA-256 of the content: equal for equal candidates."""
        content = [
            self.times, [[getattr(d, field.name) for field in fields(d)] for d in self.decisions],
            self.input_shift, self.guidance, self.analytic_first_step, self.ridge, self.integer,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def describe(self) -> dict[str, JsonValue]:
        """The decisions, for `Plan.decisions`: a list of one value a step, or one value where all agree; defaults are left out."""
        told: dict[str, JsonValue] = {}
        for field in fields(Decision):
            told |= _told(field.name, [getattr(d, field.name) for d in self.decisions], None if field.name == "solver" else field.default)
        told |= _told("input_shift", self.input_shift, 0.0) | _told("guidance", self.guidance, 1.0)
        if self.analytic_first_step:
            told["analytic_first_step"] = True
        if self.ridge is not None:
            told["ridge"] = self.ridge
        return told


def _told(name: str, values: Sequence[JsonValue], default: object) -> dict[str, JsonValue]:
    if all(value == default for value in values):
        return {}
    return {name: values[0] if len(set(values)) == 1 else list(values)}


def canonical(decisions: Sequence[Decision], analytic_first_step: bool) -> tuple[Decision, ...]:
    """The decisions of the same table in which whatever has no effect has its default, so that equal plans are equal objects.

    The order is the one that the history allows, 1 where the last step takes the data prediction itself; first-order steps of
    all solvers are one, and are told as of the solver beside them.
    """
    last = len(decisions) - 1
    return tuple(_named([_own(decision, i + 1 + analytic_first_step, i == last) for i, decision in enumerate(decisions)]))


_STEP = {field.name for field in fields(Decision)} - {"order"}
_ROOM = [(key, kind) for key, kind in KINDS.items() if key in _STEP and (kind.after or not kind.last)]
"""Decisions for which there is no room everywhere."""


def _own(decision: Decision, history: int, last: bool) -> Decision:
    """Without what history, place, solver and order leave no room for."""
    changes: dict[str, Any] = {key: kind.default for key, kind in _ROOM if history <= kind.after or (last and not kind.last)}
    order, share = min(decision.order, history), decision.noise_share
    corrected = _changed(decision, momentum=changes.get("momentum", decision.momentum)).corrected
    if decision.solver in EMPIRICAL:
        share = 0.0
    if share in (0, 1):
        changes["prediction"] = "noise" if share else "data"
    family, low = decision.solver.startswith("unip"), decision.derivative == "low" and order > 2
    if last and decision.solver not in NOISE_ONLY and (share == 0 or decision.solver == "dpmpp" or low):
        order = 1  # to sigma = 0 such a step takes the data prediction itself
    if last or not corrected:
        changes["corrector"] = corrected = False
    if not changes.get("history", decision.history):
        changes["history_rate"] = KINDS["history_rate"].default
    if not family or order < 3:
        changes["derivative"] = "exact"
    if order == 1:
        changes |= {"start": "multistep", "derivative_scale": 0.0}
    if decision.solver == "ipndm":
        changes["start"] = "multistep"
    if decision.solver in NOISE_ONLY and not corrected:
        changes["prediction"] = "data"
    return _changed(decision, order=order, **changes)


def _changed(decision: Decision, **changes: Any) -> Decision:
    different = {name: value for name, value in changes.items() if getattr(decision, name) != value}
    return replace(decision, **different) if different else decision


def _named(decisions: Sequence[Decision]) -> list[Decision]:
    """First-order steps from a state that no corrector has moved take solver and prediction of the next step of higher order; not those of
    empirical solvers, which have a first order of their own."""
    last = len(decisions) - 1
    free = [
        d.order == 1 and not d.corrector and not (i and decisions[i - 1].corrector) and (i == last or d.solver not in EMPIRICAL)
        for i, d in enumerate(decisions)
    ]
    named = list(decisions)
    for i in range(len(named)):
        if free[i]:
            beside = next((named[j] for j in (*range(i + 1, len(named)), *range(i - 1, -1, -1)) if not free[j]), Decision())
            named[i] = _changed(named[i], solver=beside.solver, prediction=beside.prediction)
    return named
