"""`solversearch list`: what there is."""

import json
from typing import Annotated, Any

import typer

from solversearch.cli.shared import Json, stdout
from solversearch.errors import UserError, nearest


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
    stdout().print(table)


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
