"""Kernel distance (KID): the squared maximum mean discrepancy of features under a cubic kernel (Binkowski et al. 2018, arXiv:1801.01401).

    k(x, y) = (x.y / F + 1)^3,    F features
    MMD^2   = 1 / (n (n - 1)) sum_{i != j} k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i)

Samples x_i and the teacher's endpoints y_i come in pairs from the same noise, so that x_i and y_i depend on each other. The
estimate for pairs (Gretton et al. 2012, JMLR 13, equation 4) leaves k(x_i, y_i) out and is unbiased all the same: its mean is 0
where the distributions are one, so it can be negative; and it is exactly 0 for the endpoints themselves. All samples, no subsets.
"""

import torch
from torch import Tensor

from solversearch.objectives.base import Objective, Outcome, features_of


def kernel_distance(x: Tensor, y: Tensor) -> Tensor:
    """The unbiased MMD^2 of paired features x and y, (n, F) each, float64 and n >= 2; a scalar."""
    n, width = x.shape

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / width + 1) ** 3

    across = kernel(x, y)
    h = kernel(x, x) + kernel(y, y) - across - across.T
    return (h.sum() - torch.trace(h)) / (n * (n - 1))


def _value(outcome: Outcome) -> float:
    return float(kernel_distance(*features_of(outcome)))


OBJECTIVE = Objective(
    "kid",
    _value,
    cost="the feature network, once a sample, and products of all pairs of samples",
    source="Binkowski et al. 2018, arXiv:1801.01401",
    needs=frozenset({"features"}),
)
