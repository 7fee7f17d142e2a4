"""The teacher: reference trajectories of a high-accuracy solve, with an error estimate, cached under a content hash.

The solve runs in the angle phi = atan2(sigma, alpha) on the normalised state u = x / sqrt(alpha^2 + sigma^2). There the
probability-flow ODE is du/dphi = v with v = cos(phi) eps - sin(phi) D, regular from pure noise to clean data; states and
slopes at the nodes give the state at any time by cubic Hermite interpolation.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import atan2, cos, hypot, sin
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from solversearch.cache import cache_folder, evict, keep, limit, used
from solversearch.grids import logsnr, quadratic
from solversearch.models.base import Clock, Denoiser, Model, TensorOutput
from solversearch.models.digest import close, numbers
from solversearch.noise import PICTURES, Draw, draw, fresh_noise
from solversearch.runtime import Node
from solversearch.solvers import get
from solversearch.tableau import Problem

VERSION = 3
STEPS = 64
ROUGH = 16
"""Where samples only have to look like the model's: pictures to start from, and what surrogates are fitted to."""
DOUBLED = 128
"""Samples that the error is estimated on."""
Denoise = Callable[[Tensor, Node], TensorOutput]


@dataclass(frozen=True)
class Teacher:
    """Reference trajectories of the first n samples of a split, at one guidance scale.

    noise (n, *shape), or the noised pictures that a `Model.started` starts from; conditions (n, ...) or None; endpoint (n, *shape), the
    clean result; angles (M,), from noise to data; states and slopes (M, n, *shape), u and du/dphi, empty (M = 0) where only the endpoint is
    kept. The last three are in host memory, in fact in the cached file: of a large model they would fill the device.
    error is the mean squared error of the endpoint by step doubling, on the first `DOUBLED` samples.
    The endpoint of a held-out sample is NaN where the network returned NaN or inf on its way.
    numbers (n,) are those of the samples in their split; steps are the evaluations of each.
    """

    split: str
    seed: int
    noise: Tensor
    conditions: Tensor | None
    endpoint: Tensor
    angles: Tensor
    states: Tensor
    slopes: Tensor
    error: float
    numbers: Sequence[int]
    steps: int = STEPS

    def __len__(self) -> int:
        return len(self.noise)

    def first(self, n: int) -> "Teacher":
        """The same for the first n samples only."""
        conditions = None if self.conditions is None else self.conditions[:n]
        states, slopes = self.states[:, :n], self.slopes[:, :n]
        return replace(
            self, noise=self.noise[:n], conditions=conditions, endpoint=self.endpoint[:n], states=states, slopes=slopes,
            numbers=self.numbers[:n],
        )  # fmt: skip

    def at(self, places: Sequence[int]) -> "Teacher":
        """The same for some of the samples, by their places in this teacher."""
        index = torch.as_tensor(places, dtype=torch.long)
        here = index.to(self.noise.device)
        conditions = None if self.conditions is None else self.conditions[here]
        return replace(
            self, noise=self.noise[here], conditions=conditions, endpoint=self.endpoint[here], states=self.states[:, index],
            slopes=self.slopes[:, index], numbers=[self.numbers[place] for place in places],
        )  # fmt: skip

    def state(self, node: Node) -> Tensor:
        """The teacher's x at a node, (n, *shape), by cubic Hermite interpolation; on the device of the noise."""
        angle, angles = atan2(node.sigma, node.alpha), self.angles.tolist()
        i = min(max(bisect_left([-a for a in angles], -angle), 1), len(angles) - 1)
        h = angles[i] - angles[i - 1]
        s = min(max((angle - angles[i - 1]) / h, 0.0), 1.0)
        u: Tensor = (
            (1 + 2 * s) * (1 - s) ** 2 * self.states[i - 1] + s * (1 - s) ** 2 * h * self.slopes[i - 1]
            + s**2 * (3 - 2 * s) * self.states[i] + s**2 * (s - 1) * h * self.slopes[i]
        )  # fmt: skip
        return (u * hypot(node.alpha, node.sigma)).to(self.noise.device)


