"""The mean of the endpoint error as it is: a few samples in a hundred carry most of it, and a plan that is best by it is worse on most."""

from solversearch.judging.objectives.base import Objective, Outcome
from solversearch.judging.objectives.endpoint import endpoint_mse


def _value(outcome: Outcome) -> float:
    return float(endpoint_mse(outcome.samples, outcome.teacher.endpoint).mean())


OBJECTIVE = Objective(
    "mean",
    _value,
    cost="nothing beside the samples",
    source="squared error to a teacher from the same noise",
    bound=30.0,
)
