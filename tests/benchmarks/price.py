"""What evaluations bring that reuse guidance differences: errors on fresh noise at one price, of plans searched and polished alike.

    python -m tests.benchmarks.price [--model digits] [--nfe 5] [--guidance 4] [--samples 1024]

The price is that of --nfe evaluations with guidance. Each plan is polished with as many network evaluations; those of the stage `reuse`
come on top, and are shown. Run by hand.
"""

import argparse

from rich.console import Console
from rich.table import Table

from solversearch import models
from solversearch.judging.measures import measured
from solversearch.judging.race import GEOMETRIC, MEAN, MEDIAN
from solversearch.runtime import Tableau
from solversearch.search.pipeline import run_stages
from solversearch.search.settings import Settings
from solversearch.search.stages.task import Task
from solversearch.spaces import SearchSpace
from solversearch.teacher import teach
from solversearch.threads import few_threads

FRESH_SEED = 1
MEASURES = (GEOMETRIC, MEAN, MEDIAN)


def pattern(table: Tableau) -> str:
    """One letter an evaluation: computes its guidance difference, or reuses those of others."""
    return "".join("r" if node.reuses else "c" for node in table.nodes)


def main() -> None:
    parser = argparse.ArgumentParser(description="What evaluations bring that reuse guidance differences.")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--nfe", type=int, default=5)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--samples", type=int, default=1024)
    given = parser.parse_args()
    model = models.load(given.model)
    stages, title = ("reuse", "polish", "polish, reusing"), f"{given.model}, guidance {given.guidance:g}"
    shown = Table("evaluations", "calls", *MEASURES, *stages, title=title)
    found: list[list[float]] = []
    with few_threads(model):
        fresh = teach(model, "held_out", given.samples, given.guidance, FRESH_SEED, trajectory=False)
        for reuse in (False, True):
            settings = Settings.of(SearchSpace(), nfe=given.nfe, guidance=given.guidance, reuse=reuse)
            searched = run_stages(Task(model, settings.sized(model), lambda *_: None))
            assert searched.best is not None
            table, spent = searched.best.table, {stage.name: stage.evaluations for stage in searched.stages}
            own = measured(model, table, fresh)
            found.append([own.value(measure, None) for measure in MEASURES])
            costs = (f"{spent.get(name, 0):,}" for name in stages)
            shown.add_row(pattern(table), str(table.network_calls), *(f"{each:.3g}" for each in found[-1]), *costs)
    shown.add_row("ratio", "", *(f"{b / a:.3g}" for a, b in zip(*found, strict=True)))
    Console(width=120).print(shown)


if __name__ == "__main__":
    main()
