"""The page of a sweep: every cell in a table, and which of them no other beats."""

from collections.abc import Sequence
from dataclasses import dataclass

from solversearch.report.page import charts
from solversearch.report.page.blocks import Cell as Text
from solversearch.report.page.blocks import Chart, Page, Section, Table, count, figure
from solversearch.report.tables import number


@dataclass(frozen=True)
class Cell:
    """A finished search of a sweep, in the folder path; endpoint_mse is on held-out noise, ratio over the best baseline's."""

    model: str
    space: str
    nfe: int
    guidance: float
    seed: int
    network_calls: int
    endpoint_mse: float
    ratio: float
    path: str

    @property
    def group(self) -> tuple[str, float]:
        """Errors are comparable within a model and guidance scale: the teacher is another one otherwise."""
        return self.model, self.guidance


def front(cells: Sequence[Cell]) -> list[Cell]:
    """Those that no other of their group equals in network calls with less error, or in error with fewer calls; by calls."""
    kept: list[Cell] = []
    for cell in sorted(cells, key=lambda each: (each.network_calls, each.endpoint_mse)):
        if all(cell.endpoint_mse < other.endpoint_mse for other in kept if other.group == cell.group):
            kept.append(cell)
    return kept


def sweep_page(title: str, cells: Sequence[Cell], note: str = "") -> Page:
    """note says what is still missing, where something is."""
    best = front(cells)
    least = min(cells, key=lambda cell: cell.ratio)
    verdict = (
        f"{len(cells)} searches; {len(best)} plans are beaten by no other in error and network calls. The largest gain: {least.model}, "
        f"NFE {least.nfe}, guidance {least.guidance:g}, space {least.space}, with {number(least.ratio)} of the best baseline's error."
    )
    groups = list(dict.fromkeys(cell.group for cell in cells))
    columns = ["model", "space", "NFE", "guidance", "seed", "network calls", "endpoint MSE", "of the best baseline's", "Pareto", "folder"]
    rows = [
        [Text(cell.model), Text(cell.space), count(cell.nfe), figure(cell.guidance), count(cell.seed), count(cell.network_calls),
         figure(cell.endpoint_mse), figure(cell.ratio), Text("yes" if cell in best else ""), Text(cell.path)]
        for cell in cells
    ]  # fmt: skip
    fronts = [
        Chart(f"{model}, guidance {guidance:g}: error by network calls", _front([c for c in cells if c.group == (model, guidance)]))
        for model, guidance in groups
    ]
    return Page(title, note, verdict, sections=[Section("Quality against cost", fronts), Section("All cells", [Table(columns, rows)])])


def _front(cells: Sequence[Cell]) -> charts.Figure:
    groups = {
        space: [(cell.network_calls, cell.endpoint_mse, f"NFE {cell.nfe}, seed {cell.seed}") for cell in cells if cell.space == space]
        for space in dict.fromkeys(cell.space for cell in cells)
    }
    return charts.front([(cell.network_calls, cell.endpoint_mse) for cell in front(cells)], groups)
