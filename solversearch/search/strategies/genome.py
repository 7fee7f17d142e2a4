"""Parameters as rows of the unit cube, where many candidates mutate and cross at once.

A continuous parameter is its place between its bounds (of logarithms where Optuna samples it so). A parameter of K levels, which are
whole numbers or choices, is the middle (k + 1/2) / K of its level, so that equal candidates are equal rows.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from solversearch.schedules import Floats
from solversearch.spaces import Params

_TIME = "time."


class Genome:
    """Encodes, decodes, mutates and crosses the parameters of a space. Rows are (n, parameters), values in [0, 1]."""

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self.distributions = dict(distributions)
        self.levels = np.array([_levels(each) for each in self.distributions.values()], int)
        self.choice = np.array([isinstance(each, CategoricalDistribution) for each in self.distributions.values()], bool)
        times = [(int(name.removeprefix(_TIME)), i) for i, name in enumerate(self.distributions) if name.startswith(_TIME)]
        self.times = np.array([i for _, i in sorted(times)], int)
        bounds = [_bounds(list(self.distributions.values())[i]) for i in self.times]
        self.low, self.high = np.array(bounds).reshape(-1, 2).T

    def encode(self, params: Sequence[Params]) -> Floats:
        columns = [_places(distribution, [each[name] for each in params]) for name, distribution in self.distributions.items()]
        return np.clip(np.array(columns, float).reshape(len(self.levels), len(params)).T, 0, 1)

    def decode(self, rows: Floats) -> list[Params]:
        columns = [_values(distribution, rows[:, i]) for i, distribution in enumerate(self.distributions.values())]
        return [dict(zip(self.distributions, values, strict=True)) for values in zip(*columns, strict=True)]

    def random(self, rng: np.random.Generator, count: int) -> Floats:
        return self._legal(rng.random((count, len(self.levels))))

    def redrawn(self, rows: Floats, rng: np.random.Generator, rate: float) -> Floats:
        """Every parameter drawn anew with the probability `rate`."""
        return self._legal(np.where(rng.random(rows.shape) < rate, rng.random(rows.shape), rows))

    def mutated(self, rows: Floats, rng: np.random.Generator, rate: Floats, step: Floats) -> Floats:
        """At least one parameter of each row, and every one with the probability `rate` (n), is moved: a number by a Gaussian step of
        standard deviation `step` (n) of its range, reflected at its bounds (whole numbers by at least one), a choice to another."""
        moved = rng.random(rows.shape) < rate[:, None]
        free = np.flatnonzero(self.levels != 1)
        if len(free):
            moved[np.arange(len(rows)), rng.choice(free, len(rows))] = True
        change = rng.standard_normal(rows.shape) * step[:, None]
        levels = np.maximum(self.levels, 1)
        least = np.where(self.levels > 0, 1 / levels, 0)
        numbers = rows + np.sign(change) * np.maximum(np.abs(change), least)
        numbers = 1 - np.abs(1 - np.abs(numbers) % 2)
        choices = (rows + rng.integers(1, np.maximum(levels, 2), rows.shape) / levels) % 1
        return self._legal(np.where(moved, np.where(self.choice, choices, numbers), rows))

    def crossed(self, one: Floats, other: Floats, rng: np.random.Generator) -> Floats:
        """Every parameter of either parent with equal probability."""
        return self._legal(np.where(rng.random(one.shape) < 0.5, one, other))

    def distance(self, rows: Floats, row: Floats) -> Floats:
        """Root mean square over the parameters; different choices are 1 apart."""
        apart = np.where(self.choice, rows != row, np.abs(rows - row))
        return np.sqrt((apart**2).mean(1))

    def _legal(self, rows: Floats) -> Floats:
        """Levels at their middles, times falling within the bounds of each."""
        levels = np.maximum(self.levels, 1)
        middles = (np.minimum(np.floor(rows * levels), levels - 1) + 0.5) / levels
        rows = np.where(self.levels > 0, middles, np.clip(rows, 0, 1))
        if len(self.times) > 1 and not self.levels[self.times].any():
            times = -np.sort(-(self.low + rows[:, self.times] * (self.high - self.low)), axis=1)
            rows[:, self.times] = np.clip((times - self.low) / (self.high - self.low), 0, 1)
        return rows


def _levels(distribution: BaseDistribution) -> int:
    """How many values there are; 0 for a continuum."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.single():
        return 1
    return 0 if distribution.step is None else round((distribution.high - distribution.low) / distribution.step) + 1


def _bounds(distribution: BaseDistribution) -> tuple[float, float]:
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return distribution.low, distribution.high


def _places(distribution: BaseDistribution, values: Sequence[Any]) -> Floats:
    levels = _levels(distribution)
    internal = np.array([distribution.to_internal_repr(value) for value in values], float)
    if isinstance(distribution, CategoricalDistribution):
        return (internal + 0.5) / levels
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if levels:
        return (np.round((internal - distribution.low) / (distribution.step or 1)) + 0.5) / levels
    low, high = distribution.low, distribution.high
    if distribution.log:
        internal, low, high = np.log(internal), np.log(low), np.log(high)
    return (internal - low) / (high - low)


def _values(distribution: BaseDistribution, places: Floats) -> list[Any]:
    levels = _levels(distribution)
    index: NDArray[np.int_] = np.minimum(places * levels, levels - 1).astype(int)
    if isinstance(distribution, CategoricalDistribution):
        return [distribution.choices[k] for k in index]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = distribution.low, distribution.high
    if levels:
        values = low + index * (distribution.step or 0)
    elif distribution.log:
        values = np.exp(np.log(low) + places * (np.log(high) - np.log(low)))
    else:
        values = low + places * (high - low)
    return np.clip(values, low, high).tolist()
