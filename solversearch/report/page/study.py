"""The page of a study: methods against each other."""

from collections.abc import Callable
from pathlib import Path

from solversearch.errors import UserError
from solversearch.plan import read_json
from solversearch.report.page import charts
from solversearch.report.page.blocks import Chart, Element, Facts, Page, PageSection, Table, TableCell, count, figure, interval
from solversearch.report.plan_view import number
from solversearch.report.study_view import methods
from solversearch.report.tables import percent
from solversearch.studies.study import BASELINE, Study, StudyRow

MEASURES: dict[str, Callable[[StudyRow], float | None]] = {
    "Geometric mean error, of the least of all baselines": lambda row: row.ratio_geometric.mean,
    "Mean error, of the least of all baselines": lambda row: row.ratio,
    "Median error, of the least of all baselines": lambda row: row.ratio_median,
    "Frechet distance to the teacher": lambda row: row.frechet_teacher.mean if row.frechet_teacher else None,
    "Seconds of the search": lambda row: row.seconds or None,
}


def study_page(folder: Path) -> Page:
    found = read_json(Study, folder / "study.json", "study")
    if not found.rows:
        raise UserError(f"{folder / 'study.json'}: the study has no rows yet; run it on")
    asked = found.asked
    sections = [PageSection(f"Guidance {guidance:g}", _scale(found, guidance)) for guidance in asked.guidance]
    facts = {
        "model": asked.model, "weights": asked.model_digest[:64], "network evaluations of each search": f"{asked.evaluations:,}",
        "held-out samples": f"{asked.samples:,}", "seed": str(asked.seed),
    }  # fmt: skip
    if asked.features:
        facts["Frechet distances"] = f"of {asked.features} features"
    return Page(
        title=f"{asked.model}: {len(asked.methods)} methods compared",
        subtitle=f"{asked.evaluations:,} network evaluations each, {asked.samples:,} held-out samples",
        verdict=_verdict(found),
        sections=[*sections, PageSection("Where it comes from", [Facts(facts)])],
    )


def _verdict(study: Study) -> str:
    """The best method of every cell, counted."""
    cells = [
        [row for row in study.rows if (row.nfe, row.guidance) == (nfe, guidance)]
        for nfe in study.asked.nfe for guidance in study.asked.guidance
    ]  # fmt: skip
    best = [min(rows, key=lambda row: row.ratio_geometric.mean) for rows in cells if rows]
    wins = {name: sum(row.method == name for row in best) for name in dict.fromkeys(row.method for row in best)}
    told = ", ".join(f"{name} {count} of {len(best)}" for name, count in sorted(wins.items(), key=lambda pair: -pair[1]))
    least = number(min(row.ratio_geometric.mean for row in best))
    return f"Least geometric mean error in each cell: {told}. The best is {least} of the least of all baselines in its cell."


def _scale(study: Study, guidance: float) -> list[Element]:
    rows = [row for row in study.rows if row.guidance == guidance]
    blocks: list[Element] = []
    for title, measure in MEASURES.items():
        lines = {
            name: sorted((row.nfe, value) for row in rows if row.method == name and (value := measure(row)) is not None and value > 0)
            for name in methods(study)
        }
        if any(lines.values()):
            blocks.append(Chart(title, charts.by_nfe(lines, title, BASELINE)))
    columns = [
        "method",
        "NFE",
        "geometric ratio",
        "mean ratio",
        "median ratio",
        "share",
        "endpoint MSE",
        "Frechet, teacher",
        "network calls",
        "evaluations",
        "seconds",
    ]
    cells = [
        [TableCell(row.method), count(row.nfe), interval(row.ratio_geometric), figure(row.ratio), figure(row.ratio_median),
         TableCell(percent(row.share.mean), row.share.mean), interval(row.endpoint_mse), interval(row.frechet_teacher),
         count(row.network_calls), count(row.evaluations), TableCell(f"{row.seconds:.0f}", row.seconds)]
        for row in rows
    ]  # fmt: skip
    caption = (
        "Ratios are over the least of all baselines in the same measure; share is that of the samples with less error than the "
        f"{BASELINE}, the one of the least geometric mean. Less is better, but for the share. Brackets are 95 % intervals."
    )
    return [*blocks, Table(columns, cells, caption)]
