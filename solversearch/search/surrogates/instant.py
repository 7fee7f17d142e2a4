"""Stage zero: the plan that is best on the surrogate, found without an evaluation of the network.

The package's own stages run on the anchored mixture (`anchored`) in the network's place, whose samples carry their own
number as the condition: the validation samples of the teacher, with the trajectories that it has kept.

    grids of the best baselines -> times (evolution strategy), every candidate fitted in closed form

Fitted states stay near the teacher's, where the surrogate is right. A polish by gradient does not help here: it leaves the
trajectories for places where the surrogate is wrong.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from solversearch.grids import explicit
from solversearch.judging.baselines import baselines
from solversearch.judging.objectives.endpoint import tempered
from solversearch.models.base import Denoiser, Model
from solversearch.runtime import Tableau
from solversearch.schedules import Floats
from solversearch.search.fitting.fit import RIDGE, fit
from solversearch.search.pricing import Pattern, drawn, patterned
from solversearch.search.surrogates.anchored import Anchored, Errors
from solversearch.search.surrogates.guided_mixture import Mixture
from solversearch.search.surrogates.surrogates import Surrogates
from solversearch.solvers import get
from solversearch.teacher import Teacher

STARTS, MARGIN = 8, 0.05
"""Grids of the best baselines between which times are searched, and how far beyond, as a fraction of the range of positions."""
RANDOM, GENERATIONS, CHILDREN, PARENTS, STEP = 300, 5, 100, 10, 0.04
"""Of the evolution strategy: 800 tables, which take seconds; STEP is the first standard deviation of a child's times, and falls."""
WIDER = 3
"""As many times the tables where it is searched, too, of what kind each evaluation is."""
MIXTURES = 3
"""Over which a table's errors are averaged, for each is right about other samples; the time of the stage grows with them."""
TEMPERED = 10.0
"""Errors are tempered from so many times the median of the best baseline on; a tenth of it under guidance, as in the search."""
CLOSEST = 1e-4
"""Least distance of two times, as a fraction of t_start: closer ones cannot be fitted."""
SAMPLES = 256
"""At most: what small models have."""
GRID = 4096
"""Times between which the network's noise scales are interpolated."""

Point = tuple[tuple[float, ...], Pattern]
"""Times, and of what kind each evaluation is; an empty pattern, where all are the network's own."""


class _Network:
    """x (B, axes), t (B,), number of the sample (B,) or -1 for no condition, to the data prediction."""

    def __init__(self, pair: Anchored, guidance: float) -> None:
        self.mixture, self.angles = pair.mixture, pair.angles.float()
        self.log_weights = torch.cat([pair.log_weights, pair.mixture.log_weights[-1:]])
        # D_u + w (D_c - D_u) then lacks nothing at the teacher's guidance.
        self.lack = torch.cat([pair.lack / guidance, torch.zeros_like(pair.lack[:, :1])], dim=1)
        schedule = pair.model.schedule
        low, high = schedule.position([schedule.t_end, schedule.t_start]).tolist()
        times = np.unique(schedule.time_at(np.linspace(low, high, GRID)))
        self.times, self.alpha, self.sigma = (
            torch.from_numpy(np.asarray(each)) for each in (times, schedule.alpha(times), schedule.sigma(times))
        )

    def __call__(self, x: Tensor, t: Tensor, number: Tensor) -> Tensor:
        values, group = t.detach().unique(return_inverse=True)  # type: ignore[no-untyped-call]
        order, parts = [], []
        for k in range(len(values)):
            rows = torch.nonzero(group == k)[:, 0]
            order.append(rows)
            parts.append(self._at(x[rows], t[rows].double().mean(), number[rows]))
        return torch.cat(parts)[torch.argsort(torch.cat(order))]

    def _at(self, x: Tensor, t: Tensor, number: Tensor) -> Tensor:
        i, part = _place(self.times, t)
        alpha, sigma = (torch.lerp(known[i - 1], known[i], part).float()[None] for known in (self.alpha, self.sigma))
        prediction = self.mixture.denoise(x[None], alpha, sigma, self.log_weights[number])[0][0]
        k, part = _place(self.angles, torch.atan2(sigma, alpha)[0])
        return prediction + torch.lerp(self.lack[k - 1][number], self.lack[k][number], part)


def _place(known: Tensor, value: Tensor) -> tuple[int, Tensor]:
    """The known number above a value, and how far it is from the one below to that, differentiable."""
    i = int(torch.searchsorted(known, value.detach()).clamp(1, len(known) - 1))
    return i, ((value - known[i - 1]) / (known[i] - known[i - 1])).clamp(0, 1)


def stand_in(surrogates: Surrogates, count: int = SAMPLES) -> tuple[Model, Teacher]:
    """The surrogate as a model that tells the network's own samples apart, with its teacher."""
    model = surrogates.model
    pair = Anchored(surrogates.mixture, model, surrogates.validation, surrogates.guidance, count)
    numbers, name, shape = torch.arange(len(pair.noise)), f"surrogate of {model.name}", tuple(pair.noise.shape[1:])
    taught = replace(
        pair.teacher, noise=pair.noise, conditions=numbers, endpoint=pair.endpoint, angles=pair.teacher.angles.cpu(),
        states=pair.states.flip(0), slopes=pair.slopes,
    )  # fmt: skip
    return Model(name, _Network(pair, surrogates.guidance), model.schedule, "sample", shape, numbers, torch.tensor(-1)), taught


