"""The course of a search: the best candidate by the number tried, and how well the predictor ranked them before they were paid for."""

from math import nan

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from solversearch.judging.compare import Comparison
from solversearch.report.pictures import BLUE, GREEN, GREY, ORANGE


def search_picture(comparison: Comparison) -> Figure:
    """Raises ValueError where the comparison has no search."""
    if not comparison.progress:
        raise ValueError("the comparison has no search to draw")
    ranked = len(comparison.predictor) > 0
    figure = Figure(figsize=(11, 4.2) if ranked else (5.8, 4.2), layout="constrained")
    axes = figure.subplots(1, 2 if ranked else 1, squeeze=False)[0]
    _progress(axes[0], comparison)
    if ranked:
        _taus(axes[1], comparison)
    return figure


def _progress(ax: Axes, comparison: Comparison) -> None:
    best = [nan if value is None else value for value in comparison.progress]
    ax.step(range(1, len(best) + 1), best, where="post", color=BLUE)
    ax.set(xlabel="candidates tried", ylabel=f"best {comparison.unit}", yscale="log", title="The search")
    ax.grid(alpha=0.25, which="both")


def _taus(ax: Axes, comparison: Comparison) -> None:
    count = [tau.evaluated for tau in comparison.predictor]
    for label, name, colour in (("surrogate alone", "surrogate", GREEN), ("learned alone", "learned", GREY), ("both", "both", ORANGE)):
        ax.plot(count, [getattr(tau, name) for tau in comparison.predictor], color=colour, label=label, marker="o", markersize=3)
    ax.axhline(0, color="black", linewidth=0.6)
    ax.set(xlabel="candidates evaluated", ylabel="Kendall's tau", ylim=(-1, 1), title="The predictor, before each candidate was evaluated")
    ax.grid(alpha=0.25)
    ax.legend(fontsize=9, loc="lower right")
