"""A study for the eye: one table a guidance scale, and a picture of error, Frechet distance and cost by method."""

from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from solversearch.report.colours import BLUE, GREEN, GREY, ORANGE, PINK
from solversearch.report.plan_view import number
from solversearch.report.screen import Fitted
from solversearch.report.tables import percent
from solversearch.studies.study import BASELINE, Study, StudyRow

MARKERS = "osD^vP*Xph<>"
COLOURS = (BLUE, ORANGE, GREEN, PINK, "#8a6200", "#2b7cab", "#000000", GREY)


def study_tables(study: Study) -> list[Fitted]:
    """Error over the least of all baselines, Frechet distance, and what the search spent, a row a method, a column an NFE."""
    return [_table(study, guidance) for guidance in study.asked.guidance]


def _table(study: Study, guidance: float) -> Fitted:
    asked = study.asked
    title = f"{asked.model}, guidance {guidance:g}: error over the least of all baselines, geometric mean; mean / median; "
    title += f"samples with less error than the {BASELINE} [Frechet distance to the teacher's]"
    caption = f"{asked.samples} held-out samples; searches of {asked.evaluations:,} network evaluations each; "
    caption += f"the {BASELINE} is the one of the least geometric mean; less is better, but for the share of samples"
    if asked.features:
        caption += f"; Frechet distances are of {asked.features} features"
    table = Fitted(("method", *(f"NFE {nfe}" for nfe in asked.nfe), "evaluations", "seconds"), title, caption)
    for method in methods(study):
        rows = [study.row(method, nfe, guidance) for nfe in asked.nfe]
        found = [row for row in rows if row]
        if found:
            mean = sum(row.evaluations for row in found) / len(found), sum(row.seconds for row in found) / len(found)
            table.add_row(method, *map(_cell, rows), f"{mean[0]:,.0f}", f"{mean[1]:.0f}")
    return table


def methods(study: Study) -> list[str]:
    """In the order of the rows, each once."""
    return list(dict.fromkeys(row.method for row in study.rows))


def _cell(row: StudyRow | None) -> str:
    if row is None:
        return "-"
    error = f"MSE {number(row.endpoint_mse.mean)}"
    if row.method != BASELINE:
        geometric, mean, median = map(number, (row.ratio_geometric.mean, row.ratio, row.ratio_median))
        error = f"{geometric}; {mean} / {median}; {percent(row.share.mean)}"
    return error + (f" [{number(row.frechet_teacher.mean)}]" if row.frechet_teacher else "")


def study_picture(study: Study) -> Figure:
    """A row a guidance scale: geometric mean error over the least of all baselines, Frechet distance, and seconds, by NFE."""
    features = any(row.frechet_teacher for row in study.rows)
    measures: list[tuple[str, Callable[[StudyRow], float | None]]] = [
        ("geometric mean error / least baseline", lambda row: row.ratio_geometric.mean)
    ]
    if features:
        measures.append(("Frechet distance", lambda row: row.frechet_teacher.mean if row.frechet_teacher else None))
    measures.append(("seconds of the search", lambda row: row.seconds or None))
    scales = study.asked.guidance
    figure = Figure(figsize=(4.3 * len(measures), 3.7 * len(scales) + 0.9), layout="constrained")
    axes = figure.subplots(len(scales), len(measures), squeeze=False)
    for line, guidance in zip(axes, scales, strict=True):
        for ax, (label, value) in zip(line, measures, strict=True):
            _panel(ax, study, guidance, label, value)
    figure.suptitle(f"{study.asked.model}: methods with {study.asked.evaluations:,} network evaluations each", fontsize=12)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=9)
    return figure


def _panel(ax: Axes, study: Study, guidance: float, label: str, value: Callable[[StudyRow], float | None]) -> None:
    for k, method in enumerate(methods(study)):
        rows = [row for nfe in study.asked.nfe if (row := study.row(method, nfe, guidance))]
        points = [(row.nfe, y) for row in rows if (y := value(row)) is not None]
        colour, line = ("#444444", "--") if method == BASELINE else (COLOURS[k % len(COLOURS)], "-")
        ax.plot(
            [x for x, _ in points], [y for _, y in points], color=colour, linestyle=line, marker=MARKERS[k % len(MARKERS)], markersize=5,
            label=method,
        )  # fmt: skip
    ax.set(
        title=f"guidance {guidance:g}: {label}",
        ylabel="less is better",
        xlabel="network evaluations (NFE)",
        yscale="log",
        xticks=study.asked.nfe,
    )
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.grid(alpha=0.25, which="both")
    ax.title.set_fontsize(10)
