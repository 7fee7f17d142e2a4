"""What a search costs: errors on fresh noise against network evaluations spent, a point for each budget.

    python -m tests.benchmarks.search_cost [--model digits] [--nfe 5] [--guidance 1] [--evaluations 20000,50000,100000] [--samples 8192]

Spent are the evaluations of everything but the comparison: the teacher (made anew for each point), the screening of baselines, the search.
--evaluations grants those of the stages after the best baseline. The noise is that of seed 1, where a search has seed 0. Run by hand.
"""

import argparse
import os
import tempfile
import time

from rich.console import Console
from rich.table import Table

from solversearch import models
from solversearch.judging.measures import measured
from solversearch.judging.race import GEOMETRIC, MEAN, MEDIAN
from solversearch.models.base import Model
from solversearch.search.pipeline import run_stages
from solversearch.search.settings import Settings
from solversearch.search.stages.task import Task
from solversearch.spaces import SearchSpace
from solversearch.teacher import Teacher, teach
from solversearch.threads import few_threads

FRESH_SEED = 1
MEASURES = (GEOMETRIC, MEDIAN, MEAN)


def point(model: Model, nfe: int, guidance: float, evaluations: int | None, fresh: Teacher) -> tuple[int, float, list[float]]:
    """Evaluations and seconds spent, and the plan's errors on the fresh noise."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ["SOLVERSEARCH_CACHE"] = cache
        settings, start = Settings.of(SearchSpace(), nfe=nfe, guidance=guidance, evaluations=evaluations), time.perf_counter()
        task = Task(model, settings.sized(model), lambda *_: None)
        best = run_stages(task).best
    assert best is not None
    seconds, own = time.perf_counter() - start, measured(model, best.table, fresh)
    return task.clock.evaluations, seconds, [own.value(measure, None) for measure in MEASURES]


def main() -> None:
    parser = argparse.ArgumentParser(description="What a search costs.")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--nfe", type=int, default=5)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--evaluations", type=lambda text: [int(part) for part in text.split(",")], default=[5000, 20000, 50000, 100000])
    parser.add_argument("--samples", type=int, default=8192)
    given = parser.parse_args()
    model = models.load(given.model)
    table = Table("granted", "spent", "seconds", *MEASURES, title=f"{given.model}, NFE {given.nfe}, guidance {given.guidance:g}")
    with few_threads(model):
        fresh = teach(model, "held_out", given.samples, given.guidance, FRESH_SEED, trajectory=False)
        for granted in (*given.evaluations, None):
            spent, seconds, errors = point(model, given.nfe, given.guidance, granted, fresh)
            table.add_row("all" if granted is None else f"{granted:,}", f"{spent:,}", f"{seconds:.0f}", *(f"{each:.3g}" for each in errors))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
