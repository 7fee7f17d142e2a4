"""The command line: commands, no logic. Heavy imports stand inside the commands, so that --help answers at once."""

import json
import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console

from solversearch.errors import UserError, nearest
from solversearch.places import check_free, check_place, claim, slug

if TYPE_CHECKING:
    from solversearch.compare import Comparison
    from solversearch.plan import Plan
    from solversearch.search.optimize import Settings

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
    help="Searches the few-step sampling procedure that suits a pretrained diffusion or flow model best, and ships it as a JSON plan.",
)  # fmt: skip
plan_app = typer.Typer(no_args_is_help=True, help="Looks at plan files.")
app.add_typer(plan_app, name="plan")

ModelName = Annotated[str, typer.Option("--model", help="A model of 'solversearch list models', or python:FILE_OR_MODULE:FACTORY.")]
PlanFile = Annotated[Path, typer.Option("--plan", help="A plan file.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all noise.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Samples in one network call; changes memory and speed, never a result.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to stdout.")]
Samples = Annotated[int, typer.Option(min=128, help="Held-out samples that the comparison is made on.")]


@app.command()
def optimize(
    context: typer.Context,
    model: ModelName,
    nfe: Annotated[int, typer.Option(help="Network evaluations a sample may cost.")],
    guidance: Annotated[float, typer.Option(help="Guidance scale; 1 is none.")] = 1.0,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Run folder.", show_default="runs/<model>-nfe<NFE>-g<GUIDANCE>")] = None,
    trials: Annotated[int, typer.Option(help="Candidates that the search evaluates.")] = 60,
    strategy: Annotated[str, typer.Option(help="tpe, cmaes or random.")] = "tpe",
    space: Annotated[Path | None, typer.Option(help="The decisions to search, a YAML file.", show_default="all")] = None,
    samples: Samples = 1024,
    fit: Annotated[bool, typer.Option("--fit/--no-fit", help="Fit coefficients to the teacher in closed form.")] = True,
    search: Annotated[bool, typer.Option("--search/--no-search", help="Search times and decisions.")] = True,
    polish: Annotated[bool, typer.Option("--polish/--no-polish", help="Polish times and coefficients by gradient.")] = True,
    split: Annotated[
        bool | None,
        typer.Option("--split/--no-split", help="Coefficients for the guidance difference.", show_default="where there is guidance"),
    ] = None,
    integer: Annotated[bool, typer.Option("--integer", help="Whole timesteps only, on models that have them.")] = False,
    batch_size: BatchSize = 512,
    as_json: Json = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what the search would cost, and stop.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files of an existing run.")] = False,
) -> None:
    """Search a plan for a model and a budget, compare it with every published solver, and write a run folder."""
    asked = {
        "nfe": nfe, "guidance": guidance, "seed": seed, "trials": trials, "strategy": strategy, "samples": samples, "fit": fit,
        "search": search, "polish": polish, "split": split, "integer": integer, "batch_size": batch_size,
    }  # fmt: skip
    if space is not None:
        from solversearch.spaces import SearchSpace

        asked["space"] = SearchSpace.read(space)
    settings = _settings(asked)
    folder = out or Path("runs") / f"{slug(model)}-nfe{nfe}-g{guidance:g}"
    if not dry_run:
        check_free(folder, overwrite)

    from solversearch import models
    from solversearch.report.draw import draw_run
    from solversearch.report.progress import Display
    from solversearch.search.optimize import Interrupted, check, estimate
    from solversearch.search.optimize import optimize as run

    loaded = models.load(model)
    if dry_run:
        return _print_facts(estimate(loaded, settings), as_json)
    check(loaded, settings)
    claim(folder)
    try:
        with Display(_stderr()) as display:
            plan, comparison = run(loaded, settings, folder, context.obj or "", display)
    except Interrupted as stopped:
        _tell(str(stopped))
        raise typer.Exit(130) from None
    drawn = draw_run(loaded, plan, comparison, folder, batch_size)
    if as_json:
        print(comparison.model_dump_json())
    else:
        _report(comparison)
        _print_files(folder, drawn, model)


