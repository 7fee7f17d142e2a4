"""Candidates a second that the driver of a search serves, when evaluations and predictions cost nothing: proposals, halving, files.

    python -m tests.benchmarks.driver_throughput [--trials 20000] [--strategies random s3] [--no-files]

Losses are a smooth function of the candidate with some noise, and the predictor of `s3` is a function like it. Run by hand, on an idle
machine.
"""

import argparse
import tempfile
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import optuna
import torch
from numpy.typing import NDArray

from solversearch.grids import grid
from solversearch.models.base import Clock
from solversearch.schedules import DiscreteVP
from solversearch.search.evaluating.evaluations import Arrival, Evaluations, Log
from solversearch.search.evaluating.evaluator import Evaluated
from solversearch.search.evaluating.storage import Trials
from solversearch.search.loop import Halving, Loop
from solversearch.search.strategies import Context, strategy
from solversearch.search.strategies.proposals import enqueue_starts
from solversearch.spaces import Candidate, Domain, Params, SearchSpace

EVERY = 2500
TARGET, FLAT = 300, 0.7
"""Candidates a second, and the least share of them that is left at the end."""
NFE = 5
PLACES = (0.95, 0.7, 0.5, 0.3, 0.1)


class Simulated:
    """A source of evaluations whose workers know the answer."""

    befell = at_work = ""

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self.table = domain.tableau(domain.random(np.random.default_rng(0)))
        self.error = {n: torch.rand(n or 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64) for n in (64, None)}

    def stream(self, candidates: Sequence[Candidate], n: int | None) -> Iterable[list[Arrival]]:
        yield [Arrival(k, Evaluated(self.table, self.error[n], (loss(each),), {}), 0, 0.0) for k, each in enumerate(candidates)]


def loss(candidate: Candidate) -> float:
    noise = int(candidate.signature[:8], 16) / 2**32
    return (1 + 0.1 * noise) * (1e-3 + sum((t / 1000 - place) ** 2 for t, place in zip(candidate.times, PLACES, strict=True)))


def searched(name: str, trials: int, folder: Path | None) -> list[float]:
    """Seconds of every `EVERY` candidates."""
    schedule = DiscreteVP.named()
    starts = [grid(each, schedule, NFE) for each in ("quadratic", "logsnr")]
    domain = Domain.of(SearchSpace(), schedule, NFE, 1.0, starts)
    rng = np.random.default_rng(0)

    def predict(params: Sequence[Params]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        places = np.array([[each[f"time.{i}"] for i in range(NFE)] for each in params])
        return np.log(1e-3 + ((places - PLACES) ** 2).sum(1)) + 0.1 * rng.standard_normal(len(params)), np.full(len(params), 0.1)

    context = Context(domain, 0, tuple(domain.seed(start) for start in starts), predict)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=strategy(name, context))
    enqueue_starts(study, study.sampler, context)
    record = Trials(folder, None, "search", 1, False).add if folder else lambda trials, notes: None
    evaluations = Evaluations(Simulated(domain), Clock(), Log(folder and folder / "evaluations.log"))
    loop = Loop(study, name, domain, Halving.up_to(256, 64), None, record)
    marks = [time.perf_counter()]

    def told(done: int, best: float) -> None:
        if done % EVERY == 0:
            marks.append(time.perf_counter())

    list(loop.run(evaluations, trials, lambda: trials, told))
    return [after - before for before, after in pairwise(marks)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Candidates a second.")
    parser.add_argument("--trials", type=int, default=20_000)
    parser.add_argument("--strategies", nargs="+", default=["random", "s3"])
    parser.add_argument("--no-files", action="store_true")
    given = parser.parse_args()
    failed = False
    for name in given.strategies:
        with tempfile.TemporaryDirectory() as folder:
            seconds = searched(name, given.trials, None if given.no_files else Path(folder))
        speeds = [EVERY / each for each in seconds]
        print(name, f"candidates a second, {EVERY:,} by {EVERY:,}:", *(f"{speed:.0f}" for speed in speeds), flush=True)
        failed |= min(speeds) < TARGET or speeds[-1] < FLAT * speeds[0]
    if failed:
        raise SystemExit(f"fewer than {TARGET} a second, or not flat")


if __name__ == "__main__":
    main()
