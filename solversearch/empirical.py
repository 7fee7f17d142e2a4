"""A model's own parametrisation, measured on its teacher's trajectories: the statistics l and s of DPM-Solver-v3 (arXiv:2310.13268).

    l = 1 - alpha E[v . (D(x + h v) - D(x))] / (h d)     d numbers of a sample; v is 1 or -1 in each, at random
    s = E[f . df/dlambda] / E[f . f]                     f = (1 - l) x / alpha - D, whose differences along a trajectory give df/dlambda

The paper takes the diagonal of sigma d eps / dx by derivatives, and both statistics for each number of a sample; here they are averages
over all numbers, and over those of each channel of pictures. What the finite h adds is odd in v, so that h^2 is left of it on the
average. A sample keeps its v all along its trajectory, so that l is smooth in lambda whatever the number of samples.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from math import cos, hypot, log, sin, tan
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from solversearch.cache import cache_folder, keep, used
from solversearch.components import MOST_CHANNELS
from solversearch.models.base import Clock, Denoiser, Model
from solversearch.models.digest import close, numbers
from solversearch.noise import fresh_noise
from solversearch.parametrization import Parametrization
from solversearch.teacher import Teacher, teach

VERSION = 2
STEP = 0.01
"""h, in sigma."""
SIGNS = 2**16
"""Number of the fresh noise whose signs are v: far beyond those of any plan."""
STEPS = 32
"""Of the trajectories."""
NUMBERS, FEWEST, MOST = 2**13, 8, 64
"""Numbers of all samples together that are enough for the averages, and the samples that make them, at least and at most."""
WITHOUT = 1e-6
"""alpha / sqrt(alpha^2 + sigma^2) up to which there is no signal."""
RIDGE, TINY = 1e-6, 1e-30
"""Of E[f . f], in E[D . D]: where f is nothing but rounding, as on normal data, s is 0."""


def parametrization(model: Model, guidance: float = 1.0, batch_size: int = 512, clock: Clock | None = None) -> Parametrization:
    """The model's at a guidance scale, from the cache where it has been measured before; of fitting noise, whatever seed and start a search
    has.

    Raises `NotFinite` where the network returns NaN or inf.
    """
    model = model.whole or model
    exact, _, probe = model.fingerprint.partition(":")
    known = numbers(probe)
    name = hashlib.sha256(f"parametrization {VERSION} {exact} {guidance!r}".encode()).hexdigest()[:32]
    path = cache_folder() / f"statistics-{name}.safetensors"
    found = _read(path, known)
    if found is None:
        count = max(FEWEST, min(MOST, NUMBERS // model.numbers))
        teacher = teach(model, "fit", count, guidance, steps=STEPS, batch_size=batch_size, clock=clock)
        found = measure(model, teacher, guidance, batch_size, clock)
        kept = torch.tensor([[each.lams, each.l, each.s] for each in (found, *found.channels)], dtype=torch.float64)
        keep(path, {"statistics": kept, "probe": torch.tensor(known)}, "the statistics of the model")
    return found


def cost(model: Model) -> int:
    """Evaluations that it takes; guidance doubles them."""
    return (2 * STEPS + STEPS // 2) * max(FEWEST, min(MOST, NUMBERS // model.numbers))


@torch.no_grad()
def measure(model: Model, teacher: Teacher, guidance: float = 1.0, batch_size: int = 512, clock: Clock | None = None) -> Parametrization:
    """By one evaluation more at each state of the teacher's trajectories but those without signal."""
    denoise = Denoiser(model, teacher.conditions, batch_size, clock=clock)
    v = fresh_noise(model, teacher.split, teacher.numbers, SIGNS, teacher.seed).sign()
    apart = len(model.shape) > 2 and model.shape[0] <= MOST_CHANNELS
    lams, shares, same, following, last = list[float](), list[Tensor](), list[Tensor](), list[Tensor](), None

    def channels(x: Tensor) -> Tensor:
        """(channels, numbers), or all numbers in one row where it is no picture."""
        return (x.transpose(0, 1).flatten(1) if apart else x.reshape(1, -1)).cpu().double()

    for angle, state, slope in zip(teacher.angles.tolist(), teacher.states, teacher.slopes, strict=True):
        alpha, sigma, lam = cos(angle), sin(angle), -log(tan(angle))
        if alpha < WITHOUT:
            continue
        u = state.to(v.device)
        d = alpha * u - sigma * slope.to(v.device)
        node = replace(model.schedule.node_at_lam(lam), guidance=guidance)
        moved = denoise((u + STEP * sigma * v) * hypot(node.alpha, node.sigma), node)
        assert isinstance(moved, Tensor)
        lams.append(lam)
        shares.append(channels(v * (moved - d)).mean(1) * alpha / (STEP * sigma))
        pair = torch.stack([channels(u) / alpha, channels(d)], dim=1)
        same.append(pair @ pair.mT / pair.shape[2])
        if last is not None:
            following.append(last @ pair.mT / pair.shape[2])
        last = pair
    each = [torch.stack(known).transpose(0, 1) for known in (shares, same, following)]  # (channels, lambdas, ...)
    own = tuple(_regressed(lams, *channel) for channel in zip(*each, strict=True)) if len(each[0]) > 1 else ()
    return replace(_regressed(lams, *(known.mean(0) for known in each)), channels=own)


def _regressed(lams: Sequence[float], share: Tensor, same: Tensor, following: Tensor) -> Parametrization:
    """From 1 - l (K,) and the mean products of (x / alpha, D) with themselves (K, 2, 2) and with those of the next lambda (K - 1, 2, 2)."""
    factor = torch.stack([share, torch.full_like(share, -1.0)], dim=1)  # f = share x / alpha - D
    square = torch.einsum("ka,kab,kb->k", factor, same, factor)
    product = torch.einsum("ka,kab,kb->k", factor[:-1], following, factor[1:])
    (slope,) = torch.gradient(torch.eye(len(lams), dtype=share.dtype), spacing=(torch.tensor(lams, dtype=share.dtype),), dim=0)
    change = (slope * (square.diag() + product.diag(1) + product.diag(-1))).sum(1)  # f . df/dlambda, of neighbours
    s = change / (square + RIDGE * same[:, 1, 1]).clamp(min=TINY)
    return Parametrization(tuple(lams), tuple((1 - share).tolist()), tuple(s.tolist()))


def _read(path: Path, probe: Sequence[int]) -> Parametrization | None:
    """Of the model that has this probe."""
    try:
        stored = load_file(path)
        statistics, known = stored["statistics"], stored["probe"]
    except (OSError, SafetensorError, KeyError):  # absent, or damaged: it is made again
        return None
    if statistics.ndim != 3 or statistics.shape[1] != 3 or not close(known.tolist(), probe):
        return None
    used(path)
    found, *channels = (Parametrization(*map(tuple, each)) for each in statistics.tolist())
    return replace(found, channels=tuple(channels))
