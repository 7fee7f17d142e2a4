"""`solversearch list`: what there is."""

import json
from typing import Annotated, Any

import typer

from solversearch.cli.shared import Json, stdout
from solversearch.errors import UserError, nearest

PROSE = ("description", "reference", "cost", "source")
"""Columns whose lines may be broken."""
WIDE = 140
"""Columns of a screen that has room for the models' repositories and precisions; a narrow one shows what else there is in one table."""


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

    if what == "models":
        entries = [
            entry | {"pixels": f"{entry['pixels']}x{entry['frames']}" if entry["frames"] not in (1, "its own") else entry["pixels"]}
            for entry in entries
        ]
        left_out = ("frames",) if stdout().width >= WIDE else ("frames", "dtype", "from")
        entries = [{name: value for name, value in entry.items() if name not in left_out} for entry in entries]
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
        "FILE.safetensors": ("A checkpoint, such as of Stable Diffusion or Flux", "a file"),
        "python:FILE:FACTORY": ("Your own network; see the README", "a file or a module"),
    }
    its_own = dict.fromkeys(("pixels", "guidance", "dtype", "frames"), "its own")
    return [
        *({"name": name, "description": text, "pixels": 8, "guidance": 1.0, "dtype": "float32", "from": "the package", "frames": 1}
          for name, text in MODELS.items()),
        *({"name": name, "description": alias.text, "pixels": alias.resolution, "guidance": alias.guidance, "dtype": alias.dtype,
           "from": alias.repository, "frames": alias.frames or 1} for name, alias in ALIASES.items()),
        *({"name": name, "description": text, **its_own, "from": source} for name, (text, source) in own.items()),
    ]  # fmt: skip


def _solvers() -> list[dict[str, Any]]:
    from solversearch.solvers import SOLVERS

    return [
        {"name": solver.name, "order": solver.order, "stochastic": solver.stochastic, "reference": solver.reference}
        for solver in SOLVERS.values()
    ]


def _grids() -> list[dict[str, Any]]:
    from solversearch.grids import FAMILIES, GRIDS

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
