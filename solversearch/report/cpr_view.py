"""A regression over configurations for the eye."""

from solversearch.cpr import Cpr
from solversearch.report.plan_view import number
from solversearch.report.screen import Fitted


def cpr_table(fitted: Cpr) -> Fitted:
    """What the regression leaves of each configuration, and how far off it is without it."""
    low, high = fitted.guidance
    title = f"{fitted.model}: NFE {fitted.nfe[0]} .. {fitted.nfe[1]}, guidance {low:g} .. {high:g}, {fitted.kind} as polynomials"
    caption = "Root mean squares, less is better; left out: the prediction by the other configurations alone"
    names = (
        "NFE",
        "guidance",
        "error over the plan's",
        "times, residual",
        "times, left out",
        "parameters, residual",
        "parameters, left out",
    )
    table = Fitted(names, title, caption)
    for cell in fitted.cells:
        numbers = cell.residual_times, cell.left_out_times, cell.residual_parameters, cell.left_out_parameters
        table.add_row(str(cell.nfe), f"{cell.guidance:g}", "-" if cell.ratio is None else number(cell.ratio), *map(number, numbers))
    return table
