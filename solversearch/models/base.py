"""What every model adapter supplies, and the denoiser that runs it: batches, guidance, data prediction, time spent."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from solversearch.errors import UserError
from solversearch.runtime import Node
from solversearch.schedules import NoiseSchedule, data_prediction

Network = Callable[..., Tensor]


@dataclass(frozen=True)
class Model:
    """A pretrained network with what is needed to sample it.

    network(x, t, condition) maps x of shape (B, *shape), t (B,) in the schedule's units and condition (B, ...),
    absent for unconditional models, to a prediction of shape (B, *shape).
    conditions holds one condition a row, shape (C, ...); null_condition, shape (...), is the one guidance leads away from.
    features maps samples (B, *shape) to (B, F); data gives real samples (M, *shape); images gives pictures (B, H, W[, 3]) in [0, 1].
    guidance is the scale that the model is usually sampled at. clip bounds data predictions to [-clip, clip], for pixel models that are
    sampled so. conditioning is a digest of what the conditions stand for, where they are numbers of prompts and not the prompts themselves:
    another one needs another teacher, but not another plan.
    pad fills network batches up to a multiple of it. Processors round a few rows, or the last of many, differently; with
    64, small networks on a CPU give every sample the same result bit for bit, whatever batch it was in.
    """

    name: str
    network: Network
    schedule: NoiseSchedule
    prediction_type: str
    shape: tuple[int, ...]
    conditions: Tensor | None = None
    null_condition: Tensor | None = None
    features: Callable[[Tensor], Tensor] | None = None
    data: Callable[[], Tensor] | None = None
    images: Callable[[Tensor], Tensor] | None = None
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    guidance: float = 1.0
    clip: float | None = None
    conditioning: str = ""
    pad: int = 1
    digest: str = field(default="")

    def __post_init__(self) -> None:
        if not self.digest:
            object.__setattr__(self, "digest", digest_of(self))

    def filled(self, size: int) -> int:
        """The size of a network batch for `size` samples."""
        return -(-size // self.pad) * self.pad


def digest_of(model: Model) -> str:
    """SHA-256 of the weights (or of the name, for a network that is a plain function), prediction type, shape and schedule."""
    schedule = model.schedule
    angles = [f"{angle:.12g}" for angle in schedule.angle(np.linspace(schedule.t_end, schedule.t_start, 9))]
    sha = hashlib.sha256(f"{model.prediction_type} {model.shape} {schedule.t_end:g} {schedule.t_start:g} {angles}".encode())
    if isinstance(model.network, nn.Module):
        for name, tensor in sorted(model.network.state_dict().items()):
            sha.update(name.encode())
            sha.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    else:
        sha.update(model.name.encode())
    return sha.hexdigest()


@dataclass
class Clock:
    """Seconds spent inside the network, and samples it evaluated (guidance counts twice)."""

    seconds: float = 0.0
    evaluations: int = 0


class Denoiser:
    """The data prediction of a model for samples with the given conditions, as `runtime.run` calls it.

    conditions has one row a sample, shape (B, ...), or is None for unconditional models. With ``split`` the conditional minus the
    unconditional data prediction is returned as well. Raises `UserError` where the network fails or returns NaN.
    """

    def __init__(self, model: Model, conditions: Tensor | None, batch_size: int = 512, split: bool = False, clock: Clock | None = None):
        self.model, self.conditions, self.split = model, conditions, split
        self.batch_size = model.filled(batch_size)
        self.clock = clock or Clock()

    def __call__(self, x: Tensor, node: Node) -> Tensor | tuple[Tensor, Tensor]:
        guided = self.split or node.guidance != 1
        if guided and self.model.null_condition is None:
            raise UserError(f"model {self.model.name!r} has no null condition, so guidance is not possible; use guidance 1")
        start = time.perf_counter()
        conditional = self._predict(x, node, self.conditions)
        if not guided:
            self.clock.seconds += time.perf_counter() - start
            return conditional
        assert self.conditions is not None and self.model.null_condition is not None
        unconditional = self._predict(x, node, self.model.null_condition.expand_as(self.conditions))
        self.clock.seconds += time.perf_counter() - start
        difference = conditional - unconditional
        prediction = unconditional + node.guidance * difference
        return (prediction, difference) if self.split else prediction

    def _predict(self, x: Tensor, node: Node, conditions: Tensor | None) -> Tensor:
        """Data prediction in the dtype of x, for every sample of x under its condition."""
        parts = []
        for first in range(0, len(x), self.batch_size):
            batch = slice(first, first + self.batch_size)
            parts.append(self._predict_batch(x[batch], node, None if conditions is None else conditions[batch]))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _predict_batch(self, x: Tensor, node: Node, conditions: Tensor | None) -> Tensor:
        model, size = self.model, len(x)
        fill = torch.arange(model.filled(size), device=x.device).clamp(max=size - 1) if size % model.pad else slice(None)
        padded = x[fill].to(model.dtype)
        t = torch.as_tensor(node.t, dtype=model.dtype, device=x.device).expand(size)[fill]
        arguments = (padded, t) if conditions is None else (padded, t, conditions[fill])
        output = model.network(*arguments)[:size].to(x.dtype)
        self.clock.evaluations += size
        a, b = data_prediction(model.prediction_type, node.alpha, node.sigma)
        prediction = b * output if isinstance(a, float) and a == 0 else a * x + b * output
        if not torch.isfinite(prediction).all():
            at = float(t[0].detach())  # times may be given one a sample
            raise NotFinite(f"the network of {model.name!r} returned NaN or inf at t = {at:g}; check its weights and dtype")
        return prediction


class NotFinite(UserError):
    """The network returned a number that is not finite: fatal for a sample, a failed candidate in a search."""
