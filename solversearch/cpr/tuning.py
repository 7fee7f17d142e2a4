"""Cascades tuned end to end: all configurations at once, by gradient through the sampling loop.

Coefficients of polished plans are no smooth functions of the configuration: the outputs that a row combines resemble each other, so that
each search ends at another of many nearly equal combinations, and a regression averages numbers that do not belong together. Times are
smooth. So the tuning starts from the regressed times with the hand-made coefficients, and moves the cascades theta of both to

    min_theta  mean_c ln( mean_s tempered |x_s(theta; c) - x*_s|^2 )

over the configurations c, each counting by its relative error, by BFGS. The configurations are those of every NFE in the range, searched
or not, at the plans' guidance scales and halfway between them: a teacher serves every NFE, and needs no search. Residuals of theta are
expressed in the orthonormal basis of what they do to the states at the start, as in `search.polish`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from solversearch.cpr.parameters import Curves, names_of, summed, table_of
from solversearch.cpr.polynomial import Basis, degrees
from solversearch.cpr.regression import TIME_NAMES, Cpr, steps_of, unit
from solversearch.errors import UserError
from solversearch.judging.objectives.endpoint import endpoint_mse, tempered
from solversearch.models.base import Clock, Denoiser, Model, NotFinite
from solversearch.plan import Plan
from solversearch.runtime import Node, Row, Tableau, run, steps
from solversearch.sampling import alone, sample
from solversearch.schedules import Floats
from solversearch.search.fitting.design_matrix import Recorder
from solversearch.search.fitting.quasi_newton import best_iterate
from solversearch.teacher import Teacher, teach

LAGS = 4
"""Newest outputs whose coefficients are tuned; older ones keep the hand-made solver's, which are zero."""
TIMES_U, U, G, N = 5, 4, 3, 3
"""Degrees of the cascades that are tuned. In g at least two fewer than there are values: a curve that goes through each at will
wanders between them. NFE has no between."""
ITERATIONS, EVERY = 200, 5
"""Iterations, and how often the validation noise is looked at."""
FITTING, VALIDATION = 64, 128
GUIDED = 0.1
"""Under guidance errors are tempered from a tenth of the start's median on, as in the search."""
_TIMES = 0.1
"""Effect on the state of moving a time by one in `NoiseSchedule.position`, squared, roughly; only scales the times' coordinates."""
_FLAT = 1e-7
"""Least curvature of a coordinate, in units of the greatest."""
_TOO_FAR = 1e3


class _Surfaces:
    """The cascades as one vector theta, zero at the start."""

    def __init__(self, cells: Sequence[tuple[int, float]], split: bool) -> None:
        fewest = min(nfe for nfe, _ in cells)
        kinds = ("d", "delta") if split else ("d",)
        names = ["position", "x", *(f"{kind}{lag}" for kind in kinds for lag in range(min(LAGS, fewest - 1)))]
        names += ["end_x", *(f"end_{kind}{lag}" for kind in kinds for lag in range(min(LAGS, fewest)))]
        self.bases: dict[str, Basis] = {}
        for name in names:
            points = np.array([(i / n, g, n) for n, g in cells if unit(name, g) for i in steps_of(name, n)])
            if len(points):
                g = max(min(G, len(np.unique(points[:, 1])) - 2), 0)
                self.bases[name] = Basis(points, degrees(points, (TIMES_U if name in TIME_NAMES else U, g, N)))
        ends = np.cumsum([0, *(basis.size for basis in self.bases.values())]).tolist()
        self.places = {name: slice(a, b) for name, a, b in zip(self.bases, ends, ends[1:], strict=False)}
        self.size: int = ends[-1]

    def designs(self, nfe: int, guidance: float) -> dict[str, tuple[list[int], Tensor]]:
        """By name, the steps and how theta moves the values there."""
        found = {}
        for name, basis in self.bases.items():
            where = steps_of(name, nfe)
            points = np.array([(i / nfe, guidance, nfe) for i in where])
            if len(points) and unit(name, guidance):
                found[name] = (where, torch.from_numpy(basis.design(points) * unit(name, guidance)))
        return found


