"""What a loaded pipeline costs an evaluation beside its network: `python -m tests.benchmarks.pipeline_overhead [--rows 8] [FAMILY ...]`.

Families are those of tests/zoo.py. Milliseconds outside the network of a call for a joint batch of so many samples, each under its own
prompt, and of those that run the pipeline for every sample; medians. The promise is at most 1 ms where the network is called directly.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from tests import zoo

TARGET, REPETITIONS = 1.0, 30


class Inside:
    """Seconds spent in some modules."""

    def __init__(self, modules: Any) -> None:
        self.seconds, self.calls, self.start = 0.0, 0, 0.0
        for module in modules:
            module.register_forward_pre_hook(self._before)
            module.register_forward_hook(self._after)

    def _before(self, *_: Any) -> None:
        self.start = time.perf_counter()

    def _after(self, *_: Any) -> None:
        self.seconds += time.perf_counter() - self.start
        self.calls += 1


@torch.no_grad()
def overhead(model: Any, rows: int) -> tuple[float, float, int]:
    """Milliseconds outside and inside the network, and calls of it, of one evaluation of so many samples."""
    core = getattr(model.network, "network", model.network).core
    inside, outside, calls = [], [], 0
    watched = Inside(core.values())
    x, t = torch.randn(rows, *model.shape), torch.full((rows,), 600.0)
    conditions = model.conditions[torch.arange(rows) % len(model.conditions)]
    for _ in range(REPETITIONS):
        before, start = (watched.seconds, watched.calls), time.perf_counter()
        model.network(x, t, conditions)
        whole = time.perf_counter() - start
        inside.append(watched.seconds - before[0])
        outside.append(whole - inside[-1])
        calls = watched.calls - before[1]
    return 1e3 * median(outside), 1e3 * median(inside), calls


def main() -> None:
    parser = argparse.ArgumentParser(description="Milliseconds of an evaluation outside the network.")
    parser.add_argument("families", nargs="*", default=["wan21", "wan22", "z_image", "flux2", "chroma", "qwen_image"])
    parser.add_argument("--rows", type=int, default=8)
    given = parser.parse_args()
    table = Table("family", "called by", "network calls", "ms outside", "ms inside", title=f"{given.rows} samples")
    slow = []
    with tempfile.TemporaryDirectory() as place:
        os.environ["SOLVERSEARCH_CACHE"] = f"{place}/cache"
        for name in given.families:
            model = zoo.load(name, Path(place))
            outside, inside, calls = overhead(model, given.rows)
            table.add_row(name, "pass" if "joint batches" in model.lacks else "replay", str(calls), f"{outside:.2f}", f"{inside:.1f}")
            slow += [name] if "joint batches" not in model.lacks and outside > TARGET else []
    Console().print(table)
    if slow:
        raise SystemExit(f"more than {TARGET:g} ms outside the network: {', '.join(slow)}")


if __name__ == "__main__":
    main()
