"""The gradient polish: times and coefficients of a table, end to end through the sampling loop.

Parameters are residuals on the given table. Coefficients of one row are nearly collinear (successive outputs resemble each
other), so each row's residual is expressed in the orthonormal basis of its own columns; a time moves in its schedule's
`position`, and the noise level of its input with it. A quasi-Newton method (scipy's BFGS) on all fitting samples then needs few
passes; the validation noise decides when to stop.

Where the activations of all evaluations do not fit into memory, each network call is a checkpoint (Chen et al. 2016, arXiv:1604.06174):
it keeps its inputs alone, and is made again on the way back.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import atan2
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from solversearch.judging.objectives.endpoint import endpoint_mse, tempered
from solversearch.memo import NO_MEMO, Memo, memoized
from solversearch.memory import Backward, backward
from solversearch.models.base import Clock, Denoiser, Model, NotFinite
from solversearch.runtime import Node, Row, Tableau, run, steps
from solversearch.sampling import alone, sample
from solversearch.schedules import Floats
from solversearch.search.fitting.design_matrix import Recorder, row, weights
from solversearch.search.fitting.quasi_newton import TOO_FAR, best_iterate
from solversearch.teacher import Teacher

PATIENCE = 25
"""Iterations without a better table on the validation noise after which a polish ends: it goes on for a while through such stretches."""
FLAT = 1e-7
"""Largest component of the gradient, in units of the loss at the start, at which nothing is left to gain."""
COLLINEAR = 1e-6
"""Least eigenvalue of a row's columns, over the largest: below it single precision cannot tell directions apart."""
SHIFT = 1e-4
"""Of a position, for the slope of a node."""


class _Coordinates:
    """theta (P,), zero at the given table, and the way from it to nodes and rows; all numbers float64."""

    def __init__(self, model: Model, table: Tableau, seen: Recorder, times: bool) -> None:
        self.model, self.table, self.times = model, table, times
        self.told = [float(model.schedule.position(node.t)) for node in table.nodes]
        self.level = [float(np.log(np.tan(atan2(node.sigma, node.alpha) / 2))) for node in table.nodes]
        self.start: list[Tensor] = []
        self.basis: list[Tensor] = []
        for i, given in enumerate(table.rows):
            values, vectors = torch.linalg.eigh(seen.gram(i) / seen.noise.numel())
            self.basis.append(vectors / values.clamp(min=COLLINEAR * float(values.max())).sqrt())
            self.start.append(weights(given, i, seen.split))
        self.sizes = [table.nfe if times else 0, *map(len, self.start)]

    def table_at(self, theta: Tensor) -> Tableau:
        """The table of theta (P,), in plain numbers."""
        shifts, *residuals = torch.split(theta, self.sizes)
        nodes = [self._node(i, float(shift))[0] for i, shift in enumerate(shifts)] if self.times else self.table.nodes
        rows = [row(self.start[i] + self.basis[i] @ residual, i) for i, residual in enumerate(residuals)]
        return Tableau(tuple(nodes), tuple(rows))

    def differentiable(self, theta: Tensor, like: Tensor) -> tuple[list[Node], list[Row]]:
        """Nodes and rows of theta (B, P), one copy a sample, whose numbers broadcast against arrays like the given one, (B, *shape).

        A gradient a sample is what keeps the sum over samples, and so the plan, independent of the batch size.
        """
        view = (-1, *[1] * (like.ndim - 1))
        shifts, *residuals = torch.split(theta, self.sizes, dim=1)
        nodes = list(self.table.nodes)
        if self.times:
            for i in range(len(nodes)):
                shift = shifts[:, i]
                node, slope = self._node(i, float(shift[0].detach()))
                moved = shift - shift.detach()  # zero, but carries the gradient
                t, alpha, sigma = (getattr(node, name) + getattr(slope, name) * moved for name in ("t", "alpha", "sigma"))
                nodes[i] = Node(t.to(like), alpha.to(like).view(view), sigma.to(like).view(view), node.guidance)
        rows = []
        for i, residual in enumerate(residuals):
            each: list[Any] = [w.to(like).view(view) for w in (self.start[i] + residual @ self.basis[i].T).unbind(1)]
            rows.append(Row(each[0], tuple(each[1 : 1 + i]), tuple(each[1 + i :])))
        return nodes, rows

    def _node(self, i: int, shift: float, h: float = SHIFT) -> tuple[Node, Node]:
        """The given node moved by a shift, kept within the schedule, and its derivative by the shift.

        The time that the network is told and the noise level of its input may differ (`Candidate.input_shift`): both move alike.
        """
        schedule, given = self.model.schedule, self.table.nodes[i]

        def at(moved: float) -> Node:
            node = schedule.node(float(schedule.time_at(self.level[i] + moved)))
            return replace(node, t=float(schedule.time_at(self.told[i] + moved)), guidance=given.guidance)

        low, high = at(shift - h), at(shift + h)
        t, alpha, sigma = ((getattr(high, name) - getattr(low, name)) / (2 * h) for name in ("t", "alpha", "sigma"))
        return at(shift) if shift else given, Node(t, alpha, sigma)


