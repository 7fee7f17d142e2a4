"""The commands on plans: compare, sample, and `solversearch plan`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from solversearch import api
from solversearch.cli.loading import Load, loads_model
from solversearch.cli.shared import BatchSize, Json, ModelName, Overwrite, PlanFile, Samples, Seed, report, stdout, wrote
from solversearch.outputs import check_place

plan_app = typer.Typer(no_args_is_help=True, help="Looks at plan files.")


@loads_model
def compare(
    plan: PlanFile,
    model: ModelName,
    guidance: Annotated[
        float | None,
        typer.Option(help="Guidance scale; the plan's, unless it has no split guidance.", show_default="the plan's"),
    ] = None,
    samples: Samples = None,
    seed: Seed = 0,
    batch_size: BatchSize = None,
    objective: Annotated[str, typer.Option(help="What decides: one of 'solversearch list objectives', or a sum of them.")] = "endpoint",
    as_json: Json = False,
    *,
    load: Load,
) -> None:
    """Compare a plan with every published solver on every grid at the same cost, on held-out noise."""
    comparison = api.compare(
        api.read_plan(plan), model, guidance=guidance, samples=samples, seed=seed, batch_size=batch_size, objective=objective, **load.chosen
    )
    if as_json:
        print(comparison.model_dump_json())
    else:
        report(comparison)


@loads_model
def sample(
    plan: PlanFile,
    model: ModelName,
    count: Annotated[int, typer.Option(min=1, max=1024, help="Samples in each row.")] = 16,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="The picture, a PNG file.")] = Path("samples.png"),
    batch_size: BatchSize = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    *,
    load: Load,
) -> None:
    """Draw samples of the teacher, the best baseline and a plan, side by side from the same noise."""
    chosen = api.read_plan(plan)
    check_place(out, "picture", overwrite)

    from solversearch import memory
    from solversearch.judging.compatibility import check_model
    from solversearch.models.variants import of_plan
    from solversearch.report.draw import draw_samples

    loaded = load(model)
    check_model(chosen, loaded)
    loaded = of_plan(loaded, chosen)
    draw_samples(loaded, chosen, out, count, seed, batch_size or memory.batch_size(loaded))
    wrote(as_json, out)


@plan_app.command("show")
def show(path: Annotated[Path, typer.Argument(help="A plan file, or the run folder that has it.")], as_json: Json = False) -> None:
    """Show a plan: what it is, its nodes, its coefficients, its scores, where it comes from."""
    from solversearch.report.plan_view import plan_view

    plan = api.read_plan(path)
    if as_json:
        print(json.dumps(plan.content(), ensure_ascii=False))
    else:
        stdout().print(plan_view(plan))


@plan_app.command("validate")
def validate(path: Annotated[Path, typer.Argument(help="A plan file, or the run folder that has it.")], as_json: Json = False) -> None:
    """Check a plan file against every rule of the format."""
    plan = api.read_plan(path)
    if as_json:
        print(json.dumps({"file": str(path), "valid": True, "version": plan.version, "nfe": plan.nfe, "digest": plan.digest}))
    else:
        print(f"{path}: valid, version {plan.version}, {plan.nfe} evaluations, {plan.digest}")


@plan_app.command("schema")
def schema() -> None:
    """Print the JSON Schema of plan files."""
    from solversearch.plan import schema as of_plans

    print(json.dumps(of_plans(), indent=1))
