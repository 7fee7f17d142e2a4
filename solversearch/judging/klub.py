"""KLUB: an upper bound on what holding the denoiser's output over each step costs (Align Your Steps, Sabour et al. 2024, arXiv:2404.14507).

In the frame where alpha = 1 and t is the noise level sigma / alpha, a sampler that holds D(x_ti, t_i) from t_i down to t_{i+1}
differs from the reverse diffusion by a Kullback-Leibler divergence of at most

    sum_i int_{t_{i+1}}^{t_i} t^-3 E |D(x_t, t) - D(x_ti, t_i)|^2 dt        in nats,

x_t = x_0 + t n and x_ti drawn from x_t forwards. It judges the *times* of a table for this model, whatever the solver.

The ends. As in the paper the last step goes to the schedule's t_end, the least noise the network knows: the integral to no noise at
all is infinite. A table that starts below t_start knows nothing before its first evaluation: down to there it holds D = 0. From
infinite noise on, that is the divergence of a start from pure noise, exactly so for a Gaussian; only the part from t_start is
counted, for the rest is the same for all tables. So what a table skips at the noisy end it pays for.

Importance sampling. For data N(0, c^2), E |D(x_t, t) - D(x_ti, t_i)|^2 = c^4 B(t), B = 1 / (c^2 + t^2) - 1 / (c^2 + t_i^2), a number.
With w = 1 + c^2 / t^2 and psi(q) = q - 1 - ln q,

    int t^-3 B(t) dt = psi(w / w_i) / (2 c^4)        from t_i down to t,

so that density t^-3 B(t) has the inverse distribution function psi^-1, and the mean of |D - D|^2 / B(t) over it times its integral is
the term. For the Gaussian the times that minimise the sum are uniform in ln w.
"""

from collections.abc import Sequence
from math import atan2

import numpy as np
import torch
from torch import Tensor

from solversearch.models.base import Clock, Denoiser, Model
from solversearch.noise import SPLITS
from solversearch.runtime import Node
from solversearch.schedules import Floats, NoiseSchedule
from solversearch.teacher import Teacher

STREAM = 240414507
"""Sets these random numbers apart from all others of a sample."""


def psi(excess: Floats | float) -> Floats:
    """psi(1 + excess) = excess - ln(1 + excess)."""
    return excess - np.log1p(excess)


def inverse_psi(y: Floats) -> Floats:
    """The excess >= 0 with psi(1 + excess) = y, by Newton's method: psi is convex and the start is above the root, so it only falls."""
    excess = y + np.sqrt(2 * y)
    for _ in range(8):
        excess = excess - (psi(excess) - y) * (1 + excess) / np.maximum(excess, 1e-300)
    return excess


def spread(x: Tensor) -> float:
    """c: the standard deviation of samples (n, *shape) about their mean, over all elements."""
    return float(x.double().var(0).mean().sqrt())


def noises(teacher: Teacher) -> tuple[Tensor, Tensor]:
    """Two standard normals a sample, (n, *shape) each; sample i's are the same whatever n is."""
    rng = np.random.default_rng([teacher.seed, SPLITS.index(teacher.split), STREAM])
    both = torch.from_numpy(rng.standard_normal((len(teacher), 2, *teacher.endpoint.shape[1:]))).to(teacher.endpoint)
    return both[:, 0], both[:, 1]


