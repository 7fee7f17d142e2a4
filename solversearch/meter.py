"""Measures samplers on held-out noise: endpoint error and Frechet distances, with bootstrap intervals."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from solversearch.baselines import Baseline
from solversearch.distances import Gaussian, frechet, frechet_influence
from solversearch.models.base import Clock, Model
from solversearch.objectives.endpoint import endpoint_mse
from solversearch.plan import Interval, Score, Threshold
from solversearch.runtime import Tableau
from solversearch.sampling import sample
from solversearch.teacher import Teacher

RESAMPLES = 200
"""Bootstrap samples of every interval."""
WIDE = 128
"""Features above which a Frechet distance is resampled to first order: 200 covariances of Inception's 2,048 features take minutes."""

Distance = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Features (n, F) to their distance, and to those of the bootstrap samples, (RESAMPLES,)."""


class Meter:
    """Measures samplers on one set of held-out noise: endpoint error and Frechet distances with bootstrap intervals."""

    def __init__(self, model: Model, teacher: Teacher, seed: int = 0, batch_size: int = 512, clock: Clock | None = None) -> None:
        self.model, self.teacher, self.batch_size, self.clock = model, teacher, batch_size, clock
        rng = np.random.default_rng([seed, len(teacher)])
        n = len(teacher)
        self.weights = torch.from_numpy(rng.multinomial(n, [1 / n] * n, size=RESAMPLES)).double()
        self.distances: dict[str, Distance] = {}
        if model.features is not None:
            # The samples come from the same noise as the teacher's, so both are resampled together.
            self.distances["frechet_teacher"] = self._distance(model.features(teacher.endpoint).double().cpu())
            if model.real is not None:
                self.distances["frechet_data"] = self._distance(model.real.gaussian)

    def measure(self, name: str, kind: str, solver: str, grid: str, table: Tableau, threshold: Threshold | None = None) -> Score:
        samples = sample(self.model, table, self.teacher, self.batch_size, self.clock, threshold)
        error = endpoint_mse(samples, self.teacher.endpoint).cpu()
        scores = {"endpoint_mse": self._interval(error.mean(), self.weights @ error / len(error), error.median())}
        if self.model.features is not None:
            features = self.model.features(samples).double().cpu()
            scores |= {reference: self._interval(*distance(features)) for reference, distance in self.distances.items()}
        return Score.model_validate(
            {"name": name, "kind": kind, "solver": solver, "grid": grid, "nfe": table.nfe, "network_calls": table.network_calls,
             "samples": len(error), **scores}
        )  # fmt: skip

    def baseline(self, candidate: Baseline) -> Score:
        return self.measure(candidate.name, "baseline", candidate.solver, candidate.grid, candidate.table)

    def _distance(self, reference: Tensor | Gaussian) -> Distance:
        """To the features of twins, (n, F), or to a Gaussian, which is not resampled."""

        def linear(features: Tensor) -> tuple[Tensor, Tensor]:
            value, influence = frechet_influence(features, reference)
            return value, value + (self.weights - 1) @ influence

        if (reference.mean if isinstance(reference, Gaussian) else reference).shape[-1] > WIDE:
            return linear
        whole, parts = (
            (reference, reference) if isinstance(reference, Gaussian)
            else (Gaussian.of(reference), Gaussian.resampled(reference, self.weights))
        )  # fmt: skip
        return lambda features: (frechet(whole, Gaussian.of(features)), frechet(parts, Gaussian.resampled(features, self.weights)))

    @staticmethod
    def _interval(value: Tensor, resampled: Tensor, median: Tensor | None = None) -> Interval:
        """The 95 % interval, moved by the bootstrap's bias: a Frechet distance grows with the noise of resampling."""
        deviation = np.quantile((resampled - resampled.mean()).numpy(), [0.025, 0.975])
        low, high = float(value) + deviation
        return Interval(mean=float(value), low=max(float(low), 0.0), high=float(high), median=None if median is None else float(median))
