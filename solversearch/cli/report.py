"""`solversearch report`: a run, a study or a sweep as one HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from solversearch.cli.shared import Json, Overwrite, wrote
from solversearch.outputs import check_place


def report(
    run: Annotated[Path, typer.Argument(help="The folder of an optimize, a study or a sweep.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file to write.", show_default="report.html in the folder")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a run as one HTML page that works offline: comparison, search, plan, and how to use it."""
    if out is not None or run.is_dir():
        check_place(out or run / "report.html", "page", overwrite)

    from solversearch.report.page import write_page

    written = write_page(run, out)
    wrote(as_json, written)
