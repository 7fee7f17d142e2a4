"""Endpoint error: how far a sample lands from where the teacher takes the same noise."""

from typing import TYPE_CHECKING

from solversearch.judging.objectives.base import Objective, Outcome

if TYPE_CHECKING:
    from torch import Tensor


def endpoint_mse(samples: "Tensor", endpoint: "Tensor") -> "Tensor":
    """Mean squared error of each sample, (B,) float64 on the CPU."""
    return (samples - endpoint).double().square().flatten(1).mean(1).cpu()


def tempered(error: "Tensor", scale: float | None) -> "Tensor":
    """scale * log(1 + error / scale): linear for errors below the scale, logarithmic above, so that the few samples which
    end in another mode do not outweigh the rest. The error itself where scale is None."""
    return error if scale is None else scale * (error / scale).log1p()


def _value(outcome: Outcome) -> float:
    return float(tempered(endpoint_mse(outcome.samples, outcome.teacher.endpoint), outcome.scale).mean())


OBJECTIVE = Objective(
    "endpoint",
    _value,
    cost="nothing beside the samples",
    source="squared error to a teacher from the same noise, tempered so that outliers do not decide",
)
