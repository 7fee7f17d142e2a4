"""Samples of a table from the noise of a teacher: what the search, the comparison and the pictures look at."""

import torch
from torch import Tensor

from solversearch.models.base import Clock, Denoiser, Model
from solversearch.noise import fresh_noise
from solversearch.plan import Threshold
from solversearch.runtime import Tableau, run
from solversearch.teacher import Teacher


@torch.no_grad()
def sample(
    model: Model, table: Tableau, teacher: Teacher, batch_size: int = 256, clock: Clock | None = None, threshold: Threshold | None = None
) -> Tensor:
    """Runs a table from the teacher's noise under its conditions; (n, *shape)."""
    denoise = Denoiser(model, teacher.conditions, batch_size, table.split, clock)
    samples: Tensor = run(
        table.nodes,
        table.rows,
        denoise,
        teacher.noise,
        draw=lambda k: fresh_noise(model, teacher.split, len(teacher), k, teacher.seed),
        threshold=threshold.function() if threshold else None,
    )
    return samples
