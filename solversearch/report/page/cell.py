"""Plans, comparisons and runs in the cell of a notebook: tables and pictures, and no script."""

from functools import singledispatch

from solversearch.api import Result
from solversearch.judging.compare import Comparison
from solversearch.plan import Plan
from solversearch.report import pictures, plan_view, tables
from solversearch.report.page import files, run
from solversearch.report.page.blocks import Element, Facts, Picture
from solversearch.report.page.build import render_cell


@singledispatch
def cell_of(shown: Plan | Comparison | Result) -> str:
    """The HTML of what a notebook shows."""
    raise TypeError(f"nothing is known to show of a {type(shown).__name__}")


@cell_of.register
def _plan(plan: Plan) -> str:
    return render_cell("", [Facts(plan_view.summary(plan)), *run.plan_blocks(plan)])


@cell_of.register
def _comparison(comparison: Comparison) -> str:
    return render_cell(tables.verdict(comparison), _compared(comparison))


@cell_of.register
def _result(result: Result) -> str:
    """With the samples, where the run has drawn them."""
    uri = files.picture(result.folder / "samples.png")
    samples: list[Element] = [Picture("Teacher, best baseline and plan, from the same noise in every row", uri)] if uri else []
    return render_cell(tables.verdict(result.comparison), [*samples, *_compared(result.comparison), *run.plan_blocks(result.plan)])


def _compared(comparison: Comparison) -> list[Element]:
    picture = Picture("Error against cost", files.uri_of("image/png", pictures.png(pictures.comparison_picture(comparison))))
    return [picture, *run.comparison_blocks(comparison)]
