"""What samplers reach on held-out noise: their errors and Frechet distances as a row of a comparison, and the best of all baselines."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from solversearch.empirical import parametrization
from solversearch.judging import intervals
from solversearch.judging.baselines import baselines
from solversearch.judging.distances import Moments, frechet_influence
from solversearch.judging.intervals import TINY
from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.judging.race import FRECHET, GEOMETRIC, MEAN, MEDIAN, Places, Race, race
from solversearch.memo import NO_MEMO, Memo
from solversearch.models.base import Clock, Model, NotFinite
from solversearch.plan import Interval, Score, Threshold
from solversearch.runtime import Tableau
from solversearch.sampling import sample
from solversearch.schedules import Floats
from solversearch.teacher import Teacher

QUANTILES = (0.9, 0.99)
LEAST = 16
"""Samples from which on something can be said."""


class ComparisonRow(Score):
    """A score with what the tail of the errors is like. worst_hundredth is the share of the sum that the worst 1 % of the samples has.

    An interval of a mean that a few samples carry is only a lower bound: lower_bound.
    """

    geometric_mean: float
    quantile_90: float
    quantile_99: float
    worst_hundredth: float
    lower_bound: bool

    def score(self) -> Score:
        """What a plan file keeps of it."""
        return Score.model_validate({name: getattr(self, name) for name in Score.model_fields})


@dataclass(frozen=True)
class Measured:
    """A table run on all samples: errors (n,), inf where it ran away, and features (n, F) float64, where the model has any."""

    name: str
    kind: str
    solver: str
    grid: str
    table: Tableau
    errors: Floats
    features: Tensor | None

    def at(self, places: Places) -> "Measured":
        """The same for some of the samples."""
        features = None if self.features is None else self.features[torch.from_numpy(places)]
        return replace(self, errors=self.errors[places], features=features)

    def value(self, measure: str, target: Tensor | None) -> float:
        """By one of the measures of a race; inf where the table ran away. target are the teacher's features."""
        if measure == MEAN:
            return float(self.errors.mean())
        if measure == MEDIAN:
            return intervals.lower_median(self.errors)
        if measure == GEOMETRIC:
            return float(np.exp(np.log(np.maximum(self.errors, TINY)).mean()))
        assert measure == FRECHET and target is not None
        return self.frechet(target)

    def frechet(self, reference: Tensor | Moments) -> float:
        """The distance of the features to others, or to moments."""
        return self._frechet(reference)[0]

    def row(self, target: Tensor | None, real: Moments | None, seed: int) -> ComparisonRow:
        """Of a table that ran away nowhere."""
        values = [self._frechet_interval(each) for each in (target, real)]
        mean = intervals.mean_ratio(self.errors, np.ones_like(self.errors), seed)
        return ComparisonRow.model_validate(
            {
                "name": self.name, "kind": self.kind, "solver": self.solver, "grid": self.grid, "nfe": self.table.nfe,
                "network_calls": self.table.network_calls, "samples": len(self.errors),
                "endpoint_mse": mean.model_copy(update={"median": intervals.lower_median(self.errors)}),
                "frechet_teacher": values[0], "frechet_data": values[1], "geometric_mean": self.value(GEOMETRIC, None),
                **dict(zip(("quantile_90", "quantile_99"), np.quantile(self.errors, QUANTILES).tolist(), strict=True)),
                "worst_hundredth": intervals.carried(self.errors), "lower_bound": intervals.is_lower_bound(self.errors),
            }
        )  # fmt: skip

    def frechet_ratio(self, other: "Measured", target: Tensor | Moments) -> Interval:
        """Of the distances to the teacher or to moments, the samples of all being resampled together, to first order."""
        (a, own), (b, others) = self._frechet(target), other._frechet(target)
        error = float((own / max(a, TINY) - others / max(b, TINY)).square().sum().sqrt())
        return _around(a / max(b, TINY), error)

    def _frechet(self, reference: Tensor | Moments) -> tuple[float, Tensor]:
        assert self.features is not None
        if not bool(self.features.isfinite().all()):
            return np.inf, torch.zeros(len(self.features), dtype=torch.float64)
        value, influence = frechet_influence(self.features, reference)
        return max(float(value), 0.0), influence - influence.mean()  # the weights of samples add up to n

    def _frechet_interval(self, reference: Tensor | Moments | None) -> Interval | None:
        if self.features is None or reference is None:
            return None
        value, influence = self._frechet(reference)
        return _around(value, float(influence.square().sum().sqrt()) / max(value, TINY))


def _around(value: float, error: float) -> Interval:
    """error is of the logarithm. A distance is about a sum of squares: its logarithm is nearer to a normal than itself."""
    factor = float(np.exp(min(ndtri((1 + intervals.LEVEL) / 2) * error, 690.0)))
    return Interval(mean=value, low=value / factor, high=min(value * factor, 1e300))


