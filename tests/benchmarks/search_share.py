"""How long the main job takes, from nothing and with the teacher cached, and which share of it is spent inside the network.

    python -m tests.benchmarks.search_share [--model digits] [--nfe 5] [--guidance 1] [--space default] [--strategy tpe] [--trials 60]

--model tiny:FAMILY is a tiny pipeline of that family (tests/tiny.py), zoo:FAMILY one of tests/zoo.py, whose network --slower SECONDS
makes slower, by so much a sample: as a real one would be. Run by hand, on an idle machine. Seconds are of `optimize` itself,
without Python's start and the pictures; in the last row, of its stages without the comparison.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from solversearch import models
from solversearch.judging.compare import Timing
from solversearch.models.base import Model
from solversearch.search.optimize import optimize
from solversearch.search.pipeline import run_stages
from solversearch.search.settings import Settings
from solversearch.search.stages.task import Task
from solversearch.spaces import SearchSpace
from tests import tiny, zoo

TARGET = 0.85


def load(name: str, folder: Path, slower: float = 0.0) -> Model:
    family = name.removeprefix("tiny:")
    if name.startswith("zoo:"):
        model = zoo.load(name.removeprefix("zoo:"), folder)
        loaded: Any = getattr(model.network, "network", model.network)
        for network in loaded.core.values():
            network.register_forward_hook(lambda network, given, output: time.sleep(slower * len(output[0])))
        return model
    return models.load(name) if family == name else models.load(str(tiny.build(family, folder / family)), tiny.options(family))


def quiet(stage: str, done: int, total: int, note: str) -> None:
    pass


def whole(model: Model, settings: Settings, folder: Path) -> tuple[Timing, float]:
    comparison = optimize(model, settings, folder, "", quiet)[1]
    return comparison.timing, comparison.ratios[0].value


def stages(model: Model, settings: Settings) -> Timing:
    task, start = Task(model, settings.sized(model), quiet), time.perf_counter()
    run_stages(task)
    return Timing(wall_s=time.perf_counter() - start, network_s=task.clock.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds of a search and the share inside the network.")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--nfe", type=int, default=5)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--space", default="default")
    parser.add_argument("--strategy")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--samples", type=int, nargs=3, help="held out, to fit, to validate")
    parser.add_argument("--evaluations", type=int)
    parser.add_argument("--slower", type=float, default=0.0)
    given = parser.parse_args()
    counts = dict(zip(("samples", "fit_samples", "validation_samples"), given.samples or (), strict=False))
    asked = {name: getattr(given, name) for name in ("nfe", "guidance", "trials", "strategy", "evaluations")}
    settings = Settings.of(SearchSpace.named(given.space), **asked, **counts)
    table = Table(
        "teacher",
        "seconds",
        "in the network",
        "share",
        "geometric mean error, of the least baseline",
        title=f"{given.model}, NFE {given.nfe}",
    )
    shares = []

    def row(name: str, timing: Timing, ratio: str = "") -> None:
        shares.append(timing.network_s / timing.wall_s)
        table.add_row(name, f"{timing.wall_s:.1f}", f"{timing.network_s:.1f}", f"{shares[-1]:.1%}", ratio)

    with tempfile.TemporaryDirectory() as place:
        os.environ["SOLVERSEARCH_CACHE"] = f"{place}/cache"
        model = load(given.model, Path(place), given.slower)
        for name in ("from nothing", "cached"):
            timing, ratio = whole(model, settings, Path(place) / name)
            row(name, timing, f"{ratio:.3f}")
        row("cached, no comparison", stages(model, settings))
    Console().print(table)
    if min(shares) < TARGET:
        raise SystemExit(f"less than {TARGET:.0%} of the time is spent inside the network")


if __name__ == "__main__":
    main()
