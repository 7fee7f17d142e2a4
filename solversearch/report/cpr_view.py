"""A regression over configurations for the eye."""

from rich.table import Table

from solversearch.cpr import Cpr
from solversearch.report.plan_view import number


def cpr_table(fitted: Cpr) -> Table:
    """What the regression leaves of each configuration, and how far off it is without it."""
    low, high = fitted.guidance
    title = f"{fitted.model}: NFE {fitted.nfe[0]} .. {fitted.nfe[1]}, guidance {low:g} .. {high:g}, {fitted.kind} as polynomials"
    table = Table(title=title, caption="Root mean squares; left out: the prediction by the other configurations alone")
    for name in ("NFE", "guidance", "times, residual", "left out", "parameters, residual", "left out", "error over the plan's"):
        table.add_column(name, justify="right")
    for cell in fitted.cells:
        numbers = cell.residual_times, cell.left_out_times, cell.residual_parameters, cell.left_out_parameters
        table.add_row(str(cell.nfe), f"{cell.guidance:g}", *map(number, numbers), "-" if cell.ratio is None else number(cell.ratio))
    return table
