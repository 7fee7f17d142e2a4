"""How many tables a second the surrogates judge on one core: `python -m tests.benchmarks.surrogate_throughput [--nfe 5]`."""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from solversearch import models
from solversearch.runtime import Tableau
from solversearch.search.surrogates.surrogates import Surrogates
from solversearch.spaces import Domain, SearchSpace
from solversearch.teacher import teach

TARGETS = {"Gaussian": 20_000, "mixture": 2_000}
REPEATS = 5


def speed(judge: Callable[[list[Tableau]], object], tables: list[Tableau]) -> float:
    """Tables a second, the best of some repeats: what else the machine does only slows them."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        judge(tables)
        seconds.append(time.perf_counter() - start)
    return len(tables) / min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description="Tables a second on one core.")
    parser.add_argument("--nfe", type=int, default=5)
    nfe = parser.parse_args().nfe
    torch.set_num_threads(1)
    model = models.load("digits")
    report, missed = Table("surrogate", "guidance 1", "guidance 4", "target", title=f"Tables a second, digits, NFE {nfe}"), False
    found: dict[str, list[float]] = {}
    for guidance in (1.0, 4.0):
        fitting, validation = (teach(model, split, 256, guidance) for split in ("fit", "validate"))
        unguided = [teach(model, split, 256) for split in ("fit", "validate")]
        surrogates = Surrogates.of(model, fitting, validation, unguided, guidance)
        domain, rng = Domain.of(SearchSpace.named("s3"), model.schedule, nfe, guidance), np.random.default_rng(0)
        tables = [domain.tableau(domain.random(rng)) for _ in range(1024)]
        found.setdefault("Gaussian", []).append(speed(surrogates.gaussian.losses, tables * 4))
        found.setdefault("mixture", []).append(speed(surrogates.anchored.losses, tables))
        found.setdefault("mixture, each fitted first", []).append(speed(lambda some, s=surrogates: s.anchored.losses(some, 1e-4), tables))  # type: ignore[misc]
        surrogates.observe(tables[:12])
        found.setdefault("mixture after observing", []).append(speed(surrogates.anchored.losses, tables))
        found.setdefault("all features", []).append(speed(surrogates.features, tables))
    for name, speeds in found.items():
        target = TARGETS.get(name)
        missed |= target is not None and min(speeds) < target
        report.add_row(name, *(f"{each:,.0f}" for each in speeds), f"{target:,}" if target else "")
    Console().print(report)
    if missed:
        raise SystemExit("a target is missed")


if __name__ == "__main__":
    main()
