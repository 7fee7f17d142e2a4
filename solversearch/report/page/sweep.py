"""The page of a sweep: quality against network calls, and every cell in a table."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from solversearch.errors import UserError
from solversearch.plan import read_json
from solversearch.report.page import charts
from solversearch.report.page.blocks import Chart, Element, Facts, Note, Page, PageSection, Table, TableCell, count, figure
from solversearch.report.page.files import PAGE
from solversearch.report.plan_view import number
from solversearch.studies.sweep import NAME, Sweep, SweepRow

COLUMNS = (
    "model", "space", "NFE", "guidance", "seed", "network calls", "verdict", "geometric ratio", "mean ratio", "endpoint MSE", "median",
    "Frechet, teacher", "seconds", "Pareto", "folder",
)  # fmt: skip


def sweep_page(folder: Path, base: Path) -> Page:
    """base is the folder in which the page will lie, from which its links lead to the cells."""
    found = read_json(Sweep, folder / NAME, "sweep")
    done = [row for row in found.rows if row.endpoint_mse is not None]
    if not done:
        raise UserError(f"{folder / NAME}: no cell of the sweep has a plan yet; run it on")
    groups = dict.fromkeys((row.model, row.guidance) for row in done)
    fronts = [
        Chart(f"{model}, guidance {guidance:g}", _front([row for row in done if (row.model, row.guidance) == (model, guidance)]))
        for model, guidance in groups
    ]
    caption = "Ratios are over the least of all baselines; less is better. "
    caption += "Pareto: no other plan has both a smaller mean error and fewer network calls."
    table = Table(COLUMNS, [_cells(row, _place(folder, row.path, base)) for row in found.rows], caption)
    notes: list[Element] = [Note(note) for note in found.notes]
    failures = {row.path: row.failure for row in found.rows if row.failure}
    asked = found.asked.model_dump(mode="json")
    told = {name: json.dumps(value) if isinstance(value, dict) else ", ".join(map(str, value)) for name, value in asked.items() if value}
    return Page(
        title=f"A sweep of {len(found.rows)} searches",
        subtitle=", ".join(found.asked.models),
        verdict=_verdict(done, len(found.rows)),
        sections=[
            PageSection("Quality against cost", fronts),
            PageSection("All cells", [table, *([Facts(failures)] if failures else []), *notes]),
            PageSection("Where it comes from", [Facts(told)]),
        ],
    )


def _verdict(done: Sequence[SweepRow], count: int) -> str:
    best = min(done, key=lambda row: row.ratio_geometric or 1.0)
    left = f"{count - len(done)} of {count} cells have no plan. " if len(done) < count else ""
    return (
        f"{left}{sum(row.pareto for row in done)} plans are beaten by no other in mean error and network calls. The largest gain: "
        f"{best.model}, NFE {best.nfe}, guidance {best.guidance:g}, space {best.space}, with {number(best.ratio_geometric or 1.0)} of the "
        "least geometric mean error of all baselines."
    )


def _place(folder: Path, name: str, base: Path) -> str:
    """Where the page of a cell lies, else its folder; nothing where that is none of the sweep's own."""
    cell = folder / name
    if Path(name).name != name or not cell.is_dir():
        return ""
    page = cell / PAGE
    return quote(Path(os.path.relpath(page if page.is_file() else cell, base)).as_posix() + "/" * (not page.is_file()))


def _cells(row: SweepRow, place: str) -> list[TableCell]:
    calls = figure(row.network_calls)
    return [
        TableCell(row.model), TableCell(row.space), count(row.nfe), figure(row.guidance), count(row.seed), calls,
        TableCell(row.verdict or "–"), figure(row.ratio_geometric), figure(row.ratio), figure(row.endpoint_mse),
        figure(row.endpoint_median), figure(row.frechet_teacher),
        figure(row.seconds), TableCell("yes" if row.pareto else ""), TableCell(row.path, place=place),
    ]  # fmt: skip


def _front(rows: Sequence[SweepRow]) -> charts.Figure:
    """Points by space, and the line through those that no other beats."""

    def point(row: SweepRow) -> tuple[float, float]:
        return row.network_calls or 0, row.endpoint_mse or 0.0

    groups = {
        space: [(*point(row), f"NFE {row.nfe}, seed {row.seed}") for row in rows if row.space == space]
        for space in dict.fromkeys(row.space for row in rows)
    }
    return charts.front(sorted(point(row) for row in rows if row.pareto), groups)
