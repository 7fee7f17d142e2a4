"""LD3, learning to discretise (Tong et al. 2024, arXiv:2405.15506): the times of a solver, and those that the network is told.

The steps are shares of the range of times by a softmax, so that times fall whatever is learned; a told time may leave its time by half of
the least step. The settings are those of the paper's code for CIFAR-10: two rounds of the times alone, five of both. There the steps are
in log-SNR, for latents in time, as here: on digits, 5 evaluations, iPNDM, that ended at .75 of the mean error of log-SNR, and .84 of its
median.
"""

from collections.abc import Sequence

import numpy as np
import torch

from solversearch.schedules import Floats
from solversearch.search.fitting.learnable import LEAST, Learnable
from solversearch.search.strategies.by_gradient import ByGradient, NoiseBall

WINDOW = 0.5
"""Of the least step, what a told time may be off."""


class Discretised(Learnable):
    def times(self, numbers: Floats) -> Floats:
        """One number a step, the last of which goes to t_end."""
        shares = np.exp(numbers - numbers.max())
        return self.schedule.t_start - self.range * np.array([0.0, *np.cumsum(shares / shares.sum())[:-1]])

    def numbers_of(self, times: Sequence[float]) -> Floats:
        falling = np.array([self.schedule.t_start, *times[1:], self.schedule.t_end])
        numbers: Floats = np.log(np.maximum(-np.diff(falling) / self.range, LEAST))
        return numbers - numbers.mean()

    def told(self, times: Floats, numbers: Floats) -> Floats:
        """The first stays; numbers are in units of the range."""
        reach = WINDOW * -np.diff([*times, self.schedule.t_end]).max()
        return times + np.clip(self.range * np.array([0.0, *numbers[1:]]), -reach, reach)


RELAXED = NoiseBall(step=lambda nfe: 12 / nfe, radius=lambda numbers, nfe: 1e-3 * numbers / nfe**2)
OPTIMIZERS = (
    (("times",), lambda numbers, nfe: torch.optim.RMSprop(numbers, 5e-3, momentum=0.9)),
    (("told",), lambda numbers, nfe: torch.optim.SGD(numbers, 0.1 / nfe)),
)
LD3 = ByGradient(
    Discretised, samples=50, batch=2, rounds=(("times",),) * 2 + (("times", "told"),) * 5, steps=25, optimizers=OPTIMIZERS,
    validated=50, patience=5, decay=0.8, ball=RELAXED,
)  # fmt: skip
