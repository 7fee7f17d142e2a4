"""Pictures of a run: samples side by side, error against cost, and the plan itself."""

from collections.abc import Mapping
from io import BytesIO
from math import atan2, ceil, log, pi, tan
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import SymLogNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from solversearch.errors import UserError
from solversearch.judging.compare import Comparison
from solversearch.plan import Plan, replacing
from solversearch.report import tables
from solversearch.report.colours import BLUE, GREY, INK, ORANGE, readable_on
from solversearch.report.plan_view import coefficients, column_names, number, start_text
from solversearch.schedules import NoiseSchedule

if TYPE_CHECKING:
    from torch import Tensor

    from solversearch.models.base import Model

COLUMNS = 16
"""Samples side by side in one line of a row."""
LINE = 60
"""Letters in a line of a row's label, which so stays in view on a narrow page."""
NUMBERS = 24
"""Columns of a table up to which its coefficients are written into the picture."""


def png(figure: Figure) -> bytes:
    """The picture as the content of a file."""
    FigureCanvasAgg(figure)
    content = BytesIO()
    figure.savefig(content, dpi=120, format="png", metadata={"Software": "solversearch"})
    return content.getvalue()


def save(figure: Figure, path: Path) -> None:
    """Writes the picture as PNG. Raises `UserError` where the place cannot be written."""
    content = png(figure)
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise UserError(f"{path}: cannot write: {error.strerror or error}; choose another place with --out") from None


def are_pictures(model: "Model") -> bool:
    """Whether samples of the model can be drawn."""
    return model.images is not None or (len(model.shape) == 3 and model.shape[0] in (1, 3))


def pictures_of(model: "Model", samples: "Tensor") -> NDArray[np.float64]:
    """Samples (B, *shape) as pictures (B, H, W[, 3]) in [0, 1]: the model's own, else [-1, 1] with one or three channels."""
    if model.images is not None:
        return np.asarray(model.images(samples).cpu(), dtype=np.float64).clip(0, 1)
    if not are_pictures(model):
        raise UserError(
            f"model {model.name!r} has samples of shape {model.shape}, which are no pictures; give it `images`, a function of samples"
        )
    values = ((samples.double().cpu().numpy() + 1) / 2).clip(0, 1)
    return values[:, 0] if model.shape[0] == 1 else values.transpose(0, 2, 3, 1)


