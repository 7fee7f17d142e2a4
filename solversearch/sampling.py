"""Samples of tables from the noise of a teacher: what the search, the comparison and the pictures look at."""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from solversearch.models.base import Clock, Denoiser, Model
from solversearch.noise import fresh_noise
from solversearch.plan import Threshold
from solversearch.runtime import Node, Row, Tableau, run
from solversearch.teacher import Teacher


@torch.no_grad()
def sample(
    model: Model,
    table: Tableau,
    teacher: Teacher,
    batch_size: int = 512,
    clock: Clock | None = None,
    threshold: Threshold | None = None,
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Tensor:
    """Runs a table from the teacher's noise under its conditions; (n, *shape). callback is `run`'s."""
    denoise = Denoiser(model, teacher.conditions, batch_size, table.split, clock)
    samples: Tensor = run(
        table.nodes,
        table.rows,
        denoise,
        teacher.noise,
        draw=lambda k: fresh_noise(model, teacher.split, len(teacher), k, teacher.seed),
        threshold=threshold.function() if threshold else None,
        callback=callback,
    )
    return samples


@torch.no_grad()
def sample_together(model: Model, tables: Sequence[Tableau], teacher: Teacher, clock: Clock | None = None) -> list[Tensor]:
    """Like `sample` for several tables of one NFE and guidance, in one network batch, each with its own times."""
    copies, n = len(tables), len(teacher)

    def column(numbers: Sequence[float]) -> Tensor:
        """One number a table, for each of its samples."""
        each = torch.tensor(numbers, dtype=teacher.noise.dtype, device=teacher.noise.device).repeat_interleave(n)
        return each.view(-1, *[1] * len(model.shape))

    def node(same: tuple[Node, ...]) -> Any:
        t, alpha, sigma = (column([getattr(each, name) for each in same]) for name in ("t", "alpha", "sigma"))
        return Node(t.flatten(), alpha, sigma, same[0].guidance)  # type: ignore[arg-type]

    def row(same: tuple[Row, ...]) -> Any:
        d, delta, z = (
            tuple(column(weights) for weights in zip_longest(*(getattr(each, kind) for each in same), fillvalue=0.0))
            for kind in ("d", "delta", "z")
        )
        return Row(column([each.x for each in same]), d, delta, z)  # type: ignore[arg-type]

    conditions = None if teacher.conditions is None else torch.cat([teacher.conditions] * copies)
    samples: Tensor = run(
        [node(same) for same in zip(*(table.nodes for table in tables), strict=True)],
        [row(same) for same in zip(*(table.rows for table in tables), strict=True)],
        Denoiser(model, conditions, n * copies, any(table.split for table in tables), clock),
        torch.cat([teacher.noise] * copies),
        draw=lambda k: torch.cat([fresh_noise(model, teacher.split, n, k, teacher.seed)] * copies),
    )
    return list(samples.view(copies, n, *model.shape))
