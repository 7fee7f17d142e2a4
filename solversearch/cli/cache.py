"""`solversearch cache`: what is kept between runs."""

import json
from datetime import datetime
from typing import Annotated, Any

import typer

from solversearch.cli.shared import Json, stdout
from solversearch.errors import UserError


def cache(
    limit: Annotated[
        float | None, typer.Option(min=0, help="GiB that teachers may take now; those used least lately go.", show_default=False)
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove everything that is kept.")] = False,
    as_json: Json = False,
) -> None:
    """Show what is kept between runs; bound it, or empty it."""
    if clear and limit is not None:
        raise UserError("--limit and --clear: choose one of them")

    from solversearch.cache import GIB, KINDS, cache_folder, evict, kept, remove
    from solversearch.report.screen import Fitted

    gone = remove(kept()) if clear else evict(limit * GIB) if limit is not None else []
    there = kept()
    rows: list[dict[str, Any]] = []
    for kind in KINDS:
        files = [each for each in there if each.kind == kind]
        oldest = datetime.fromtimestamp(files[0].used).isoformat(" ", "seconds") if files else None
        rows.append({"kind": kind, "files": len(files), "bytes": sum(each.size for each in files), "oldest": oldest})
    removed = {"files": len(gone), "bytes": sum(each.size for each in gone)}
    if as_json:
        print(json.dumps({"folder": str(cache_folder()), "kept": rows, "removed": removed}))
        return
    table = Fitted(("kind", "files", "MiB", "oldest use"))
    for row in rows:
        table.add_row(row["kind"], f"{row['files']:,}", f"{row['bytes'] / 2**20:,.1f}", row["oldest"] or "-")
    stdout().print(table)
    what = f"; removed {removed['files']} files, {removed['bytes'] / 2**20:,.1f} MiB" if clear or limit is not None else ""
    print(f"in {cache_folder()}{what}")
