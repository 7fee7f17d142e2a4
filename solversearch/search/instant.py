"""Stage zero: the plan that is best on the surrogate, found without an evaluation of the network.

The package's own stages run on the anchored mixture (`paired`) in the network's place, whose samples carry their own
number as the condition: fitting and validation samples of the teacher, with the trajectories that it has kept.

    best baselines -> fit (closed form) -> polish (gradient)
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from solversearch.compare import baselines
from solversearch.models.base import Denoiser, Model
from solversearch.objectives.endpoint import tempered
from solversearch.runtime import Tableau
from solversearch.search.fit import fit
from solversearch.search.paired import Paired
from solversearch.search.polish import polish
from solversearch.search.surrogate import Surrogates
from solversearch.teacher import Teacher

STARTS = 8
"""Grids of the best baselines that are fitted."""
POLISHED = 2
ITERATIONS = 60
RIDGE = 1e-4
SAMPLES = 192
"""Of fitting and of validation."""
GRID = 4096
"""Times between which the network's noise scales are interpolated."""


class _Network:
    """x (B, axes), t (B,), number of the sample (B,) or -1 for no condition, to the data prediction."""

    def __init__(self, pairs: tuple[Paired, ...], guidance: float) -> None:
        first = pairs[0]
        self.mixture, self.angles = first.mixture, first.angles.float()
        free = first.mixture.log_weights[-1:]
        self.log_weights = torch.cat([*(pair.log_weights for pair in pairs), free])
        # D_u + w (D_c - D_u) then lacks nothing at the teacher's guidance.
        lack = torch.cat([pair.lack for pair in pairs], dim=1) / guidance
        self.lack = torch.cat([lack, torch.zeros_like(lack[:, :1])], dim=1)
        schedule = first.model.schedule
        times = np.unique(schedule.time_at(np.linspace(*schedule.position([schedule.t_end, schedule.t_start]), GRID)))
        self.times, self.alpha, self.sigma = (torch.from_numpy(np.asarray(each)) for each in (times, schedule.alpha(times), schedule.sigma(times)))

    def __call__(self, x: Tensor, t: Tensor, number: Tensor) -> Tensor:
        values, group = t.detach().unique(return_inverse=True)
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


def stand_in(surrogates: Surrogates, count: int = SAMPLES) -> tuple[Model, Teacher, Teacher]:
    """The surrogate as a model that tells the network's own samples apart, with its fitting and validation teachers."""
    model, guidance = surrogates.model, surrogates.guidance
    teachers = surrogates.fitting, surrogates.validation
    pairs = tuple(Paired(surrogates.mixture, model, teacher, guidance, count) for teacher in teachers)
    made, start = [], 0
    for pair in pairs:
        numbers = torch.arange(start, start := start + len(pair.noise))
        states = pair.states.flip(0)
        made.append(replace(pair.teacher, noise=pair.noise, conditions=numbers, endpoint=pair.endpoint, states=states, slopes=pair.slopes))
    network = _Network(pairs, guidance)
    name = f"surrogate of {model.name}"
    shape = tuple(pairs[0].noise.shape[1:])
    return Model(name, network, model.schedule, "sample", shape, torch.arange(start), torch.tensor(-1)), made[0], made[1]


@torch.no_grad()
def _fit(model: Model, table: Tableau, fitting: Teacher, split: bool) -> Tableau:
    return fit(table, fitting, Denoiser(model, fitting.conditions, split=split), fitting.noise, RIDGE, robust=True)[0]


def instant(
    surrogates: Surrogates, nfe: int, guidance: float = 1.0, seed: int = 0, split: bool | None = None, integer: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tableau:  # fmt: skip
    """The best table on the surrogates, by fit and polish. Deterministic: nothing is drawn. progress is told steps done and their count."""
    split = guidance != 1 if split is None else split
    paired = surrogates.paired
    found = [each for each in baselines(surrogates.model, nfe, guidance, integer) if not each.table.stochastic]
    losses = paired.losses([each.table for each in found])
    starts: dict[str, Tableau] = {}
    for k in np.argsort(losses, kind="stable"):
        if len(starts) < STARTS:
            starts.setdefault(found[k].grid, found[k].table)
    model, fitting, validation = stand_in(surrogates)

    def error(table: Tableau) -> Tensor:
        return paired.errors([table])[0].double()

    scale = float(error(next(iter(starts.values()))).median()) * (1.0 if guidance == 1 else 0.1)
    def loss(table: Tableau) -> float:
        return float(tempered(error(table), scale).mean())

    fitted = sorted((_fit(model, table, fitting, split) for table in starts.values()), key=loss)
    total = ITERATIONS * POLISHED
    polished = [
        polish(
            model, table, fitting, validation, ITERATIONS, scale=scale, split=split, times=not integer,
            progress=lambda i, _, k=k: progress(ITERATIONS * k + i, total),  # type: ignore[misc]
        )
        for k, table in enumerate(fitted[:POLISHED])
    ]  # fmt: skip
    return min([*starts.values(), *fitted, *polished], key=loss)
