"""Cascade polynomial regression: from plans for a few configurations (NFE, guidance) to a plan for any between them, in an instant."""

import hashlib
import json
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from solversearch.cpr import parameters
from solversearch.cpr.parameters import SMOOTH, Curves
from solversearch.cpr.polynomial import DEGREES, Cascade, fit_cascade
from solversearch.errors import UserError, one_line
from solversearch.models.base import Model
from solversearch.models.digest import is_of
from solversearch.plan import MAX_NFE, Many, Plan, Provenance, Threshold, read_json, version_of, write_text
from solversearch.run_files import regression_file
from solversearch.schedules import Floats
from solversearch.solvers.mixed import Decision, mixed
from solversearch.tableau import trace
from solversearch.version import __version__

TIME_NAMES = ("position", "input_shift")
LEAST, POOR = 3, 2.0
"""Configurations of which something can be regressed; and how many times a given plan's error is worth a word."""
TIME_DEGREES = (5, 2, 2)
"""Of positions, which bend more towards the data than ratios do."""
_NAME = re.compile("|".join((*TIME_NAMES, *SMOOTH, r"(end_)?(x|(d|delta)\d{1,4})")))

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True, strict=True)


class FittedPlan(BaseModel):
    """A configuration that was fitted. Root mean squares over its numbers: of what the fit leaves (residual) and, of the fit without
    this configuration, of its error (left_out); times (as positions) and the other parameters apart. ratio is the predicted plan's
    error over the given plan's on validation noise, where the regression has been tuned."""

    model_config = _STRICT
    nfe: int
    guidance: float
    plan: str
    residual_times: float
    residual_parameters: float
    left_out_times: float
    left_out_parameters: float
    ratio: float | None = None


