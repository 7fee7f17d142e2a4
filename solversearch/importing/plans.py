"""What is imported, as plans."""

import json
import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from solversearch.errors import UserError
from solversearch.importing.aliases import named
from solversearch.importing.configs import SchedulerSource, scheduler_of
from solversearch.importing.diffusers import from_diffusers, is_edm, library, ready
from solversearch.importing.frames import frame_of
from solversearch.importing.reading import Listed, read_numbers
from solversearch.importing.sigmas import check_falling, from_sigmas, from_timesteps
from solversearch.importing.tables import table
from solversearch.pipeline_facts import facts
from solversearch.plan import Plan, Provenance, Threshold, version_of
from solversearch.runtime import Tableau
from solversearch.schedules import NoiseSchedule
from solversearch.version import __version__

if TYPE_CHECKING:
    from solversearch.models.base import Model

_NAMED = {"flow": "flow_prediction"}  # by diffusers
_DRAWING = ("stochastic_sampling", "algorithm_type")
"""Settings by which a scheduler draws fresh noise."""
_MIXING = ("DDIMScheduler", "TCDScheduler")
"""Those that step with the unclipped noise beside the clipped data."""


def as_plan(where: str, nfe: int | None, model: "Model | None" = None, guidance: float = 1.0, command: str = "", **settings: Any) -> Plan:
    """A scheduler of diffusers, by name or as a pipeline has it (see `scheduler_of`), as a plan of exactly nfe evaluations.

    With a model the noise levels and prediction types of both must agree, and the plan belongs to that model; a scheduler by name then
    reads its network as the model's prediction type, unless settings say otherwise. nfe may be left out where the file says it: what
    `export` wrote for diffusers, or a pipeline saved with a plan, which comes back. Raises `UserError` for what `from_diffusers` refuses
    and for a number of evaluations that the scheduler cannot spend. Guidance 0 is none, 1, as pipelines read it.
    """
    guidance = guidance or 1.0
    source = scheduler_of(where, settings)
    if source.plan is not None:
        if nfe not in (None, source.plan.nfe):
            raise UserError(f"{where}: it holds a plan of {source.plan.nfe} evaluations; leave out --nfe {nfe}")
        return source.plan
    if nfe is None and not source.given:
        raise UserError("--nfe is missing: how many network evaluations may a sample cost?")
    free = not source.own and "prediction_type" in source.scheduler.config and not is_edm(source.scheduler)
    if model is not None and free and "prediction_type" not in settings:
        source = scheduler_of(where, {"prediction_type": _NAMED.get(model.prediction_type, model.prediction_type), **settings})
    kind = _prediction_type(source.scheduler)
    name = type(source.scheduler).__name__
    if model is not None and kind != model.prediction_type:
        raise UserError(f"{name} reads its network as {kind!r}, but model {model.name!r} predicts {model.prediction_type!r}")
    known = facts(source.pipeline, json.loads(source.scheduler.to_json_string())) if source.own and source.pipeline else {}
    source, threshold = _unclipped(source)
    table = _spending(source, nfe, None if model is None else model.schedule)
    if table.stochastic:
        causes = ", ".join(f"{key}={source.scheduler.config[key]}" for key in _DRAWING if source.scheduler.config.get(key))
        by = causes and f" by {causes}"
        warnings.warn(f"{name} draws fresh noise at its steps{by}: so does the plan", stacklevel=2)
    decisions: dict[str, Any] = {"scheduler": name, "solver": name.removesuffix("Scheduler"), "grid": "its own"}
    decisions |= {key: str(value) for key, value in source.settings.items()}
    decisions |= known
    return _plan(table.guided(guidance), kind, guidance, model, decisions, command, threshold)


def _unclipped(source: SchedulerSource) -> tuple[SchedulerSource, Threshold | None]:
    """The scheduler without its clipping, and that as a plan has it: rows then work with the clipped data predictions alone."""
    config = source.scheduler.config
    if not config.get("clip_sample"):
        return source, None
    name, limit = type(source.scheduler).__name__, float(config.get("clip_sample_range", 1.0))
    if name in _MIXING:
        warnings.warn(
            f"{name} keeps the network's own noise prediction beside the clipped data prediction; a plan takes the noise that belongs to "
            f"the clipped one, so samples differ where predictions leave [-{limit:g}, {limit:g}] (not with use_clipped_model_output)",
            stacklevel=2,
        )
    scheduler = deepcopy(source.scheduler)
    scheduler.register_to_config(clip_sample=False)
    return replace(source, scheduler=scheduler), Threshold(kind="clamp", limit=limit)


