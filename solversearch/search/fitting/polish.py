"""The gradient polish: times and coefficients of a table, end to end through the sampling loop, by Gauss-Newton steps on small batches.

With e_s the endpoint error of sample s and g_s its gradient in `coordinates`, a step from theta is

    w_s   = 1 / (1 + e_s / (bound m))                  m: running median of e_s
    H     = mean_s w_s g_s g_s' / (2 e_s)              running, too
    theta = theta - rate (H + damping diag H)^-1 mean_s w_s g_s / mean_s w_s

w_s is the weight of the tempered error, whose scale follows the errors down: it bounds what the few samples that end in another mode have
to say, and `bound` is the one knob between most samples (3) and the mean (30). g g' / 2e is the Gauss-Newton matrix J'J in the direction
of the residual, the only one that a backward pass knows, so second order costs nothing beside it. The first batches show H alone.

Where the activations of all evaluations do not fit into memory, each network call is a checkpoint (Chen et al. 2016, arXiv:1604.06174):
it keeps its inputs alone, and is made again on the way back.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.memo import NO_MEMO, Memo, memoized
from solversearch.memory import Backward, backward
from solversearch.models.base import Clock, Denoiser, Model, NotFinite
from solversearch.runtime import Node, Row, Tableau, run, steps
from solversearch.sampling import alone
from solversearch.search.fitting.coordinates import Coordinates
from solversearch.search.fitting.design_matrix import Recorder, differences, frugal
from solversearch.teacher import Teacher

BATCH = 32
"""Samples of a step: 64 with half the steps is no better. The constants here were measured on digits, NFE 4 to 8, guidance 1 and 4."""
SEEN = 256
"""Samples whose columns make the coordinates."""
FIRST = 16
"""Batches that show the curvature before the first step; with 8 of them some runs strayed."""
RATE = 0.3
"""The first step's length, 1 being the whole Gauss-Newton step, which falls to 0 by a cosine. .5 is faster in some cells and strays in
others."""
MOMENTUM, CURVATURE = 0.9, 0.95
"""What running means keep at every step: of the gradient and the median error, and of H."""
DAMPING, DAMPING_MANY, MANY = 1e-3, 3.0, 256
"""Of the diagonal of H (Marquardt 1963), whatever the coordinates' scales: a share of the largest eigenvalue is slow at 8 evaluations.
The 640 samples that H runs over do not carry many numbers: on photographs, NFE 5, the 326 of 5 bands and 3 channels ended at a geometric
error of 1.4e-3 with 1e-3 of the diagonal, 2.7e-4 with .3, 1.8e-4 with 3, 2.0e-4 with 10. 66 of them there, and 228 on digits at NFE 8
(4.7e-6 with 1e-3, 5.1e-6 with .03, 8.1e-6 with .3, 1.0e-5 with 3), do better with little. Channel directions need the more, however
few: with 1e-3 the 138 numbers of 3 evaluations ran away from 2.2e-3 to 1.3e-2, with 3 they end at 2.2e-3, where scalars end at 3.3e-3."""
REACH = 0.1
"""Change of a sample that a step may make, in root median errors: the first steps are bounded by it. Without it digits at 8 evaluations
ends at 4 times the error."""
KEPT = (0.5, 0.75, 1.0)
"""Where on the way tables are handed on, to be judged: the last is mostly the best."""


class Moved(Protocol):
    """A table that numbers theta (P,) move, such as `Coordinates`."""

    table: Tableau

    def table_at(self, theta: Tensor) -> Tableau: ...

    def differentiable(self, theta: Tensor, like: Tensor) -> tuple[list[Node], list[Row]]: ...


class Gradients:
    """Endpoint errors (B,) and their gradients (B, P) at theta, of some samples; where start noise moves, those by it, (B, *shape), too."""

    def __init__(
        self, model: Model, coordinates: Moved, teacher: Teacher, split: bool, clock: Clock, way: Backward, start_noise: bool = False
    ) -> None:
        self.model, self.coordinates, self.teacher, self.split, self.clock, self.way = model, coordinates, teacher, split, clock, way
        self.start_noise = start_noise

    def __call__(self, theta: Tensor, places: Sequence[int]) -> tuple[Tensor, ...]:
        """As many at a time as memory allows, which changes no digit: every sample has a copy of theta of its own."""
        while True:
            try:
                size = self.way.batch
                parts = [self._some(theta, list(places[first : first + size])) for first in range(0, len(places), size)]
                errors, *gradients = map(torch.cat, zip(*parts, strict=True))
            except torch.cuda.OutOfMemoryError:
                self.way = self.way.smaller(self.model)
                continue
            if not all(torch.isfinite(each).all() for each in gradients):
                raise NotFinite("the gradient is not finite")
            return errors, *gradients

    @torch.no_grad()
    def errors(self, theta: Tensor, places: Sequence[int], noise: Tensor) -> Tensor:
        """Endpoint errors alone, from start noise (B, *shape)."""
        table = self.coordinates.table_at(theta)
        denoise = _denoiser(self.model, self.teacher, list(places), self.split, self.way.batch, self.clock)
        return endpoint_mse(run(table.nodes, table.rows, denoise, noise, components=table.components), self.teacher.endpoint[list(places)])

    def _some(self, theta: Tensor, places: list[int]) -> tuple[Tensor, ...]:
        teacher, clock = self.teacher, self.clock
        noise = teacher.noise[places].requires_grad_(self.start_noise)
        copies = theta.expand(len(places), -1).clone().requires_grad_()
        nodes, rows = self.coordinates.differentiable(copies, noise)
        denoise = _denoiser(self.model, teacher, places, self.split, self.way.batch, clock, self.way.checkpointing)
        before = clock.evaluations
        error = endpoint_mse(run(nodes, rows, denoise, noise, components=self.coordinates.table.components), teacher.endpoint[places])
        start = time.perf_counter()
        gradients = torch.autograd.grad(error.sum(), (copies, noise) if self.start_noise else (copies,))
        clock.seconds += time.perf_counter() - start
        # Backward costs about twice as much as forward, and what was a checkpoint another forward.
        clock.evaluations += (3 if self.way.checkpointing else 2) * (clock.evaluations - before)
        return error.detach(), *gradients


@dataclass
class GaussNewton:
    """Weighted Gauss-Newton steps from the errors (B,) and gradients (B, P) of one batch after the other; all float64."""

    bound: float
    damping: float = DAMPING
    median: float = 0.0
    weight: float = 0.0
    gradient: Tensor | float = 0.0
    curvature: Tensor | float = 0.0
    shown: int = 0

    def show(self, error: Tensor, gradient: Tensor) -> None:
        """Takes a batch for the curvature and the median error alone: at first the mean of all batches so far, then a running one."""
        self.shown += 1
        keep = 1 - 1 / self.shown
        self.median = min(keep, MOMENTUM) * self.median + max(1 - keep, 1 - MOMENTUM) * float(error.median())
        w = self._weights(error)
        seen = (gradient * (w / (2 * error.clamp(min=1e-300)))[:, None]).T @ gradient / w.sum()
        self.curvature = min(keep, CURVATURE) * self.curvature + max(1 - keep, 1 - CURVATURE) * seen

    def step(self, error: Tensor, gradient: Tensor, rate: float) -> Tensor:
        """What to add to theta (P,), after a batch."""
        self.show(error, gradient)
        w = self._weights(error)
        self.gradient = MOMENTUM * self.gradient + (1 - MOMENTUM) * (gradient * w[:, None]).mean(0)
        self.weight = MOMENTUM * self.weight + (1 - MOMENTUM) * float(w.mean())
        h = torch.as_tensor(self.curvature)
        damped = h + torch.diag(self.damping * h.diagonal() + 1e-300)  # a number that moves nothing stays where it is
        direction = torch.linalg.solve(damped, self.gradient / self.weight)
        change = rate * math.sqrt(max(float(direction @ h @ direction) / 2, 0.0))
        return -rate * min(1.0, REACH * math.sqrt(self.median) / max(change, 1e-300)) * direction

    def _weights(self, error: Tensor) -> Tensor:
        return 1 / (1 + error / (self.bound * self.median + 1e-300))


def polish(
    model: Model, table: Tableau, fitting: Teacher, count: int, bound: float = 3.0, batch: int = BATCH, seed: int = 0, split: bool = False,
    times: bool = True, batch_size: int = 512, clock: Clock | None = None, way: Backward | None = None,
    progress: Callable[[int, float], None] = lambda step, median: None, memo: Memo = NO_MEMO, kept: Sequence[float] = KEPT,
) -> Iterator[Tableau]:  # fmt: skip
    """Polishes a table in so many steps, and hands on what it has at each share of the way in `kept`.

    The fitting teacher's endpoints are what is fitted to. bound is the error, in medians, beyond which samples count less. split gives the
    guidance difference coefficients of its own. way is how samples are differentiated, by default what fits into memory. progress is
    told the median error of the samples lately seen. Deterministic in its arguments, except that batch_size and way do not matter.
    Where the table runs away, the polish goes on from what it last handed on, half as fast.
    """
    assert not isinstance(model.network, nn.Module) or not any(weight.requires_grad for weight in model.network.parameters())
    clock, batch_size = clock or Clock(), model.filled(batch_size)
    table = replace(table, nodes=frugal(table)) if split else table
    columns = differences(table.nodes) if split else ()
    way = way or backward(model, table.nfe + len(columns) if split else table.network_calls, batch, batch_size)
    some = range(min(SEEN, len(fitting)))
    seen = Recorder(fitting.noise[: len(some)], columns, table.components)
    with torch.no_grad():
        watched = seen.watched(steps(table.nodes, table.rows, seen.noise, components=table.components))
        alone(memoized(_denoiser(model, fitting, list(some), split, batch_size, clock).anew(table.nodes), memo), watched)
    coordinates = Coordinates(model, table, seen, times)
    gradients, order = Gradients(model, coordinates, fitting, split, clock, way), batches(len(fitting), batch, seed)
    theta = torch.zeros(sum(coordinates.sizes), dtype=torch.float64)
    many = len(theta) > MANY or (table.components is not None and bool(table.components.channels))
    last, speed, newton = theta, 1.0, GaussNewton(bound, DAMPING_MANY if many else DAMPING)
    for _ in range(FIRST):
        newton.show(*found(gradients, theta, next(order), memo))
    for step in range(1, count + 1):
        rate = RATE * speed * (1 + math.cos(math.pi * (step - 1) / count)) / 2
        try:
            error, gradient = found(gradients, theta, next(order), memo)
            theta = theta + newton.step(error, gradient, rate)
        except NotFinite:
            theta, speed, newton.gradient, newton.weight = last, speed / 2, 0.0, 0.0
        progress(step, newton.median)
        if step in {math.ceil(share * count) for share in kept}:
            last = theta
            yield coordinates.table_at(theta)


def cost(calls: int, count: int, samples: int, batch: int = BATCH, checkpointing: bool = False) -> int:
    """Network evaluations of a polish in so many steps, at so many network calls a sample."""
    return calls * (min(SEEN, samples) + (4 if checkpointing else 3) * batch * (FIRST + count))


def batches(count: int, batch: int, seed: int) -> Iterator[list[int]]:
    """Places of samples, each as often as any other."""
    rng, queue = np.random.default_rng([seed, count]), list[int]()
    while True:
        while len(queue) < batch:
            queue += rng.permutation(count).tolist()
        yield queue[:batch]
        queue = queue[batch:]


def found(gradients: Gradients, theta: Tensor, places: Sequence[int], memo: Memo) -> tuple[Tensor, ...]:
    """Errors and gradients of a batch, which are a part of the polish; also that they are not finite."""
    names = ("error", "gradient", "noise")

    def compute() -> dict[str, Tensor]:
        try:
            return dict(zip(names, gradients(theta, places), strict=False))
        except NotFinite:
            return {}

    kept = memo.tensors(compute)
    if not kept:
        raise NotFinite("the polish has run away")
    return tuple(kept[name] for name in names if name in kept)


def _denoiser(
    model: Model, teacher: Teacher, places: list[int], split: bool, batch_size: int, clock: Clock, checkpointing: bool = False
) -> Denoiser:  # fmt: skip
    conditions = None if teacher.conditions is None else teacher.conditions[places]
    return Denoiser(model, conditions, batch_size, split, clock, checkpointing=checkpointing)