def distances(pictures: Mapping[str, NDArray[np.float64]], reference: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Rows of absolute distances to the reference, all enlarged by one factor that makes the largest of them visible."""
    apart = {label: np.abs(images - reference) for label, images in pictures.items()}
    largest = max(float(np.quantile(each, 0.98)) for each in apart.values())
    factor = max((times for times in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if times * largest <= 1), default=1)
    return {f"{label}: {factor} x distance to the teacher": (factor * each).clip(0, 1) for label, each in apart.items()}


def samples_picture(rows: Mapping[str, NDArray[np.float64]], title: str) -> Figure:
    """One labelled row a sampler; the samples of one column begin from the same noise. Values are (n, H, W[, 3]) in [0, 1]."""
    mosaics = {label: _mosaic(images) for label, images in rows.items()}
    height, width = next(iter(mosaics.values())).shape[:2]
    inches, lines = 9.0, sum(len(wrap(label, LINE)) for label in rows)
    figure = Figure(figsize=(inches + 0.4, len(rows) * (inches * height / width + 0.18) + 0.18 * lines + 0.6), layout="constrained")
    figure.suptitle(title, fontsize=12, x=0.01, ha="left")
    for ax, (label, mosaic) in zip(figure.subplots(len(rows), 1, squeeze=False)[:, 0], mosaics.items(), strict=True):
        ax.imshow(mosaic, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        ax.set_title("\n".join(wrap(label, LINE)), loc="left", fontsize=10)
        ax.set_axis_off()
    return figure


def _mosaic(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pictures (n, H, W[, 3]) in lines of COLUMNS, with a white gap of a tenth of a picture."""
    n, h, w = images.shape[:3]
    columns, gap = min(n, COLUMNS), max(1, round(images.shape[2] / 10))
    sheet = np.ones((ceil(n / columns) * (h + gap) - gap, columns * (w + gap) - gap, *images.shape[3:]))
    for i, image in enumerate(images):
        top, left = i // columns * (h + gap), i % columns * (w + gap)
        sheet[top : top + h, left : left + w] = image
    return sheet


def comparison_picture(comparison: Comparison) -> Figure:
    """The plan against its baselines on held-out noise, all of it over the best baseline's: by cost, and in each measure."""
    figure = Figure(figsize=(11.5, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.15, 1])
    guidance = "" if comparison.guidance == 1 else f", guidance {comparison.guidance:g}"
    what = f"{comparison.model}, {_evaluations(comparison.nfe)}{start_text(comparison.start)}{guidance}"
    figure.suptitle(f"{what}: {comparison.samples:,} held-out samples", fontsize=12)
    _error_against_cost(left, comparison)
    _measures(right, comparison)
    return figure


def _evaluations(count: int) -> str:
    return f"{count} evaluation{'s' if count > 1 else ''}"


def _error_against_cost(ax: Axes, comparison: Comparison) -> None:
    plan, baselines = comparison.rows[0].endpoint_mse, [row.endpoint_mse for row in comparison.rows[1:]]
    best, nfe, ladder = baselines[0], comparison.nfe, comparison.ladder
    own = plan.mean / best.mean
    shown = [row.mean / best.mean for row in baselines if row.mean <= tables.FARTHEST * best.mean]
    ax.plot([nfe] * len(shown), shown, ".", color=GREY, alpha=0.6, markersize=5, label="other baselines that were measured in full")
    rungs = [rung.endpoint_mse / best.mean for rung in ladder]
    ax.plot([rung.nfe for rung in ladder], rungs, "o-", color=BLUE, label="best baseline")
    for value, colour in ((best, BLUE), (plan, ORANGE)):
        ax.vlines(nfe, value.low / best.mean, value.high / best.mean, color=colour, linewidth=2)
    needed = comparison.baseline_nfe_for_plan_error
    end = needed or ladder[-1].nfe
    if end > nfe:
        ax.hlines(own, nfe, end, color=ORANGE, linestyle="--", linewidth=1)
        told = f"the best baseline needs {needed}" if needed else f"not reached by any baseline up to {end}"
        ax.annotate(told, (nfe, own), xytext=(12, -6), textcoords="offset points", ha="left", va="top", color=ORANGE)
    ax.plot([nfe], [own], "*", color=ORANGE, markersize=15, label=f"plan: {number(own)} of the best baseline's")
    ax.set_yscale("log")
    low = min(max(plan.low / best.mean, own / 10), *rungs)
    high = max(*shown, best.high / best.mean, plan.high / best.mean, 1.01 * low)
    ax.set_ylim(low / (high / low) ** 0.15, high * (high / low) ** 0.05)
    ax.set_xlim(nfe - 0.6, max(end, nfe + 1) + 0.6)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    plain_log_ticks(ax.yaxis)
    ax.set(xlabel="network evaluations a sample (NFE)", title=f"Mean error by cost (1: {number(best.mean)}, {comparison.rows[1].name})")
    ax.set_ylabel(f"mean error over the best baseline's of {_evaluations(nfe)}\n({tables.LESS})")
    ax.title.set_fontsize(11)
    ax.grid(alpha=0.25)
    legend_below(ax)


def legend_below(ax: Axes, columns: int = 1) -> None:
    """Where it covers nothing."""
    ax.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=columns, frameon=False)


def plain_log_ticks(axis: Axis) -> None:
    """Ticks at 1, 2 and 5 times powers of ten, written out."""
    low, high = axis.get_view_interval()
    ticks = [m * 10.0**e for e in range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1) for m in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    if len(ticks) > 9:
        ticks = [tick for tick in ticks if abs(np.log10(tick) % 1) < 1e-9 or abs(np.log10(tick) % 1 - 1) < 1e-9]
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _measures(ax: Axes, comparison: Comparison) -> None:
    """A bar a measure; a difference is no ratio, and has none."""
    found = [each for each in comparison.ratios if not each.difference]
    values = [each.value for each in found]
    apart = [[each.value - each.low for each in found], [each.high - each.value for each in found]]
    bars = ax.barh(range(len(found)), values, 0.5, color=ORANGE, xerr=apart, error_kw={"ecolor": INK, "elinewidth": 1.2})
    ax.bar_label(bars, [tables.ratio_text(each) for each in found], padding=4, fontsize=9)
    ax.axvline(1, color=BLUE, linewidth=1.5)
    ax.set_yticks(range(len(found)), [f"{each.measure},\nover {each.baseline}" for each in found])
    ax.invert_yaxis()
    ax.set_xlim(0, max(1.1, 1.6 * max(each.high for each in found)))
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.set(xlabel=f"plan over the best baseline of the measure\n(1: the best baseline; {tables.LESS})", title="In each measure")
    ax.title.set_fontsize(11)
    ax.spines[["top", "right"]].set_visible(False)


def plan_picture(plan: Plan, schedule: NoiseSchedule) -> Figure:
    """The times on the noise schedule, and the coefficients; where these are of frequency bands, those of the result over the frequency."""
    names = column_names(plan)
    written = len(names) <= NUMBERS
    wide, high = (4.2 + 0.62 * len(names), max(4.2, 1.6 + 0.5 * len(plan.rows))) if written else (8.0, 6.0)
    bands = plan.components is not None and len(plan.components.bands) > 1
    widths = [4.6, wide, *([4.6] if bands else [])]
    figure = Figure(figsize=(sum(widths), high), layout="constrained")
    guidance = "" if plan.guidance == 1 else f", guidance {plan.guidance:g}"
    what = f"{_evaluations(plan.nfe)}{start_text(plan.start)}{guidance}"
    figure.suptitle(f"Plan for {plan.provenance.model or 'any model'}: {what}", fontsize=12)
    left, right, *rest = figure.subplots(1, len(widths), width_ratios=widths)
    _times(left, plan, schedule)
    _heat_map(figure, right, plan, names)
    for ax in rest:
        _over_frequency(ax, plan)
    return figure