def measured(
    model: Model, table: Tableau, teacher: Teacher, batch_size: int = 512, clock: Clock | None = None, threshold: Threshold | None = None,
    memo: Memo = NO_MEMO, name: str = "plan", solver: str = "table", grid: str = "searched",
) -> Measured:  # fmt: skip
    """A plan's table on all of the teacher's samples. solver and grid are how the row of a comparison names it."""

    def run(some: Teacher) -> dict[str, Tensor]:
        x = sample(model, table, some, batch_size, clock, threshold, lenient=True)
        found = {"errors": endpoint_mse(x, some.endpoint).nan_to_num(nan=torch.inf)}
        return found if model.features is None else {**found, "features": model.features(x).cpu()}

    batches = [range(len(teacher))[first : first + batch_size] for first in range(0, len(teacher), batch_size)]
    made = [memo.tensors(partial(run, teacher.at(batch))) for batch in batches]
    features = None if model.features is None else torch.cat([each["features"] for each in made]).double()
    return Measured(name, "plan", solver, grid, table, torch.cat([each["errors"] for each in made]).numpy(), features)


def finite(model: Model, teacher: Teacher, errors: Floats | None = None) -> Places:
    """The samples on which the teacher, and the errors, are finite. Raises `NotFinite` where they are too few for any verdict."""
    fine = teacher.endpoint.flatten(1).isfinite().all(1).cpu().numpy()
    places = np.flatnonzero(fine if errors is None else fine & np.isfinite(errors))
    if len(places) < LEAST:
        raise NotFinite(
            f"{len(places)} of {len(teacher)} held-out samples are finite, too few for any verdict: the network of {model.name!r} returns "
            "NaN or inf; check its weights and dtype"
        )
    return places


@dataclass
class Rivals:
    """Every baseline at one cost, raced on a teacher's samples; those measured in full, best mean first.

    others have been measured in full beside the race.
    """

    model: Model
    teacher: Teacher
    race: Race
    others: Sequence[Measured] = ()

    @cached_property
    def measured(self) -> list[Measured]:
        """Without those that ran away on some sample."""
        runs, everything = self.race.runs, np.arange(len(self.teacher))
        found = list(self.others)
        for table in self.race.finalists:
            if np.isfinite(runs.errors[table]).all():
                each, features = self.race.baseline(table), runs.features(table, everything) if runs.target is not None else None
                found.append(
                    Measured(each.name, "baseline", each.solver, each.grid, runs.tables[table], runs.errors[table].copy(), features)
                )
        if not found:
            raise NotFinite(f"with every baseline the network of {self.model.name!r} returned NaN or inf on some sample")
        return sorted(found, key=lambda each: each.value(MEAN, None))

    @property
    def target(self) -> Tensor | None:
        """Features of the teacher's samples, (n, F) float64."""
        return None if self.race.runs.target is None else self.race.runs.target.double()

    def teacher_distance(self, real: Moments | None) -> Interval | None:
        """The Frechet distance of the teacher's own samples to real ones: what the distances of its samplers are to be seen beside."""
        return replace(self.measured[0], features=self.target)._frechet_interval(real)

    def best(self, measure: str) -> Measured:
        return min(self.measured, key=lambda each: each.value(measure, self.target))


def measures_of(model: Model) -> tuple[str, ...]:
    return (MEAN, MEDIAN, GEOMETRIC) if model.features is None else (MEAN, MEDIAN, GEOMETRIC, FRECHET)


def rivals(
    model: Model, nfe: int, guidance: float, teacher: Teacher, integer: bool = False, batch_size: int = 512, clock: Clock | None = None,
    memo: Memo = NO_MEMO, measures: Sequence[str] | None = None, among: set[tuple[str, str]] | None = None, hard: Places | None = None,
    target: float | None = None, progress: Callable[[str], None] = lambda note: None,
) -> Rivals:  # fmt: skip
    """The race of every solver on every grid (or of the named pairs) that can spend exactly nfe evaluations.

    measures are those in which the best is looked for, by default all that the model has; hard and target are `race`'s. Raises `UserError`
    where nothing can spend nfe evaluations, and `NotFinite` where every baseline runs away.
    """
    found = baselines(model, nfe, guidance, integer, among, partial(parametrization, model, guidance, batch_size, clock))
    told = partial(_told, progress, nfe)
    raced = race(model, found, teacher, measures or measures_of(model), batch_size, clock, memo, hard, target, told)
    return Rivals(model, teacher, raced)


def _told(progress: Callable[[str], None], nfe: int, tables: int, samples: int) -> None:
    progress(f"{tables} baselines of NFE {nfe} on {samples} samples")