@app.command()
def compare(
    plan: PlanFile,
    model: ModelName,
    guidance: Annotated[
        float | None,
        typer.Option(help="Guidance scale; the plan's, unless it has no split guidance.", show_default="the plan's"),
    ] = None,
    samples: Samples = 1024,
    seed: Seed = 0,
    batch_size: BatchSize = 512,
    as_json: Json = False,
) -> None:
    """Compare a plan with every published solver on every grid at the same cost, on held-out noise."""
    chosen = _plan_at(plan, guidance)

    import time

    from solversearch import models
    from solversearch.compare import Timing
    from solversearch.compare import compare as run
    from solversearch.matching import check_model
    from solversearch.models.base import Clock
    from solversearch.report.progress import Display
    from solversearch.teacher import STEPS, teach

    loaded = models.load(model)
    check_model(chosen, loaded)
    clock, start, rounds = Clock(), time.perf_counter(), iter(range(1, 10**6))
    with Display(_stderr()) as display:
        teacher = teach(
            loaded, "held_out", samples, chosen.guidance, seed, trajectory=False, batch_size=batch_size, clock=clock,
            progress=lambda done: display("teacher", done, STEPS * 3 // 2, f"{samples} samples"),
        )  # fmt: skip
        comparison = run(
            loaded, chosen, teacher, clock, batch_size, integer=chosen.decisions.get("timesteps") == "whole",
            timing=lambda: Timing(wall_s=round(time.perf_counter() - start, 3), network_s=round(clock.seconds, 3)),
            progress=lambda note: display("comparison", next(rounds), 0, note),
        )  # fmt: skip
    if as_json:
        print(comparison.model_dump_json())
    else:
        _report(comparison)


@app.command()
def sample(
    plan: PlanFile,
    model: ModelName,
    count: Annotated[int, typer.Option(min=1, max=1024, help="Samples in each row.")] = 16,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="The picture, a PNG file.")] = Path("samples.png"),
    batch_size: BatchSize = 512,
) -> None:
    """Draw samples of the teacher, the best baseline and a plan, side by side from the same noise."""
    chosen = _plan_at(plan, None)
    check_place(out)

    from solversearch import models
    from solversearch.matching import check_model
    from solversearch.report.draw import draw_samples

    loaded = models.load(model)
    check_model(chosen, loaded)
    draw_samples(loaded, chosen, out, count, seed, batch_size)
    Console().print(f"wrote {out}", soft_wrap=True, highlight=False)


@app.command("import")
def import_(
    context: typer.Context,
    scheduler: Annotated[str, typer.Argument(help="A scheduler class of diffusers, such as DPMSolverMultistep.")],
    nfe: Annotated[int, typer.Option(min=1, max=1000, help="Network evaluations a sample costs.")],
    out: Annotated[Path, typer.Option(help="The plan file to write.")],
    model: Annotated[str | None, typer.Option(help="The model it is for; without, any of its prediction type and noise levels.")] = None,
    guidance: Annotated[float, typer.Option(help="Guidance scale; 1 is none.")] = 1.0,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of it; repeatable.")] = None,
) -> None:
    """Write a scheduler of diffusers as a plan."""
    config = dict(map(_setting, settings or []))
    check_place(out)

    from solversearch import models
    from solversearch.importing import as_plan

    loaded = None if model is None else models.load(model)
    as_plan(scheduler, nfe, loaded, guidance, context.obj or "", **config).write(out)
    Console().print(f"wrote {out}", soft_wrap=True, highlight=False)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="models, solvers or grids.")],
    as_json: Json = False,
) -> None:
    """List what there is: models, solvers or grids."""
    listings = {"models": _models, "solvers": _solvers, "grids": _grids}
    if what not in listings:
        raise UserError(nearest(what, list(listings), "list"))
    entries = listings[what]()
    if as_json:
        print(json.dumps(entries))
        return
    from rich.table import Table

    table = Table(*entries[0])
    for entry in entries:
        table.add_row(*map(str, entry.values()))
    _stdout().print(table)


@plan_app.command("show")
def show(path: Annotated[Path, typer.Argument(help="A plan file.")]) -> None:
    """Show a plan: what it is, its nodes, its coefficients, its scores, where it comes from."""
    from solversearch.plan import Plan
    from solversearch.report.tables import plan_view

    _stdout().print(plan_view(Plan.read(path)))


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


# What commands share -------------------------------------------------------------------------------------------


