"""Plans, comparisons and runs in the cell of a notebook: tables and pictures, and no script."""

from pathlib import Path

from solversearch.judging.compare import Comparison
from solversearch.plan import Plan
from solversearch.report import pictures, plan_view, tables
from solversearch.report.page import files, run
from solversearch.report.page.blocks import Block, Facts, Picture
from solversearch.report.page.build import render_cell


def cell_of_plan(plan: Plan) -> str:
    return render_cell("", [Facts(plan_view.summary(plan)), *run.plan_blocks(plan)])


def cell_of_comparison(comparison: Comparison) -> str:
    return render_cell(tables.verdict(comparison), _compared(comparison))


def cell_of_run(plan: Plan, comparison: Comparison, folder: Path) -> str:
    """With the samples, where the run has drawn them."""
    uri = files.picture(folder / "samples.png")
    samples: list[Block] = [Picture("Teacher, best baseline and plan, from the same noise in every row", uri)] if uri else []
    return render_cell(tables.verdict(comparison), [*samples, *_compared(comparison), *run.plan_blocks(plan)])


def _compared(comparison: Comparison) -> list[Block]:
    picture = Picture("Error against cost", files.uri_of("image/png", pictures.png(pictures.comparison_picture(comparison))))
    return [picture, *run.comparison_blocks(comparison)]
