"""How well the predictor ranks unseen random candidates of `s3`: `python -m tests.benchmarks.predictor_tau [--model digits] [--nfe 5]`.

Kendall's tau with the tempered endpoint error on 256 validation samples, over 300 candidates that were never told, mean of three draws.
Before any evaluation; after 64 that were told; and after the surrogate has also observed the first 16 of them on its own 64 samples.
"""

import argparse

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import kendalltau

from solversearch import models
from solversearch.judging.baselines import baselines, screen, screening
from solversearch.judging.objectives.endpoint import endpoint_mse, tempered
from solversearch.models.base import Model
from solversearch.runtime import Tableau
from solversearch.sampling import sample, sample_together
from solversearch.schedules import Floats
from solversearch.search.surrogates.predictor import Predictor
from solversearch.search.surrogates.surrogates import Surrogates
from solversearch.spaces import Domain, SearchSpace
from solversearch.teacher import Teacher, teach

TOLD, OBSERVED, UNSEEN, DRAWS = 64, 16, 300, 3
TARGETS = {1.0: (0.75, 0.85), 4.0: (0.55, 0.70)}


def candidates(model: Model, nfe: int, guidance: float, validation: Teacher, seed: int) -> tuple[list[Tableau], Floats, float]:
    """Random tables of `s3` about the grids of the eight best baselines, their losses, and the scale of these."""
    screened = screen(model, baselines(model, nfe, guidance), validation.first(screening(len(validation))))
    starts: dict[str, Tableau] = {}
    for _, baseline in screened:
        if not baseline.table.stochastic and len(starts) < 8:
            starts.setdefault(baseline.grid, baseline.table)
    best = endpoint_mse(sample(model, next(iter(starts.values())), validation), validation.endpoint)
    scale = float(best.median()) * (1.0 if guidance == 1 else 0.1)
    domain = Domain.of(SearchSpace.named("s3"), model.schedule, nfe, guidance, [table.nodes for table in starts.values()])
    rng = np.random.default_rng([seed, nfe])
    tables = [domain.tableau(domain.random(rng)) for _ in range(TOLD + UNSEEN)]
    losses = []
    for samples in sample_together(model, tables, validation):
        if isinstance(samples, Exception):
            raise samples
        losses.append(float(tempered(endpoint_mse(samples, validation.endpoint), scale).mean()))
    return tables, np.array(losses), scale


def measured(model: Model, nfe: int, guidance: float, seed: int) -> dict[str, float]:
    fitting, validation = (teach(model, split, 256, guidance) for split in ("fit", "validate"))
    unguided = [teach(model, split, 256) for split in ("fit", "validate")]
    tables, losses, scale = candidates(model, nfe, guidance, validation, seed)
    surrogates = Surrogates.of(model, fitting, validation, unguided, guidance, seed)
    surrogates.anchored.scale = scale
    unseen, truth = tables[TOLD:], losses[TOLD:]

    def tau(predicted: Floats) -> float:
        return float(kendalltau(predicted, truth).statistic)

    predictor = Predictor(surrogates, seed=seed)
    found = {
        "Gaussian": tau(surrogates.gaussian.losses(unseen)),
        "before": tau(predictor.predict(unseen)[0]),
    }
    for first in range(0, TOLD, 8):
        predictor.tell(tables[first : first + 8], losses[first : first + 8])
    mean = predictor.predict(unseen)[0]
    found["learned alone"] = tau(predictor.model.without(predictor.features(unseen)))
    found[f"after {TOLD}"] = tau(mean)
    surrogates.observe(tables[:OBSERVED])
    found["observed"] = tau(surrogates.anchored.losses(unseen))
    mean, deviation = predictor.predict(unseen)
    found[f"after {TOLD}, {OBSERVED} observed"] = tau(mean)
    found["error / predicted deviation"] = float(np.std(mean - np.log(truth)) / np.sqrt(np.mean(deviation**2)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Kendall's tau of the predictor.")
    parser.add_argument("--model", default="digits")
    parser.add_argument("--nfe", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model, rows = models.load(given.model), {}
    for guidance in TARGETS:
        each = [measured(model, given.nfe, guidance, seed) for seed in range(DRAWS)]
        rows[guidance] = {name: float(np.mean([found[name] for found in each])) for name in each[0]}
    table = Table("", *(f"guidance {guidance:g}" for guidance in rows), title=f"Kendall's tau, {given.model}, NFE {given.nfe}")
    for name in rows[1.0]:
        table.add_row(name, *(f"{row[name]:.3f}" for row in rows.values()))
    table.add_row("targets, before / after", *(f"{before} / {after}" for before, after in TARGETS.values()))
    Console().print(table)
    last = f"after {TOLD}, {OBSERVED} observed"
    if any(row["before"] < TARGETS[guidance][0] or row[last] < TARGETS[guidance][1] for guidance, row in rows.items()):
        raise SystemExit("a target is missed")


if __name__ == "__main__":
    main()