def _over_frequency(ax: Axes, plan: Plan) -> None:
    """The coefficients of the last row at the bands' centres, means over the channel directions."""
    assert plan.components
    bands, row = plan.components.bands, plan.rows[-1]
    named = [("noise", row.x), *((f"D{j}", w) for j, w in enumerate(row.d)), *((f"Δ{j}", w) for j, w in enumerate(row.delta))]
    for k, (name, coefficient) in enumerate(named):
        numbers = np.broadcast_to(
            np.array(coefficient).reshape(-1, len(bands)).mean(0) if isinstance(coefficient, tuple) else coefficient, len(bands)
        )
        ax.plot(bands, numbers, marker="o", markersize=4, color=f"C{k % 10}", linestyle=("-", "--", ":")[k // 10 % 3], label=name)
    ax.set_xscale("log")
    ax.axhline(0, color="gray", linewidth=0.8)
    ax.set(xlabel="frequency, 1 is the finest pattern", ylabel="coefficient", title="Of the result, over the frequency")
    ax.grid(alpha=0.25)
    legend_below(ax, 4)


def _times(ax: Axes, plan: Plan, schedule: NoiseSchedule) -> None:
    """Half log-SNR; infinities of pure noise are drawn at -8."""
    times = np.linspace(schedule.t_start, schedule.t_end, 400)
    ax.plot(times, np.clip(schedule.lam(times), -8, 12), color=BLUE, label="noise schedule")
    lams = [max(-log(tan(min(atan2(node.sigma, node.alpha), pi / 2 - 1e-9))), -8.0) for node in plan.nodes]
    ax.plot([node.t for node in plan.nodes], lams, "o", color=ORANGE, markersize=8, label="evaluations of the plan")
    if plan.nfe <= 12:
        last: tuple[float, float] | None = None
        span = abs(schedule.t_start - schedule.t_end), max(lams) - min(lams) or 1.0
        for i, (node, lam) in enumerate(zip(plan.nodes, lams, strict=True)):
            near = last is not None and abs(node.t - last[0]) < 0.04 * span[0] and abs(lam - last[1]) < 0.06 * span[1]
            ax.annotate(
                str(i), (node.t, lam), xytext=(7, -4) if near else (-7, 4), textcoords="offset points", fontsize=9,
                ha="left" if near else "right", va="top" if near else "bottom",
            )  # fmt: skip
            last = (node.t, lam)
    ax.invert_xaxis()
    ax.set(xlabel="time t, from noise to data", ylabel="half log-SNR  λ = ln(α/σ)", title="Times")
    ax.margins(0.07)
    ax.grid(alpha=0.25)
    legend_below(ax, 2)


def _heat_map(figure: Figure, ax: Axes, plan: Plan, names: list[str]) -> None:
    """Orange is positive and purple negative; white has no coefficient."""
    values = np.array([[np.nan if value is None else value for value in row] for row in coefficients(plan)])
    limit = max(float(np.nanmax(np.abs(values))), 0.1)
    mesh = ax.imshow(values, cmap="PuOr_r", norm=SymLogNorm(0.1, vmin=-limit, vmax=limit), aspect="auto")
    if len(names) <= NUMBERS:
        for (i, j), value in np.ndenumerate(values):
            if np.isfinite(value) and value != 0:
                ink = readable_on(to_hex(tuple(mesh.to_rgba(value))))
                ax.text(j, i, f"{value:.2f}".replace("-0.00", "0.00"), ha="center", va="center", fontsize=8, color=ink)
        ax.set_xticks(range(len(names)), names)
        ax.set_yticks(range(len(plan.rows)), [*(f"input {i}" for i in range(plan.nfe)), "result"])
        if plan.nfe > 12:
            ax.tick_params(labelsize=8)
    means = f" (means of {len(plan.components)} components)" if plan.components else ""
    ax.set(title=f"Coefficients of the noise and the network's outputs{means}", xlabel="D: data predictions" + _legend(names))
    figure.colorbar(mesh, ax=ax, shrink=0.9, pad=0.02, format=FuncFormatter(lambda value, _: f"{value:g}"))


def _legend(names: list[str]) -> str:
    parts = [("Δ", "; Δ: conditional minus unconditional"), ("z", "; z: fresh noise")]
    return "".join(text for letter, text in parts if any(name.startswith(letter) for name in names))
