"""Whether verdicts hold: the named best against all pairs in full, what intervals cover, and plans against themselves.

    python -m tests.benchmarks.verdict pairs [--model digits] [--nfe 3,5] [--guidance 1,4] [--samples 1024] [--fresh 8192]
    python -m tests.benchmarks.verdict coverage [--model digits] [--nfe 5] [--guidance 1] [--redraws 400] [--plan FILE]

`pairs` runs every solver on every grid on all samples, which takes minutes a cell: the least value of each measure over all is the truth.
fresh: the mean of the named best on samples of other noise, over the least there among what is within 3 times of it. `coverage` draws
samples again and again from the errors of a plan and of its best baselines on 16,384 samples, and counts how often the intervals hold the
value of all; intervals of means that are not called lower bounds stand apart. In the A/A runs a plan is compared with itself on other
noise. Without a plan file the instant plan is taken, which is found on a surrogate in seconds. Run by hand.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.table import Table

from solversearch import models
from solversearch.judging import intervals
from solversearch.judging.measures import Rivals, measured, measures_of, rivals
from solversearch.judging.race import GEOMETRIC, MEAN, MEDIAN, Race
from solversearch.judging.verdict import Ratio, decide
from solversearch.models.base import Clock, Model
from solversearch.plan import Plan
from solversearch.runtime import Tableau
from solversearch.schedules import Floats
from solversearch.search.pipeline import run_stages
from solversearch.search.settings import Settings
from solversearch.search.stages.task import Task
from solversearch.spaces import SearchSpace
from solversearch.teacher import teach

POOL, SIZES, FRESH_SEED, NEAR = 16_384, (64, 256, 1024), 1, 3.0
"""Samples that stand for all; sizes of a redraw; the seed of fresh noise; how much worse a pair may be to be tried on it."""


def pairs(model: Model, nfe: int, guidance: float, samples: int, fresh: int) -> dict[str, float]:
    """The race's best over the best of all pairs, by measure; evaluations of the race and of all pairs."""
    teacher, clock = teach(model, "held_out", samples, guidance, trajectory=False), Clock()
    found = rivals(model, nfe, guidance, teacher, clock=clock)
    runs, everyone = found.race.runs, list(range(len(found.race.runs.tables)))
    named, raced = {measure: found.best(measure) for measure in measures_of(model)}, clock.evaluations
    runs.see(everyone, np.arange(samples))
    whole = Rivals(model, teacher, _all(found))
    row: dict[str, float] = {}
    for measure, best in named.items():
        row[measure] = best.value(measure, found.target) / whole.best(measure).value(measure, found.target)
    if fresh:
        other = teach(model, "held_out", fresh, guidance, FRESH_SEED, trajectory=False)
        least = whole.best(MEAN).value(MEAN, None)
        near = [each for each in whole.measured if each.value(MEAN, None) <= NEAR * least]
        means = {each.name: measured(model, each.table, other).value(MEAN, None) for each in near}
        row["fresh mean"] = means[named[MEAN].name] / min(means.values())
    return row | {"pairs": len(found.race.candidates), "race": raced, "all": nfe * (2 if guidance != 1 else 1) * samples * len(everyone)}


def _all(found: Rivals) -> Race:
    """The same race, as if nothing had been dropped."""
    return replace(found.race, finalists=list(range(len(found.race.runs.tables))))


def plan_at(model: Model, nfe: int, guidance: float) -> Tableau:
    settings = Settings.of(SearchSpace(), nfe=nfe, guidance=guidance, only_instant=True)
    found = run_stages(Task(model, settings.sized(model), lambda *_: None))
    assert found.best is not None
    return found.best.table


