"""A model's own parametrisation, measured on its teacher's trajectories: the statistics l and s of DPM-Solver-v3 (arXiv:2310.13268).

    l = 1 - alpha E[v . (D(x + h v) - D(x))] / (h d)     d numbers of a sample; v is 1 or -1 in each, at random
    s = E[f . df/dlambda] / E[f . f]                     f = (1 - l) x / alpha - D, whose differences along a trajectory give df/dlambda

The paper takes the diagonal of sigma d eps / dx by derivatives, and both statistics for each number of a sample; here they are averages
over all numbers. What the finite h adds is odd in v, so that h^2 is left of it on the average. A sample keeps its v all along its
trajectory, so that l is smooth in lambda whatever the number of samples.
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
from solversearch.models.base import Clock, Denoiser, Model
from solversearch.models.digest import close, numbers
from solversearch.noise import fresh_noise
from solversearch.parametrization import Parametrization
from solversearch.teacher import Teacher, teach

VERSION = 1
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
        kept = torch.tensor([found.lams, found.l, found.s], dtype=torch.float64)
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
    lams, shares, outputs, size = list[float](), list[float](), list[Tensor](), list[float]()
    for angle, state, slope in zip(teacher.angles.tolist(), teacher.states, teacher.slopes, strict=True):
        alpha, sigma, lam = cos(angle), sin(angle), -log(tan(angle))
        if alpha < WITHOUT:
            continue
        u = state.to(v.device)
        d = alpha * u - sigma * slope.to(v.device)
        node = replace(model.schedule.node_at_lam(lam), guidance=guidance)
        moved = denoise((u + STEP * sigma * v) * hypot(node.alpha, node.sigma), node)
        assert isinstance(moved, Tensor)
        share = float((v * (moved - d)).double().mean()) * alpha / (STEP * sigma)
        lams.append(lam)
        shares.append(share)
        outputs.append((share / alpha * u - d).double().cpu())
        size.append(float(d.double().square().mean()))
    f = torch.stack(outputs).flatten(1)
    (change,) = torch.gradient(f, spacing=(torch.tensor(lams, dtype=f.dtype),), dim=0)
    s = (f * change).mean(1) / (f.square().mean(1) + RIDGE * torch.tensor(size, dtype=f.dtype)).clamp(min=TINY)
    return Parametrization(tuple(lams), tuple(1 - share for share in shares), tuple(s.tolist()))


def _read(path: Path, probe: Sequence[int]) -> Parametrization | None:
    """Of the model that has this probe."""
    try:
        stored = load_file(path)
        statistics, known = stored["statistics"], stored["probe"]
    except (OSError, SafetensorError, KeyError):  # absent, or damaged: it is made again
        return None
    if statistics.ndim != 2 or len(statistics) != 3 or not close(known.tolist(), probe):
        return None
    used(path)
    return Parametrization(*map(tuple, statistics.tolist()))
