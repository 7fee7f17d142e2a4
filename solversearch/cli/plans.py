"""The commands on plans: compare, sample, and `solversearch plan`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from solversearch.cli.loading import Load, loads_model
from solversearch.cli.shared import BatchSize, Json, ModelName, Overwrite, PlanFile, Samples, Seed, report, stderr, stdout
from solversearch.outputs import check_place

if TYPE_CHECKING:
    from solversearch.plan import Plan

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
    chosen = _plan_at(plan, guidance)

    import time

    from solversearch.judging.compare import Timing
    from solversearch.judging.compare import compare as run
    from solversearch.judging.compatibility import check_model
    from solversearch.judging.objectives import parse_many
    from solversearch.models.base import Clock
    from solversearch.report.progress import Display
    from solversearch.search.settings import Settings
    from solversearch.spaces import SearchSpace
    from solversearch.teacher import STEPS, teach

    loaded = load(model)
    decider = parse_many(objective)[0]
    decider.check(loaded)
    check_model(chosen, loaded)
    sized = Settings.of(SearchSpace(), nfe=chosen.nfe, samples=samples, batch_size=batch_size).sized(loaded)
    clock, start, rounds = Clock(), time.perf_counter(), iter(range(1, 10**6))
    with Display(stderr()) as display:
        teacher = teach(
            loaded, "held_out", sized.samples, chosen.guidance, seed, "trajectory" in decider.needs,
            batch_size=sized.batch_size, clock=clock,
            progress=lambda done: display("teacher", done, STEPS * 3 // 2, f"{sized.samples} samples"),
        )  # fmt: skip
        comparison = run(
            loaded, chosen, teacher, clock, sized.batch_size, integer=chosen.decisions.get("timesteps") == "whole",
            timing=lambda: Timing(wall_s=round(time.perf_counter() - start, 3), network_s=round(clock.seconds, 3)),
            progress=lambda note: display("comparison", next(rounds), 0, note), objective=objective,
        )  # fmt: skip
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
    *,
    load: Load,
) -> None:
    """Draw samples of the teacher, the best baseline and a plan, side by side from the same noise."""
    chosen = _plan_at(plan, None)
    check_place(out, "picture", overwrite)

    from solversearch import memory
    from solversearch.judging.compatibility import check_model
    from solversearch.report.draw import draw_samples

    loaded = load(model)
    check_model(chosen, loaded)
    draw_samples(loaded, chosen, out, count, seed, batch_size or memory.batch_size(loaded))
    Console().print(f"wrote {out}", soft_wrap=True, highlight=False)


@plan_app.command("show")
def show(path: Annotated[Path, typer.Argument(help="A plan file.")]) -> None:
    """Show a plan: what it is, its nodes, its coefficients, its scores, where it comes from."""
    from solversearch.plan import Plan
    from solversearch.report.tables import plan_view

    stdout().print(plan_view(Plan.read(path)))


@plan_app.command("validate")
def validate(path: Annotated[Path, typer.Argument(help="A plan file.")]) -> None:
    """Check a plan file against every rule of the format."""
    from solversearch.plan import Plan

    plan = Plan.read(path)
    print(f"{path}: valid, version {plan.version}, {plan.nfe} evaluations, {plan.digest}")


@plan_app.command("schema")
def schema() -> None:
    """Print the JSON Schema of plan files."""
    from solversearch.plan import schema as of_plans

    print(json.dumps(of_plans(), indent=1))


def _plan_at(path: Path, guidance: float | None) -> "Plan":
    from solversearch.plan import Plan

    plan = Plan.read(path)
    if guidance is None:
        return plan
    from solversearch.judging.compatibility import reguided

    return reguided(plan, guidance)