class Cpr(BaseModel):
    """Plans of one model as cascades over step, guidance and NFE. See `parameters` for what they are of.

    steps has the decisions that are no numbers, a step each, of the plan with most steps; empty for plans taken as coefficients.
    whole: times are rounded to whole timesteps, as all given plans' are.
    """

    model_config = _STRICT
    format: Literal["solversearch-cpr"] = "solversearch-cpr"
    version: Literal[1] = 1
    model: str
    model_digest: str
    prediction_type: str
    kind: Literal["decisions", "coefficients"]
    nfe: tuple[Annotated[int, Field(ge=1, le=MAX_NFE)], Annotated[int, Field(ge=1, le=MAX_NFE)]]
    guidance: tuple[float, float]
    whole: bool = False
    steps: Many[dict[str, JsonValue]] = ()
    cascades: dict[str, Cascade]
    cells: Many[FittedPlan]
    threshold: Threshold | None = None
    versions: dict[str, str] = {}
    digest: str = Field(default="", pattern="^sha256:[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.nfe[0] > self.nfe[1] or self.guidance[0] > self.guidance[1]:
            raise ValueError("nfe and guidance are [lowest, highest]")
        if "position" not in self.cascades:
            raise ValueError("cascades: position is missing")
        unknown = next((name for name in self.cascades if not _NAME.fullmatch(name)), None)
        if unknown is not None:
            raise ValueError(f"cascades: unknown parameter {unknown[:40]!r}")
        if (self.kind == "decisions") != (len(self.steps) == self.nfe[1]):
            raise ValueError(f"steps: kind {self.kind!r} has {self.nfe[1] if self.kind == 'decisions' else 0} steps, got {len(self.steps)}")
        try:
            self.decisions()
        except (TypeError, UserError) as error:
            raise ValueError(f"steps: {error}") from None
        digest = self._content_digest()
        if not self.digest:
            object.__setattr__(self, "digest", digest)
        elif self.digest != digest:
            raise ValueError("the digest does not match the content: the file was changed after it was written")
        return self

    def _content_digest(self) -> str:
        content = self.model_dump(mode="json", exclude={"digest"})
        return "sha256:" + hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()

    def replaced(self, cascades: dict[str, Cascade], cells: tuple[FittedPlan, ...] | None = None) -> "Cpr":
        """The same with other cascades, and the digest that belongs to them."""
        kept = {name: getattr(self, name) for name in type(self).model_fields if name != "digest"}
        return Cpr(**{**kept, "cascades": cascades, "cells": self.cells if cells is None else cells})

    @property
    def left_out(self) -> str:
        """In words, how far each configuration is from what the others predict of it."""
        worst = max(self.cells, key=lambda cell: cell.left_out_times)
        times, numbers = (float(np.sqrt(np.mean(np.square(each)))) for each in (
            [cell.left_out_times for cell in self.cells], [cell.left_out_parameters for cell in self.cells]
        ))  # fmt: skip
        told = (
            f"each of {len(self.cells)} configurations left out, the others miss its times by {times:.2g} (as positions) and its other "
            f"numbers by {numbers:.2g}; the worst is NFE {worst.nfe}, guidance {worst.guidance:g}"
        )
        poor = [cell for cell in self.cells if cell.ratio is not None and cell.ratio > POOR]
        if poor:
            far = max(poor, key=lambda cell: cell.ratio or 0)
            told += f"; at NFE {far.nfe}, guidance {far.guidance:g} its plan has {far.ratio:.3g} times the error of the one given"
        return told

    def decisions(self) -> tuple[Decision, ...]:
        return tuple(Decision(**step) for step in self.steps)  # type: ignore[arg-type]

    def write(self, path: str | Path) -> None:
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Raises `UserError` with one line: which file, where in it, what is wrong."""
        path = regression_file(path)
        found = read_json(cls, path, "regression")
        if "digest" not in found.model_fields_set:
            raise UserError(f"{one_line(str(path))}: digest: missing; the file of a regression carries the digest of its content")
        return found

    def predict(self, nfe: float, guidance: float, model: Model, command: str = "") -> Plan:
        """The plan for a configuration within the fitted ranges. Raises `UserError` outside them, or for another model."""
        if not is_of(self.model_digest, model):
            raise UserError(f"the regression is of plans for model {self.model!r} with other weights than model {model.name!r}")
        if not float(nfe).is_integer():
            raise UserError(f"--nfe must be a whole number, got {nfe}")
        for name, value, (low, high) in (("nfe", nfe, self.nfe), ("guidance", guidance, self.guidance)):
            if not low <= value <= high:  # also where it is NaN
                raise UserError(f"--{name} {value:g} is outside the fitted range {low:g} .. {high:g}; the regression does not extrapolate")
        try:
            return self._predicted(int(nfe), guidance, model, command)
        except (ValueError, ArithmeticError) as error:  # polynomials of a file can be anything
            reason = one_line(" ".join(str(error).split()))
            raise UserError(f"the regression has no plan for NFE {nfe:g} and guidance {guidance:g}: {reason}") from None

    def _predicted(self, nfe: int, guidance: float, model: Model, command: str) -> Plan:
        curves = self.curves(nfe, guidance)
        nodes = parameters.nodes_at(curves, model.schedule, guidance, self.whole)
        decisions: dict[str, JsonValue] = {"solver": "cpr", "grid": "cpr", "cpr": self.digest}
        if self.kind == "coefficients":
            table = parameters.coefficient_table(curves, model.schedule, nodes[:-1])
        else:
            steps = parameters.decided(curves, parameters.pattern(self.decisions(), nfe))
            table = trace(mixed(steps), model.schedule, nodes)
            decisions |= {name: [asdict(step)[name] for step in steps] for name in asdict(steps[0])}
        table = parameters.told(table, curves, model.schedule, self.whole)
        said = model.schedule.anchored(table.nodes)
        return Plan(
            version=version_of(said, None),
            prediction_type=model.prediction_type,
            guidance=float(guidance),
            nfe=table.nfe,
            network_calls=table.network_calls,
            nodes=said,
            rows=table.rows,
            threshold=self.threshold,
            decisions={**decisions, **model.facts},
            provenance=Provenance(model=model.name, model_digest=model.digest, versions=versions(), command=command),
        )

    def curves(self, nfe: int, guidance: float) -> Curves:
        """The numbers of every step."""
        found: Curves = {}
        for name, cascade in self.cascades.items():
            steps = steps_of(name, nfe)
            values = unit(name, guidance) * cascade(np.array(steps) / nfe, guidance, nfe)
            found[name] = dict(zip(steps, values.tolist(), strict=True))
        return found


def steps_of(name: str, nfe: int) -> list[int]:
    """The steps i at which a parameter exists."""
    if name in TIME_NAMES:
        return list(range(nfe))
    if name in SMOOTH:
        return list(range(SMOOTH[name], nfe + 1))
    if name.startswith("end_"):
        return [nfe]
    return list(range(0 if name == "x" else _lag(name) + 1, nfe))


def unit(name: str, guidance: float) -> float:
    """What a cascade is multiplied with. Without guidance there is no difference to weigh."""
    return guidance - 1 if "delta" in name else 1.0


def _lag(name: str) -> int:
    return int(name.removeprefix("end_").removeprefix("delta").removeprefix("d")) if name not in ("x", "end_x") else -1


def versions() -> dict[str, str]:
    return {"solversearch": __version__, "python": platform.python_version()}


def fit(plans: Sequence[Plan], model: Model) -> Cpr:
    """The regression of one model's plans, one a configuration.

    Plans whose decisions make their tables again are regressed in those; where any has been fitted or polished, all in coefficients.
    Raises `UserError` for plans that do not belong together, and for too few.
    """
    for plan in plans:
        parameters.check_plan(plan, model)
        if "baseline" in plan.decisions:
            raise UserError(
                f"the plan for NFE {plan.nfe} and guidance {plan.guidance:g} is a baseline, for its search found nothing better; "
                "search longer there, or leave it out"
            )
    cells = sorted((plan.nfe, plan.guidance) for plan in plans)
    twice = next((a for a, b in pairwise(cells) if a == b), None)
    if twice:
        raise UserError(f"two plans are for NFE {twice[0]} and guidance {twice[1]:g}; give one a configuration")
    if len({plan.threshold for plan in plans}) > 1:
        raise UserError("the plans clip their data predictions differently; give plans of one kind")
    if len(cells) < LEAST:
        raise UserError(
            f"a regression needs plans for at least {LEAST} configurations of NFE and guidance, better 3 x 3, got {len(cells)}: through "
            "two goes a line, and nothing says whether what lies between is on it"
        )
    plans = sorted(plans, key=lambda plan: (plan.nfe, plan.guidance))
    steps, curves = _curves(plans, model)
    cascades: dict[str, Cascade] = {}
    left: dict[str, tuple[Floats, Floats, Floats]] = {}
    for name in dict.fromkeys(name for each in curves for name in each):
        points = [
            (i / plan.nfe, plan.guidance, plan.nfe, value / unit(name, plan.guidance))
            for plan, each in zip(plans, curves, strict=True)
            for i, value in each.get(name, {}).items()
        ]
        array = np.array(points)
        if np.any(array[:, 3]):
            cascades[name], residual, left_out = fit_cascade(array[:, :3], array[:, 3], TIME_DEGREES if name in TIME_NAMES else DEGREES)
            left[name] = (array, residual, left_out)
    return Cpr(
        model=model.name,
        model_digest=model.digest,
        prediction_type=model.prediction_type,
        kind="decisions" if steps else "coefficients",
        nfe=(cells[0][0], cells[-1][0]),
        guidance=(min(g for _, g in cells), max(g for _, g in cells)),
        whole=model.schedule.discrete and all(node.t == round(node.t) for plan in plans for node in plan.nodes),
        steps=tuple(asdict(step) for step in steps),
        cascades=cascades,
        cells=tuple(_cell(plan, left) for plan in plans),
        threshold=plans[0].threshold,
        versions=versions(),
    )


def _curves(plans: Sequence[Plan], model: Model) -> tuple[tuple[Decision, ...], list[Curves]]:
    """The decisions that all plans share (none where they are taken as coefficients) and each plan's curves."""
    schedule = model.schedule
    times = [parameters.time_curves(plan, schedule) for plan in plans]
    decided = [parameters.decisions_of(plan, schedule) for plan in plans]
    known = [steps for steps in decided if steps]
    if len(known) == len(plans):
        shared = tuple(map(parameters.plain, known[-1]))
        if all(tuple(map(parameters.plain, steps)) == parameters.pattern(shared, len(steps)) for steps in known):
            numbers = list(map(parameters.decision_curves, known))
            return shared, [
                {**time, **{name: each[name] for name in parameters.numbers_used(numbers)}}
                for time, each in zip(times, numbers, strict=True)
            ]
    curves = []
    for plan, time in zip(plans, times, strict=True):
        kept = parameters.coefficient_curves(plan.tableau, schedule)
        if not plan.tableau.split:
            kept = {name: values for name, values in kept.items() if "delta" not in name}
        curves.append({**time, **kept})
    return (), curves


def _cell(plan: Plan, left: dict[str, tuple[Floats, Floats, Floats]]) -> FittedPlan:
    def rms(which: int, times: bool) -> float:
        numbers = [
            each[which][(each[0][:, 1] == plan.guidance) & (each[0][:, 2] == plan.nfe)]
            for name, each in left.items()
            if (name in TIME_NAMES) == times
        ]
        values = np.concatenate(numbers) if numbers else np.zeros(0)
        return float(np.sqrt(np.mean(values**2))) if len(values) else 0.0

    return FittedPlan(
        nfe=plan.nfe, guidance=plan.guidance, plan=plan.digest,
        residual_times=rms(1, True), residual_parameters=rms(1, False),
        left_out_times=rms(2, True), left_out_parameters=rms(2, False),
    )  # fmt: skip
