"""`solversearch import`: what others sample with, as a plan."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from solversearch.api import import_scheduler
from solversearch.cli.loading import Load, loads_model
from solversearch.cli.shared import Json, Overwrite, wrote
from solversearch.errors import UserError
from solversearch.outputs import check_place


@loads_model
def import_(
    context: typer.Context,
    load: Load,
    out: Annotated[Path, typer.Option(help="The plan file to write.")],
    source: Annotated[
        str | None,
        typer.Argument(
            help="A scheduler of diffusers: a class such as DDIM, or a pipeline's folder, scheduler_config.json, hf:ID or name."
        ),
    ] = None,
    nfe: Annotated[int | None, typer.Option(min=1, max=1000, help="Network evaluations a sample costs.")] = None,
    sigmas: Annotated[str | None, typer.Option(help="Noise levels instead of a scheduler: 14.6,6.5,2.7,0 or a file of them.")] = None,
    timesteps: Annotated[
        str | None, typer.Option(help="Times instead, as the network is told them: 999,850,736 or a file of them.")
    ] = None,
    ays: Annotated[str | None, typer.Option(help="A published Align Your Steps schedule instead: sd15, sdxl or svd.")] = None,
    table: Annotated[str | None, typer.Option(help="A published table instead; one of 'solversearch list tables'.")] = None,
    solver: Annotated[
        str | None,
        typer.Option(help="The solver for a list or a table; one of 'solversearch list solvers', or its name in ComfyUI or diffusers."),
    ] = None,
    integer: Annotated[bool, typer.Option("--integer", help="Take the nearest whole timesteps of a list or a table.")] = False,
    model: Annotated[str | None, typer.Option(help="The model it is for; without, any of its prediction type and noise levels.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; 1 is none.", show_default="the model's, 1 without one")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of it; repeatable.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a scheduler of diffusers, a list of sigmas or timesteps, or a published table as a plan."""
    config = dict(map(_setting, settings or []))
    check_place(out, "imported plan", overwrite)
    plan = import_scheduler(
        source, nfe, sigmas=sigmas, timesteps=timesteps, ays=ays, table=table, solver=solver, integer=integer, model=model,
        guidance=guidance, settings=config, command=context.obj or "", **load.chosen,
    )  # fmt: skip
    plan.write(out)
    wrote(as_json, out, nfe=plan.nfe, digest=plan.digest)


def _setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE; values are JSON where they can be read as such, else text."""
    key, found, value = text.partition("=")
    if not found or not key:
        raise UserError(f"--set {text}: write KEY=VALUE")
    try:
        return key, json.loads({"True": "true", "False": "false", "None": "null"}.get(value, value))
    except ValueError:
        return key, value