def instant(
    surrogates: Surrogates, nfe: int, guidance: float = 1.0, seed: int = 0, split: bool | None = None, integer: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tableau:  # fmt: skip
    """The table whose times, fitted, have the least mean error on the surrogate. progress is told generations done and their count."""
    split = guidance != 1 if split is None else split
    model, taught = stand_in(surrogates)
    prior = _prior(surrogates.model, *_searched(surrogates, nfe, guidance, seed, split, integer, progress)[0], guidance)
    with torch.no_grad():
        return fit(prior, taught, Denoiser(model, taught.conditions, split=split), taught.noise, RIDGE, robust=True)[0]


def priced(
    surrogates: Surrogates, nfe: int, which: Sequence[Pattern], count: int, guidance: float, errors: Errors, seed: int = 0,
    split: bool = False, integer: bool = False, progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Tableau]:  # fmt: skip
    """Tables whose evaluations are of kinds in one of these combinations, to be fitted to the network: the best times for each of the best
    patterns, as many as count, the best on the surrogate first. errors are those of variants (`Surrogates.learn_variants`)."""
    found = _searched(surrogates, nfe, guidance, seed, split, integer, progress, which, errors)
    return [_prior(surrogates.model, *each, guidance) for each in found[:count]]


def _searched(
    surrogates: Surrogates, nfe: int, guidance: float, seed: int, split: bool, integer: bool, progress: Callable[[int, int], None],
    which: Sequence[Pattern] = (), errors: Errors = MappingProxyType({}),
) -> list[Point]:  # fmt: skip
    """The best times for each pattern, the very best first: an evolution strategy about the grids of the best baselines, in fractions of
    the range of positions."""
    model, schedule, rng = surrogates.model, surrogates.model.schedule, np.random.default_rng([seed, nfe])
    # Several mixtures, for each is right about other samples.
    pairs = [surrogates.anchored]
    for k in range(1, MIXTURES):
        pairs.append(
            Anchored(Mixture.fit(surrogates.samples, seed + k), model, surrogates.validation, guidance, len(surrogates.anchored.noise))
        )
    for pair in pairs:
        pair.learn(errors)
    last, first = schedule.position([schedule.t_end, schedule.t_start])
    found = [each for each in baselines(model, nfe, guidance, integer) if each.plain]
    grids: dict[str, Floats] = {}
    losses = surrogates.anchored.errors([each.table for each in found]).double()
    scale = TEMPERED * float(losses[int(losses.mean(1).argmin())].median()) * (1.0 if guidance == 1 else 0.1)
    for k in np.argsort(losses.mean(1).numpy(), kind="stable"):
        if len(grids) < STARTS:
            grids.setdefault(found[k].grid, (schedule.position([node.t for node in found[k].table.nodes]) - last) / (first - last))
    places = np.array(list(grids.values()))
    low, high = np.clip([places.min(0) - MARGIN, places.max(0) + MARGIN], 0, 1)
    known: dict[Point, float] = {}

    def patterns(count: int) -> list[Pattern]:
        return list(drawn(rng, which, count)) if which else [()] * count

    def best(count: int) -> list[Point]:
        """So many of each choice, lest one crowd out the rest before they have had good times; the very best first."""
        taken: dict[Pattern, list[Point]] = {}
        for point in sorted(known, key=lambda each: known[each]):
            taken.setdefault(point[1], []).append(point)
        return sorted((point for points in taken.values() for point in points[:count]), key=lambda each: known[each])

    def judge(fractions: Floats, patterns: Sequence[Pattern]) -> None:
        """Repeated times cannot be fitted: they drop out."""
        given = -np.sort(-np.clip(fractions, 0, 1), axis=1)
        wanted = [tuple(schedule.time_at(last + each * (first - last)).tolist()) for each in given]
        if integer and schedule.discrete:
            wanted = [tuple(np.round(each).tolist()) for each in wanted]
        new = [
            each for each in dict.fromkeys(zip(wanted, patterns, strict=True))
            if each not in known and min(-np.diff(each[0]), default=1.0) > CLOSEST * schedule.t_start
        ]  # fmt: skip
        if new:
            tables = [_prior(model, *each, guidance) for each in new]
            errors = [tempered(paired.errors(tables, RIDGE, split).double(), scale).mean(1) for paired in pairs]
            known.update(zip(new, torch.stack(errors).mean(0).tolist(), strict=True))

    breadth = WIDER if which else 1
    fractions = np.concatenate([*[places] * breadth, rng.uniform(low, high, (RANDOM * breadth, nfe))])
    judge(fractions, patterns(len(fractions)))
    for generation in range(GENERATIONS):
        parents = best(1 if which else PARENTS)[:PARENTS]
        chosen = [parents[k] for k in rng.integers(len(parents), size=CHILDREN * breadth)]
        at = (schedule.position(np.array([times for times, _ in chosen])) - last) / (first - last)
        judge(at + rng.normal(0, STEP / (1 + generation), at.shape), [pattern for _, pattern in chosen])
        progress(generation + 1, GENERATIONS)
    return best(1)


def _prior(model: Model, times: tuple[float, ...], pattern: Pattern, guidance: float) -> Tableau:
    """The table that the fit shrinks towards."""
    table = get("unip_2").tableau(model.schedule, explicit(model.schedule, times)).guided(guidance)
    return patterned(table, pattern) if pattern else table