def _settings(asked: dict[str, Any]) -> "Settings":
    from pydantic import ValidationError

    from solversearch.plan import first_error
    from solversearch.search.optimize import STRATEGIES, Settings

    if asked["strategy"] not in STRATEGIES:
        raise UserError(nearest(asked["strategy"], list(STRATEGIES), "strategy"))
    try:
        return Settings(**asked)
    except ValidationError as error:
        option = str(error.errors()[0]["loc"][0])
        raise UserError(f"--{first_error(error).replace(option, option.replace('_', '-'), 1)}, got {asked[option]}") from None


def _setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE; values are JSON where they can be read as such, else text."""
    key, found, value = text.partition("=")
    if not found or not key:
        raise UserError(f"--set {text}: write KEY=VALUE")
    try:
        return key, json.loads({"True": "true", "False": "false", "None": "null"}.get(value, value))
    except ValueError:
        return key, value


def _plan_at(path: Path, guidance: float | None) -> "Plan":
    from solversearch.plan import Plan

    plan = Plan.read(path)
    if guidance is None:
        return plan
    from solversearch.matching import reguided

    return reguided(plan, guidance)


def _models() -> list[dict[str, Any]]:
    from importlib import import_module

    from solversearch.models import MODELS

    entries = [{"name": name, "description": _first_line(import_module(f"solversearch.models.{name}").__doc__)} for name in MODELS]
    return [*entries, {"name": "python:FILE_OR_MODULE:FACTORY", "description": "Your own network; see the README."}]


def _solvers() -> list[dict[str, Any]]:
    from solversearch.solvers import SOLVERS

    return [
        {"name": solver.name, "order": solver.order, "stochastic": solver.stochastic, "reference": solver.reference}
        for solver in SOLVERS.values()
    ]


def _grids() -> list[dict[str, Any]]:
    from solversearch.schedules import GRIDS, describe_grid

    return [{"name": name, "description": describe_grid(name)} for name in GRIDS]


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def _stdout() -> Console:
    """Tables keep their columns where the output is piped into a file."""
    console = Console()
    return console if console.is_terminal else Console(width=200)


def _stderr() -> Console:
    return Console(stderr=True, highlight=False)


def _report(comparison: "Comparison") -> None:
    from solversearch.report import tables

    console = _stdout()
    if comparison.stages:
        console.print(tables.stage_table(comparison.stages))
    console.print(tables.comparison_table(comparison))
    console.print(tables.verdict(comparison), soft_wrap=True, highlight=False)
    console.print(
        f"The teacher's own error is {tables.number(comparison.teacher_error)}; "
        f"{comparison.timing.wall_s:.0f} s, {comparison.timing.network_s:.0f} s of it in the network.",
        soft_wrap=True, highlight=False,
    )  # fmt: skip


def _print_facts(facts: dict[str, str | int | float], as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts))
        return
    for name, fact in facts.items():
        print(f"{name}: {fact:,}" if isinstance(fact, int) else f"{name}: {fact}")


def _print_files(folder: Path, drawn: list[str], model: str) -> None:
    name = shlex.quote(str(folder / "plan.json"))
    lines = [
        f"Wrote {folder}: {', '.join(['plan.json', 'comparison.json', 'journal.log', *drawn])}",
        f"Look at it: solversearch plan show {name}",
        f"Use it:     solversearch sample --plan {name} --model {shlex.quote(model)}, or in Python Plan.read({str(folder / 'plan.json')!r})"
        ".sample(denoise, noise)",
    ]
    print("\n".join(lines))


def _tell(message: str) -> None:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)


def main(arguments: list[str] | None = None) -> NoReturn:
    """The entry point: whatever the person can mend is one line on stderr and exit code 2; Ctrl-C is one line and 130."""
    given = sys.argv[1:] if arguments is None else arguments
    # ClickException, of click or of the copy that newer releases of typer carry.
    usage_error: Any = typer.BadParameter.__mro__[2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", module="solversearch")
        warnings.showwarning = _show_warning
        try:
            code = app(given or ["--help"], standalone_mode=False, obj=shlex.join(["solversearch", *given]))
            sys.stdout.flush()
        except UserError as error:
            _tell(str(error))
            code = 2
        except (KeyboardInterrupt, typer.Abort):
            _tell("interrupted")
            code = 130
        except BrokenPipeError:  # the reader of a pipe has gone
            sys.stdout = None
            code = 1
        except usage_error as error:
            _tell(error.format_message())
            code = 2
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
