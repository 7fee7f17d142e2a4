"""Measures samplers on held-out noise: endpoint error and Frechet distances, with bootstrap intervals."""

import numpy as np
import torch
from torch import Tensor

from solversearch.baselines import Baseline
from solversearch.models.base import Clock, Model
from solversearch.objectives.endpoint import endpoint_mse
from solversearch.objectives.frechet import Gaussian, frechet
from solversearch.plan import Interval, Score, Threshold
from solversearch.runtime import Tableau
from solversearch.sampling import sample
from solversearch.teacher import Teacher

RESAMPLES = 200
"""Bootstrap samples of every interval."""


class Meter:
    """Measures samplers on one set of held-out noise: endpoint error and Frechet distances with bootstrap intervals."""

    def __init__(self, model: Model, teacher: Teacher, seed: int = 0, batch_size: int = 512, clock: Clock | None = None) -> None:
        self.model, self.teacher, self.batch_size, self.clock = model, teacher, batch_size, clock
        rng = np.random.default_rng([seed, len(teacher)])
        n = len(teacher)
        self.weights = torch.from_numpy(rng.multinomial(n, [1 / n] * n, size=RESAMPLES)).double()
        self.references: dict[str, tuple[Gaussian, Gaussian]] = {}
        if model.features is not None:
            reached = model.features(teacher.endpoint)
            # The samples come from the same noise as the teacher's, so both are resampled together.
            self.references = {"frechet_teacher": (Gaussian.of(reached), Gaussian.resampled(reached, self.weights))}
            if model.data is not None:
                real = Gaussian.of(model.features(model.data()))
                self.references["frechet_data"] = (real, real)

    def measure(self, name: str, kind: str, solver: str, grid: str, table: Tableau, threshold: Threshold | None = None) -> Score:
        samples = sample(self.model, table, self.teacher, self.batch_size, self.clock, threshold)
        error = endpoint_mse(samples, self.teacher.endpoint)
        scores = {"endpoint_mse": self._interval(error.mean(), self.weights @ error / len(error), error.median())}
        if self.model.features is not None:
            features = self.model.features(samples)
            moments, resampled = Gaussian.of(features), Gaussian.resampled(features, self.weights)
            for reference, (whole, parts) in self.references.items():
                scores[reference] = self._interval(frechet(whole, moments)[0], frechet(parts, resampled))
        return Score.model_validate(
            {"name": name, "kind": kind, "solver": solver, "grid": grid, "nfe": table.nfe, "network_calls": table.network_calls,
             "samples": len(error), **scores}
        )  # fmt: skip

    def baseline(self, candidate: Baseline) -> Score:
        return self.measure(candidate.name, "baseline", candidate.solver, candidate.grid, candidate.table)

    @staticmethod
    def _interval(value: Tensor, resampled: Tensor, median: Tensor | None = None) -> Interval:
        """The 95 % interval, moved by the bootstrap's bias: a Frechet distance grows with the noise of resampling."""
        deviation = np.quantile((resampled - resampled.mean()).numpy(), [0.025, 0.975])
        low, high = float(value) + deviation
        return Interval(mean=float(value), low=max(float(low), 0.0), high=float(high), median=None if median is None else float(median))
