"""`solversearch optimize`."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from solversearch.cli.loading import Load, loads_model
from solversearch.cli.resuming import begun
from solversearch.cli.shared import BatchSize, Json, ModelOption, Samples, Seed, report, stderr, tell
from solversearch.errors import UserError
from solversearch.outputs import check_free, slug

if TYPE_CHECKING:
    from solversearch.search.settings import Settings

_SPACES = "the space's"  # where an option is not given


@loads_model
def optimize(
    context: typer.Context,
    model: Annotated[str | None, ModelOption] = None,
    nfe: Annotated[int | None, typer.Option(help="Network evaluations a sample may cost.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale; 1 is none.", show_default="the model's")] = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Run folder.", show_default="runs/<model>-nfe<NFE>-g<GUIDANCE>")] = None,
    space: Annotated[str, typer.Option(help="The decisions to search: a preset of search_spaces, or a YAML file.")] = "default",
    strategy: Annotated[
        str | None, typer.Option(help="One of 'solversearch list strategies', or MODULE:CLASS of your own.", show_default=_SPACES)
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="One of 'solversearch list objectives', a sum such as 'endpoint + 0.1*frechet', or several with commas for a Pareto set.",
            show_default=_SPACES,
        ),
    ] = None,
    trials: Annotated[int, typer.Option(help="Candidates that the search tries.")] = 60,
    evaluations: Annotated[
        int | None, typer.Option(help="Network evaluations that fit, search and polish may spend.", show_default="no bound")
    ] = None,
    warm_start: Annotated[
        list[Path] | None, typer.Option(help="Folder of an earlier run on this model, for the predictor to learn from; repeatable.")
    ] = None,
    samples: Samples = None,
    fit_samples: Annotated[
        int | None, typer.Option(min=8, help="Samples that coefficients are fitted to.", show_default="256, fewer for large models")
    ] = None,
    validation_samples: Annotated[
        int | None, typer.Option(min=8, help="Samples that candidates are judged on.", show_default="256, fewer for large models")
    ] = None,
    instant: Annotated[
        bool | None,
        typer.Option(
            "--instant/--no-instant",
            help="Stop at the plan found on the surrogate alone, or leave that stage out.",
            show_default="the first of the stages",
        ),
    ] = None,
    fit: Annotated[
        bool | None, typer.Option("--fit/--no-fit", help="Fit coefficients to the teacher in closed form.", show_default=_SPACES)
    ] = None,
    search: Annotated[bool, typer.Option("--search/--no-search", help="Search times and decisions.")] = True,
    polish: Annotated[
        bool | None, typer.Option("--polish/--no-polish", help="Polish times and coefficients by gradient.", show_default=_SPACES)
    ] = None,
    split: Annotated[
        bool | None,
        typer.Option("--split/--no-split", help="Coefficients for the guidance difference.", show_default="where there is guidance"),
    ] = None,
    integer: Annotated[
        bool | None, typer.Option("--integer/--any-time", help="Whole timesteps only, on models that have them.", show_default=_SPACES)
    ] = None,
    undecided: Annotated[
        Literal["baseline", "plan"], typer.Option(help="What is exported where the comparison leaves open which of the two is better.")
    ] = "baseline",
    batch_size: BatchSize = None,
    as_json: Json = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what the search would cost, and stop.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files of an existing run.")] = False,
    resume: Annotated[Path | None, typer.Option(help="Go on with the run of this folder, as it was asked.", show_default=False)] = None,
    storage: Annotated[
        str | None, typer.Option(help="Database for the trials, such as postgresql://USER@HOST/NAME.", show_default="the run's journal.log")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that evaluate candidates, by Ray; they change speed, never a result.")] = 1,
    gpus_per_worker: Annotated[float, typer.Option(min=0, help="GPUs, or what share of one, that each worker takes.")] = 0.0,
    ray_address: Annotated[str | None, typer.Option(help="A Ray cluster: HOST:PORT, or auto.", show_default="one of its own")] = None,
    time_limit: Annotated[float, typer.Option(min=1, help="Seconds that a worker may take for one candidate.")] = 600.0,
    *,
    load: Load,
) -> None:
    """Search a plan for a model and a budget, compare it with every published solver, and write a run folder."""
    asked = {
        "nfe": nfe, "guidance": guidance, "seed": seed, "trials": trials, "evaluations": evaluations, "strategy": strategy,
        "objective": objective, "samples": samples, "fit_samples": fit_samples,
        "validation_samples": validation_samples, "instant": False if instant is False else None, "only_instant": instant is True,
        "fit": fit, "search": search, "polish": polish, "split": split, "integer": integer, "batch_size": batch_size,
        "undecided": undecided,
    }  # fmt: skip
    if resume is not None:
        run = begun(resume, context)
        model, settings = run.model, run.settings
    elif model is None or nfe is None:
        raise UserError("--model and --nfe are missing; or go on with a run by --resume FOLDER")
    else:
        settings = _settings(space, asked)
        if out is not None and not dry_run:
            check_free(out, overwrite)

    from solversearch import models
    from solversearch.report.draw import draw_run
    from solversearch.report.progress import Display
    from solversearch.search.estimate import estimate
    from solversearch.search.evaluating.storage import check_reachable
    from solversearch.search.evaluating.warm_start import read_records
    from solversearch.search.evaluating.workers import Fleet
    from solversearch.search.optimize import Interrupted
    from solversearch.search.optimize import optimize as search_plan
    from solversearch.search.settings import check
    from solversearch.search.strategies import predicts

    options = load.options if resume is None else run.options
    fleet = Fleet(workers, gpus_per_worker, ray_address, time_limit)
    if not dry_run:  # before the model is loaded, which may take minutes
        check_reachable(fleet, storage)
    loaded = models.load(model, options)
    if resume is None:
        if guidance is None:
            settings = settings.model_copy(update={"guidance": loaded.guidance})
        settings = settings.sized(loaded)
    folder = resume or out or Path("runs") / f"{slug(model)}-nfe{nfe}-g{settings.guidance:g}"
    if resume is None and not dry_run:
        check_free(folder, overwrite)
    if dry_run:
        return _print_facts(estimate(loaded, settings), as_json)
    check(loaded, settings)
    if warm_start and not predicts(settings.strategy):
        raise UserError(f"--warm-start: strategy {settings.strategy!r} has no predictor that could learn from it; choose --strategy s3")
    records = tuple(record for earlier in warm_start or () for record in read_records(earlier, loaded.digest))
    try:
        with Display(stderr()) as display:
            plan, comparison = search_plan(
                loaded, settings, folder, context.obj or "", display, records,
                name=model, options=options, storage=storage, resume=resume is not None,
                fleet=fleet,
            )  # fmt: skip
    except Interrupted as stopped:
        tell(str(stopped))
        raise typer.Exit(130) from None
    drawn = draw_run(loaded, plan, comparison, folder, settings.batch_size)
    if as_json:
        print(comparison.model_dump_json())
    else:
        report(comparison)
        _print_files(folder, drawn, model)


def _settings(space: str, asked: dict[str, Any]) -> "Settings":
    from pydantic import ValidationError

    from solversearch.plan import first_error
    from solversearch.search.settings import Settings
    from solversearch.spaces import SearchSpace

    try:
        return Settings.of(SearchSpace.named(space), **asked)
    except ValidationError as error:
        option = str(error.errors()[0]["loc"][0])
        raise UserError(f"--{first_error(error).replace(option, option.replace('_', '-'), 1)}, got {asked[option]}") from None


def _print_facts(facts: dict[str, str | int | float], as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts))
        return
    for name, fact in facts.items():
        print(f"{name}: {fact:,}" if isinstance(fact, int) else f"{name}: {fact}")


def _print_files(folder: Path, drawn: list[str], model: str) -> None:
    name = shlex.quote(str(folder / "plan.json"))
    optional = [each for each in ("evaluations.json", "pareto") if (folder / each).exists()]
    lines = [
        f"Wrote {folder}: {', '.join(['plan.json', 'comparison.json', 'journal.log', *optional, *drawn])}",
        f"Look at it: solversearch plan show {name}",
        f"Use it:     solversearch sample --plan {name} --model {shlex.quote(model)}, or in Python Plan.read({str(folder / 'plan.json')!r})"
        ".sample(denoise, noise)",
    ]
    print("\n".join(lines))
