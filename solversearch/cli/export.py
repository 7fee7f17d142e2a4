"""`solversearch export`: a plan for the place where it is used."""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from solversearch.cli.shared import Json, Overwrite


def export(
    plan: Annotated[Path, typer.Argument(help="A plan file, or the run folder that has it.")],
    to: Annotated[str, typer.Option(help="One of 'solversearch list exports'.")],
    out: Annotated[
        Path | None, typer.Option(help="The file or folder to write.", show_default="one that suits; sigmas are printed")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a plan for ComfyUI, k-diffusion, NumPy or stock schedulers, or print its sigmas."""
    from solversearch import export as exports
    from solversearch.plan import Plan

    exporter = exports.get(to)
    chosen = Plan.read(plan)
    if exporter.text and out is None and not as_json:
        print(exporter.text(chosen), end="")
        return
    place = out or Path(exporter.place)
    written = exporter.write(chosen, place, overwrite)
    told = exporter.notes(chosen)
    if as_json:
        print(json.dumps({"written": list(map(str, written)), "notes": told}))
        return
    inside = ", ".join(str(path.relative_to(place)) for path in written if path != place)
    print(f"Wrote {place}" + (f": {inside}" if inside else ""))
    print("Use it: " + exporter.use.format(out=shlex.quote(str(place)), name=place.stem))
    for note in told:
        print(f"Note: {note}")
