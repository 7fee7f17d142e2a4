"""How long the main job takes, from nothing and with the teacher cached, and which share of it is spent inside the network.

    python -m tests.benchmarks.search_share [--model digits] [--nfe 5] [--space default] [--strategy tpe] [--trials 60]

Run by hand, on an idle machine. Seconds are of `optimize` itself, without Python's start and the pictures.
"""

import argparse
import os
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from solversearch import models
from solversearch.compare import Comparison
from solversearch.search.optimize import optimize
from solversearch.search.settings import Settings
from solversearch.spaces import SearchSpace

TARGET = 0.8


def measure(given: argparse.Namespace, folder: Path) -> Comparison:
    settings = Settings.of(SearchSpace.named(given.space), nfe=given.nfe, trials=given.trials, strategy=given.strategy)
    return optimize(models.load(given.model), settings, folder, "", lambda stage, done, total, note: None)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds of a search and the share inside the network.")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--nfe", type=int, default=5)
    parser.add_argument("--space", default="default")
    parser.add_argument("--strategy")
    parser.add_argument("--trials", type=int, default=60)
    given = parser.parse_args()
    table = Table("teacher", "seconds", "in the network", "share", "ratio to the best baseline", title=f"{given.model}, NFE {given.nfe}")
    shares = []
    with tempfile.TemporaryDirectory() as place:
        os.environ["SOLVERSEARCH_CACHE"] = f"{place}/cache"
        for name in ("from nothing", "cached"):
            comparison = measure(given, Path(place) / name)
            timing = comparison.timing
            shares.append(timing.network_s / timing.wall_s)
            ratio = comparison.ratio_endpoint_mse
            table.add_row(name, f"{timing.wall_s:.1f}", f"{timing.network_s:.1f}", f"{shares[-1]:.1%}", f"{ratio:.3f}")
    Console().print(table)
    if min(shares) < TARGET:
        raise SystemExit(f"less than {TARGET:.0%} of the time is spent inside the network")


if __name__ == "__main__":
    main()