@dataclass
class _Cell:
    """One configuration: the curves at the start, how theta moves them, and the noise on which it is judged."""

    model: Model
    nfe: int
    guidance: float
    start: Curves
    surfaces: _Surfaces
    fitting: Teacher
    validation: Teacher
    threshold: Callable[[Tensor], Tensor] | None
    clock: Clock
    scale: float | None = None

    @cached_property
    def designs(self) -> dict[str, tuple[list[int], Tensor]]:
        return self.surfaces.designs(self.nfe, self.guidance)

    @property
    def split(self) -> bool:
        return any("delta" in name for name in self.designs)

    @cached_property
    def entries(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows and columns of the table's matrix that theta moves, and how: (entries, theta)."""
        rows, columns, moves = [], [], []
        for name, (where, design) in self.designs.items():
            if name not in TIME_NAMES:
                rows += where
                columns += [names_of(i, self.nfe)[name] for i in where]
                move = torch.zeros(len(where), self.surfaces.size, dtype=torch.float64)
                move[:, self.surfaces.places[name]] = design
                moves.append(move)
        return torch.tensor(rows), torch.tensor(columns), torch.cat(moves)

    def numbers(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3) t, alpha, sigma of the evaluations and the matrix of the coefficients; differentiable in theta."""
        schedule, (where, design) = self.model.schedule, self.designs["position"]
        places = (
            torch.tensor([self.start["position"][i] for i in where], dtype=torch.float64) + design @ theta[self.surfaces.places["position"]]
        )
        shifts = self.start.get("input_shift", {})
        frame = torch.stack([self._frame(place, shifts.get(i, 0.0)) for i, place in enumerate(places)])
        rows, columns, moves = self.entries
        residuals = torch.zeros(self.nfe + 1, 1 + 2 * self.nfe, dtype=torch.float64).index_put((rows, columns), moves @ theta)
        scale = schedule.initial_scale(float(schedule.time_at(float(places[0].detach()))))
        return frame, summed(frame[:, 1], frame[:, 2], scale, residuals)

    def _frame(self, place: Tensor, shift: float, h: float = 1e-4) -> Tensor:
        schedule, w = self.model.schedule, float(place.detach())

        def at(w: float) -> Tensor:
            node = schedule.node(float(schedule.time_at(w)))
            told = float(schedule.time_at(w + shift)) if shift else node.t
            return torch.tensor([told, node.alpha, node.sigma], dtype=torch.float64)

        return at(w) + (at(w + h) - at(w - h)) / (2 * h) * (place - place.detach())

    def table(self, theta: Tensor) -> Tableau:
        frame, matrix = self.numbers(theta)
        return table_of([Node(t, alpha, sigma, self.guidance) for t, alpha, sigma in frame.tolist()], matrix)

    def loss(self, theta: Tensor, teacher: Teacher) -> Tensor:
        """ln of the mean error."""
        n, (frame, matrix) = self.nfe, self.numbers(theta)
        frame, matrix = frame.to(teacher.noise.dtype), matrix.to(teacher.noise.dtype)
        nodes = [Node(t, alpha, sigma, self.guidance) for t, alpha, sigma in frame]
        rows = [Row(row[0], tuple(row[1 : 1 + i]), tuple(row[1 + n : 1 + n + i]) if self.split else ()) for i, row in enumerate(matrix)]
        denoise = Denoiser(self.model, teacher.conditions, split=self.split, clock=self.clock)
        error = endpoint_mse(run(nodes, rows, denoise, teacher.noise, threshold=self.threshold), teacher.endpoint)
        return tempered(error, self.scale).mean().log()

    @torch.no_grad()
    def prepare(self) -> Tensor:
        """Sets the scale of the errors; returns the curvature of the loss at the start, roughly: (theta, theta)."""
        table, n = self.table(torch.zeros(self.surfaces.size, dtype=torch.float64)), self.nfe
        seen, noise = Recorder(self.fitting.noise, range(n) if self.split else ()), self.fitting.noise
        denoise = Denoiser(self.model, self.fitting.conditions, split=self.split, clock=self.clock)
        samples = alone(denoise, seen.watched(steps(table.nodes, table.rows, noise, threshold=self.threshold)))
        error = endpoint_mse(samples, self.fitting.endpoint)
        self.scale = max(float(error.median()) * (1.0 if self.guidance == 1 else GUIDED), 1e-12)
        outputs = seen.gram(n)[0] / noise.numel()
        rows, columns, moves = self.entries
        curvature = torch.zeros(self.surfaces.size, self.surfaces.size, dtype=torch.float64)
        for i in range(n + 1):
            here = rows == i
            among = columns[here]
            curvature += moves[here].T @ outputs[among[:, None], among] @ moves[here]
        times = self.surfaces.places["position"]
        curvature[times, times] += _TIMES * self.designs["position"][1].T @ self.designs["position"][1]
        return curvature / float(tempered(error, self.scale).mean())


def tune(
    cpr: Cpr, plans: Sequence[Plan], model: Model, iterations: int = ITERATIONS, clock: Clock | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> Cpr:  # fmt: skip
    """Tunes a regression of these plans' coefficients; its cells then tell the error over that of the searched plan on validation noise.

    Takes iterations x (configurations) x 64 samples, forward and backward: minutes for small networks.
    """
    if cpr.kind != "coefficients":
        raise UserError("only a regression of coefficients can be tuned; plans that their decisions make again need no tuning")
    clock, seed = clock or Clock(), plans[0].provenance.seed or 0
    known: dict[float, tuple[Teacher, Teacher]] = {}
    scales = sorted({plan.guidance for plan in plans})
    for guidance in sorted([*scales, *((a + b) / 2 for a, b in pairwise(scales))]):
        fitting, validation = (
            teach(model, split, n, guidance, seed, False, clock=clock) for split, n in (("fit", FITTING), ("validate", VALIDATION))
        )
        known[guidance] = fitting, validation
    start = cpr.replaced({name: cascade for name, cascade in cpr.cascades.items() if name in TIME_NAMES})
    configurations = [(nfe, guidance) for nfe in range(cpr.nfe[0], cpr.nfe[1] + 1) for guidance in known]
    surfaces = _Surfaces(configurations, any(plan.tableau.split for plan in plans))
    threshold = cpr.threshold.function() if cpr.threshold else None
    cells = [_Cell(model, n, g, start.curves(n, g), surfaces, *known[g], threshold, clock) for n, g in configurations]
    theta = _minimised(cells, surfaces.size, iterations, progress)
    cascades = dict(start.cascades)
    for name, basis in surfaces.bases.items():
        change = basis.cascade(theta[surfaces.places[name]].numpy())
        cascades[name] = cascades[name] + change if name in cascades else change
    return _measured(start.replaced(cascades), plans, model, {g: pair[1] for g, pair in known.items()}, clock)


def _minimised(cells: Sequence[_Cell], size: int, iterations: int, progress: Callable[[int, int, str], None]) -> Tensor:
    values, vectors = torch.linalg.eigh(torch.stack([cell.prepare() for cell in cells]).sum(0))
    unit_step = vectors / values.clamp(min=_FLAT * float(values.max())).sqrt()

    def loss_and_gradient(z: Floats) -> tuple[float, Floats]:
        theta, total = (unit_step @ torch.from_numpy(z)).requires_grad_(), 0.0
        try:
            for cell in cells:
                loss = cell.loss(theta, cell.fitting) / len(cells)
                loss.backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
        except NotFinite:  # a line search went too far: a bad, flat place sends it back
            return _TOO_FAR, np.zeros_like(z)
        assert theta.grad is not None
        return total, (unit_step.T @ theta.grad).numpy()

    @torch.no_grad()
    def validated(z: Floats) -> float:
        try:
            return float(np.mean([float(cell.loss(unit_step @ torch.from_numpy(z), cell.validation)) for cell in cells]))
        except NotFinite:
            return _TOO_FAR

    def told(done: int, loss: float) -> None:
        progress(done, iterations, f"geometric mean error {np.exp(loss):.3g}, validation noise")

    best = best_iterate(loss_and_gradient, validated, np.zeros(size), "BFGS", iterations, every=EVERY, progress=told, gtol=1e-8)
    return unit_step @ torch.from_numpy(best)


def _measured(cpr: Cpr, plans: Sequence[Plan], model: Model, validation: Mapping[float, Teacher], clock: Clock) -> Cpr:
    """With the error of every searched configuration over that of its plan."""

    def error(plan: Plan) -> float:
        teacher = validation[plan.guidance]
        return float(endpoint_mse(sample(model, plan.tableau, teacher, clock=clock, threshold=plan.threshold), teacher.endpoint).mean())

    ratios = {plan.digest: error(cpr.predict(plan.nfe, plan.guidance, model)) / error(plan) for plan in plans}
    return cpr.replaced(cpr.cascades, tuple(cell.model_copy(update={"ratio": ratios[cell.plan]}) for cell in cpr.cells))
