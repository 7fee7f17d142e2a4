"""S4S-Alt (Frankel et al. 2025, arXiv:2502.17423): the coefficients of a linear multistep solver and its times, in turn.

    x_{n+1} = step(x_n) + (alpha_{n+1} - alpha_n sigma_{n+1} / sigma_n) sum_{i < 3} b_{n,i} D_{n-i}

The times and the relaxed objective are LD3's. The method has no public code: samples and batches are GS's here, the rates those of LD3 for times
and of GS for coefficients, and eight turns share the steps of both.
"""

import numpy as np
import torch

from solversearch.runtime import Row, Tableau
from solversearch.schedules import CLEAN, Floats
from solversearch.search.fitting.learnable import stepped
from solversearch.search.strategies.by_gradient import ByGradient
from solversearch.search.strategies.ld3 import OPTIMIZERS, RELAXED, Discretised

ORDER, TURNS = 3, 8


class Multistep(Discretised):
    groups = ("times", "told", "coefficients")

    @property
    def coefficients(self) -> int:
        return self.count * ORDER

    def rows(self, table: Tableau, numbers: Floats) -> tuple[Row, ...]:
        """Coefficients of outputs that there are not yet move nothing."""
        nodes = [*table.nodes, CLEAN]
        scales = [there.alpha - here.alpha * there.sigma / here.sigma for here, there in zip(nodes, nodes[1:], strict=False)]
        outputs = [np.zeros(n + 1) for n in range(self.count)]
        for n, (scale, own) in enumerate(zip(scales, numbers.reshape(-1, ORDER), strict=True)):
            newest = min(n + 1, ORDER)
            outputs[n][n + 1 - newest :] = scale * own[:newest][::-1]
        return stepped(table.rows, outputs)


S4S = ByGradient(
    Multistep, samples=1400, batch=24, rounds=(("times", "told"), ("coefficients",)) * TURNS, steps=60,
    optimizers=(*OPTIMIZERS, (("coefficients",), lambda numbers, nfe: torch.optim.Adam(numbers, 1e-3))),
    validated=50, patience=5, decay=0.8, ball=RELAXED,
)  # fmt: skip
