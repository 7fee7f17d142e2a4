"""S4S-Alt (Frankel et al. 2025, arXiv:2502.17423): the coefficients of a linear multistep solver and its times, in turn.

    x_{n+1} = step(x_n) + (alpha_{n+1} - alpha_n sigma_{n+1} / sigma_n) sum_{i < 3} b_{n,i} D_{n-i}

The times and the relaxed objective are LD3's. The method has no public code: samples, batches and the average at the end are GS's here,
the rates LD3's, in four turns. On digits, 5 evaluations, 400,000 of the search, coefficients by a rate of 1e-3 ended at 1.2 of the mean
error, 2e-2 at .97.
"""

from itertools import pairwise

import numpy as np
import torch

from solversearch.runtime import Tableau
from solversearch.schedules import CLEAN, Floats
from solversearch.search.strategies.by_gradient import ByGradient
from solversearch.search.strategies.ld3 import OPTIMIZERS, RELAXED, Discretised

ORDER, TURNS = 3, 4


class Multistep(Discretised):
    groups = ("times", "told", "coefficients")

    def bases(self, table: Tableau) -> Floats:
        nodes = [*table.nodes, CLEAN]
        scales = [there.alpha - here.alpha * there.sigma / here.sigma for here, there in pairwise(nodes)]
        weights = [(n, i) for n, i in zip(*self.lower, strict=True) if n - i < ORDER]
        found = np.zeros((len(weights), self.count, self.count))
        for k, (n, i) in enumerate(weights):
            found[k, n, i] = scales[n]
        return found


S4S = ByGradient(
    Multistep, samples=1400, batch=24, rounds=(("times", "told"), ("coefficients",)) * TURNS, steps=120, averaged=0.999,
    optimizers=(*OPTIMIZERS, (("coefficients",), lambda numbers, nfe: torch.optim.Adam(numbers, 5e-3))),
    ball=RELAXED,
)  # fmt: skip
