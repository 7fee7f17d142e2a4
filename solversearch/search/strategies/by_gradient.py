"""The loop of the methods that learn by gradient, on the endpoint error of small batches; each has its settings in a file of its own.

The errors are mean squares in the place of LPIPS, which needs pictures; the teacher is as exact as everybody's (`Task.ends`). The relaxed
objective of LD3 (Tong et al. 2024, arXiv:2405.15506, section 3.2), which S4S (Frankel et al. 2025, arXiv:2502.17423) takes over, lets the
start noise of every sample move in a small ball: a step down the gradient, projected, and kept where the error is then less.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from math import inf

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from solversearch.memo import Memo
from solversearch.memory import backward
from solversearch.models.base import NotFinite
from solversearch.runtime import Tableau
from solversearch.search.fitting.learnable import Learnable
from solversearch.search.fitting.polish import Gradients, batches, found
from solversearch.search.settings import Settings
from solversearch.search.stages.recipe import Given
from solversearch.search.stages.task import PROBED, SOLVES
from solversearch.spaces import Candidate
from solversearch.teacher import Teacher, cost

EXACT = 1000
"""The best baseline's error over that of the teacher: what is learned ends at a tenth or more of the first."""
PROBES = PROBED * sum(SOLVES)
"""Evaluations that say how exact the teacher has to be, at most."""
RUN_AWAY = (NotFinite, ValueError, ArithmeticError)
"""Numbers that are not finite, and times that coincide."""
CLIP = 1.0
"""Length of a gradient at most: of GS and of LD3 alike, in their code."""


@dataclass(frozen=True)
class NoiseBall:
    """Where start noise moves, by numbers of a sample and evaluations: length of a step, and radius, as a Euclidean norm."""

    step: Callable[[int], float]
    radius: Callable[[int, int], float]


@dataclass(frozen=True)
class ByGradient:
    """A recipe. In each of the rounds so many batches move the groups that it names.

    optimizers are those of groups, which share one; each is made from their numbers and the count of evaluations. averaged is the decay
    of the exponential average that is handed on at the end. Where `validated` samples are looked at after every batch, the best numbers on
    them are handed on instead, and after `patience` batches without better ones those are gone on from, with rates `decay` as high.
    """

    learnable: type[Learnable]
    samples: int
    batch: int
    rounds: tuple[tuple[str, ...], ...]
    steps: int
    optimizers: tuple[tuple[tuple[str, ...], Callable[[list[Tensor], int], Optimizer]], ...]
    averaged: float = 0.0
    validated: int = 0
    patience: int = 0
    decay: float = 1.0
    ball: NoiseBall | None = None

    def cost(self, settings: Settings, calls: int) -> int:
        once, batch = self._parts(calls, False)
        each = calls * settings.validation_samples + len(self.rounds) * (once + self.steps * batch)
        return calls // settings.nfe * (PROBES + cost(self.samples)) + settings.space.size(1) * each

    def _parts(self, calls: int, checkpointing: bool) -> tuple[int, int]:
        """Network evaluations of a round besides its batches, and of a batch: backward costs twice as much as forward, what was a
        checkpoint another forward, and noise that has moved is looked at once more."""
        looks = (4 if checkpointing else 3) + (self.ball is not None)
        return calls * self.validated * (1 + looks * (self.ball is not None)), calls * (looks * self.batch + self.validated)

    def learn(self, given: Given) -> Iterator[Tableau]:
        """A table of each start. Where the budget is small there are fewer samples, for half of it, and then fewer batches a round."""
        task, settings, each = given.task, given.task.settings, given.task.calls // given.task.settings.nfe
        samples = int(min(self.samples, (given.budget.left() / 2 - each * PROBES) / (each * cost(1))))
        if samples < self.batch:
            return
        teacher = task.ends("fit", samples, given.best, 1 / EXACT)
        for k, start in enumerate(given.starts):
            learning = _Learning(self, given, start, teacher, task.parts(f"{settings.strategy} of {k}"))
            room = given.budget.left() / (len(given.starts) - k) - task.calls * settings.validation_samples
            once, batch = self._parts(task.calls, learning.fitting.way.checkpointing)
            if (steps := int(min(self.steps, (room / len(self.rounds) - once) / batch))) > 0:
                with suppress(*RUN_AWAY):
                    self._learn(learning, steps, batches(samples, self.batch, settings.seed), partial(task.progress, settings.strategy))
                with suppress(*RUN_AWAY):  # what ran away later is handed on as it was
                    yield learning.learnable.table_at(learning.kept)

    def _learn(self, learning: "_Learning", steps: int, order: Iterator[list[int]], progress: Callable[[int, int, str], None]) -> None:
        for k, moving in enumerate(self.rounds):
            learning.begin()
            for step in range(steps):
                error = learning.step(next(order), moving)
                progress(k * steps + step + 1, len(self.rounds) * steps, f"error {error:.3g}")
            learning.end()


