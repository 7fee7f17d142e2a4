"""The course of a search: every candidate, what the predictor said of them, what the network said, and what each stage brought."""

from collections.abc import Sequence
from math import nan

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from solversearch.judging.compare import Comparison
from solversearch.report.colours import BLUE, GREEN, GREY, INK, ORANGE
from solversearch.report.pictures import legend_below, plain_log_ticks
from solversearch.report.plan_view import number
from solversearch.report.tables import FARTHEST, LESS

DASHES = ("--", ":", "-.", (0, (1, 4)))
"""Of the lines of the stages before the last."""


def search_picture(comparison: Comparison) -> Figure:
    """Raises ValueError where the comparison has no search."""
    drawn = [
        draw
        for draw, there in (
            (_candidates, comparison.progress), (_stages, comparison.stages), (_predictions, comparison.predictions),
            (_taus, comparison.predictor),
        )
        if there
    ]  # fmt: skip
    if not drawn:
        raise ValueError("the comparison has no search to draw")
    columns = min(len(drawn), 2)
    rows = -(-len(drawn) // columns)
    figure = Figure(figsize=(6 * columns, 4.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for draw, ax in zip(drawn, axes, strict=False):
        draw(ax, comparison)
    for ax in axes[len(drawn) :]:
        ax.set_axis_off()
    return figure


def _candidates(ax: Axes, comparison: Comparison) -> None:
    """Every trial by its number: on all validation samples, or on the few that it was worth; and the stages as lines."""
    trials, stages = comparison.trials, comparison.stages
    best = [nan if value is None else value for value in comparison.progress]
    last = max((trial.samples for trial in trials), default=0)
    top = _top(comparison)
    for name, whole, colour in (("on few samples", False, GREY), ("on all samples", True, BLUE)):
        points = [(i, t.value) for i, t in enumerate(trials, 1) if t.value is not None and (t.samples == last) == whole]
        _dots(ax, points, top, f"{len(points)} candidates {name}", colour, colour if whole else "none")
    if failed := [i for i, trial in enumerate(trials, 1) if trial.value is None]:
        ax.plot(
            failed, [0.02] * len(failed), "x", color=INK, markersize=5, transform=ax.get_xaxis_transform(), label=f"{len(failed)} failed"
        )
    ax.step(range(1, len(best) + 1), best, where="post", color=BLUE, linewidth=1.2, label="the best so far")
    for k, stage in enumerate(stages):
        first, final = k == 0, k == len(stages) - 1
        colour, dash = (ORANGE, "-") if final and not first else (GREEN, DASHES[min(k, len(DASHES) - 1)])
        ax.axhline(stage.reached, color=colour, linestyle=dash, linewidth=1.3, label=f"{stage.name}: {number(stage.reached)}")
    ax.set(xlabel="candidates tried", ylabel=f"{comparison.unit}\n({LESS})", title="Every candidate of the search")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    values = [
        *(trial.value for trial in trials if trial.value is not None),
        *(stage.reached for stage in stages),
        *np.array(best)[np.isfinite(best)],
    ]
    _scale(ax, values, top)
    ax.grid(alpha=0.25)
    legend_below(ax, 2)


def _top(comparison: Comparison) -> float:
    """Above it a candidate is off the scale."""
    stages = comparison.stages
    return FARTHEST * stages[0].reached if stages and stages[0].reached > 0 else np.inf


def _dots(ax: Axes, points: Sequence[tuple[float, float]], top: float, label: str, colour: str, inside: str) -> None:
    """Points above the top stand on it, as arrows."""
    for marker, there, name in (
        ("o", [p for p in points if p[1] <= top], label),
        ("^", [p for p in points if p[1] > top], "off the scale"),
    ):
        if there:
            xs, ys = [x for x, _ in there], [min(y, top) for _, y in there]
            ax.plot(xs, ys, marker, color=colour, markerfacecolor=inside, markersize=4, alpha=0.8, label=name)


def _scale(ax: Axes, values: Sequence[float], top: float, both: bool = False) -> None:
    """Logarithmic, with some room, unless there is something that has no logarithm."""
    if not values or min(values) <= 0:
        return
    low, high = min(values), min(max(values), top)
    room = max(high / low, 1.5) ** 0.06
    for axis in (ax.xaxis, ax.yaxis) if both else (ax.yaxis,):
        (ax.set_xscale if axis is ax.xaxis else ax.set_yscale)("log")
        (ax.set_xlim if axis is ax.xaxis else ax.set_ylim)(low / room, high * room)
        plain_log_ticks(axis)


def _stages(ax: Axes, comparison: Comparison) -> None:
    """A bar a stage; each keeps the best so far, by what it is chosen by."""
    stages = comparison.stages
    ax.bar_label(ax.barh(range(len(stages)), [stage.reached for stage in stages], 0.6, color=BLUE), fmt=number, padding=3, fontsize=9)
    ax.set_yticks(range(len(stages)), [f"{stage.name}\n{stage.seconds:.0f} s" for stage in stages])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.22 * max(stage.reached for stage in stages) or 1)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.set(xlabel=f"{stages[0].unit} ({LESS})", title="What each stage brought")
    ax.spines[["top", "right"]].set_visible(False)


def _predictions(ax: Axes, comparison: Comparison) -> None:
    """What was predicted of each candidate against what the network said, on as many samples as it saw last."""
    found, top = comparison.predictions, _top(comparison)
    points = [(min(each.measured, top), min(each.predicted, top)) for each in found]
    values = [value for point in points for value in point]
    ax.plot([x for x, _ in points], [y for _, y in points], "o", color=BLUE, markersize=4, alpha=0.6, label=f"{len(points)} candidates")
    ax.plot([min(values), max(values)], [min(values), max(values)], "-", color=INK, linewidth=1, label="as predicted")
    _scale(ax, values, top, both=True)
    ax.set(xlabel=f"what the network said: {comparison.unit}", ylabel="what was predicted before", title="Predicted, and true")
    ax.grid(alpha=0.25)
    legend_below(ax, 2)


def _taus(ax: Axes, comparison: Comparison) -> None:
    count = [tau.evaluated for tau in comparison.predictor]
    for label, name, colour in (("surrogate alone", "surrogate", GREEN), ("learned alone", "learned", GREY), ("both", "both", ORANGE)):
        ax.plot(count, [getattr(tau, name) for tau in comparison.predictor], color=colour, label=label, marker="o", markersize=3)
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set(xlabel="candidates evaluated", ylabel="Kendall's tau (more is better)", ylim=(-1, 1), title="How well they were ranked before")
    ax.grid(alpha=0.25)
    legend_below(ax, 3)
