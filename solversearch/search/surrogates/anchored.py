"""Tables run on a mixture from noises whose true trajectories are known.

Along the teacher's trajectory of each noise the mixture is given what it lacks there,

    D(x) = mixture(x) + D*(t) - mixture(x*(t)),

so that it is exact on the trajectory, whatever the network, and the mixture only says how outputs change off it. The teacher has
kept x* and D*, so that this costs no evaluation of the network.

`observe` adds what the network said off the trajectories of a few tables. Solvers err in a few directions only, the same for all
noises: a displacement e = x - x* is written as sum_p c_p e_p in those observed near its noise level (ridge regression over all noises at
once), and D then gets sum_p c_p r_p, where r_p is what the surrogate lacked at the observed state p: a multisecant correction, as in
quasi-Newton methods.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from solversearch.grids import grid
from solversearch.judging.objectives.endpoint import endpoint_mse, tempered
from solversearch.models.base import Model, NotFinite, TensorOutput
from solversearch.runtime import Node, Tableau, run
from solversearch.schedules import Floats
from solversearch.search.surrogates.gaussian import HUGE, Tables, at_places
from solversearch.search.surrogates.guided_mixture import Mixture
from solversearch.solvers import get
from solversearch.teacher import Teacher

NOISES = 64
WORST = 12.0
"""Of a logarithm, where a table runs away."""
CHUNK = 32
"""Tables at a time: what is known of them stays in the processor's cache."""
OBSERVED = 64
"""States that are kept, those of the best tables observed."""
RIDGE, WIDTH = 0.1, 0.3
"""Of the regression on observed displacements: at equal noise level, and the difference in `NoiseSchedule.position` that makes it e times
as much at its square root of two."""


class Err(NamedTuple):
    """How a variant of the network errs on the teacher's trajectories, (L, S, *shape), at rising angles (L,). Where it reuses features,
    those are of a noisier state, so much further in `Between.position` (L,)."""

    angles: Tensor
    errors: Tensor
    stale: Tensor | None = None


Errors = Mapping[tuple[str, bool], Err]
"""Of a variant, where it guides and where not."""


