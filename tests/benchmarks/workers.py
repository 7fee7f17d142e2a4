"""How much faster a search on digits is with several workers, each on one thread, than in the driver's own process on one thread.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.workers [--trials 300] [--workers 2] [--strategy random] [--repeats 5]

What is timed is the search itself, from the first proposal to the last result, after the workers have loaded the model; both are timed in
turn, and the medians compared. Run by hand, on an idle machine.
"""

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from statistics import median

import numpy as np
import torch

from solversearch import models
from solversearch.search.evaluating.evaluations import InProcess, Source
from solversearch.search.evaluating.evaluator import Evaluator
from solversearch.search.evaluating.fleet import Fleet
from solversearch.search.evaluating.workers import Workers
from solversearch.search.pipeline import run_stages
from solversearch.search.settings import Settings
from solversearch.search.stages.search import Setup
from solversearch.search.stages.task import Task
from solversearch.spaces import Domain, SearchSpace

TARGET = 1.7


@contextmanager
def timed(fleet: Fleet, seconds: list[float], evaluator: Evaluator) -> Iterator[Source]:
    domain = Domain.of(SearchSpace(), evaluator.model.schedule, 5, 1.0)
    rng = np.random.default_rng(0)
    some = [domain.candidate(domain.random(rng)) for _ in range(8)]
    if not fleet.remote:
        list(InProcess(evaluator).stream(some, 64))
        start = time.perf_counter()
        yield InProcess(evaluator)
        seconds.append(time.perf_counter() - start)
    else:
        with Workers(fleet, "digits", models.DEFAULT, "endpoint", evaluator) as workers:
            while not all(actor.ready for actor in workers.actors):
                list(workers.stream(some, 64))
            start = time.perf_counter()
            yield workers
            seconds.append(time.perf_counter() - start)


def searched(fleet: Fleet, trials: int, strategy: str) -> tuple[float, list[float]]:
    """Seconds of a search, and its course."""
    seconds: list[float] = []
    settings = Settings.of(SearchSpace(), nfe=5, trials=trials, strategy=strategy, instant=False, fit=True, polish=False)
    model = models.load("digits")
    found = run_stages(Task(model, settings.sized(model), lambda *_: None), Setup(source=partial(timed, fleet, seconds)))
    return seconds[0], found.course


def main() -> None:
    parser = argparse.ArgumentParser(description="The speed-up by workers.")
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--strategy", default="random")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    seconds: dict[Fleet, list[float]] = {Fleet(): [], Fleet(given.workers): []}
    courses = []
    for _ in range(given.repeats):
        for fleet, spent in seconds.items():
            took, course = searched(fleet, given.trials, given.strategy)
            spent.append(took)
            courses.append(course)
    assert all(course == courses[0] for course in courses)
    alone, together = map(median, seconds.values())
    print(f"{given.strategy}, {given.trials}: {alone:.2f} s alone, {together:.2f} s together: {alone / together:.2f} times as fast")
    if alone / together < TARGET:
        raise SystemExit(f"less than {TARGET}")


if __name__ == "__main__":
    main()
