"""GITS (Chen et al. 2024, arXiv:2405.11326): times picked among the teacher's by what one Euler step strays from its trajectories.

In the frame x / alpha, rho = sigma / alpha, where trajectories are nearly plane curves and Euler's method is DDIM, with d(x) the distance
of a point from the line through both ends of a sample's trajectory x_0 .. x_{M-1},

    c_ij = E [d(x_i + (rho_j - rho_i) eps_i) - d(x_j)],        V_k(j) = min_{i > j} c_ji + gamma V_{k-1}(i),    V_1(j) = c_{j,M-1}.

The path of V_N(0) has the N evaluated times. The settings are those of the paper's code: deviations, 256 trajectories (here those for
fitting, of 64 steps in the place of 60), gamma 1.15, and 1.2 under guidance.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from solversearch.runtime import Tableau
from solversearch.schedules import Floats
from solversearch.search.settings import Settings
from solversearch.search.stages.recipe import Given
from solversearch.teacher import Teacher

GAMMA, GUIDED = 1.15, 1.2
FURTHEST = 3000.0
"""rho where it is infinite, as of Karras' grid."""


def costs(teacher: Teacher) -> Floats:
    """c (M, M), for i < j; samples are told apart, for the line is a sample's own."""
    rho = teacher.angles.tan().clamp(0, FURTHEST)
    cosines = 1 / (1 + rho.square()).sqrt()
    start, end = (_point(teacher, k, cosines) for k in (0, -1))
    line = torch.nn.functional.normalize(end - start, dim=1)

    def across(x: Tensor) -> Tensor:
        return x - (x * line).sum(1, keepdim=True) * line

    found = np.zeros((len(rho), len(rho)))
    strays = torch.zeros(len(rho), dtype=torch.float64)
    for i in range(len(rho)):
        x = across(_point(teacher, i, cosines) - end)
        strays[i] = 0.0 if i in (0, len(rho) - 1) else x.norm(dim=1).mean()
        sine = (1 - cosines[i] ** 2).sqrt()
        eps = across(sine * teacher.states[i].double().flatten(1) + cosines[i] * teacher.slopes[i].double().flatten(1))
        # |x + h eps|^2, for all steps h at once
        h, squares = (rho - rho[i])[:, None], (x.square().sum(1), (x * eps).sum(1), eps.square().sum(1))
        found[i] = (squares[0] + 2 * h * squares[1] + h.square() * squares[2]).clamp(min=0).sqrt().mean(1)
    return found - strays.numpy()


def _point(teacher: Teacher, k: int, cosines: Tensor) -> Tensor:
    """x / alpha of every sample, (n, numbers)."""
    return teacher.states[k].double().flatten(1) / cosines[k]


def path(cost: Floats, steps: int, gamma: float) -> list[int]:
    """Places 0 < ... < M - 1 of so many steps, steps + 1 of them, of the least V."""
    count = len(cost)
    above = np.triu(np.ones((count, count), bool), 1)
    values, picked = cost[:, -1], list[Floats]()
    values = np.where(np.arange(count) < count - 1, values, np.inf)
    for _ in range(steps - 1):
        total = np.where(above, cost + gamma * values, np.inf)
        picked.append(total.argmin(1))
        values = total.min(1)
    places = [0]
    for each in reversed(picked):
        places.append(int(each[places[-1]]))
    return [*places, count - 1]


class _Curvature:
    def cost(self, settings: Settings, calls: int) -> int:
        """What it takes to judge the tables: the trajectories are the teacher's."""
        return settings.space.size(1) * calls * settings.validation_samples

    def learn(self, given: Given) -> Iterator[Tableau]:
        settings, teacher = given.task.settings, given.evaluator.fitting
        chosen = path(costs(teacher), settings.nfe, GAMMA if settings.guidance == 1 else GUIDED)[:-1]
        yield from given.at(given.task.model.schedule.time_of_angle(teacher.angles[chosen].numpy()).tolist())


GITS = _Curvature()
