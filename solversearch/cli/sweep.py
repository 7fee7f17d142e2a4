"""`solversearch sweep`: many searches."""

import json
from pathlib import Path
from typing import Annotated

import typer

from solversearch.cli.loading import Load, loads_model
from solversearch.cli.shared import Json, stderr, stdout, tell


@loads_model
def sweep(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="YAML: models, nfe, guidance, seeds, spaces, and settings of all searches.")],
    out: Annotated[Path | None, typer.Option(help="Folder; a sweep that it holds goes on.", show_default="runs/sweep-<FILE>")] = None,
    model: Annotated[list[str] | None, typer.Option(help="In the place of the file's models; repeatable.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Searches at the same time.")] = 1,
    gpus_per_worker: Annotated[float, typer.Option(min=0, help="GPUs, or what share of one, that each search takes.")] = 0.0,
    ray_address: Annotated[str | None, typer.Option(help="A Ray cluster: HOST:PORT, or auto.", show_default="one of its own")] = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Database for the trials, as for optimize.", show_default="the runs' journal.log"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what every search would cost, and stop.")] = False,
    as_json: Json = False,
    *,
    load: Load,
) -> None:
    """Search plans for many models, budgets and guidance scales; tell which are worth their cost, and regress them."""
    from solversearch.studies.sweep import SweepSpec

    asked = SweepSpec.read(file, model or ())
    asked.cells()

    from solversearch.report.progress import Display
    from solversearch.report.sweep_view import sweep_tables
    from solversearch.search.evaluating.fleet import Fleet
    from solversearch.studies.sweep_run import estimates
    from solversearch.studies.sweep_run import sweep as run

    if dry_run:
        return _print_costs(estimates(asked, load.options), as_json)
    folder = out or Path("runs") / f"sweep-{file.stem}"
    with Display(stderr()) as display:
        found = run(asked, folder, context.obj or "", Fleet(workers, gpus_per_worker, ray_address), display, load.options, storage)
    if as_json:
        print(found.model_dump_json())
    else:
        for table in sweep_tables(found):
            stdout().print(table)
        for note in found.notes:
            print(note)
        print(f"Wrote {folder}: {', '.join(['sweep.json', *found.regressions])}, a run folder of every cell, and tune for TensorBoard")
    unfinished = [row for row in found.rows if row.failure]
    if unfinished:
        tell(f"{len(unfinished)} of {len(found.rows)} cells have no plan, {unfinished[0].path}: {unfinished[0].failure}; run it again")
        raise typer.Exit(2)


def _print_costs(costs: dict[str, dict[str, str | int | float]], as_json: bool) -> None:
    seconds = {name: int(facts["estimated seconds"]) for name, facts in costs.items()}
    if as_json:
        print(json.dumps({"cells": costs, "estimated seconds": sum(seconds.values())}))
        return
    for name, each in seconds.items():
        print(f"{name}: {each:,} s, {costs[name]['samples']}")
    print(f"estimated seconds, one after the other: {sum(seconds.values()):,}, of {len(costs)} searches")