@dataclass
class _Loss:
    """The mean tempered error of all samples as a function of theta, with its gradient."""

    model: Model
    coordinates: _Coordinates
    teacher: Teacher
    scale: float | None
    split: bool
    clock: Clock
    way: Backward

    def __call__(self, theta: Floats) -> tuple[float, Floats]:
        while True:
            try:
                batches = [self._batch(theta, first) for first in range(0, len(self.teacher), self.way.batch)]
            except torch.cuda.OutOfMemoryError:
                batches = []
            if batches:
                losses, gradients = (torch.cat(each) for each in zip(*batches, strict=True))
                return float(losses.mean()), gradients.mean(0).numpy()
            self.way = self.way.smaller(self.model)

    def _batch(self, theta: Floats, first: int) -> tuple[Tensor, Tensor]:
        """Loss (B,) and gradient (B, P) of each sample of a batch."""
        network, teacher, clock = self.model.network, self.teacher, self.clock
        if self.way.checkpointing:
            network = partial(checkpoint, network, use_reentrant=False, preserve_rng_state=False)
        batch = slice(first, first + self.way.batch)
        noise = teacher.noise[batch]
        copies = torch.from_numpy(theta).expand(len(noise), -1).clone().requires_grad_()
        nodes, rows = self.coordinates.differentiable(copies, noise)
        denoise = _denoiser(replace(self.model, network=network), teacher, batch, self.split, self.way.batch, clock)
        before = clock.evaluations
        loss = tempered(endpoint_mse(run(nodes, rows, denoise, noise), teacher.endpoint[batch]), self.scale)
        start = time.perf_counter()
        (gradient,) = torch.autograd.grad(loss.sum(), copies)
        clock.seconds += time.perf_counter() - start
        # Backward costs about twice as much as forward, and what was a checkpoint another forward.
        clock.evaluations += (3 if self.way.checkpointing else 2) * (clock.evaluations - before)
        return loss.detach(), gradient


def polish(
    model: Model, table: Tableau, fitting: Teacher, validation: Teacher, iterations: int = 100, patience: int = PATIENCE,
    scale: float | None = None, split: bool = False, times: bool = True, batch_size: int = 512, clock: Clock | None = None,
    way: Backward | None = None, enough: Callable[[], bool] = lambda: False,
    progress: Callable[[int, float], None] = lambda iteration, loss: None, memo: Memo = NO_MEMO,
) -> Tableau:  # fmt: skip
    """Polishes a table; returns the best of all iterations on the validation teacher by the tempered error, the given table included.

    split gives the guidance difference coefficients of its own; scale is `tempered`'s; enough() ends it early. way is how samples are
    differentiated, by default what fits into memory. Deterministic in its arguments, except that batch_size and way do not matter.
    """
    assert not isinstance(model.network, nn.Module) or not any(weight.requires_grad for weight in model.network.parameters())
    clock, batch_size = clock or Clock(), model.filled(batch_size)
    way = way or backward(model, 2 * table.nfe if split else table.network_calls, len(fitting), batch_size)
    seen = Recorder(fitting.noise, split)
    with torch.no_grad():
        watched = seen.watched(steps(table.nodes, table.rows, fitting.noise))
        alone(memoized(_denoiser(model, fitting, slice(None), split, batch_size, clock), memo), watched)
    coordinates = _Coordinates(model, table, seen, times)
    differentiated = _Loss(model, coordinates, fitting, scale, split, clock, way)

    def error(candidate: Tableau, teacher: Teacher) -> float:
        def compute() -> list[float]:
            samples = sample(model, candidate, teacher, batch_size, clock)
            return [float(tempered(endpoint_mse(samples, teacher.endpoint), scale).mean())]

        (mean,) = memo.numbers(compute)
        return mean

    unit = max(error(table, fitting), 1e-300)

    def loss_and_gradient(theta: Floats) -> tuple[float, Floats]:
        def compute() -> list[float]:
            try:
                loss, gradient = differentiated(theta)
            except NotFinite:
                return [TOO_FAR, *np.zeros_like(theta)]
            return [loss / unit, *(gradient / unit)]

        loss, *gradient = memo.numbers(compute)
        return loss, np.array(gradient)

    def table_at(theta: Floats) -> Tableau:
        return coordinates.table_at(torch.from_numpy(theta)) if theta.any() else table

    best = best_iterate(
        loss_and_gradient, lambda theta: error(table_at(theta), validation), np.zeros(sum(coordinates.sizes)), "BFGS", iterations, patience,
        enough=enough, progress=progress, gtol=FLAT,
    )  # fmt: skip
    return table_at(best)


def _denoiser(model: Model, teacher: Teacher, batch: slice, split: bool, batch_size: int, clock: Clock) -> Denoiser:
    return Denoiser(model, None if teacher.conditions is None else teacher.conditions[batch], batch_size, split, clock)