def coverage(model: Model, table: Tableau, nfe: int, guidance: float, redraws: int) -> Iterator[tuple[str, int, float, float]]:
    """Interval, samples, share of redraws whose interval holds the truth, share of redraws that it stands for."""
    teacher = teach(model, "held_out", POOL, guidance, trajectory=False)
    found = rivals(model, nfe, guidance, teacher.first(1024))
    own = measured(model, table, teacher).errors
    best = {measure: measured(model, found.best(measure).table, teacher).errors for measure in (GEOMETRIC, MEAN, MEDIAN)}
    kinds = {
        "share won": (intervals.share, best[GEOMETRIC], float(np.mean(own < best[GEOMETRIC]))),
        "geometric ratio": (intervals.geometric_ratio, best[GEOMETRIC], _geometric(own) / _geometric(best[GEOMETRIC])),
        "median ratio": (
            lambda a, b: intervals.median_ratio(a, b, 0), best[MEDIAN], intervals.lower_median(own) / intervals.lower_median(best[MEDIAN])
        ),
        "mean ratio": (lambda a, b: intervals.mean_ratio(a, b, 0), best[MEAN], float(own.mean() / best[MEAN].mean())),
    }  # fmt: skip
    rng = np.random.default_rng(0)
    for n in SIZES:
        drawn = [rng.integers(POOL, size=n) for _ in range(redraws)]
        for name, (interval, other, truth) in kinds.items():
            found_there = [interval(own[some], other[some]) for some in drawn]
            held = np.array([each.low <= truth <= each.high for each in found_there])
            yield name, n, float(held.mean()), 1.0
            if name == "mean ratio":
                plain = np.array([not (intervals.is_lower_bound(own[some]) or intervals.is_lower_bound(other[some])) for some in drawn])
                yield "mean ratio, not called a lower bound", n, float(held[plain].mean()) if plain.any() else math.nan, float(plain.mean())
                yield "mean ratio, as a lower bound", n, float(np.mean([each.low <= truth for each in found_there])), 1.0
        verdicts = [_against_itself(own, rng, n) for _ in range(redraws)]
        for word in ("better", "worse"):
            yield f"A/A: {word}", n, verdicts.count(word) / redraws, 1.0


def _geometric(errors: Floats) -> float:
    return float(np.exp(np.log(errors).mean()))


def _against_itself(errors: Floats, rng: np.random.Generator, n: int) -> str:
    a, b = np.split(errors[rng.permutation(len(errors))[: 2 * n]], 2)
    ratios = []
    for interval in (intervals.geometric_ratio(a, b), intervals.mean_ratio(a, b, 0)):
        ratios.append(
            Ratio(measure="", value=interval.mean, low=interval.low, high=interval.high, baseline="", plan_value=1, baseline_value=1)
        )
    return decide(*ratios)


def numbers(text: str) -> Sequence[float]:
    return [float(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description="Whether verdicts hold.")
    parser.add_argument("part", choices=("pairs", "coverage"))
    parser.add_argument("--model", default="digits")
    parser.add_argument("--nfe", type=numbers, default=[5])
    parser.add_argument("--guidance", type=numbers, default=[1])
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--fresh", type=int, default=0)
    parser.add_argument("--redraws", type=int, default=400)
    parser.add_argument("--plan")
    given = parser.parse_args()
    model, console = models.load(given.model), Console(width=180)
    for guidance in given.guidance:
        for nfe in map(int, given.nfe):
            title = f"{given.model}, NFE {nfe}, guidance {guidance:g}"
            if given.part == "pairs":
                row = pairs(model, nfe, guidance, given.samples, given.fresh)
                console.print(title, {name: round(value, 4) for name, value in row.items()}, soft_wrap=True)
                continue
            table = Table("interval", "samples", "holds", "of the redraws", title=title)
            plan = Plan.read(given.plan).tableau if given.plan else plan_at(model, nfe, guidance)
            for name, n, held, part in coverage(model, plan, nfe, guidance, given.redraws):
                table.add_row(name, str(n), f"{held:.1%}", f"{part:.0%}")
            console.print(table)


if __name__ == "__main__":
    main()
