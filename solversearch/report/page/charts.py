"""The charts of a page, as plotly reads them (https://plotly.com/javascript/reference).

Names come from files: plotly takes a few HTML tags in them for its own, so they are escaped (`told`).
"""

import html
from collections.abc import Mapping, Sequence
from math import inf, log
from textwrap import wrap
from typing import Any, TypeVar

from solversearch.judging.compare import Comparison, ParetoPoint, StageResult, Tau
from solversearch.plan import Plan
from solversearch.report.colours import BLUE, GREEN, GREY, GRID, INK, ORANGE, PINK
from solversearch.report.plan_view import number
from solversearch.report.tables import FARTHEST, LESS
from solversearch.runtime import Node

Figure = dict[str, Any]
Axis = dict[str, Any] | None
Item = TypeVar("Item")

FONT = "system-ui, -apple-system, Segoe UI, Roboto, Helvetica Neue, sans-serif"
COLOURS = (BLUE, GREEN, PINK, ORANGE)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "star", "triangle-down", "cross", "pentagon", "hexagon")
SHOWN = 12
"""Parameters in the chart of importances."""
MARKED = 200
"""Points of a line up to which each has a marker: more lie on each other, and are slow to draw."""
DRAWN = 1000
"""Candidates in a chart; the picture of the search has all."""
NOISE, DATA = -8.0, 12.0
"""Half log-SNR beyond which a schedule is not drawn: it is infinite at pure noise, and at clean data."""


def told(name: str) -> str:
    return html.escape(name)


def less(name: str) -> str:
    """The title of an axis whose low end is the good one."""
    return f"{name}<br>({LESS})"


def chart(*traces: Any, x: str, y: str, height: int = 360, xaxis: Axis = None, yaxis: Axis = None, **layout: Any) -> Figure:
    """A figure in the style of the page, which gives it its width and, on a dark one, its colours."""
    axis = {"gridcolor": GRID, "linecolor": GREY, "zerolinecolor": GREY, "ticks": "outside", "tickcolor": GREY, "automargin": True}
    clear = "rgba(0,0,0,0)"
    return {
        "data": traces,
        "layout": {
            "paper_bgcolor": clear,
            "plot_bgcolor": clear,
            "font": {"color": INK, "size": 13, "family": FONT},
            "height": height,
            "margin": {"l": 56, "r": 12, "t": 8, "b": 48},
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "xanchor": "left"},
            "hoverlabel": {"font": {"color": "#ffffff"}, "bgcolor": "#30363d"},
            "hovermode": "closest",
            "dragmode": False,
            "xaxis": {**axis, "title": {"text": x, "font": {"size": 13}}, **(xaxis or {})},
            "yaxis": {**axis, "title": {"text": y, "font": {"size": 13}}, **(yaxis or {})},
            **layout,
        },
    }


def line(name: str, points: Sequence[tuple[float, float | None]], colour: str, hover: str = "", **more: Any) -> dict[str, Any]:
    """Points with a line through them, told under the pointer where hover says how; more overrides the rest."""
    told = {"hovertemplate": hover + "<extra></extra>"} if hover else {"hoverinfo": "skip"}
    return {
        "type": "scatter", "mode": "lines+markers", "name": name, "x": [x for x, _ in points], "y": [y for _, y in points],
        "line": {"color": colour}, "marker": {"color": colour, "size": 8}, **told, **more,
    }  # fmt: skip


def bars(name: str, values: Mapping[str, float], colour: str, **more: Any) -> dict[str, Any]:
    """Lying bars; long names go over several lines, so that a narrow page has room for the bars."""
    names = ["<br>".join(map(told, wrap(name, 24))) for name in values]
    return {
        "type": "bar", "orientation": "h", "name": name, "y": names, "x": list(values.values()),
        "marker": {"color": colour}, "hovertemplate": "%{y}: %{x:.3g}<extra></extra>", **more,
    }  # fmt: skip


