"""`solversearch sweep`: many searches."""

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
    from solversearch.search.evaluating.workers import Fleet
    from solversearch.studies.sweep_run import sweep as run

    folder = out or Path("runs") / f"sweep-{file.stem}"
    with Display(stderr()) as display:
        found = run(asked, folder, context.obj or "", Fleet(workers, gpus_per_worker, ray_address), display, load.options)
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
