"""What is imported, as plans."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from solversearch.errors import UserError, nearest
from solversearch.importing.configs import SchedulerSource, scheduler_of
from solversearch.importing.diffusers import from_diffusers, is_edm, library, ready
from solversearch.importing.sigmas import from_sigmas, named_betas
from solversearch.plan import Plan, Provenance
from solversearch.runtime import Tableau
from solversearch.schedules import PREDICTION_TYPES, NoiseSchedule
from solversearch.version import __version__

if TYPE_CHECKING:
    from solversearch.models.base import Model

_NAMED = {"flow": "flow_prediction"}  # by diffusers


def as_plan(where: str, nfe: int, model: "Model | None" = None, guidance: float = 1.0, command: str = "", **settings: Any) -> Plan:
    """A scheduler of diffusers, by name or as a pipeline has it (see `scheduler_of`), as a plan of exactly nfe evaluations.

    With a model the noise levels and prediction types of both must agree, and the plan belongs to that model; a scheduler by name then
    reads its network as the model's prediction type, unless settings say otherwise. Raises `UserError` for what `from_diffusers` refuses
    and for a number of evaluations that the scheduler cannot spend.
    """
    source = scheduler_of(where, settings)
    free = not source.own and "prediction_type" in source.scheduler.config and not is_edm(source.scheduler)
    if model is not None and free and "prediction_type" not in settings:
        source = scheduler_of(where, {"prediction_type": _NAMED.get(model.prediction_type, model.prediction_type), **settings})
    kind = _prediction_type(source.scheduler)
    name = type(source.scheduler).__name__
    if model is not None and kind != model.prediction_type:
        raise UserError(f"{name} reads its network as {kind!r}, but model {model.name!r} predicts {model.prediction_type!r}")
    table = _spending(source, nfe, None if model is None else model.schedule)
    decisions = {"scheduler": name, "solver": name.removesuffix("Scheduler"), "grid": "its own"}
    return _plan(table, kind, guidance, model, decisions | {key: str(value) for key, value in source.settings.items()}, command)


def plan_of_sigmas(
    sigmas: Sequence[float], solver: str, model: "Model | None" = None, guidance: float = 1.0, command: str = "",
    integer: bool = False, grid: str = "given sigmas", **settings: Any,
) -> Plan:  # fmt: skip
    """A list of sigmas with a solver as a plan for the model; without one, for networks of the prediction type ("epsilon") and the
    betas (Stable Diffusion's) of settings, which are diffusers'."""
    kind = model.prediction_type if model else str(settings.pop("prediction_type", "epsilon"))
    if kind not in PREDICTION_TYPES:
        raise UserError(nearest(kind, list(PREDICTION_TYPES), "prediction type"))
    if model and settings:
        raise UserError(f"--set {next(iter(settings))}: the model has a noise schedule of its own; leave out --set or --model")
    table = from_sigmas(sigmas, solver, model.schedule if model else named_betas(settings), integer)
    whole = {"timesteps": "whole"} if integer else {}
    return _plan(table, kind, guidance, model, {"solver": solver, "grid": grid, **whole}, command)


def _plan(table: Tableau, kind: str, guidance: float, model: "Model | None", decisions: dict[str, str], command: str) -> Plan:
    table = table.guided(guidance)
    versions = {"solversearch": __version__}
    if "scheduler" in decisions:
        versions["diffusers"] = library().__version__
    return Plan(
        prediction_type=kind,
        guidance=guidance,
        nfe=table.nfe,
        network_calls=table.network_calls,
        nodes=table.nodes,
        rows=table.rows,
        decisions=dict(decisions),
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


def _spending(source: SchedulerSource, nfe: int, schedule: NoiseSchedule | None) -> Tableau:
    """The table of exactly nfe evaluations; steps and evaluations differ where a step spends two, or the start spends more."""
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