def teach(
    model: Model, split: str, count: int, guidance: float = 1.0, seed: int = 0, trajectory: bool = True, steps: int = STEPS,
    batch_size: int = 512, clock: Clock | None = None, progress: Callable[[int], None] = lambda evaluations: None,
) -> Teacher:  # fmt: skip
    """The teacher's solve of a split, from the cache where it has been made before.

    The cache is keyed by everything the result depends on: the model's fingerprint, guidance, seed, samples, steps; files used least lately
    go where it grows beyond its limit. trajectory keeps the states, which the fit needs. progress is told the evaluations of a sample done
    so far, of 1.5 * steps; the last third is of `DOUBLED` samples at most. Raises `NotFinite` where the network returns NaN or inf; of the
    held-out split only where it does so for every sample.

    A model that starts from noised pictures starts from its own: samples from noise of the same seeds, conditions and guidance, by a
    teacher of `ROUGH` steps, with other noise added to them. One that has an anchor starts from that.
    """
    most, drawn = limit(), draw(model, split, count, seed)
    if model.whole is not None and model.start is not None:
        if model.anchor is not None and drawn.conditions is not None:
            pictures = model.anchor(drawn.conditions)
        else:
            pictures = teach(model.whole, split, count, guidance, seed, False, ROUGH, batch_size, clock).endpoint
        drawn = drawn._replace(noise=model.start.noised(pictures, fresh_noise(model, split, range(count), PICTURES, seed)))
    exact, _, probe = model.fingerprint.partition(":")
    key = f"{VERSION} {exact} {split} {count} {guidance!r} {seed} {{}} {steps}"
    key += "" if model.whole is None else f" from {model.schedule.t_start!r}"
    names = (hashlib.sha256(key.format(kept).encode()).hexdigest()[:32] for kept in (True, False))
    whole, ends = (cache_folder() / f"teacher-{name}.safetensors" for name in names)
    known = numbers(probe)
    stored = _read(whole, drawn.noise, steps, known) or (None if trajectory else _read(ends, drawn.noise, 0, known))
    if stored is None:
        path = whole if trajectory else ends
        denoiser = partial(Denoiser, model, batch_size=batch_size, clock=clock, lenient=split == "held_out")
        stored = _solve(model, drawn, guidance, steps, trajectory, denoiser, progress)
        keep(path, {**stored, "probe": torch.tensor(known)}, "the teacher")
        stored = _read(path, drawn.noise, steps if trajectory else 0, known) or stored  # which does not stay in memory
        evict(most)
    endpoint, error = stored["endpoint"].to(model.device, copy=True), float(stored["error"])
    angles, states, slopes = (stored[name] if trajectory else torch.empty_like(stored[name][:0]) for name in ("angles", "states", "slopes"))
    return Teacher(split, seed, drawn.noise, drawn.conditions, endpoint, angles.clone(), states, slopes, error, range(count), steps)


def solve(model: Model, denoise: Denoise, noise: Tensor, guidance: float, steps: int) -> Tensor:
    """The samples of a solve that is kept nowhere."""
    with torch.no_grad():
        return _integrate(model, denoise, noise, guidance, steps, False, lambda done: None)["endpoint"]


def cost(count: int, steps: int = STEPS, pictures: bool = False) -> int:
    """Evaluations that the teacher of so many samples takes, with those for the pictures to start from; guidance doubles them."""
    return steps * count + steps // 2 * min(count, DOUBLED) + (cost(count, ROUGH) if pictures else 0)


def _read(path: Path, noise: Tensor, kept: int, probe: Sequence[int]) -> dict[str, Tensor] | None:
    """The tensors of a file, where they are those of the noise with as many states kept, and of the model that has this probe."""
    along = (kept, *noise.shape)
    shapes = {
        "angles": (kept,), "states": along, "slopes": along, "endpoint": tuple(noise.shape), "error": (), "probe": (len(probe),)
    }  # fmt: skip
    try:
        stored = load_file(path)
    except (OSError, SafetensorError):  # absent, or damaged: it is made again
        return None
    if {name: tuple(tensor.shape) for name, tensor in stored.items()} != shapes or not close(stored.pop("probe").tolist(), probe):
        return None
    if not all(tensor.is_floating_point() for tensor in stored.values()):
        return None
    used(path)
    return stored


@torch.no_grad()
def _solve(
    model: Model, drawn: Draw, guidance: float, steps: int, trajectory: bool, denoiser: Callable[[Tensor | None], Denoiser],
    progress: Callable[[int], None],
) -> dict[str, Tensor]:  # fmt: skip
    """Integrates the probability-flow ODE from t_start to t_end in `steps` evaluations, then takes D there.

    The same solve with half the steps gives the error estimate, of the first samples that came to an end.
    """
    full = _integrate(model, denoiser(drawn.conditions), drawn.noise, guidance, steps, trajectory, progress)
    end = full["endpoint"]
    few = end.flatten(1).isfinite().all(1).nonzero()[:DOUBLED, 0]
    denoise = denoiser(None if drawn.conditions is None else drawn.conditions[few])
    half = _integrate(model, denoise, drawn.noise[few], guidance, steps // 2, False, lambda done: progress(steps + done))["endpoint"]
    return {**full, "error": (end[few] - half).double().square().nanmean()}


def _integrate(
    model: Model, denoise: Denoise, noise: Tensor, guidance: float, steps: int, trajectory: bool, progress: Callable[[int], None]
) -> dict[str, Tensor]:
    """One solve by UniPC-3, run on the arrays themselves, halfway between the quadratic and the log-SNR grid, by `position`."""
    schedule = model.schedule
    u = np.linspace(1, 0, steps)
    halfway = schedule.time_at((schedule.position(quadratic(schedule, u)) + schedule.position(logsnr(schedule, u))) / 2)
    nodes = [replace(schedule.node(t), guidance=guidance) for t in halfway]
    kept = steps if trajectory else 0
    angles = torch.empty(kept, dtype=torch.float64)
    states, slopes = (torch.empty(kept, *noise.shape, dtype=noise.dtype) for _ in range(2))
    done = 0

    def record(x: Tensor, node: Node) -> Tensor:
        nonlocal done
        prediction = denoise(x, node)
        assert isinstance(prediction, Tensor)
        if trajectory:
            angle = atan2(node.sigma, node.alpha)
            eps = (x - node.alpha * prediction) / node.sigma
            angles[done], states[done] = angle, x / hypot(node.alpha, node.sigma)
            slopes[done] = cos(angle) * eps - sin(angle) * prediction
        done += 1
        progress(done)
        return prediction

    problem = Problem(schedule, record, lambda: noise.new_zeros(()))
    end = get("unipc_3_full").rule(problem, noise * schedule.initial_scale(nodes[0].t), nodes)
    return {"angles": angles, "states": states, "slopes": slopes, "endpoint": record(end, nodes[-1])}
