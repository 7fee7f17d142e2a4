"""What a model is, as a text that is kept with plans, teachers and runs, and compared with the model at hand.

    <64 hex digits>:<whole numbers>

The digits hash what is known exactly: weights, buffers, schedule, prediction type, shape, clipping, conditions. Code and plain
attributes cannot be hashed, so the numbers are a probe: what the network answers to fixed inputs, rounded so coarsely that another batch
size, number of threads or device does not matter, and so finely that a change of 1 % (in half precision of 10 %) shows.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from solversearch.schedules import NoiseSchedule

STEP = {torch.float64: 0.005, torch.float32: 0.005, torch.float16: 0.02, torch.bfloat16: 0.05}
"""What the probe is rounded to, relative to the root mean square of an output: several times what rounding errors make of it."""
TIMES, AT_A_TIME, DIRECTIONS = 4, 3, 8
"""Of the probe: times, conditions at each beside the null condition, and random directions that each output is projected onto."""
NOT_FINITE = 2**30
LEAST = 1e-4
"""Of an output's size over its input's: less is rounding errors."""
LEVELS = 257
"""Times at which the noise levels are hashed."""
_PROBE = re.compile(r"-?[0-9]{1,12}(,-?[0-9]{1,12})*")


class Identified:
    """The fields of a `Model` that its outputs depend on, and the texts that say which model it is."""

    name: str
    network: Callable[..., Tensor]
    schedule: NoiseSchedule
    prediction_type: str
    shape: tuple[int, ...]
    conditions: Tensor | None
    null_condition: Tensor | None
    anchor: Callable[[Tensor], Tensor] | None
    dtype: torch.dtype
    device: str
    clip: float | None
    conditioning: str
    disjoint: bool
    pad: int
    weights: str
    whole: "Identified | None"

    @cached_property
    def digest(self) -> str:
        """What plans compare, whatever they start from. Where weights are known from stored files it is the same in whatever precision
        and for whatever prompts."""
        if self.whole is not None:
            return self.whole.digest
        return f"{_frozen(self)}:" if self.weights and isinstance(self.network, nn.Module) else self.fingerprint

    @cached_property
    def fingerprint(self) -> str:
        """What teachers and runs compare: all that an output depends on. Calls the network a few times."""
        if self.whole is not None:
            return self.whole.fingerprint
        return f"{exact(self)}:{','.join(map(str, probe(self)))}"

    @property
    def numbers(self) -> int:
        """Of one sample."""
        return prod(self.shape)

    @property
    def time_dtype(self) -> torch.dtype:
        return torch.promote_types(self.dtype, torch.float32)

    def filled(self, size: int) -> int:
        """The size of a network batch for `size` samples."""
        return -(-size // self.pad) * self.pad


def same(one: str, other: str) -> bool:
    """Whether two digests are of the same model: equal hashes, and numbers that are equal or neighbours."""
    (exact, _, probe), (other_exact, _, other_probe) = one.partition(":"), other.partition(":")
    return exact == other_exact and close(numbers(probe), numbers(other_probe))


def close(one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two probes are: what is nearly the same may be rounded to neighbours."""
    return len(one) == len(other) and all(abs(a - b) <= 1 for a, b in zip(one, other, strict=True))


def numbers(probe: str) -> list[int]:
    """Of the part behind the colon; none where it is no probe."""
    return [int(part) for part in probe.split(",")] if _PROBE.fullmatch(probe) else []


def is_of(digest: str, model: Identified) -> bool:
    """Whether the digest that a plan carries is the model's; older ones have no colon, and know the weights, schedule and shape only."""
    return same(digest, model.digest) or (":" not in digest and digest == old_digest(model.whole or model))


def exact(model: Identified) -> str:
    """The hash of a fingerprint, for which the network is not called."""
    sha = hashlib.sha256(f"{_frozen(model)} {model.dtype} {model.conditioning} {model.disjoint}".encode())
    _add(sha, {"conditions": model.conditions, "null_condition": model.null_condition})
    return sha.hexdigest()


def _frozen(model: Identified) -> str:
    """The hash of what is the same for all conditions and precisions."""
    schedule, network = model.schedule, model.network
    end, start = float(schedule.t_end), float(schedule.t_start)
    sha = hashlib.sha256(repr((model.prediction_type, model.shape, model.clip, schedule.discrete, end, start)).encode())
    times, scale = np.linspace(end, start, LEVELS), np.array([schedule.initial_scale(start)])
    betas = [schedule.beta(times)] if schedule.reverts else []
    for values in (schedule.alpha(times), schedule.sigma(times), schedule.at_fraction(np.linspace(0, 1, LEVELS)), scale, *betas):
        sha.update((np.round(values, 9) + 0.0).tobytes())  # the last digits differ between processors, and -0 is 0
    if model.weights or not isinstance(network, nn.Module):
        sha.update((model.weights or model.name).encode())
    else:
        _add(sha, {**dict(network.named_buffers()), **network.state_dict()})
    return sha.hexdigest()


