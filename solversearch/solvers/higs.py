"""HiGS, history-guided sampling (Sadat et al. 2025, arXiv:2509.22300): outputs are led away from the average of those before them.

    D'_i = D_i + w (D_i - g_i),    g_i = sum_j a (1 - a)^j D_{i-1-j} / sum_j a (1 - a)^j

    D_i    data predictions, guided ones under guidance; the solver sees D' in their place, the average D itself
    w      strength; the paper's falls with the square root of the time within a window, about 1.75 at its noisy end
    a      rate at which the average forgets; 0.75 in the paper

The paper takes from the difference what is parallel to D_i and its low frequencies, which no table can, and starts its average at zero,
whose bias that hides; here the weights are divided by their sum, so that constant outputs are reproduced.
"""

from collections.abc import Sequence

from solversearch.tableau import Vector


def average(past: Sequence[Vector], rate: float) -> Vector:
    """g of the outputs before, oldest first."""
    weights = [(1 - rate) ** age for age in range(len(past))]
    total = sum(weights)
    found = past[-1] * (1 / total)
    for age, weight in enumerate(weights[1:], 1):
        found = found + past[-1 - age] * (weight / total)
    return found


def led(d: Vector, past: Sequence[Vector], weight: float, rate: float) -> Vector:
    """D' of an output; the output itself where it is the first, or the weight is 0."""
    return d + (d - average(past, rate)) * weight if past and weight else d
