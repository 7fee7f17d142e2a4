"""`solversearch list`: what there is."""

import json
from typing import Annotated, Any

import typer

from solversearch.cli.shared import Json, stdout
from solversearch.errors import UserError, nearest

PROSE = ("description", "reference", "cost", "source")
"""Columns whose lines may be broken."""


def list_(
    what: Annotated[str, typer.Argument(help="models, solvers, grids, tables, spaces, strategies, objectives or exports.")],
    as_json: Json = False,
) -> None:
    """List what there is: models, solvers, grids, tables of noise levels, search spaces, strategies, objectives or exports."""
    listings = {
        "models": _models, "solvers": _solvers, "grids": _grids, "tables": _tables, "spaces": _spaces, "strategies": _strategies,
        "objectives": _objectives, "exports": _exports,
    }  # fmt: skip
    if what not in listings:
        raise UserError(nearest(what, list(listings), "list"))
    entries = listings[what]()
    if as_json:
        print(json.dumps(entries))
        return
    from solversearch.report.screen import Fitted

    table = Fitted(tuple(entries[0]), left=tuple(entries[0]), prose=PROSE)
    for entry in entries:
        table.add_row(*map(str, entry.values()))
    stdout().print(table)


def _models() -> list[dict[str, Any]]:
    from solversearch.models import MODELS
    from solversearch.models.aliases import ALIASES

    own = {
        "hf:REPOSITORY": ("Any other pipeline of these kinds", "the Hub"),
        "FOLDER": ("The same, as diffusers' save_pretrained writes it", "a folder"),
        "python:FILE_OR_MODULE:FACTORY": ("Your own network; see the README", "a file"),
    }
    its_own = dict.fromkeys(("pixels", "dtype", "guidance"), "its own")
    return [
        *({"name": name, "description": text, "from": "the package", "pixels": 8, "dtype": "float32", "guidance": 1.0}
          for name, text in MODELS.items()),
        *(
            {"name": name, "description": alias.text, "from": alias.repository, "pixels": alias.resolution, "dtype": alias.dtype,
             "guidance": alias.guidance}
            for name, alias in ALIASES.items()
        ),
        *({"name": name, "description": text, "from": source, **its_own} for name, (text, source) in own.items()),
    ]  # fmt: skip


def _solvers() -> list[dict[str, Any]]:
    from solversearch.solvers import SOLVERS

    return [
        {"name": solver.name, "order": solver.order, "stochastic": solver.stochastic, "reference": solver.reference}
        for solver in SOLVERS.values()
    ]


def _grids() -> list[dict[str, Any]]:
    from solversearch.schedules import FAMILIES, GRIDS

    def description(name: str) -> str:
        text = " ".join((FAMILIES.get(name.removesuffix("_tmin"), GRIDS[name]).__doc__ or "").split())
        return text + (" The last evaluation is at t_end." if name.endswith("_tmin") else "")

    return [{"name": name, "description": description(name)} for name in GRIDS]


def _tables() -> list[dict[str, Any]]:
    from solversearch.importing.tables import tables

    return [{"name": name, "description": each.description} for name, each in tables().items()]


def _spaces() -> list[dict[str, Any]]:
    from solversearch.spaces import SearchSpace, presets

    spaces = [SearchSpace.read(path) for path in presets().values()]
    return [{"name": s.name, "strategy": s.search.strategy, "objective": s.search.objective, "description": s.description} for s in spaces]


def _strategies() -> list[dict[str, Any]]:
    from solversearch.search.strategies import STRATEGIES

    own = {"name": "MODULE:CLASS", "description": "Your own; see solversearch/search/strategies/context.py.", "several objectives": True}
    listed = [{"name": name, "description": each.about, "several objectives": each.several} for name, each in STRATEGIES.items()]
    return [*listed, own]


def _objectives() -> list[dict[str, Any]]:
    from solversearch.judging.objectives import describe_objectives

    return [dict(entry) for entry in describe_objectives()]


def _exports() -> list[dict[str, Any]]:
    from solversearch.export import EXPORTERS

    return [{"name": name, "description": exporter.description} for name, exporter in EXPORTERS.items()]