class Anchored:
    """Tables run on a mixture from the first noises of a teacher at the given guidance; errors against the teacher's endpoints.

    A teacher without trajectories anchors nothing; then the mixture's own flow is the reference.
    """

    def __init__(self, mixture: Mixture, model: Model, teacher: Teacher, guidance: float = 1.0, count: int = NOISES) -> None:
        teacher = teacher.first(count)
        self.mixture, self.model, self.teacher, self.guidance = mixture, model, teacher, guidance
        self.noise = self._project(teacher.noise, 1)
        self.log_weights = mixture.weights_of(teacher.conditions, len(teacher))
        self.scale: float | None = None
        self.observed: list[tuple[float, list[tuple[float, Tensor, Tensor]]]] = []
        self.errors_of: dict[tuple[str, bool], Err] = {}
        self.angles = teacher.angles.cpu().flip(0)
        if len(self.angles):
            # u = x / sqrt(alpha^2 + sigma^2) = cos D + sin eps and its slope cos eps - sin D.
            self.states = self._project(teacher.states, 2).flip(0)
            cos, sin = self.angles.cos().float(), self.angles.sin().float()
            self.slopes = self._project(teacher.slopes, 2)
            self.outputs = cos[:, None, None] * self.states - sin[:, None, None] * self.slopes.flip(0)
            self.lack = self.outputs - self._own(self.states, cos, sin, torch.full_like(cos, guidance))
            self.endpoint = self._project(teacher.endpoint, 1)
        else:
            fine = get("unipc_3").tableau(model.schedule, grid("quadratic", model.schedule, 48)).guided(guidance)
            self.endpoint = self._run(Tables.of([fine]))[0][0]

    @torch.no_grad()
    def observe(self, denoise: Callable[[Tensor, Node], TensorOutput], tables: Sequence[Tableau]) -> None:
        """Runs tables on the network, from the noises of this surrogate, and keeps how its outputs differ off the trajectories.

        denoise evaluates `teacher`'s samples. Stochastic tables teach nothing here, nor do tables that run away.
        """
        for table in tables:
            found: list[tuple[Node, Tensor, Tensor]] = []

            def record(x: Tensor, node: Node) -> TensorOutput:
                output = denoise(x, node)
                found.append((node, x, output[0] if isinstance(output, tuple) else output))  # noqa: B023
                return output

            if table.stochastic or not len(self.angles):
                continue
            try:
                end = run(table.nodes, table.rows, record, self.teacher.noise)
            except NotFinite:
                continue
            loss = float(tempered(endpoint_mse(end, self.teacher.endpoint), self.scale).mean())
            self.observed.append((loss, [self._compared(*each) for each in found]))
        # Far from the trajectories outputs are no longer linear in the displacement, so that good tables teach more.
        self.observed.sort(key=lambda pair: pair[0])
        while sum(len(states) for _, states in self.observed) > OBSERVED and len(self.observed) > 1:
            self.observed.pop()
        if self.observed:
            self._gather()

    def learn(self, errors: Errors) -> None:
        """What variants of the network err."""
        count = len(self.noise)
        self.errors_of = {which: found._replace(errors=self._project(found.errors[:, :count], 2)) for which, found in errors.items()}

    def _of_variants(self, tables: Tables, i: int, angles: Floats) -> Tensor | float:
        """What variants of the network err at evaluation i, (C, S, axes). The error of reused features grows with their distance."""
        names, guided, total = np.array(tables.variants)[:, : i + 1], tables.guidance[:, : i + 1] != 1, torch.zeros(())
        for (variant, guides), found in self.errors_of.items():
            there = (names[:, i] == variant) & (guided[:, i] == guides)
            if not there.any():
                continue
            at, weight = Between(found.angles, angles[:, i]), torch.from_numpy(there).float()[:, None, None]
            if found.stale is not None:
                computed = (names[:, :i] == "") & (guided[:, :i] >= guides)
                latest = np.where(computed.any(1), i - 1 - computed[:, ::-1].argmax(1), i)
                further = Between(found.angles, angles[np.arange(len(names)), latest]).position - at.position
                weight = weight * further[:, None, None] / at(found.stale[:, None, None])
            total = total + weight * at(found.errors)
        return total

    def _compared(self, node: Node, x: Tensor, output: Tensor) -> tuple[float, Tensor, Tensor]:
        """Position, displacement and what the surrogate lacks, of an observed state."""
        at = Between(self.angles, np.array([np.arctan2(node.sigma, node.alpha)]))
        y, alpha, sigma, guidance = self._project(x, 1)[None], *(torch.tensor([each]) for each in (node.alpha, node.sigma, node.guidance))
        lack = self._project(output, 1) - self._own(y, alpha, sigma, guidance) - at(self.lack)
        apart = y / np.hypot(node.alpha, node.sigma) - at(self.states)
        return float(at.position[0]), apart.flatten(), lack.flatten()

    def _gather(self) -> None:
        positions, displacements, lacks = zip(*(state for _, states in self.observed for state in states), strict=True)
        e, r = torch.stack(displacements), torch.stack(lacks)
        length = e.norm(dim=1, keepdim=True) + 1e-9
        self.positions, self.displacements, self.lacks = torch.tensor(positions), e / length, r / length
        self.gram = self.displacements @ self.displacements.T

    def _corrected(self, apart: Tensor, at: "Between") -> Tensor:
        """What to add for the displacements (C, S, axes)."""
        distance = (at.position[:, None] - self.positions) / WIDTH
        ridge = RIDGE * torch.exp(distance.square() / 2).clamp(max=1e6)
        moments = apart.flatten(1).nan_to_num() @ self.displacements.T
        weights = torch.linalg.solve(self.gram + torch.diag_embed(ridge), moments)
        return (weights @ self.lacks).view_as(apart)

    def _own(self, y: Tensor, alpha: Tensor, sigma: Tensor, guidance: Tensor) -> Tensor:
        """The mixture's data prediction alone."""
        return self.mixture.denoise(y, alpha, sigma, self.log_weights, guidance if bool((guidance != 1).any()) else None)[0]

    def _project(self, x: Tensor, leading: int) -> Tensor:
        return self.mixture.axes.project(x.flatten(leading))

    def errors(self, tables: Sequence[Tableau], ridge: float | None = None, split: bool = False) -> Tensor:
        """Mean squared endpoint error of every sample, (C, S); of the tables fitted to the teacher with that ridge, where one is given."""
        return torch.cat([self._error(end) for end, _ in self._runs(tables, ridge=ridge, split=split)])

    def losses(self, tables: Sequence[Tableau], ridge: float | None = None, split: bool = False) -> Floats:
        """Mean endpoint error, tempered where `scale` is set; (C,)."""
        return tempered(self.errors(tables, ridge, split).double(), self.scale).mean(1).nan_to_num(nan=np.inf).numpy()

    def _runs(self, tables: Sequence[Tableau], **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(0, len(tables), CHUNK):
            yield self._run(Tables.of(tables[first : first + CHUNK]), **options)

    def _error(self, end: Tensor) -> Tensor:
        return (end - self.endpoint).square().sum(-1) / self.mixture.parameters

    def features(self, tables: Sequence[Tableau], ridge: float | None = None, split: bool = False) -> Floats:
        """ln of the loss and of the mean and median error; then, at `PLACES` places along the way, mean ln of the squared distances
        of states and of outputs from the teacher's. (C, 3 + 2 PLACES)"""
        parts = []
        for end, distances in self._runs(tables, distances=True, ridge=ridge, split=split):
            error = self._error(end).double()
            kinds = torch.stack([tempered(error, self.scale).mean(1), error.mean(1), error.median(1).values], 1)
            along = [at_places(distances[:, :, k].double().numpy()) for k in range(2)]
            parts.append(np.concatenate([(kinds + 1e-10).log().numpy(), *along], axis=1))
        return np.nan_to_num(np.concatenate(parts), nan=WORST, posinf=WORST, neginf=-WORST).clip(-WORST, WORST)

    @torch.no_grad()
    def _run(self, tables: Tables, distances: bool = False, ridge: float | None = None, split: bool = False) -> tuple[Tensor, Tensor]:
        """Results (C, S, axes), and mean ln squared distances of states and outputs from the teacher's, (C, N, 2)."""
        schedule, nfe = self.model.schedule, tables.t.shape[1]
        split = split or tables.delta is not None
        alpha, sigma, share, rest = (torch.from_numpy(each).float() for each in tables.output(schedule, self.model.prediction_type))
        told = bool(((share - 1).abs() + rest.abs() > 1e-6).any())  # another time than the input's
        guidance = torch.from_numpy(tables.guidance).float()
        reach, angle = np.hypot(tables.sigma, tables.alpha), np.arctan2(tables.sigma, tables.alpha)
        fresh = [self._fresh(k) for k in range(tables.z.shape[2])]
        columns = [self.noise.expand(len(tables.t), -1, -1)]
        outputs: list[Tensor] = []
        differences: list[Tensor] = []
        found: list[Tensor] = []
        for i in range(nfe + 1):
            y = self._combined(tables, i, [*columns, *outputs, *differences], fresh)
            at = Between(self.angles, angle[:, i]) if i < nfe and len(self.angles) else None
            if ridge is not None and (at or i == nfe):
                target = at(self.states) * torch.from_numpy(reach[:, i, None, None]).float() if at else self.endpoint
                y = y + _fitted(torch.stack([*columns, *outputs, *differences], 1).flatten(2), (target - y).flatten(1), ridge).view_as(y)
            if i == nfe:
                return y, torch.stack(found, 1) if distances else y.new_zeros(len(y), 0, 2)
            guided = guidance[:, i] if tables.guided or split else None
            one, difference = self.mixture.denoise(y, alpha[:, i], sigma[:, i], self.log_weights, guided, split)
            if at is not None:
                one = one + at(self.lack)
                one = one + self._of_variants(tables, i, angle) if self.errors_of else one
            if at is not None and (distances or self.observed):
                apart = y / torch.from_numpy(reach[:, i, None, None]).float() - at(self.states)
                one = one + self._corrected(apart, at) if self.observed else one
                if distances:
                    found.append(torch.stack([self._mean_ln(apart), self._mean_ln(one - at(self.outputs))], 1))
            elif distances:
                found.append(y.new_zeros(len(y), 2))
            if told:
                one = share[:, i, None, None] * one + rest[:, i, None, None] * y
                difference = None if difference is None else share[:, i, None, None] * difference
            if difference is not None and ridge is not None:  # fitted rows have no column for what is not computed, see `frugal`
                difference = difference * (guidance[:, i] != 1)[:, None, None]
            outputs.append(one)
            differences += [] if difference is None else [difference]
        raise AssertionError

    def _combined(self, tables: Tables, i: int, columns: Sequence[Tensor], fresh: Sequence[Tensor]) -> Tensor:
        """Row i of every table, (C, S, axes)."""
        deltas = tables.delta if tables.delta is not None else np.zeros((len(tables.t), i + 1, 0))
        weights = np.concatenate([tables.x[:, i, None], tables.d[:, i, :i], deltas[:, i, :i]], axis=1)
        factors = torch.from_numpy(weights).float()[:, :, None, None]
        y = columns[0] * factors[:, 0]
        for j in range(1, factors.shape[1]):
            y = torch.addcmul(y, factors[:, j], columns[j])
        for k, noise in enumerate(fresh):
            y = y + torch.from_numpy(tables.z[:, i, k, None, None]).float() * noise
        return y

    def _mean_ln(self, difference: Tensor) -> Tensor:
        return (difference.square().sum(-1) / self.mixture.parameters + 1e-6).log().mean(1)

    def _fresh(self, k: int) -> Tensor:
        """The k-th fresh noise of a stochastic table."""
        drawn = np.random.default_rng([k]).standard_normal(self.noise.shape)
        return torch.from_numpy(drawn).float() * self.mixture.axes.scale


def _fitted(columns: Tensor, residual: Tensor, ridge: float) -> Tensor:
    """What ridge regression of the residual (C, n) on the columns (C, k, n) gives, as `fit` has it without its robust weights."""
    known = columns.nan_to_num(posinf=0.0, neginf=0.0)  # a table that runs away must not stop the others
    gram = (known @ known.mT).double().clamp(-HUGE, HUGE)
    moments = (known @ residual.nan_to_num(posinf=0.0, neginf=0.0)[:, :, None]).double()
    weights = torch.linalg.solve(gram + torch.diag_embed(ridge * gram.diagonal(dim1=1, dim2=2) + 1e-9), moments)
    return (weights.float().mT @ columns)[:, 0]


class Between:
    """Linear interpolation of (M, ...) between rising places (M,) at the given ones (C,): to (C, ...)."""

    def __init__(self, places: Tensor, at: Floats) -> None:
        known = places.numpy()
        self.above = np.clip(np.searchsorted(known, at), 1, len(known) - 1)
        low, high = known[self.above - 1], known[self.above]
        self.position = torch.from_numpy(np.log(np.tan(at / 2))).float()
        self.part = torch.from_numpy(np.clip((at - low) / (high - low), 0, 1)).float()[:, None, None]

    def __call__(self, values: Tensor) -> Tensor:
        return torch.lerp(values[self.above - 1], values[self.above], self.part)