def logarithmic(values: Sequence[float]) -> dict[str, Any]:
    """An axis with ticks at 1, 2 and 5 times powers of ten, at these alone where there would be many; linear where there would be few."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = min(positive), max(positive)
    if high < 5 * low:
        return {"tickformat": "~g", "nticks": 6} | ({"range": [0, 2 * high]} if high < 1.001 * low else {})
    return {"type": "log", "tickformat": "~g", "dtick": "D2" if high < 500 * low else 1}


def error_by_nfe(comparison: Comparison) -> Figure:
    """The ladder of best baselines against the plan, with the other baselines at the plan's cost."""
    plan, best = comparison.rows[0], comparison.rows[1]
    ladder, own = comparison.ladder, plan.endpoint_mse
    others = [row for row in comparison.rows[2:] if row.endpoint_mse.mean <= FARTHEST * best.endpoint_mse.mean]
    end = comparison.baseline_nfe_for_plan_error or (ladder[-1].nfe if ladder else comparison.nfe)
    named = "NFE %{x}: %{text}<br>%{y:.3g}"
    traces = [
        line("other baselines, measured in full", [(row.nfe, row.endpoint_mse.mean) for row in others], GREY, named,
             text=[told(row.name) for row in others], mode="markers", marker={"color": GREY, "size": 6, "opacity": 0.6}),
        line("best baseline", [(rung.nfe, rung.endpoint_mse) for rung in ladder], BLUE, named, text=[told(rung.name) for rung in ladder]),
        line("", [(comparison.nfe, own.mean), (end, own.mean)], ORANGE, mode="lines", line={"color": ORANGE, "dash": "dot"},
             showlegend=False),
        line("plan", [(comparison.nfe, own.mean)], ORANGE, "plan, NFE %{x}<br>%{y:.3g}", mode="markers",
             marker={"color": ORANGE, "size": 15, "symbol": "star"},
             error_y={"type": "data", "symmetric": False, "array": [own.high - own.mean], "arrayminus": [own.mean - own.low],
                      "color": ORANGE, "thickness": 1.5}),
    ]  # fmt: skip
    shown = [own.mean, *(row.endpoint_mse.mean for row in others), *(rung.endpoint_mse for rung in ladder)]
    whole = {"dtick": max(1, (end - comparison.nfe) // 8), "range": [comparison.nfe - 0.6, max(end, comparison.nfe + 1) + 0.6]}
    return chart(
        *traces, x="network evaluations a sample (NFE)", y=less("mean endpoint MSE to the teacher"), xaxis=whole, yaxis=logarithmic(shown)
    )


def stages(stages: Sequence[StageResult]) -> Figure:
    """What each stage brought, in the unit in which its best was chosen."""
    values = {stage.name: stage.reached for stage in stages}
    return chart(
        bars("", values, BLUE, text=list(map(number, values.values())), textposition="outside", cliponaxis=False), x=less(stages[0].unit),
        y="", height=120 + 62 * len(stages), bargap=0.25,
        xaxis={"range": [0, 1.25 * max(values.values()) or 1], "nticks": 5}, yaxis={"autorange": "reversed", "showgrid": False},
    )  # fmt: skip


def progress(comparison: Comparison) -> Figure:
    """Every candidate's value by its number, where there are not too many, and the best so far."""
    best, stages = comparison.progress, comparison.stages
    last = max((trial.samples for trial in comparison.trials), default=0)
    top = FARTHEST * stages[0].reached if stages and stages[0].reached > 0 else inf
    kinds = [("on few samples", False, GREY, "circle-open"), ("on all samples", True, BLUE, "circle")]
    traces = [
        line(f"candidates {name}", points, colour, "candidate %{x}: %{y:.3g}", mode="markers",
             marker={"color": colour, "symbol": symbol, "size": 5})
        for name, whole, colour, symbol in kinds
        if (points := some([(i, rounded(t.value)) for i, t in enumerate(comparison.trials, 1)
                            if t.value is not None and t.value <= top and (t.samples == last) == whole]))
    ]  # fmt: skip
    best_line = {"color": BLUE, "shape": "hv"}
    traces.append(line("the best so far", steps(best), BLUE, "candidate %{x}<br>best %{y:.3g}", mode="lines", line=best_line))
    for stage, colour in [(stages[0], GREEN), (stages[-1], ORANGE)][: len(stages)]:
        level = [(1, stage.reached), (len(best), stage.reached)]
        traces.append(line(told(stage.name), level, colour, mode="lines", line={"color": colour, "dash": "dash"}))
    values = [y for trace in traces for y in trace["y"] if y is not None]
    return chart(*traces, x="candidates tried", y=less(comparison.unit), height=420, yaxis=logarithmic(values))


def predictions(comparison: Comparison) -> Figure:
    """What was predicted of candidates against what the network said."""
    points = some([(rounded(each.measured), rounded(each.predicted)) for each in comparison.predictions])
    ends = min(map(min, points)), max(map(max, points))
    traces = [
        line("candidates", points, BLUE, "predicted %{y:.3g}<br>true %{x:.3g}", mode="markers", marker={"color": BLUE, "size": 5}),
        line("as predicted", [(end, end) for end in ends], GREY, mode="lines"),
    ]
    axis = logarithmic(ends)
    x = f"what the network said:<br>{comparison.unit}"
    return chart(*traces, x=x, y="what was predicted before", height=420, xaxis=axis, yaxis=dict(axis))


def some(points: Sequence[Item]) -> Sequence[Item]:
    """At most `DRAWN`, evenly spread over the order: a page does not grow with the search."""
    return [points[k * len(points) // DRAWN] for k in range(DRAWN)] if len(points) > DRAWN else points


def rounded(value: float) -> float:
    return float(number(value))


def steps(best: Sequence[float | None]) -> list[tuple[int, float | None]]:
    """Of a curve of steps, by number from 1: where it changes, and its end. The curve through these is the same."""
    return [(k + 1, value) for k, value in enumerate(best) if k in (0, len(best) - 1) or value != best[k - 1]]


def taus(history: Sequence[Tau]) -> Figure:
    """How well the predictor ranked candidates before they were evaluated."""
    kinds = (
        ("surrogate alone", "surrogate", GREEN, "dash", "square"),
        ("learned alone", "learned", GREY, "dot", "diamond"),
        ("both", "both", ORANGE, "solid", "circle"),
    )
    mode = "lines+markers" if len(history) <= MARKED else "lines"
    lines = [
        line(label, [(tau.evaluated, round(getattr(tau, name), 3)) for tau in history], colour, label + ", after %{x}: %{y:.2f}",
             line={"color": colour, "dash": dash}, marker={"color": colour, "symbol": symbol, "size": 7}, mode=mode)
        for label, name, colour, dash, symbol in kinds
    ]  # fmt: skip
    return chart(*lines, x="candidates evaluated", y="Kendall's tau (more is better)", yaxis={"range": [-1.05, 1.05]})


def importances(shares: Mapping[str, float]) -> Figure:
    """The parameters that decide most, largest first."""
    shown = dict(sorted(shares.items(), key=lambda pair: -pair[1])[:SHOWN])
    upright = {"autorange": "reversed", "showgrid": False}
    return chart(bars("", shown, BLUE), x="share of the variance of ln(error)", y="", height=90 + 26 * len(shown), yaxis=upright)


def times(plan: Plan, comparison: Comparison) -> Figure:
    """Where plan and best baseline evaluate the network, on the noise schedule."""
    curve = [(node.t, lam(node)) for node in comparison.schedule if NOISE <= lam(node) <= DATA]
    traces = [line("noise schedule", curve, GREY, mode="lines")] if curve else []
    for name, nodes, colour, symbol, size in (
        ("best baseline: " + told(comparison.best_baseline), comparison.nodes, BLUE, "circle-open", 13),
        ("plan", plan.nodes, ORANGE, "circle", 8),
    ):
        points = [(node.t, min(max(lam(node), NOISE), DATA)) for node in nodes]
        marker = {"color": colour, "symbol": symbol, "size": size, "line": {"width": 2, "color": colour}}
        hover = "evaluation %{text}<br>t = %{x:.6g}<br>λ = %{y:.4g}"
        traces.append(line(name, points, colour, hover, mode="markers", marker=marker, text=list(map(str, range(len(points))))))
    return chart(*traces, x="time t, from noise to data", y="half log-SNR  λ = ln(α/σ)", xaxis={"autorange": "reversed", "zeroline": False})


def lam(node: Node) -> float:
    """Half log-SNR; infinite where there is no signal, or no noise."""
    return -inf if node.alpha <= 0 else inf if node.sigma <= 0 else log(node.alpha) - log(node.sigma)


def pareto(points: Sequence[ParetoPoint]) -> Figure:
    """The plans that no other beats, in the first two objectives."""
    first, second = list(points[0].values)[:2]
    pairs = [(point.values[second], point.values[first]) for point in points]
    dots = line("", pairs, BLUE, "%{text}<br>%{x:.4g}, %{y:.3g}", text=[told(point.file) for point in points],
                line={"color": BLUE, "shape": "hv", "dash": "dot"})  # fmt: skip
    return chart(dots, x=less(told(second)), y=less(told(first)), yaxis=logarithmic([y for _, y in pairs]))


def by_nfe(lines: Mapping[str, Sequence[tuple[int, float]]], y: str, baseline: str) -> Figure:
    """A line a method, which keeps its colour where another has no points; the baseline is grey and dashed."""
    traces = []
    for k, (name, points) in enumerate(lines.items()):
        if not points:
            continue
        colour, dash = (GREY, "dash") if name == baseline else (COLOURS[k % len(COLOURS)], "solid")
        marker = {"color": colour, "symbol": SYMBOLS[k % len(SYMBOLS)], "size": 8}
        traces.append(
            line(told(name), points, colour, told(name) + ", NFE %{x}: %{y:.3g}", line={"color": colour, "dash": dash}, marker=marker)
        )
    ticks = sorted({nfe for points in lines.values() for nfe, _ in points})
    values = logarithmic([value for points in lines.values() for _, value in points])
    return chart(*traces, x="network evaluations a sample (NFE)", y=LESS, height=400, xaxis={"tickvals": ticks}, yaxis=values)


def front(best: Sequence[tuple[float, float]], groups: Mapping[str, Sequence[tuple[float, float, str]]]) -> Figure:
    """Points (network calls, error, name) by group, and the line through the best of them."""
    traces = [line("Pareto front", best, ORANGE, mode="lines", line={"color": ORANGE, "shape": "hv", "dash": "dot"})]  # fmt: skip
    for k, (group, points) in enumerate(groups.items()):
        marker = {"color": COLOURS[k % len(COLOURS)], "symbol": SYMBOLS[k % len(SYMBOLS)], "size": 9}
        traces.append(
            line(told(group), [(calls, error) for calls, error, _ in points], GREY, "%{text}<br>%{x} calls, %{y:.3g}",
                 mode="markers", marker=marker, text=[told(name) for *_, name in points])
        )  # fmt: skip
    values = [error for points in groups.values() for _, error, _ in points]
    return chart(*traces, x="network calls a sample", y=less("mean endpoint MSE to the teacher"), yaxis=logarithmic(values))
