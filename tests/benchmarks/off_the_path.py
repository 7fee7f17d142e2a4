"""Methods that leave the teacher's path, on digits at 10 evaluations, judged by real digits: history guidance, and guidance by schedule.

    python -m tests.benchmarks.off_the_path

HiGS has the paper's weights: w at the noisy end, falling with the square root of the place u to none at u = 0.4, and a rate. Each distance
is over that of another sampler on the same noise; the interval is of the mean of its logarithm over the seeds. Diversity is the mean
distance of features within a class.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from solversearch import models
from solversearch.grids import grid
from solversearch.judging.distances import Moments, frechet_distance
from solversearch.judging.verdict import small_pictures
from solversearch.models.base import Model
from solversearch.noise import draw
from solversearch.runtime import Tableau
from solversearch.sampling import sample
from solversearch.schedules import Floats
from solversearch.solvers import get
from solversearch.solvers.mixed import Decision, mixed
from solversearch.spaces.domain import fractions_of
from solversearch.spaces.sections import SHAPES
from solversearch.tableau import trace
from solversearch.teacher import Teacher, teach

NFE, SAMPLES, SEEDS = 10, 4096, 5


def plain(model: Model, solver: str, name: str, guidance: float) -> Tableau:
    return get(solver).tableau(model.schedule, grid(name, model.schedule, NFE), guidance=guidance)


def history(model: Model, order: int, name: str, weight: float, rate: float) -> Tableau:
    """On DDIM or DPM-Solver++(2M), at guidance 2."""
    nodes = grid(name, model.schedule, NFE)
    weights = weight * np.sqrt(np.maximum(0, (fractions_of(model.schedule, [node.t for node in nodes[:-1]]) - 0.4) / 0.6))
    decisions = [Decision("dpmpp", order, history=float(each), history_rate=rate) for each in weights]
    return trace(mixed(decisions), model.schedule, nodes).guided(2.0)


def scheduled(model: Model, share: Callable[[Floats], Floats]) -> Tableau:
    """UniPC-2 with guidance 4 in shares of the place u."""
    table = plain(model, "unipc_2", "linspace", 4.0)
    shares = share(fractions_of(model.schedule, [node.t for node in table.nodes])).tolist()
    return replace(table, nodes=tuple(replace(node, guidance=1 + 3 * each) for node, each in zip(table.nodes, shares, strict=True)))


def noise(model: Model, seed: int) -> Teacher:
    """Held-out noise, without a teacher's samples, which nothing here looks at."""
    drawn, few = draw(model, "held_out", SAMPLES, seed), teach(model, "held_out", 16, 1.0, seed, False, 12)
    return replace(few, noise=drawn.noise, conditions=drawn.conditions, endpoint=drawn.noise, numbers=list(range(SAMPLES)))


def measured(model: Model, table: Tableau) -> Floats:
    """Distance to real digits in features and as pictures, and diversity: (seeds, 3)."""
    assert model.real is not None and model.data is not None and model.features is not None
    pictures, found = Moments.of(small_pictures(model.data())), []
    for seed in range(SEEDS):
        teacher = noise(model, seed)
        x = sample(model, table, teacher, 2048)
        features, conditions = model.features(x).double(), teacher.conditions
        assert conditions is not None
        found.append((float(frechet_distance(features, model.real.gaussian)), float(frechet_distance(small_pictures(x), pictures)),
                      np.mean([spread(features[conditions == label]) for label in range(10)])))  # fmt: skip
    return np.array(found)


def spread(features: Tensor) -> float:
    return float(torch.pdist(features).mean())


def ratio(one: Floats, other: Floats) -> str:
    logs = np.log(one / other)
    half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / len(logs) ** 0.5
    mean, low, high = np.exp([logs.mean(), logs.mean() - half, logs.mean() + half])
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    torch.set_num_threads(1)
    model = models.load("digits")
    beside = {"ddim linspace": ("ddim", "linspace"), "dpmpp_2m karras": ("dpmpp_2m", "karras"), "ipndm_3 linspace": ("ipndm_3", "linspace"),
              "dpmpp_2m_sde karras": ("dpmpp_2m_sde", "karras")}  # fmt: skip
    known = {name: measured(model, plain(model, *pair, 2.0)) for name, pair in beside.items()}
    for name, values in known.items():
        print(f"guidance 2, {name}: distance {values[:, 0].mean():.3f}, pictures {values[:, 1].mean():.3f}")
    for order, name, weight, rate in ((1, "linspace", 0.6, 0.5), (1, "linspace", 1.0, 0.75), (2, "karras", 0.6, 0.75)):
        own = measured(model, history(model, order, name, weight, rate))
        for other, values in known.items():
            told = f"distance {ratio(own[:, 0], values[:, 0])}, pictures {ratio(own[:, 1], values[:, 1])}"
            print(f"HiGS {weight} {rate} on order {order}, {name}, over {other}: {told}", flush=True)
    usual = measured(model, plain(model, "unipc_2", "linspace", 4.0))
    print(f"guidance 4: distance {usual[:, 0].mean():.3f}, diversity {usual[:, 2].mean():.3f}")
    shapes: dict[str, Callable[[Floats], Floats]] = {
        "linear": SHAPES["linear"], "cosine": SHAPES["cosine"], "below 0.7": lambda u: np.where(u <= 0.7, 1.0, 0.0)
    }  # fmt: skip
    for name, share in shapes.items():
        table = scheduled(model, share)
        own = measured(model, table)
        told = f"distance {ratio(own[:, 0], usual[:, 0])}, diversity {ratio(own[:, 2], usual[:, 2])}"
        print(f"{name}, {table.network_calls} calls: {told}", flush=True)


if __name__ == "__main__":
    main()
