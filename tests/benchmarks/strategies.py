"""What proposals cost, by the number of finished trials, and how long a generation of S3 takes beside the predictor.

    python -m tests.benchmarks.strategies [--space s3] [--nfe 5]

Run by hand, on an idle machine.
"""

import argparse
import time
from collections.abc import Sequence

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import create_trial
from rich.console import Console
from rich.table import Table

from solversearch.grids import grid
from solversearch.schedules import DiscreteVP
from solversearch.search.strategies import Context, strategy
from solversearch.search.strategies.proposals import ask
from solversearch.spaces import Domain, Params, SearchSpace

FINISHED = (0, 200, 2_000, 20_000)
NAMES = ("random", "evolution", "s3", "tpe", "cmaes", "nsga2")
ASKED = 10
GENERATION, TARGET = 1000, 0.15
"""Candidates of a generation, and seconds that they may take without being predicted."""


def filled(domain: Domain, trials: int) -> optuna.Study:
    rng = np.random.default_rng(0)
    study = optuna.create_study()
    study.add_trials(
        create_trial(params=domain.random(rng), distributions=domain.distributions, value=float(rng.random())) for _ in range(trials)
    )
    return study


def measure(study: optuna.Study, domain: Domain, name: str) -> tuple[float, float]:
    """Milliseconds of the first proposal, which reads the study, and the median of those after it."""
    study.sampler = strategy(name, Context(domain, 0))
    spent = []
    for _ in range(1 + ASKED):
        start = time.perf_counter()
        trial = ask(study, domain, name)
        spent.append(1000 * (time.perf_counter() - start))
        study.tell(trial, 1.0)
    return spent[0], float(np.median(spent[1:]))


def generation(study: optuna.Study, domain: Domain) -> float:
    """Seconds of a proposal that begins a generation, with a predictor that costs nothing."""
    rng = np.random.default_rng(0)

    def predict(params: Sequence[Params]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return rng.random(len(params)), np.zeros(len(params))

    study.sampler = strategy("s3", Context(domain, 0, predict=predict, children=GENERATION))
    start = time.perf_counter()
    study.tell(ask(study, domain, "s3"), 1.0)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description="Milliseconds a proposal.")
    parser.add_argument("--space", default="s3")
    parser.add_argument("--nfe", type=int, default=5)
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    schedule = DiscreteVP.named()
    starts = [grid(name, schedule, given.nfe) for name in ("quadratic", "logsnr")]
    domain = Domain.of(SearchSpace.named(given.space), schedule, given.nfe, 1.0, starts)
    table = Table("finished trials", *NAMES, title="milliseconds a proposal, and of the first")
    for trials in FINISHED:
        study = filled(domain, trials)
        measured = [measure(study, domain, name) for name in NAMES]
        table.add_row(f"{trials:,}", *(f"{later:.1f}, {first:.0f}" for first, later in measured))
    Console().print(table)
    seconds = generation(filled(domain, 50), domain)
    Console().print(f"a generation of {GENERATION:,} without its prediction: {seconds:.3f} s")
    if seconds > TARGET:
        raise SystemExit(f"a generation takes more than {TARGET} s")


if __name__ == "__main__":
    main()
