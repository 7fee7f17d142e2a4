"""What the sampling loop costs a step outside the network, beside diffusers: `python -m tests.benchmarks.runtime_overhead`.

One latent of Stable Diffusion, 1 x 4 x 64 x 64 in float32, and a network that takes no time; the peer is DPM-Solver++ (2M).
Both samplers run in turn, so that whatever else is running meets both; medians. Two tables: DPM++ 2M as traced from its rule,
and dense random rows, the most that a plan of as many evaluations can ask for. The promise is a ratio of at most 0.35.
Then a latent of 1 x 16 x 128 x 128 and rows as of DPM++ 2M, whose coefficients are of eight frequency bands: at most 2.
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

from solversearch.components import Components
from solversearch.grids import grid
from solversearch.runtime import Node, Row, Tableau, run
from solversearch.schedules import DiscreteVP
from solversearch.solvers import get
from solversearch.tableau import trace

TARGET, TARGET_OF_BANDS = 0.35, 2.0
REPETITIONS = 200
SHAPE, LARGE = (1, 4, 64, 64), (1, 16, 128, 128)
BANDS = Components(tuple(2.0 ** (k - 7) for k in range(8)))


def dense(nfe: int) -> Tableau:
    """Random rows without a zero."""
    rng = random.Random(0)
    rows = [Row(rng.uniform(0.1, 1), tuple(rng.uniform(0.1, 1) for _ in range(i))) for i in range(nfe + 1)]
    return Tableau((Node(1.0, 0.5, 0.5),) * nfe, tuple(rows))


def banded(nfe: int) -> Tableau:
    """Two past outputs a row, as DPM++ 2M has, each with a coefficient a band."""
    each = tuple(0.1 * k + 0.1 for k in range(8))
    rows = [Row(each, (0.0,) * (i - 2) + (each,) * min(i, 2)) for i in range(nfe + 1)]
    return Tableau((Node(1.0, 0.5, 0.5),) * nfe, tuple(rows), components=BANDS)


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
    report = Table(
        "evaluations", "table", "ours, us a step", "diffusers, us a step", "ratio", "at most", title="Overhead outside the network"
    )
    broken = False
    for nfe in (5, 10, 20):
        for name, table, shape, target in (
            ("DPM++ 2M", dpmpp_2m(nfe), SHAPE, TARGET),
            ("dense", dense(nfe), SHAPE, TARGET),
            ("8 bands", banded(nfe), LARGE, TARGET_OF_BANDS),
        ):
            mine, other = (median(times) / nfe * 1e6 for times in timed(table, shape))
            broken = broken or mine / other > target
            report.add_row(str(nfe), name, f"{mine:.1f}", f"{other:.1f}", f"{mine / other:.3f}", f"{target}")
    console = Console()
    console.print(report)
    console.print("BROKEN" if broken else "kept")
    return int(broken)


def timed(table: Tableau, shape: tuple[int, ...]) -> tuple[list[float], list[float]]:
    """Seconds of our runs, and of diffusers' that are made in turn with them."""
    noise, output = torch.randn(shape), torch.randn(shape)
    prepare, steps = peer(table.nfe, noise, output)
    ours, theirs = [], []
    for _ in range(REPETITIONS if shape == SHAPE else REPETITIONS // 10):
        prepare()
        theirs.append(seconds(steps))
        ours.append(seconds(lambda: run(table.nodes, table.rows, lambda x, node: output, noise, components=table.components)))
    return ours, theirs


if __name__ == "__main__":
    sys.exit(main())