class _Learning:
    """The numbers while they are learned. kept are those that are handed on; start noise is the teachers'."""

    def __init__(self, recipe: ByGradient, given: Given, start: Candidate, teacher: Teacher, memo: Memo) -> None:
        task, self.recipe, self.nfe, self.memo = given.task, recipe, given.task.settings.nfe, memo
        model, way = task.model, backward(task.model, task.calls, recipe.batch, task.settings.batch_size)
        self.learnable = recipe.learnable(model.schedule, start)
        validation = given.evaluator.validation.first(recipe.validated)
        self.fitting, self.judging = (
            Gradients(model, self.learnable, each, False, task.clock, way, recipe.ball is not None) for each in (teacher, validation)
        )
        self.origin = {each: each.teacher.noise for each in (self.fitting, self.judging)}
        self.groups = {name: torch.tensor(self.learnable.start[at], requires_grad=True) for name, at in self.learnable.places.items()}
        self.optimizers = [make([self.groups[name] for name in names], self.nfe) for names, make in recipe.optimizers]
        self.kept, self.least, self.worse, self.taken = self.numbers, inf, 0, 0

    @property
    def numbers(self) -> Tensor:
        return torch.cat([each.detach() for each in self.groups.values()])

    def begin(self) -> None:
        """A round: it goes on from what is best."""
        if self.recipe.validated:
            self._back()
            self.least = min(self.least, self._validated())

    def step(self, places: Sequence[int], moving: Sequence[str]) -> float:
        """By one batch; returns its mean error."""
        error, gradient, *slope = found(self.fitting, self.numbers, places, self.memo)
        for name, at in self.learnable.places.items():
            self.groups[name].grad = gradient.mean(0)[at].cpu() if name in moving else None
        for optimizer in self.optimizers:
            clip_grad_norm_(optimizer.param_groups[0]["params"], CLIP)
            optimizer.step()
        self.taken += 1
        self._relax(self.fitting, places, error, *slope)
        self._keep()
        return float(error.mean())

    def end(self) -> None:
        """Of a round: the start noise of the validation samples moves, too."""
        if self.recipe.ball and self.recipe.validated:
            everyone = range(len(self.judging.teacher))
            error, _, slope = found(self.judging, self.numbers, everyone, self.memo)
            self._relax(self.judging, everyone, error, slope)

    def _keep(self) -> None:
        if not self.recipe.validated:
            share = min(self.recipe.averaged, (1 + self.taken) / (10 + self.taken))  # that of torch_ema, which GS uses
            self.kept = share * self.kept + (1 - share) * self.numbers
        elif (value := self._validated()) < self.least:
            self.kept, self.least, self.worse = self.numbers, value, 0
        elif self.worse + 1 < self.recipe.patience:
            self.worse += 1
        else:
            self._back()
            for optimizer in self.optimizers:
                optimizer.param_groups[0]["lr"] *= self.recipe.decay

    def _back(self) -> None:
        self.worse = 0
        for name, at in self.learnable.places.items():
            self.groups[name].data.copy_(self.kept[at])

    def _validated(self) -> float:
        noise = self.judging.teacher.noise
        return self.memo.numbers(lambda: [float(self.judging.errors(self.numbers, range(len(noise)), noise).mean())])[0]

    def _relax(self, of: Gradients, places: Sequence[int], error: Tensor, slope: Tensor | None = None) -> None:
        """Moves the start noise of the samples whose error is then less."""
        if self.recipe.ball is None or slope is None:
            return
        at, noise = list(places), of.teacher.noise.clone()
        view = (-1, *[1] * (noise.ndim - 1))
        origin = self.origin[of][at]
        away = noise[at] - origin - self.recipe.ball.step(self.nfe) / self.recipe.batch * slope.to(noise)
        radius = self.recipe.ball.radius(noise[0].numel(), self.nfe)
        moved = origin + away * (radius / away.flatten(1).norm(dim=1).clamp(min=radius)).view(view)
        after = self.memo.tensors(lambda: {"error": of.errors(self.numbers, at, moved)})["error"]
        noise[at] = moved.where((after < error).to(noise.device).view(view), noise[at])
        of.teacher = replace(of.teacher, noise=noise)
