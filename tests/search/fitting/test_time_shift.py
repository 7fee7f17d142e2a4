"""The time whose variance the states have, against a loop written anew."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from solversearch.grids import grid
from solversearch.models.base import Denoiser
from solversearch.runtime import run
from solversearch.schedules import CosineVP
from solversearch.search.fitting.time_shift import variance_shifts
from solversearch.solvers import get
from solversearch.teacher import teach
from tests.assets import coins

MODEL = coins.factory()


def test_the_network_is_told_the_time_of_the_states_variance() -> None:
    teacher = teach(MODEL, "fit", 64, trajectory=False)
    schedule = MODEL.schedule
    table = get("ddim").tableau(schedule, grid("linspace", schedule, 4))
    shifts = variance_shifts(MODEL, table, teacher, 1.0)
    assert len(shifts) == 4 and any(shifts) and all(abs(shift) <= 1.0 for shift in shifts)

    spread = float(teacher.endpoint.double().var())
    seen: list[float] = []
    nodes = [
        replace(node, t=float(np.clip(schedule.time_at(schedule.position([node.t]) + shift)[0], schedule.t_end, schedule.t_start)))
        for node, shift in zip(table.nodes, shifts, strict=True)
    ]
    with torch.no_grad():
        run(
            nodes,
            table.rows,
            Denoiser(MODEL, teacher.conditions),
            teacher.noise,
            callback=lambda i, x, d: seen.append(float(x.double().var())),
        )
    for node, plain, variance in zip(nodes, table.nodes, seen, strict=True):

        def apart(t: float) -> float:
            return abs(float(schedule.alpha(t)) ** 2 * spread + float(schedule.sigma(t)) ** 2 - variance)  # noqa: B023

        ends = schedule.time_at(
            np.clip(schedule.position([plain.t]) + np.array([-1.0, 1.0]), *sorted(schedule.position([schedule.t_end, schedule.t_start])))
        )
        times = np.linspace(float(ends[0]), float(ends[1]), 2000)
        assert apart(node.t) <= min(map(apart, times)) + 1.5e-3 * variance


def test_where_the_variance_says_nothing_nothing_is_shifted() -> None:
    """Endpoints of unit variance, in a schedule that keeps it."""
    model, teacher = replace(MODEL, schedule=CosineVP()), teach(MODEL, "fit", 64, trajectory=False)
    unit = replace(teacher, endpoint=teacher.endpoint / teacher.endpoint.std())
    table = get("ddim").tableau(model.schedule, grid("linspace", model.schedule, 4))
    assert variance_shifts(model, table, unit, 0.2) == pytest.approx([0.0] * 4)
