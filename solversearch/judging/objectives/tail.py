"""The mean of the endpoint error over the worst tenth of the samples: what leaves for another mode, and nothing else."""

from math import ceil

from solversearch.judging.objectives.base import Objective, Outcome
from solversearch.judging.objectives.endpoint import endpoint_mse

SHARE = 0.1


def _value(outcome: Outcome) -> float:
    error = endpoint_mse(outcome.samples, outcome.teacher.endpoint)
    return float(error.topk(ceil(SHARE * len(error))).values.mean())


OBJECTIVE = Objective(
    "tail",
    _value,
    cost="nothing beside the samples",
    source="expected shortfall (Acerbi and Tasche 2002) of the squared error to a teacher from the same noise",
    bound=100.0,
)
