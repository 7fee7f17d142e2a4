"""GS, the generalised solver (Oganov et al. 2025, arXiv:2510.17699): all times and coefficients, as residuals on DPM-Solver++(3M).

As in `Learnable`, where the columns of B in step n are the newest output, its first and second differences divided by ratios of the steps
in log-SNR, and the outputs before those. The times between t_start and t_end are t_end + (t_start - t_end) (1 - mu_1 .. mu_k), mu a
sigmoid squeezed into (1e-5, 1 - 1e-5) (equation 14), and the network is told t + xi. The settings are those of the paper's code, whose
order is the count of steps.
"""

from collections.abc import Sequence

import numpy as np
import torch

from solversearch.runtime import Tableau
from solversearch.schedules import Floats
from solversearch.search.fitting.learnable import LEAST, Learnable
from solversearch.search.strategies.by_gradient import ByGradient

SQUEEZED = 1e-5


class Generalised(Learnable):
    groups = ("times", "told", "coefficients")
    states = True

    def times(self, numbers: Floats) -> Floats:
        mu = SQUEEZED + (1 - 2 * SQUEEZED) / (1 + np.exp(-numbers))
        rising = self.schedule.t_end + self.range * (1 - np.cumprod(mu))
        return np.array([self.schedule.t_start, *rising[::-1]])

    def numbers_of(self, times: Sequence[float]) -> Floats:
        rest = 1 - (np.array(times[:0:-1]) - self.schedule.t_end) / self.range
        mu = rest / np.array([1.0, *rest])[: len(rest)]
        mu = (np.clip(mu, LEAST, 1 - LEAST) - SQUEEZED) / (1 - 2 * SQUEEZED)
        return np.log(mu / (1 - mu))

    def told(self, times: Floats, numbers: Floats) -> Floats:
        return np.clip(times + self.range * numbers, self.schedule.t_end, self.schedule.t_start)

    def bases(self, table: Tableau) -> Floats:
        angles = np.arctan2(*np.transpose([(node.sigma, node.alpha) for node in table.nodes]))
        places = np.log(np.tan(np.array([*angles, self.schedule.angle(self.schedule.t_end)]) / 2))
        found = np.zeros((len(self.lower[0]), self.count, self.count))
        for n in range(self.count):
            first = n * (n + 1) // 2
            found[first : first + n + 1, n, : n + 1] = differences(-places, n)
        return found


def differences(lam: Floats, n: int) -> Floats:
    """What DPM-Solver++ (arXiv:2211.01095) combines in the step from lam[n] on, as weights of the outputs D_0 .. D_n, (n + 1, n + 1)."""
    outputs = np.eye(n + 1)[::-1]
    if n == 0:
        return outputs
    h = np.diff(lam)
    r0, first = h[n - 1] / h[n], (outputs[0] - outputs[1]) * h[n] / h[n - 1]
    if n == 1:
        return np.stack([outputs[0], first])
    r1 = h[n - 2] / h[n]
    second = (first - (outputs[1] - outputs[2]) / r1) / (r0 + r1)
    return np.stack([outputs[0], first + r0 * second, second, *outputs[3:]])


GS = ByGradient(
    Generalised, samples=1400, batch=24, rounds=(Generalised.groups,), steps=10_000, averaged=0.999,
    optimizers=((Generalised.groups, lambda numbers, nfe: torch.optim.Adam(numbers, 1e-3)),),
)  # fmt: skip