def weights_digest(network: nn.Module) -> str:
    """SHA-256 of what a network has learned, and of its buffers."""
    sha = hashlib.sha256()
    _add(sha, {**dict(network.named_buffers()), **network.state_dict()})
    return sha.hexdigest()


def _add(sha: "hashlib._Hash", tensors: dict[str, Tensor | None]) -> None:
    for name, tensor in sorted(tensors.items()):
        if isinstance(tensor, Tensor):  # a state may have other things
            sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            sha.update(_bytes(tensor))


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()


# The probe -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def probe(model: Identified) -> list[int]:
    """Of every output the logarithm of its size (root mean square), and its projections in units of that, in steps of `STEP`.

    At `TIMES` times from end to end; at each under the null condition and `AT_A_TIME` others, which are spread over all there are. Every
    call has the fewest samples that the model takes. A sample with NaN or inf is marked, and nothing else.
    """
    rng, found = np.random.default_rng(0), []
    noise = torch.from_numpy(rng.standard_normal((AT_A_TIME + 1, *model.shape)))
    directions = torch.from_numpy(rng.standard_normal((DIRECTIONS, model.numbers)))
    directions /= directions.norm(dim=1, keepdim=True)
    for number, t in enumerate(_times(model)):
        conditions, node = _conditions(model, number), model.schedule.node(t)
        scale = float(np.hypot(node.alpha, node.sigma))
        x = (scale * noise[: 1 if conditions is None else len(conditions)]).to(torch.float32)
        if model.anchor is not None and conditions is not None:
            drawn = model.anchor(conditions if model.null_condition is None else conditions[:-1]).cpu()
            x[: len(drawn)] += float(model.schedule.beta(t)) * drawn  # under the null condition it may be anything
        output = torch.cat([_called(model, x[i : i + model.pad], t, conditions, i) for i in range(0, len(x), model.pad)])
        size = output.square().mean(1, keepdim=True).sqrt().clamp(min=LEAST * scale)
        values = torch.cat([size.log(), output / size @ directions.T], dim=1) / STEP.get(model.dtype, max(STEP.values()))
        found += torch.where(values.isfinite(), values.round(), NOT_FINITE).long().flatten().tolist()
    return found


def _times(model: Identified) -> list[float]:
    """Evenly in the angle; whole ones where the network knows no others."""
    schedule = model.schedule
    start, end = float(schedule.angle(schedule.t_start)), float(schedule.angle(schedule.t_end))
    times = schedule.time_of_angle(np.linspace(start, end, TIMES))
    times[[0, -1]] = schedule.t_start, schedule.t_end
    return [float(t) for t in (times.round() if schedule.discrete else times)]


def _conditions(model: Identified, number: int) -> Tensor | None:
    """Of the number-th time: others than at the time before, where there are."""
    if model.conditions is None:
        return None
    count, most = len(model.conditions), TIMES * AT_A_TIME
    spread = np.linspace(0, count - 1, min(count, most)).round().astype(int)
    chosen = [spread[(number * AT_A_TIME + i) % len(spread)] for i in range(AT_A_TIME)]
    rows = model.conditions[torch.tensor(np.array(chosen), device=model.conditions.device)]
    return rows if model.null_condition is None else torch.cat([rows, model.null_condition[None]])


def _called(model: Identified, x: Tensor, t: float, conditions: Tensor | None, first: int) -> Tensor:
    """The network's output for x, (n, numbers) in double precision; the batch is filled up as a `Denoiser` does."""
    fill = torch.arange(model.filled(len(x))).clamp(max=len(x) - 1)
    times = torch.full((len(fill),), t, dtype=model.time_dtype, device=model.device)
    given = () if conditions is None else (conditions[first + fill.to(conditions.device)],)
    output = model.network(x[fill].to(model.device, model.dtype), times, *given)
    return output[: len(x)].cpu().double().flatten(1)


def nearly(one: Tensor, other: Tensor) -> bool:
    """Whether two outputs of a network differ by no more than rounding errors."""
    difference, size = ((each.double().square().mean().sqrt()) for each in (one - other, one))
    return bool(difference <= STEP.get(one.dtype, max(STEP.values())) * size)


# Before there was a probe -----------------------------------------------------------------------------------------


def old_digest(model: Identified) -> str:
    """SHA-256 of the weights (or of the name or source of a plain function), prediction type, shape and schedule at nine times."""
    schedule, network = model.schedule, model.network
    angles = [f"{angle:.12g}" for angle in schedule.angle(np.linspace(schedule.t_end, schedule.t_start, 9))]
    told = f"{model.prediction_type} {model.shape} {schedule.t_end:g} {schedule.t_start:g} {angles}"
    if model.weights:
        return hashlib.sha256(f"{model.weights} {told}".encode()).hexdigest() if isinstance(network, nn.Module) else model.weights
    sha = hashlib.sha256(told.encode())
    if isinstance(network, nn.Module):
        for name, tensor in sorted(network.state_dict().items()):
            sha.update(name.encode())
            sha.update(_bytes(tensor))
    else:
        sha.update(model.name.encode())
    return sha.hexdigest()
