"""A sweep for the eye: one table a model and guidance scale."""

from solversearch.report.plan_view import number
from solversearch.report.screen import Fitted
from solversearch.studies.sweep import Sweep, SweepRow


def sweep_tables(sweep: Sweep) -> list[Fitted]:
    """Cells by cost; those of the Pareto front of error against network calls are marked."""
    return [_table(sweep, *group) for group in dict.fromkeys((row.model, row.guidance) for row in sweep.rows)]


def _table(sweep: Sweep, model: str, guidance: float) -> Fitted:
    caption = (
        "ratios are over the least of all baselines; less is better; * no other plan has both a smaller mean error and fewer network calls"
    )
    names = ("cell", "calls", "verdict", "geometric ratio", "mean ratio", "endpoint MSE", "Frechet, teacher", "seconds", "")
    table = Fitted(names, f"{model}, guidance {guidance:g}", caption)
    rows = [row for row in sweep.rows if (row.model, row.guidance) == (model, guidance)]
    for row in sorted(rows, key=lambda row: (row.network_calls or 0, row.endpoint_mse or 0)):
        table.add_row(*_cells(row))
    return table


def _cells(row: SweepRow) -> list[str]:
    numbers = ("-" if each is None else number(each) for each in (row.ratio_geometric, row.ratio, row.endpoint_mse, row.frechet_teacher,
                                                                  row.seconds))  # fmt: skip
    return [row.path, "-" if row.network_calls is None else f"{row.network_calls:g}", row.verdict or "-", *numbers, "*" * row.pareto]
