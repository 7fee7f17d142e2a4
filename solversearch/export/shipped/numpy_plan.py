"""A plan of solversearch in one file that needs nothing but NumPy (and samples torch and JAX arrays as well).

    samples = sample(denoise, noise)

noise is standard normal. denoise(x, node) runs a network on x at the time node.t and returns its data prediction, for which there is
`data_prediction(output=output, x=x, node=node)`. Where node.guidance is not 1, that is D = D_u + node.guidance * (D_c - D_u) of the
predictions with the condition and without; where PLAN.split is true, it is the pair (D, D_c - D_u), but D alone where node.reuses, which
one call with the condition gives. node.variant, where it is not empty, names another network to run, or the same without some blocks, as
the plan's `variants` in PLAN_TEXT say. PLAN.stochastic plans need draw(k), which returns the k-th fresh standard normal; those with a
PLAN.start need picture=, to which the noise is added. PLAN.anchored plans need anchor=, the y that each sample is restored from: x has its
share node.beta * y, which data_prediction(..., anchor=y) knows. Run as a program, this file checks itself.
"""

import math
from collections.abc import Callable

import numpy as np

from .reader import coefficients, parse
from .runtime import Array, Node, Output, initial, run

PLAN_TEXT = ""
SHAPE = (2, 4)
EXPECTED: list[float] = []
"""Of the noise in `check`, and what solversearch itself computes from it."""

PLAN = parse(PLAN_TEXT)


def sample(
    denoise: Callable[[Array, Node], Output],
    noise: Array,
    draw: Callable[[int], Array] | None = None,
    grid: tuple[int, int] | None = None,
    picture: Array | None = None,
    anchor: Array | None = None,
) -> Array:
    """Samples the plan from standard normal noise, a picture where it starts from one, and an anchor where its nodes have a beta, which is
    the picture, too; grid is (rows, columns) of packed samples that are no square."""
    x = initial(PLAN.start, noise, picture, anchor)
    return run(PLAN.nodes, PLAN.rows, denoise, x, draw, PLAN.threshold, components=PLAN.components, grid=grid, anchor=anchor)


def data_prediction(*, output: Array, x: Array, node: Node, anchor: Array | None = None) -> Array:
    """The estimate of the clean sample that a network's output at (x, node.t) stands for; with the anchor where the plan has betas."""
    if (anchor is not None) != PLAN.anchored:
        raise ValueError(f"the plan's nodes have {'a beta: give anchor=' if anchor is None else 'no beta: leave the anchor out'}")
    a, b = coefficients(PLAN.prediction_type, node.alpha, node.sigma)
    return a * (x if anchor is None else x - node.beta * anchor) + b * output


def check() -> float:
    """Largest difference from EXPECTED, where the data are standard normal and the guidance difference a tenth of their prediction."""

    def denoise(x: Array, node: Node) -> Array:
        d = node.alpha / (node.alpha**2 + node.sigma**2) * x
        return (d, d / 10) if PLAN.split and not node.reuses else d

    noise = np.linspace(-2, 2, math.prod(SHAPE)).reshape(SHAPE)
    anchor = np.sin(noise) if PLAN.anchored else None
    picture = np.cos(noise) if PLAN.start and anchor is None else None
    result = sample(denoise, noise, lambda k: np.cos(noise + k), picture=picture, anchor=anchor)
    return float(np.max(np.abs(result.ravel() - EXPECTED)))


if __name__ == "__main__":
    difference = check()
    print(f"{PLAN.nfe} evaluations, {PLAN.digest}: differs from solversearch by {difference:.1e}")
    raise SystemExit(difference > 1e-9)
