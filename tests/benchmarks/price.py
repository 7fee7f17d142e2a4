"""What cheaper evaluations bring, and whether their price is real: plans at one price, searched and polished alike, on fresh noise.

    python -m tests.benchmarks.price [--model digits] [--budget 4] [--guidance 1] [--samples 4096] [--seeds 1]
        [--nfe N]

First the plan of the network's own evaluations, then that of any kinds (variants of the network, reused guidance differences), and the
ratio of both: geometric mean, mean and median of the errors, the share of samples won, evaluations of the stages, and seconds of the whole
sampling of 512 samples over those of the first plan, beside the ratio of their prices. Run by hand, on an idle machine.
"""

import argparse
import time

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from solversearch import models
from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.models.base import Model
from solversearch.models.variants import with_skips
from solversearch.runtime import Tableau
from solversearch.sampling import sample
from solversearch.search.pipeline import run_stages
from solversearch.search.pricing import affordable, declared
from solversearch.search.settings import Settings
from solversearch.search.stages.task import Task
from solversearch.spaces import SearchSpace
from solversearch.teacher import Teacher, teach
from solversearch.threads import few_threads

FRESH_SEED, TIMED, REPEATS = 7, 512, 5


def kinds(table: Tableau) -> str:
    """Of each evaluation the network, with a star where it reuses guidance differences."""
    return " ".join((node.variant or "own") + "*" * node.reuses for node in table.nodes)


def price(model: Model, table: Tableau) -> float:
    costs = {name: each.cost for name, each in declared(model, table).items()}
    return sum(calls * costs.get(node.variant, 1.0) for calls, node in zip(table.calls, table.nodes, strict=True))


def seconds(model: Model, table: Tableau, teacher: Teacher) -> float:
    some, least = teacher.first(TIMED), float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        sample(model, table, some)
        least = min(least, time.perf_counter() - start)
    return least


def main() -> None:
    parser = argparse.ArgumentParser(description="What cheaper evaluations bring.")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--budget", type=float, default=4.0)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--nfe", type=int, help="evaluations of the first plan; what the budget has room for")
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    model = with_skips(models.load(given.model))
    columns = ("seed", "evaluations", "price", "seconds", "geometric", "mean", "median", "won", "network evaluations")
    shown = Table(*columns, title=f"{given.model}, guidance {given.guidance:g}, price {given.budget:g}")
    with few_threads(model):
        fresh = teach(model, "held_out", given.samples, given.guidance, FRESH_SEED, trajectory=False)
        for seed in range(given.seeds):
            found: list[tuple[Tensor, float, float]] = []
            for budget in (None, given.budget):
                nfe = given.nfe if budget is None and given.nfe else affordable(given.budget, given.guidance)
                settings = Settings.of(SearchSpace(), nfe=nfe, guidance=given.guidance, budget=budget, seed=seed)
                searched = run_stages(Task(model, settings.sized(model), lambda *_: None))
                assert searched.best is not None
                table = searched.best.table
                error = endpoint_mse(sample(model, table, fresh), fresh.endpoint).double()
                found.append((error, price(model, table), seconds(model, table, fresh)))
                spent = sum(stage.evaluations for stage in searched.stages)
                numbers = error.log().mean().exp(), error.mean(), error.median()
                shown.add_row(
                    str(seed),
                    kinds(table),
                    f"{found[-1][1]:.3g}",
                    f"{found[-1][2]:.3g}",
                    *(f"{each:.3g}" for each in numbers),
                    "",
                    f"{spent:,}",
                )
            (own, own_price, own_seconds), (other, its_price, its_seconds) = found
            ratios = (other / own).log().mean().exp(), other.mean() / own.mean(), other.median() / own.median()
            shown.add_row(
                str(seed), "ratio", f"{its_price / own_price:.3g}", f"{its_seconds / own_seconds:.3g}", *(f"{each:.3g}" for each in ratios),
                f"{torch.mean((other < own).double()):.1%}", "",
            )  # fmt: skip
    Console(width=150).print(shown)


if __name__ == "__main__":
    main()
