"""How a pipeline combined what its network returned with the condition and without: fitted, for there are many ways to write guidance."""

from typing import NamedTuple

import torch
from torch import Tensor

_POINTS = 2**18
"""Of an output, from which the pipeline's combination is fitted."""


class Plain(NamedTuple):
    """Guidance k (u + w (c - u)) + r x: k u where r is 0, else None; k (c - u); w; whether c - u is more than rounding errors, and whether
    u is the first of the two."""

    base: Tensor | None
    difference: Tensor
    w: float
    shows: bool
    first: bool

    def at(self, guidance: float, combined: Tensor) -> Tensor:
        if self.base is None:
            return combined + (guidance - self.w) * self.difference
        return self.base + guidance * self.difference


def combination(outputs: list[Tensor], combined: Tensor, sample: Tensor) -> Plain | None:
    """How the pipeline combined its outputs, if by plain guidance.

    Which of the two is c is told by w > 1: from the other one it would be 1 - w < 0.
    """
    halves = outputs if len(outputs) == 2 else outputs[0].chunk(2) if len(outputs) == 1 else ()
    pair = [_like(half, combined) for half in halves]
    if len(pair) != 2 or pair[0] is None or pair[1] is None:
        return None
    a, b = pair[0].to(combined), pair[1].to(combined)
    rounding, tolerance = (2e-2, 2e-2) if min(each.dtype.itemsize for each in outputs) < 4 else (1e-5, 1e-3)
    for more in ([], [sample.to(combined)]):
        k, g, error, size, guided = _fitted([a, b - a, *more], combined)
        if k == 0 or error > tolerance * guided + rounding * size or (not more and abs(abs(k) - 1) > max(tolerance, rounding)):
            continue
        k = k if more else round(k)
        first = g / k > 0.5
        u, difference, w = (a, b - a, g / k) if first else (b, a - b, 1 - g / k)
        return Plain(None if more else k * u, k * difference, w, guided > 10 * rounding * size, first)
    return None


def _fitted(parts: list[Tensor], combined: Tensor) -> tuple[float, ...]:
    """The first two coefficients of the least squares fit, its error, the size of what is added up, and that of the second part."""
    stride = max(combined.numel() // _POINTS, 1)
    columns = torch.stack([each.flatten()[::stride].cpu().double() for each in (*parts, combined)], dim=1)
    sizes = columns.norm(dim=0).clamp(min=1e-30)
    weights = torch.linalg.lstsq(columns[:, :-1] / sizes[:-1], columns[:, -1:], driver="gelsd").solution[:, 0] / sizes[:-1]
    added = sizes[:-1] * weights.abs()
    error = (columns[:, :-1] @ weights - columns[:, -1]).norm()
    return float(weights[0]), float(weights[1]), float(error), float(added.sum()), float(added[1])


def _like(output: Tensor, combined: Tensor) -> Tensor | None:
    """The part of a network's output that the pipeline handed on: without a variance in further channels, without further tokens."""
    if output.ndim == combined.ndim:
        for axis in range(1, output.ndim):
            output = output.narrow(axis, 0, min(output.shape[axis], combined.shape[axis]))
    return output.reshape(combined.shape) if output.numel() == combined.numel() else None
