"""What a search costs: errors on fresh noise against network evaluations spent, a point for each budget.

    python -m tests.benchmarks.search_cost [--model digits] [--nfe 5] [--guidance 1] [--spaces default,gs,s4s] [--samples 8192]
        [--evaluations 20000,50000,100000] [--picture FILE]

Spent are the evaluations of everything but the comparison: the teacher (made anew for each point), the screening of baselines, the search.
--evaluations grants those of the stages after the best baseline, else they are those of `GRANTED`. Learned rivals are the presets of their
names, by their papers' recipes. The noise is that of seed 1, where a search has seed 0. Run by hand.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from solversearch import models
from solversearch.judging.measures import measured
from solversearch.judging.race import GEOMETRIC, MEAN, MEDIAN
from solversearch.models.base import Model
from solversearch.report.colours import BLUE, GREEN, GREY, ORANGE, PINK
from solversearch.report.pictures import plain_log_ticks, save
from solversearch.search.pipeline import run_stages
from solversearch.search.settings import Settings
from solversearch.search.stages.task import Task
from solversearch.spaces import SearchSpace
from solversearch.teacher import Teacher, teach
from solversearch.threads import few_threads

FRESH_SEED = 1
MEASURES = (GEOMETRIC, MEDIAN, MEAN)
OURS = "default"
GRANTED, TO_RIVALS = (5_000, 20_000, 50_000, 100_000, None), (50_000, 100_000, 200_000, 400_000)
"""Evaluations after the best baseline; None are all that the search asks for."""

Point = tuple[int, float, list[float]]


def point(model: Model, space: str, nfe: int, guidance: float, evaluations: int | None, fresh: Teacher) -> Point:
    """Evaluations and seconds spent, and the plan's errors on the fresh noise."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["SOLVERSEARCH_CACHE"] = cache
        asked = SearchSpace() if space == OURS else SearchSpace.named(space)
        settings, start = Settings.of(asked, nfe=nfe, guidance=guidance, evaluations=evaluations), time.perf_counter()
        task = Task(model, settings.sized(model), lambda *_: None)
        best = run_stages(task).best
    assert best is not None
    seconds, own = time.perf_counter() - start, measured(model, best.table, fresh)
    return task.clock.evaluations, seconds, [own.value(measure, None) for measure in MEASURES]


def picture(curves: Mapping[str, Sequence[Point]], title: str) -> Figure:
    """Errors against evaluations spent, a line for each space."""
    figure = Figure(figsize=(11.5, 4), layout="constrained")
    figure.suptitle(title)
    for k, (ax, measure) in enumerate(zip(figure.subplots(1, len(MEASURES)), MEASURES, strict=True)):
        for (space, points), colour, marker in zip(curves.items(), cycle((ORANGE, BLUE, GREEN, PINK, GREY)), cycle("*osv^D"), strict=False):
            ax.plot([each[0] / 1000 for each in points], [each[2][k] for each in points], marker=marker, color=colour, label=space)
        ax.set(xscale="log", yscale="log", xlabel="thousands of evaluations spent", ylabel=f"{measure} error")
        plain_log_ticks(ax.xaxis)
        plain_log_ticks(ax.yaxis)
        ax.grid(alpha=0.3)
    figure.axes[0].legend()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description="What a search costs.")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--nfe", type=int, default=5)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--spaces", type=lambda text: text.split(","), default=[OURS])
    parser.add_argument("--evaluations", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--samples", type=int, default=8192)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    model, title = models.load(given.model), f"{given.model}, {given.nfe} evaluations, guidance {given.guidance:g}"
    table, curves = Table("space", "granted", "spent", "seconds", *MEASURES, title=title), dict[str, list[Point]]()
    with few_threads(model):
        fresh = teach(model, "held_out", given.samples, given.guidance, FRESH_SEED, trajectory=False)
        for space in given.spaces:
            for granted in given.evaluations or (GRANTED if space == OURS else TO_RIVALS):
                found = point(model, space, given.nfe, given.guidance, granted, fresh)
                curves.setdefault(space, []).append(found)
                spent, seconds, errors = found
                asked = "all" if granted is None else f"{granted:,}"
                told = (space, asked, f"{spent:,}", f"{seconds:.0f}", *(f"{each:.3g}" for each in errors))
                table.add_row(*told)
                print(*told, flush=True)
    Console(width=120).print(table)
    if given.picture:
        save(picture(curves, title), given.picture)


if __name__ == "__main__":
    main()
