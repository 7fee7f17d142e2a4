"""Trajectory error: how far the states on the way stray from the teacher's (DC-Solver, Zhao et al. 2024, arXiv:2409.03755).

The mean, over the inputs x_i of every evaluation after the first and the result, of the squared distance to the teacher's state at
the same noise level, each in the frame of unit variance x / sqrt(alpha^2 + sigma^2), so that the noisy states of an exploding
schedule do not outweigh the rest. Tempered a sample, as the endpoint error is: it is the same few samples that leave.
"""

from math import hypot

from solversearch.judging.objectives.base import Objective, Outcome
from solversearch.judging.objectives.endpoint import endpoint_mse, tempered


def _value(outcome: Outcome) -> float:
    import torch

    assert outcome.states is not None
    teacher, visited = outcome.teacher, zip(outcome.states[1:], outcome.table.nodes[1:], strict=True)
    errors = [endpoint_mse(x, teacher.state(node)) / hypot(node.alpha, node.sigma) ** 2 for x, node in visited]
    errors.append(endpoint_mse(outcome.samples, teacher.endpoint))
    return float(tempered(torch.stack(errors).mean(0), outcome.scale).mean())


OBJECTIVE = Objective(
    "trajectory",
    _value,
    cost="memory for the states of every evaluation and for the teacher's trajectory",
    source="Zhao et al. 2024, arXiv:2409.03755",
    needs=frozenset({"states", "trajectory"}),
)