def plan_of_list(
    numbers: Sequence[float], solver: str, model: "Model | None" = None, guidance: float = 1.0, command: str = "", *,
    what: str = "sigmas", integer: bool = False, nfe: int | None = None, grid: str | None = None,
    frame: tuple[NoiseSchedule, str] | None = None, **settings: Any,
) -> Plan:  # fmt: skip
    """A list of sigmas or timesteps (what) with a solver as a plan for the model; without one, in the frame or in that of settings.

    settings are those of `frame_of`, frame is what it returns.

    solver is one of `SOLVERS`, or what ComfyUI or diffusers call it. Raises `UserError` for a list that the solver does not spend
    nfe evaluations on, too.
    """
    known = named(solver)._replace(guidance=guidance)
    check_falling(numbers, what, True)
    if model and settings:
        raise UserError(f"--set {next(iter(settings))}: the model has a noise schedule of its own; leave out --set or --model")
    schedule, kind = (model.schedule, model.prediction_type) if model else frame or frame_of(settings, what, numbers[0])
    table = (from_sigmas if what == "sigmas" else from_timesteps)(numbers, known, schedule, integer, nfe)
    if nfe is not None and table.nfe != nfe:
        raise UserError(f"--nfe {nfe}: {solver} spends {table.nfe} evaluations on these {len(numbers)} {what}; leave --nfe out")
    whole = {"timesteps": "whole"} if integer else {}
    return _plan(table, kind, guidance, model, {"solver": known.solver.name, "grid": grid or f"given {what}", **whole}, command)


def plan_of_numbers(
    given: str | Sequence[float], what: str, solver: str, model: "Model | None" = None, guidance: float = 1.0, command: str = "", *,
    integer: bool = False, nfe: int | None = None, **settings: Any,
) -> Plan:  # fmt: skip
    """`plan_of_list` of numbers, their text or a file of it (see `read_numbers`), which may name its scheduler and so the frame."""
    listed = read_numbers(given, what) if isinstance(given, str) else Listed(list(given))
    frame = None
    if listed.scheduler and model is None:
        from solversearch.models.pipelines.schedule import schedule_of

        frame, settings = schedule_of({**listed.config, **settings, "_class_name": listed.scheduler})[:2], {}
    return plan_of_list(listed.numbers, solver, model, guidance, command, what=what, integer=integer, nfe=nfe, frame=frame, **settings)


def plan_of_sigmas(sigmas: Sequence[float], solver: str, model: "Model | None" = None, guidance: float = 1.0, **settings: Any) -> Plan:
    """`plan_of_list` of sigmas."""
    return plan_of_list(sigmas, solver, model, guidance, **settings)


def plan_of_table(
    name: str, solver: str, model: "Model | None" = None, guidance: float = 1.0, command: str = "", *,
    integer: bool = False, nfe: int | None = None, **settings: Any,
) -> Plan:  # fmt: skip
    """A published table of `tables()` with a solver, at its own number of steps or at nfe evaluations. Raises `UserError`."""
    published = table(name)
    steps = published.steps if nfe is None else named(solver).solver.steps(nfe)
    frame = settings if model else {**published.frame, **settings}
    return plan_of_list(published.sigmas(steps), solver, model, guidance, command, integer=integer, nfe=nfe, grid=name, **frame)


def _plan(
    table: Tableau, kind: str, guidance: float, model: "Model | None", decisions: dict[str, Any], command: str,
    threshold: Threshold | None = None,
) -> Plan:  # fmt: skip
    versions = {"solversearch": __version__}
    if "scheduler" in decisions:
        versions["diffusers"] = library().__version__
    nodes = model.schedule.anchored(table.nodes) if model else table.nodes
    return Plan(
        version=version_of(nodes, None),
        prediction_type=kind,
        guidance=guidance,
        nfe=table.nfe,
        network_calls=table.network_calls,
        nodes=nodes,
        rows=table.rows,
        threshold=threshold,
        decisions={**decisions, **(model.facts if model else {})},
        provenance=Provenance(
            model=model.name if model else "", model_digest=model.digest if model else "", versions=versions, command=command
        ),
    )


def _prediction_type(scheduler: Any) -> str:
    if is_edm(scheduler):
        return "edm"
    if type(scheduler).__name__ == "IPNDMScheduler":
        return "v_prediction"
    kind = str(scheduler.config.get("prediction_type", "flow_prediction"))
    return "flow" if kind == "flow_prediction" else kind


def _spending(source: SchedulerSource, nfe: int | None, schedule: NoiseSchedule | None) -> Tableau:
    """The table of exactly nfe evaluations; steps and evaluations differ where a step spends two, or the start spends more."""
    if source.given:
        found = from_diffusers(source.scheduler, None, schedule, **source.given)
        if nfe not in (None, found.nfe):
            raise UserError(f"--nfe {nfe}: the file's own steps spend {found.nfe} evaluations; leave --nfe out")
        return found
    assert nfe is not None
    spent = set()
    for steps in dict.fromkeys([nfe, nfe - 1, (nfe + 1) // 2, nfe // 2 + 1, nfe // 2, nfe - 9]):
        if steps < 1:
            continue
        arguments = source.arguments(steps, schedule)
        given = None if "sigmas" in arguments else steps
        count = len(ready(source.scheduler, given, arguments).timesteps)
        if count == nfe:
            return from_diffusers(source.scheduler, given, schedule, **arguments)
        spent.add(count)
    near = sorted(spent, key=lambda count: abs(count - nfe))[:2]
    name = type(source.scheduler).__name__
    raise UserError(f"{name} cannot spend exactly {nfe} evaluations; ask for {' or '.join(map(str, sorted(near)))}")
