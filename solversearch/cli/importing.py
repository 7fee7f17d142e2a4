"""`solversearch import`: what others sample with, as a plan."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from solversearch.cli.loading import Load, loads_model
from solversearch.cli.shared import Overwrite
from solversearch.errors import UserError
from solversearch.outputs import check_place

if TYPE_CHECKING:
    from solversearch.models import Model
    from solversearch.plan import Plan


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
    ays: Annotated[str | None, typer.Option(help="A published Align Your Steps schedule instead: sd15 or sdxl.")] = None,
    solver: Annotated[str | None, typer.Option(help="The solver for --sigmas or --ays; one of 'solversearch list solvers'.")] = None,
    integer: Annotated[bool, typer.Option("--integer", help="Take the nearest whole timesteps of --sigmas or --ays.")] = False,
    model: Annotated[str | None, typer.Option(help="The model it is for; without, any of its prediction type and noise levels.")] = None,
    guidance: Annotated[float, typer.Option(help="Guidance scale; 1 is none.")] = 1.0,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of it; repeatable.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a scheduler of diffusers, a list of sigmas or Align Your Steps as a plan."""
    given = [value for value in (source, sigmas, ays) if value is not None]
    if len(given) != 1:
        raise UserError(f"name one source, not {len(given)}: a scheduler, --sigmas or --ays")
    if source is None and solver is None:
        raise UserError("--solver is missing; sigmas alone say when to evaluate the network, not how to step")
    if source is not None and (solver is not None or integer):
        raise UserError(f"{'--solver' if solver else '--integer'} goes with --sigmas or --ays; a scheduler has its own, see --set")
    if source is not None and nfe is None:
        raise UserError("--nfe is missing: how many network evaluations may a sample cost?")
    config = dict(map(_setting, settings or []))
    check_place(out, "imported plan", overwrite)

    from solversearch.importing import as_plan

    loaded = None if model is None else load(model)
    if source is not None:
        assert nfe is not None
        plan = as_plan(source, nfe, loaded, guidance, context.obj or "", **config)
    else:
        assert solver is not None
        plan = _of_sigmas(sigmas, ays, solver, nfe, loaded, guidance, context.obj or "", integer, config)
    plan.write(out)
    Console().print(f"wrote {out}", soft_wrap=True, highlight=False)


def _of_sigmas(
    sigmas: str | None, ays: str | None, solver: str, nfe: int | None, model: "Model | None", guidance: float, command: str,
    integer: bool, config: dict[str, Any],
) -> "Plan":  # fmt: skip
    from solversearch.importing import ays_sigmas, plan_of_sigmas, read_sigmas
    from solversearch.solvers import get

    if sigmas is not None:
        levels, grid = read_sigmas(sigmas), "given sigmas"
    else:
        levels, grid = ays_sigmas(ays or "", 10 if nfe is None else get(solver).steps(nfe)), f"ays_{ays}"
    plan = plan_of_sigmas(levels, solver, model, guidance, command, integer, grid, **config)
    if nfe is not None and plan.nfe != nfe:
        raise UserError(f"--nfe {nfe}: {solver} spends {plan.nfe} evaluations on these {len(levels)} sigmas; leave --nfe out")
    return plan


def _setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE; values are JSON where they can be read as such, else text."""
    key, found, value = text.partition("=")
    if not found or not key:
        raise UserError(f"--set {text}: write KEY=VALUE")
    try:
        return key, json.loads({"True": "true", "False": "false", "None": "null"}.get(value, value))
    except ValueError:
        return key, value
