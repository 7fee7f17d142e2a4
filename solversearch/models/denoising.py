"""Whether a person's own model denoises: a wrong sign, time direction or scale is told before any work is done.

Clean samples x0 are noised to sigma / alpha = .3, 1 and 3 times their spread, and three errors |D - x0|^2 are compared:

    own        the network's, read as the model says
    flat       of the linear filter that knows the mean and the variance of x0, and nothing else
    possible   of the best of three denoisers made of other clean samples: flat, a linear filter with their covariance (shrunken),
               and their posterior mean E[x0 | x], as if there were no others

x0 are real samples where the model has `data`, else its own, of a short solve. The *score* of a reading is the geometric mean over the
levels of own / possible. Each reading is compared with its *flips*: with the sign of the output, the direction of time, or both turned.
Measured on digits, mixture, coins, and perceptrons of 5,000 numbers after 0, 300 and 1,500 steps of training on four sets of points in
the plane (epsilon, v, x0, flow, EDM):

    on real samples              trained and right   flipped (best reading: right)   untrained      limit
    score over the best flip's   .28 to 1.011        1.02 to 40                      .986 to 1.014  SURELY, PERHAPS
    score                        .77 to 1.33                                         .99 to 4.1     DENOISES of the right reading
    least own / flat             .38 to 1.004                                        .98 to 1.14    KNOWS, HARMS
    greatest own / flat          .70 to 1.13                                         1.005 to 13    WORSE

Flips that cost less than `SURELY` are of v-predictors of points in the plane: v of unit Gaussian data is zero, and its sign means nothing.
After 300 steps a ring is hardly learnt (least own / flat 1.004), but its flips are worse by 2 % and more, which those of an untrained
network are not. On their own samples right models score .56 to 1.10, those with the sign of epsilon or x0 flipped 81 and more, of flow
1.1 to 1.6, with time reversed 1.0 to 3.3, and v-predictors of points 1 either way: what cannot be told without data is not told.
"""

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from solversearch.errors import UserError
from solversearch.models.base import Denoiser, Model, Network, NotFinite
from solversearch.models.edm import Preconditioned
from solversearch.runtime import Node
from solversearch.schedules import PREDICTION_TYPES, Floats
from solversearch.teacher import Teacher, solve

RATIOS = (0.3, 1.0, 3.0)
"""Noise over the spread of the data."""
STEPS = 32
"""Of the solve for a model's own samples."""
MOST, NUMBERS = 256, 2**14
"""Samples that are tried: so many, but of large ones few: numbers in all."""
OTHERS = 512
SURELY, PERHAPS, DENOISES = 1.15, 1.04, 1.6
"""A flip that is so many times better, and denoises, is what the network learned: an error, or a warning."""
KNOWS, HARMS, SAME, WORSE = 0.97, 1.03, 1.015, 1.5
"""Of own / flat the least of a trained network, and of any; what flips of an untrained one differ by; and the greatest of any."""
CONTRADICTS, AGREES, HARDLY = 1.2, 1.1, 1.6
"""Scores on a model's own samples: of a wrong reading, of a flip that is right, and from which on a warning is due without such a flip."""


@dataclass(frozen=True)
class DenoisingTrial:
    """Clean samples x0 (n, *shape) with their conditions, and others to make denoisers of, (m, *shape)."""

    clean: Tensor
    conditions: Tensor | None
    others: Tensor

    @cached_property
    def spread(self) -> float:
        """Standard deviation of one number about its mean."""
        return float((self.others - self.others.mean(0)).double().square().mean().sqrt())

    def nodes(self, model: Model) -> list[Node]:
        """The levels that the schedule has."""
        schedule = model.schedule
        times = schedule.time_of_angle(np.arctan(np.array(RATIOS) * self.spread))
        return [schedule.node(t) for t in np.unique(times.round() if schedule.discrete else times).tolist()]

    @torch.no_grad()
    def errors(self, model: Model) -> Floats:
        """(levels, 3): own, flat, possible."""
        denoise, found = Denoiser(model, self.conditions), []
        for k, node in enumerate(self.nodes(model)):
            x = node.alpha * self.clean + node.sigma * _noise(model, len(self.clean), k)
            try:
                own = float((denoise(x, node) - self.clean).double().square().mean())  # type: ignore[operator]
            except NotFinite:
                own = np.inf
            found.append((own, *self._others(x, node)))
        return np.maximum(np.array(found), 1e-12)

    def _others(self, x: Tensor, node: Node) -> tuple[float, float]:
        x, clean, others = (each.double().flatten(1).cpu() for each in (x, self.clean, self.others))
        a, s, mean, numbers = node.alpha, node.sigma, others.mean(0), x.shape[1]
        z = x - a * mean
        _, singular, axes = torch.linalg.svd(others - mean, full_matrices=False)
        variances = singular.square() / len(others)
        average = variances.sum() / numbers

        def filtered(shrunk: float) -> Tensor:
            inside, outside = (1 - shrunk) * variances + shrunk * average, shrunk * average
            gains, rest = (a * v / (a**2 * v + s**2) for v in (inside, outside))
            return mean + (z @ axes.T * (gains - rest)) @ axes + rest * z

        near = torch.softmax(-torch.cdist(x, a * others).square() / (2 * s**2), dim=1)
        flat, *better = (float((each - clean).square().mean()) for each in (filtered(1.0), filtered(0.02), near @ others))
        return flat, min(flat, *better)