@torch.no_grad()
def klub(
    model: Model, nodes: Sequence[Node], teacher: Teacher, c: float | None = None, batch_size: int = 512, clock: Clock | None = None
) -> float:
    """The bound for evaluations at the nodes, in any order; x_0 are the teacher's endpoints.

    All noise is the teacher's and the same for every table, so that differences are not noise. Guided at the greatest of the nodes'
    scales, for times alone are judged. c is the paper's 0.5, by default the data's own standard deviation; it moves the variance of
    the estimate, not its mean.
    """
    c = c or spread(teacher.endpoint)
    falling = sorted(nodes, key=lambda node: -atan2(node.sigma, node.alpha))
    schedule, guidance = model.schedule, max(node.guidance for node in nodes)
    ends = [schedule.node(schedule.t_start), *falling, schedule.node(schedule.t_end)]
    w = [1 + (c * node.alpha / node.sigma) ** 2 for node in ends]
    sampler, total = _Steps(model, teacher, c, guidance, batch_size, clock), 0.0
    for i, held in enumerate([None, *falling]):
        if w[i + 1] > w[i]:
            total += sampler.term(i, held, w[i], w[i + 1])
    return total


class _Steps:
    """Estimates one step's term, from one point a sample."""

    def __init__(self, model: Model, teacher: Teacher, c: float, guidance: float, batch_size: int, clock: Clock | None) -> None:
        self.model, self.teacher, self.c, self.guidance, self.clock = model, teacher, c, guidance, clock
        self.batch_size = model.filled(batch_size)
        self.noise, self.forwards = noises(teacher)

    def term(self, i: int, held: Node | None, w_first: float, w_last: float) -> float:
        """The integral from w_first to w_last while the output at `held` is used, or D = 0 where that is None."""
        c, w_held = self.c, 1.0 if held is None else w_first
        start, end = psi(w_first / w_held - 1), psi(w_last / w_held - 1)
        # A lattice instead of random numbers: evenly spread for any count of samples, another shift for every step.
        u = np.mod((np.arange(len(self.teacher)) + 0.5) * (5**0.5 - 1) / 2 + i * 2**0.5, 1.0)
        excess = inverse_psi(start + u * (end - start))
        bracket = excess / (1 + excess) / w_held / c**2  # B(t)
        squares = self._squares(held, np.arctan2(c, np.sqrt(w_held - 1 + w_held * excess)))
        return float(np.mean(squares / bracket) * (end - start) / (2 * c**4))

    def _squares(self, held: Node | None, angles: Floats) -> Floats:
        """|D(x_t, t) - D(x_held, held)|^2 of each sample at its own noise level tan(angle), (n,)."""
        x0, schedule = self.teacher.endpoint, self.model.schedule
        times = schedule.time_of_angle(angles)
        t, alpha, sigma, rest = (torch.from_numpy(values).to(x0) for values in (times, *_scales(schedule, times, held)))
        alpha, sigma, rest = (values.view(-1, *[1] * (x0.ndim - 1)) for values in (alpha, sigma, rest))
        parts = []
        for first in range(0, len(x0), self.batch_size):
            batch = slice(first, first + self.batch_size)
            conditions = None if self.teacher.conditions is None else self.teacher.conditions[batch]
            denoise = Denoiser(self.model, conditions, self.batch_size, clock=self.clock)
            x = alpha[batch] * x0[batch] + sigma[batch] * self.noise[batch]
            output = denoise(x, Node(t[batch], alpha[batch], sigma[batch], self.guidance))  # type: ignore[arg-type]
            assert isinstance(output, Tensor)
            if held is not None:
                x = held.alpha / alpha[batch] * x + rest[batch] * self.forwards[batch]
                then = denoise(x, Node(held.t, held.alpha, held.sigma, self.guidance))
                assert isinstance(then, Tensor)
                output = output - then
            parts.append(output.double().square().flatten(1).sum(1))
        return torch.cat(parts).cpu().numpy()


def _scales(schedule: NoiseSchedule, times: Floats, held: Node | None) -> tuple[Floats, Floats, Floats]:
    """alpha and sigma at the times, and how much noise the way forwards to the held node adds; in float64, for the last cancels."""
    alpha, sigma = schedule.alpha(times), schedule.sigma(times)
    rest = np.zeros_like(alpha) if held is None else np.maximum(held.sigma**2 - (held.alpha * sigma / alpha) ** 2, 0)
    return alpha, sigma, np.sqrt(rest)
