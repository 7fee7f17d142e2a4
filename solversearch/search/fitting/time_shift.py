"""TS-DPM, the Time-Shift Sampler (Li et al. 2023, arXiv:2305.15583), for all samples at once.

    s_i = argmin_{|s| <= reach} |alpha(t)^2 V + sigma(t)^2 - var x_i|,    t the time of node i moved by s in `NoiseSchedule.position`

    x_i    states under the shifts before, their variance over all numbers of all samples
    V      that of the teacher's samples

The paper leaves V out, as small beside the noise, and has a time for each sample. Where the variance hardly depends on the time, as that of
data of unit variance under a schedule that keeps it, the least shift is taken of those that fit alike.
"""

from dataclasses import replace

import numpy as np
import torch

from solversearch.memo import NO_MEMO, Memo, memoized
from solversearch.models.base import Clock, Denoiser, Model
from solversearch.runtime import Tableau, steps
from solversearch.teacher import Teacher

FINENESS = 201
"""Shifts that are tried."""
ALIKE = 1e-3
"""Of the variance: fits that differ by less are alike."""


@torch.no_grad()
def variance_shifts(
    model: Model, table: Tableau, teacher: Teacher, reach: float, batch_size: int = 512, clock: Clock | None = None, memo: Memo = NO_MEMO
) -> list[float]:
    """The shifts of a deterministic table's nodes."""
    denoise = memoized(Denoiser(model, teacher.conditions, batch_size, table.split, clock), memo)
    spread, schedule, found = float(teacher.endpoint.double().var()), model.schedule, list[float]()
    tried = sorted(np.linspace(-reach, reach, FINENESS).tolist(), key=abs)
    ends = sorted(schedule.position([schedule.t_start, schedule.t_end]).tolist())
    sampler = steps(table.nodes, table.rows, teacher.noise)
    x, node = next(sampler)
    while True:
        moved = schedule.time_at(np.clip(schedule.position([node.t]) + np.array(tried), *ends))
        variance = float(x.double().var())
        apart = np.abs(schedule.alpha(moved) ** 2 * spread + schedule.sigma(moved) ** 2 - variance)
        best = int(np.flatnonzero(apart <= apart.min() + ALIKE * variance)[0])
        found.append(tried[best])
        try:
            x, node = sampler.send(denoise(x, replace(node, t=float(moved[best]))))
        except StopIteration:
            return found
