"""Samples of tables from the noise of a teacher: what the search, the comparison and the pictures look at."""

from collections.abc import Callable, Generator, Sequence
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

from solversearch.errors import Halted, UserError
from solversearch.models.base import Clock, Denoiser, Model, NotFinite, Request, TensorOutput
from solversearch.noise import fresh_noise
from solversearch.plan import Threshold
from solversearch.runtime import Node, Tableau, run, steps
from solversearch.teacher import Teacher

T = TypeVar("T")
Sampler = Generator[Request, TensorOutput, T]
"""A sampling loop, such as `runtime.steps`, that asks for evaluations and returns a result."""
FAILURES = (UserError, ValueError, ArithmeticError, RuntimeError)
"""What may end one sampling loop and concerns no other: a table that runs away, a matrix that cannot be decomposed."""


@torch.no_grad()
def sample(
    model: Model,
    table: Tableau,
    teacher: Teacher,
    batch_size: int = 512,
    clock: Clock | None = None,
    threshold: Threshold | None = None,
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
    lenient: bool = False,
) -> Tensor:
    """Runs a table from the teacher's noise under its conditions; (n, *shape). callback is `run`'s, lenient `Denoiser`'s."""
    denoise = Denoiser(model, teacher.conditions, batch_size, table.split, clock, lenient)
    samples: Tensor = run(
        table.nodes,
        table.rows,
        denoise,
        teacher.noise,
        draw=drawing(model, teacher),
        threshold=threshold.function() if threshold else None,
        callback=callback,
        components=table.components,
        anchor=denoise.anchor if table.anchored else None,
    )
    return samples


def sample_together(
    model: Model, tables: Sequence[Tableau], teacher: Teacher, batch_size: int = 512, clock: Clock | None = None, lenient: bool = False
) -> list[Tensor | Exception]:
    """Like `sample` for several tables, in `lockstep`."""
    denoise = Denoiser(model, teacher.conditions, batch_size, any(table.split for table in tables), clock, lenient)
    denoise = denoise.anew(node for table in tables for node in table.nodes)
    draw = cache(drawing(model, teacher))

    def started(table: Tableau) -> Sampler[Tensor]:
        anchor = denoise.anchor if table.anchored else None
        return steps(table.nodes, table.rows, teacher.noise, draw, components=table.components, anchor=anchor)

    return lockstep(denoise, list(map(started, tables)), len(teacher))


def drawing(model: Model, teacher: Teacher) -> Callable[[int], Tensor]:
    """The fresh noises of stochastic tables, for the teacher's samples."""
    return lambda k: fresh_noise(model, teacher.split, teacher.numbers, k, teacher.seed)


@torch.no_grad()
def alone(denoise: Callable[[Tensor, Node], TensorOutput], sampler: Sampler[T]) -> T:
    """The result of one sampling loop. Raises its failure."""
    try:
        x, node = next(sampler)
        while True:
            x, node = sampler.send(denoise(x, node))
    except StopIteration as end:
        return end.value


@torch.no_grad()
def lockstep(denoise: Denoiser, samplers: Sequence[Sampler[T]], count: int) -> list[T | Exception]:
    """The results of several sampling loops of `count` samples each: as many at a time as a network batch has room for, and the
    evaluations that those wait for made together. One that fails ends with its failure, as if alone; the others go on.
    """
    results: list[T | Exception] = []
    while len(results) < len(samplers):
        results += _together(denoise, samplers[len(results) :][: max(1, denoise.batch_size // count)])
    return results


def _together(denoise: Denoiser, samplers: Sequence[Sampler[T]]) -> list[T | Exception]:
    ended: dict[int, T | Exception] = {}
    outputs: dict[int, TensorOutput | NotFinite | None] = dict.fromkeys(range(len(samplers)))  # None starts a loop
    while outputs:
        waiting: dict[int, Request] = {}
        for k, output in outputs.items():
            if isinstance(output, NotFinite):
                ended[k] = output
                continue
            try:
                waiting[k] = samplers[k].send(output)  # type: ignore[arg-type]
            except StopIteration as end:
                ended[k] = end.value
            except (torch.cuda.OutOfMemoryError, Halted):
                raise
            except FAILURES as failure:
                ended[k] = failure
        outputs = dict(zip(waiting, denoise.together(list(waiting.values()), list(waiting)), strict=True)) if waiting else {}
    return [ended[k] for k in range(len(samplers))]