def score(errors: Floats) -> float:
    return float(np.exp(np.log(errors[:, 0] / errors[:, 2]).mean()))


def check(model: Model, where: str) -> None:
    """Raises `UserError` where the network denoises when it is read otherwise, and so does not; warns where something is doubtful."""
    real = _real(model)
    trial = real or _own(model)
    errors = None if trial is None else trial.errors(model)
    found, most, factor = np.inf if errors is None else score(errors), DENOISES, SURELY
    if real is None:
        most, factor = AGREES, CONTRADICTS / AGREES
        if found < CONTRADICTS and trial is not None:
            return _doubt_scale(model, where, trial)
    flips = [(_score(other, real), words) for words, other in _flips(model)]
    best, words = min(flips)
    told = (
        f"its error is {found:.3g} times that of filters made of {'the data' if real else 'its own samples'}, and {best:.3g} times {words}"
    )
    if best <= most and found >= factor * best:
        raise UserError(f"the network does not denoise: {told}")
    if trial is None or errors is None:
        _doubt(where, "the network does not denoise: its own samples are not finite, or all the same")
    elif real is None:
        if found < HARDLY:
            _doubt_scale(model, where, trial)
        else:
            _doubt(where, f"the network hardly denoises its own samples: its error is {found:.3g} times that of filters made of them")
    elif best <= most and found >= PERHAPS * best:
        _doubt(where, f"the network may be read wrongly: {told}")
    else:
        least, greatest = float((over := errors[:, 0] / errors[:, 1]).min()), float(over.max())
        something = bool((errors[:, 2] < KNOWS * errors[:, 1]).any())  # to know of the data, beside mean and variance
        if least > HARMS or greatest > WORSE or (something and least > KNOWS and found > best / SAME):
            _doubt(
                where, f"the network hardly denoises: its error is {least:.3g} to {greatest:.3g} times that of a filter that knows no more "
                f"than mean and variance of the data{_hint(model, real)}"
            )  # fmt: skip


def check_samples(model: Model, teacher: Teacher, guidance: float = 1.0) -> None:
    """Warns where the teacher's samples are not on the scale of the data, where there are data. Guidance moves them."""
    if model.data is None:
        return
    data = model.data().double()
    samples = teacher.endpoint[teacher.endpoint.flatten(1).isfinite().all(1)].to(data)
    spread = float((data - data.mean(0)).square().mean().sqrt())
    own = float((samples - samples.mean(0)).square().mean().sqrt())
    apart = float((samples.mean(0) - data.mean(0)).square().mean().sqrt())
    most = 2.0 if guidance == 1 else 3.0
    if not spread / most <= own <= most * spread or apart > most / 2 * spread:
        warnings.warn(
            f"{model.name}: the teacher's samples are not on the scale of the data: mean {float(samples.mean()):.3g}, standard deviation "
            f"{own:.3g}, of the data {float(data.mean()):.3g} and {spread:.3g}; is the network trained and read rightly, and are the data "
            "scaled as in its training?",
            stacklevel=2,
        )


# Clean samples ---------------------------------------------------------------------------------------------------


def _noise(model: Model, count: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng([seed, 7]).standard_normal((count, *model.shape))).float().to(model.device)


