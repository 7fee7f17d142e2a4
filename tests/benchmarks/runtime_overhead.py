"""What the sampling loop costs a step outside the network, beside diffusers: `python -m tests.benchmarks.runtime_overhead`.

One latent of Stable Diffusion, 1 x 4 x 64 x 64 in float32, and a network that takes no time; the peer is DPM-Solver++ (2M).
Both samplers run in turn, so that whatever else is running meets both; medians. Two tables: DPM++ 2M as traced from its rule,
and dense random rows, the most that a plan of as many evaluations can ask for. The promise is a ratio of at most 0.35.
"""

import random
import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from diffusers import DPMSolverMultistepScheduler
from rich.console import Console
from rich.table import Table

from solversearch.runtime import Node, Row, Tableau, run
from solversearch.schedules import DiscreteVP, grid
from solversearch.solvers import get
from solversearch.tableau import trace

TARGET = 0.35
REPETITIONS = 200
SHAPE = (1, 4, 64, 64)


def dense(nfe: int) -> Tableau:
    """Random rows without a zero."""
    rng = random.Random(0)
    rows = [Row(rng.uniform(0.1, 1), tuple(rng.uniform(0.1, 1) for _ in range(i))) for i in range(nfe + 1)]
    return Tableau((Node(1.0, 0.5, 0.5),) * nfe, tuple(rows))


def dpmpp_2m(nfe: int) -> Tableau:
    schedule = DiscreteVP.named("scaled_linear")
    return trace(get("dpmpp_2m").rule, schedule, grid("linspace", schedule, nfe))


def peer(nfe: int, noise: torch.Tensor, output: torch.Tensor) -> tuple[Callable[[], object], Callable[[], object]]:
    """Diffusers' preparation, which is not timed, and its steps."""
    scheduler = DPMSolverMultistepScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", solver_order=2)

    def steps() -> object:
        x = noise
        for t in scheduler.timesteps:
            x = scheduler.step(output, t, x, return_dict=False)[0]
        return x

    return lambda: scheduler.set_timesteps(nfe), steps


def seconds(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


@torch.inference_mode()
def main() -> int:
    torch.set_num_threads(1)
    noise, output = torch.randn(SHAPE), torch.randn(SHAPE)
    report = Table("evaluations", "table", "ours, us a step", "diffusers, us a step", "ratio", title="Overhead outside the network")
    worst = 0.0
    for nfe in (5, 10, 20):
        prepare, steps = peer(nfe, noise, output)
        for name, table in (("DPM++ 2M", dpmpp_2m(nfe)), ("dense", dense(nfe))):
            ours, theirs = [], []
            for _ in range(REPETITIONS):
                prepare()
                theirs.append(seconds(steps))
                ours.append(seconds(lambda table=table: run(table.nodes, table.rows, lambda x, node: output, noise)))  # type: ignore[misc]
            mine, other = (median(times) / nfe * 1e6 for times in (ours, theirs))
            worst = max(worst, mine / other)
            report.add_row(str(nfe), name, f"{mine:.1f}", f"{other:.1f}", f"{mine / other:.3f}")
    console = Console()
    console.print(report)
    console.print(f"worst ratio {worst:.3f}, promised at most {TARGET}: {'kept' if worst <= TARGET else 'BROKEN'}")
    return int(worst > TARGET)


if __name__ == "__main__":
    sys.exit(main())
