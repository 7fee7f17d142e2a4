"""GS, the generalised solver (Oganov et al. 2025, arXiv:2510.17699): all times and coefficients, as residuals on DPM-Solver++(3M).

    x_{n+1} = step(x_n) + sum_i a_{n,i} x_{n-i} + sum_k c_{n,k} B_{n,k}

step is the solver's own at the times, B_n are the newest output, its first and second differences divided by ratios of the steps in log-SNR, and
the outputs before those. The times between t_start and t_end are t_end + (t_start - t_end) (1 - mu_1 .. mu_k), mu a sigmoid squeezed into
(1e-5, 1 - 1e-5) (equation 14), and the network is told t + xi. The settings are those of the paper's code, whose order is the count of steps.
"""

from collections.abc import Sequence

import numpy as np
import torch

from solversearch.runtime import Row, Tableau
from solversearch.schedules import Floats
from solversearch.search.fitting.learnable import LEAST, Learnable, stepped
from solversearch.search.strategies.by_gradient import ByGradient

SQUEEZED = 1e-5


class Generalised(Learnable):
    """Of the coefficients of each step those of the outputs come first, then those of the states."""

    groups = ("times", "told", "coefficients")

    @property
    def _range(self) -> float:
        return self.schedule.t_start - self.schedule.t_end

    def times(self, numbers: Floats) -> Floats:
        mu = SQUEEZED + (1 - 2 * SQUEEZED) / (1 + np.exp(-numbers))
        rising = self.schedule.t_end + self._range * (1 - np.cumprod(mu))
        return np.array([self.schedule.t_start, *rising[::-1]])

    def numbers_of(self, times: Sequence[float]) -> Floats:
        rest = 1 - (np.array(times[:0:-1]) - self.schedule.t_end) / self._range
        mu = rest / np.array([1.0, *rest])[: len(rest)]
        mu = (np.clip(mu, LEAST, 1 - LEAST) - SQUEEZED) / (1 - 2 * SQUEEZED)
        return np.log(mu / (1 - mu))

    def told(self, times: Floats, numbers: Floats) -> Floats:
        return np.clip(times + self._range * numbers, self.schedule.t_end, self.schedule.t_start)

    @property
    def coefficients(self) -> int:
        return self.count * (self.count + 1)

    def rows(self, table: Tableau, numbers: Floats) -> tuple[Row, ...]:
        angles = np.arctan2(*np.transpose([(node.sigma, node.alpha) for node in table.nodes]))
        lam = -np.log(np.tan(np.array([*angles, self.schedule.angle(self.schedule.t_end)]) / 2))
        outputs, states, done = [], np.zeros((self.count, self.count)), 0
        for n in range(self.count):
            own, back, done = *np.split(numbers[done : done + 2 * (n + 1)], 2), done + 2 * (n + 1)
            outputs.append(own @ differences(lam, n))
            states[n, : n + 1] = back[::-1]
        return stepped(table.rows, outputs, states)


def differences(lam: Floats, n: int) -> Floats:
    """B_n as weights of the outputs D_0 .. D_n, (n + 1, n + 1): what DPM-Solver++ (arXiv:2211.01095) combines in the step from lam[n] on."""
    newest = np.eye(n + 1)[::-1].copy()
    h = np.diff(lam)
    if n == 0:
        return newest
    r0 = h[n - 1] / h[n]
    first = (newest[0] - newest[1]) / r0
    if n == 1:
        return np.stack([newest[0], first])
    r1 = h[n - 2] / h[n]
    before = (newest[1] - newest[2]) / r1
    newest[1], newest[2] = first + r0 / (r0 + r1) * (first - before), (first - before) / (r0 + r1)
    return newest


GS = ByGradient(
    Generalised, samples=1400, batch=24, rounds=(Generalised.groups,), steps=10_000, averaged=0.999,
    optimizers=((Generalised.groups, lambda numbers, nfe: torch.optim.Adam(numbers, 1e-3)),),
)  # fmt: skip