def _count(model: Model) -> int:
    return max(2, min(MOST, NUMBERS // model.numbers))


def _real(model: Model) -> DenoisingTrial | None:
    """Whose samples they are is not known: under the null condition, if there are conditions."""
    if model.data is None:
        return None
    data, count = model.data(), _count(model)
    if not isinstance(data, Tensor) or data.shape[1:] != model.shape or len(data) == 0:
        got = f"the shape {tuple(data.shape)}" if isinstance(data, Tensor) else f"an object of type {type(data).__name__}"
        raise UserError(f"data must return real samples, a tensor of the shape (M, {str(model.shape)[1:]}, got {got}")
    count = min(count, len(data) // 2)
    if count == 0 or (model.conditions is not None and model.null_condition is None):
        return None
    chosen = torch.from_numpy(np.random.default_rng(0).permutation(len(data))[: count + OTHERS]).to(data.device)
    some, null = data[chosen].to(model.device, torch.float32), model.null_condition
    trial = DenoisingTrial(some[:count], None if null is None else null.expand(count, *null.shape), some[count:])
    return trial if 0 < trial.spread < np.inf else None


def _own(model: Model) -> DenoisingTrial | None:
    """None where they are not finite, or all the same."""
    count, conditions = _count(model), model.conditions
    if conditions is not None:
        conditions = conditions[torch.arange(2 * count, device=conditions.device) % len(conditions)]
    try:
        samples = solve(model, Denoiser(model, conditions), _noise(model, 2 * count, 9), 1.0, STEPS)
    except NotFinite:
        return None
    trial = DenoisingTrial(samples[:count], None if conditions is None else conditions[:count], samples[count:])
    return trial if bool(samples.isfinite().all()) and 0 < trial.spread < np.inf else None


def _score(model: Model, real: DenoisingTrial | None) -> float:
    trial = real or _own(model)
    return np.inf if trial is None else score(trial.errors(model))


# Other readings --------------------------------------------------------------------------------------------------


def _flips(model: Model) -> Iterator[tuple[str, Model]]:
    """The same network read otherwise, and how that is said."""
    schedule = model.schedule
    ends = schedule.t_start + schedule.t_end
    whole = f"{schedule.t_start if schedule.discrete else round(ends):g}"
    sign = "with the sign of its output flipped"
    if model.prediction_type == "flow":
        sign += " (flow is noise - data here, as in diffusers; return minus the output where it learned data - noise)"
    else:
        sign += f" (it learned minus what prediction_type {model.prediction_type!r} is; return minus the output)"
    time = f"with time reversed (noise is at t = {schedule.t_start:g} here, data at {schedule.t_end:g}; give it {whole} - t)"
    yield sign, replace(model, network=_negated(model.network))
    if schedule.initial_scale(schedule.t_start) != 1:
        return  # where t is sigma itself there is no other direction
    yield time, replace(model, network=_retimed(model.network, ends, -1.0))
    yield f"{sign} and {time}", replace(model, network=_retimed(_negated(model.network), ends, -1.0))


def _negated(network: Network) -> Network:
    if not isinstance(network, Preconditioned):
        return lambda x, t, *condition: -network(x, t, *condition)
    other = copy.copy(network)
    other.sign = -network.sign
    return other


def _retimed(network: Network, offset: float, scale: float) -> Network:
    return lambda x, t, *condition: network(x, offset + scale * t, *condition)


def _hint(model: Model, trial: DenoisingTrial) -> str:
    """The other prediction type or unit of time that would denoise, if any."""
    readings = {f"read as {kind!r}": replace(model, prediction_type=kind) for kind in PREDICTION_TYPES[:4] if kind != model.prediction_type}
    for scale, words in ((1000.0, "multiplied by 1000"), (0.001, "divided by 1000")):
        readings[f"with times {words}"] = replace(model, network=_retimed(model.network, 0.0, scale))
    for words, other in readings.items():
        errors = trial.errors(other)
        if score(errors) <= DENOISES and (errors[:, 0] / errors[:, 1]).min() < KNOWS:
            return f"; {words} it would denoise"
    return ""


def _doubt_scale(model: Model, where: str, own: DenoisingTrial) -> None:
    """Noise at the start has to drown the data, and samples have to differ."""
    start = model.schedule.node(model.schedule.t_start)
    if own.spread * start.alpha > start.sigma / 2:
        _doubt(where, f"its samples have the standard deviation {own.spread:.3g}, which the noise at t = {start.t:g} does not drown")
    elif own.spread < 0.02 * float(own.others.double().square().mean().sqrt()):
        _doubt(where, "all its samples are nearly the same")


def _doubt(where: str, what: str) -> None:
    warnings.warn(f"{where}: {what}; is it trained, and are schedule, prediction_type, time and data as in its training?", stacklevel=3)
