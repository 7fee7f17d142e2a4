"""`solversearch optimize`."""

import json
import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from solversearch import api
from solversearch.cli.loading import loads_model
from solversearch.cli.shared import ADVANCED, HOW_LONG, STAGES, WHERE, BatchSize, Json, ModelOption, Samples, Seed, report, say

_SPACES, _SAMPLES = "the space's", "256, fewer for large models"  # where an option is not given


@loads_model
def optimize(
    context: typer.Context,
    model: Annotated[str | None, ModelOption] = None,
    nfe: Annotated[int | None, typer.Option(metavar="N", help="Network evaluations a sample may cost.")] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="CALLS",
            help="In place of --nfe: network time a sample may cost, in calls of the model's network. Some evaluations may then be "
            "cheaper: of variants of the network, or reusing features or guidance differences.",
        ),
    ] = None,
    guidance: Annotated[float | None, typer.Option(metavar="W", help="Guidance scale; 1 is none.", show_default="the model's")] = None,
    start: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Share of the model's times that sampling goes through: below 1 it starts from noised pictures, as img2img of that "
            "strength in diffusers, or denoise in ComfyUI.",
        ),
    ] = 1.0,
    space: Annotated[
        str, typer.Option(metavar="SPACE", help="The decisions to search: a preset of search_spaces, or a YAML file.")
    ] = "default",
    strategy: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="One of 'solversearch list strategies', or MODULE:CLASS of your own.", show_default=_SPACES),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="One of 'solversearch list objectives', a sum such as 'endpoint + 0.1*frechet', or several with commas for a Pareto set.",
            show_default=_SPACES,
        ),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what the search would cost, and stop.")] = False,
    trials: Annotated[
        int | None,
        typer.Option(metavar="N", help="Candidates that a search tries; 0 is none.", show_default=_SPACES, rich_help_panel=HOW_LONG),
    ] = None,
    evaluations: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Network evaluations that fit, search and polish may spend.",
            show_default="by --hours",
            rich_help_panel=HOW_LONG,
        ),
    ] = None,
    hours: Annotated[
        float | None,
        typer.Option(
            metavar="H", help="What all may take at the measured speed of the network.", show_default="1", rich_help_panel=HOW_LONG
        ),
    ] = None,
    samples: Samples = None,
    fit_samples: Annotated[
        int | None,
        typer.Option(min=8, metavar="N", help="Samples that coefficients are fitted to.", show_default=_SAMPLES, rich_help_panel=HOW_LONG),
    ] = None,
    validation_samples: Annotated[
        int | None,
        typer.Option(min=8, metavar="N", help="Samples that candidates are judged on.", show_default=_SAMPLES, rich_help_panel=HOW_LONG),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Run folder.", show_default="in runs, by model, NFE and guidance", rich_help_panel=WHERE),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the files of an existing run.", rich_help_panel=WHERE)] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Go on with the run of this folder, as it was asked.", show_default=False, rich_help_panel=WHERE
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Database for the trials, such as postgresql://USER@HOST/NAME.",
            show_default="the run's journal.log",
            rich_help_panel=WHERE,
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Processes that evaluate candidates, by Ray; they change speed, never a result.",
            rich_help_panel=WHERE,
        ),
    ] = 1,
    gpus_per_worker: Annotated[
        float, typer.Option(min=0, metavar="X", help="GPUs, or what share of one, that each worker takes.", rich_help_panel=WHERE)
    ] = 0.0,
    ray_address: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A Ray cluster: HOST:PORT, or auto.", show_default="one of its own", rich_help_panel=WHERE),
    ] = None,
    time_limit: Annotated[
        float, typer.Option(min=1, metavar="S", help="Seconds that a worker may take for one candidate.", rich_help_panel=WHERE)
    ] = 600.0,
    warm_start: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER",
            help="An earlier run on this model, for the predictor to learn from; repeatable.",
            rich_help_panel=ADVANCED,
        ),
    ] = None,
    undecided: Annotated[
        Literal["baseline", "plan"],
        typer.Option(
            metavar="WHICH",
            help="What is exported, baseline or plan, where the comparison leaves open which of the two is better.",
            rich_help_panel=ADVANCED,
        ),
    ] = "baseline",
    batch_size: BatchSize = None,
    instant: Annotated[
        bool | None,
        typer.Option(
            "--instant/--no-instant",
            help="Stop at the plan found on the surrogate alone, or leave that stage out.",
            show_default="the first of the stages",
            rich_help_panel=STAGES,
        ),
    ] = None,
    fit: Annotated[
        bool | None,
        typer.Option(
            "--fit/--no-fit", help="Fit coefficients to the teacher in closed form.", show_default=_SPACES, rich_help_panel=STAGES
        ),
    ] = None,
    search: Annotated[bool, typer.Option("--search/--no-search", help="Search times and decisions.", rich_help_panel=STAGES)] = True,
    polish: Annotated[
        bool | None,
        typer.Option(
            "--polish/--no-polish", help="Polish times and coefficients by gradient.", show_default=_SPACES, rich_help_panel=STAGES
        ),
    ] = None,
    split: Annotated[
        bool | None,
        typer.Option(
            "--split/--no-split",
            help="Coefficients for the guidance difference.",
            show_default="where there is guidance",
            rich_help_panel=STAGES,
        ),
    ] = None,
    integer: Annotated[
        bool | None,
        typer.Option(
            "--integer/--any-time",
            help="Whole timesteps only, on models that have them.",
            show_default=_SPACES,
            rich_help_panel=STAGES,
        ),
    ] = None,
) -> None:
    """Search a plan for a model and a budget, compare it with every published solver, and write a run folder."""
    given = {name: value for name, value in context.params.items() if _said(context, name) and name not in ("model", "as_json", "dry_run")}
    if dry_run:
        return _print_facts(api.estimate(model, **given), as_json)
    result = api.optimize(model, runs="runs", command=context.obj or "", **given)
    if as_json:
        print(result.comparison.model_dump_json())
    else:
        report(result.comparison)
        _print_files(result)


def _said(context: typer.Context, name: str) -> bool:
    """Whether the person gave the option."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _print_facts(facts: dict[str, str | int | float], as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts))
        return
    for name, fact in facts.items():
        say(f"{name}: {fact:,}" if isinstance(fact, int) else f"{name}: {fact}")


def _print_files(result: api.Result) -> None:
    from solversearch.report.page.recipes import beside_noise

    folder, model = result.folder, result.model
    name = shlex.quote(str(folder / "plan.json"))
    order = ("evaluations.json", "pareto", "comparison.png", "plan.png", "search.png", "samples.png")
    optional = [each for each in order if (folder / each).exists()]
    lines = [
        f"Wrote {folder}: {', '.join(['plan.json', 'comparison.json', 'journal.log', *optional])}",
        f"Look at it: solversearch plan show {name}",
        f"Use it:     solversearch sample --plan {name} --model {shlex.quote(model)}, or in Python Plan.read({str(folder / 'plan.json')!r})"
        f".sample(denoise, noise{beside_noise(result.plan)})",
    ]
    print("\n".join(lines))
