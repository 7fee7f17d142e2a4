"""What a search would cost, told before it begins."""

import math

import numpy as np
import torch

from solversearch.baselines import SCREEN, baselines
from solversearch.compare import LADDER_WIDTH
from solversearch.models.base import Clock, Denoiser, Model
from solversearch.objectives import parse_many
from solversearch.search.settings import Settings, check
from solversearch.search.stages import LONG, POLISHED, SHORT, STARTS
from solversearch.solvers import SOLVERS
from solversearch.teacher import STEPS


def estimate(model: Model, settings: Settings) -> dict[str, str | int | float]:
    """Evaluations a stage, and seconds at the speed of a few network calls made now."""
    check(model, settings)
    nfe, count = settings.nfe, len({b.table for b in baselines(model, settings.nfe, settings.guidance, settings.integer)})
    guided = 2 if settings.guidance != 1 or settings.splits else 1
    learning, goes_on = settings.fit_samples * settings.fit + settings.validation_samples, not settings.only_instant
    stages = {
        "teacher": (settings.fit_samples + settings.validation_samples + settings.samples) * STEPS * 3 // 2,
        "baselines": nfe * (count * SCREEN + 2 * settings.validation_samples),
        "fit": (STARTS + settings.instant) * nfe * learning * settings.fit * goes_on,
        "search": settings.trials * nfe * learning * settings.search * goes_on,
        "polish": (SHORT * POLISHED + LONG) * nfe * (3 * settings.fit_samples + settings.validation_samples)
        * bool(settings.polish) * goes_on,
        "comparison": nfe * (count * SCREEN + len(SOLVERS) * settings.samples)
        + 3 * (nfe + 2) * (LADDER_WIDTH * SCREEN + 3 * settings.samples),
    }  # fmt: skip
    evaluations = {name: value * guided for name, value in stages.items()}
    if settings.evaluations is not None:
        for name in ("fit", "search", "polish"):
            evaluations[name] = min(evaluations[name], settings.evaluations)
    speed = _speed(model, settings)
    # Most polishes stop early, and few candidates see all samples.
    total = sum(evaluations.values()) - evaluations["polish"] // 2 - evaluations["search"] // 2
    return {
        "model": model.name,
        "space": settings.space.name,
        "strategy": settings.strategy,
        "discrete choices of the space": f"{settings.space.size(nfe):,}",
        **{f"objective {each.name}": each.cost for each in parse_many(settings.objective)},
        **{f"network evaluations, {name}": f"up to {value:,}" for name, value in evaluations.items()},
        "evaluations a second": round(speed),
        "estimated seconds": math.ceil(total / speed),
        "missing": "nothing",
    }


def _speed(model: Model, settings: Settings) -> float:
    """Network evaluations a second in batches of the size asked for."""
    rng = np.random.default_rng(0)
    noise = torch.from_numpy(rng.standard_normal((settings.batch_size, *model.shape))).float().to(model.device)
    conditions = None if model.conditions is None else model.conditions[torch.arange(len(noise)) % len(model.conditions)]
    clock = Clock()
    denoise = Denoiser(model, conditions, settings.batch_size, clock=clock)
    with torch.no_grad():
        denoise(noise, model.schedule.node(model.schedule.t_start))
        clock.seconds, clock.evaluations = 0.0, 0
        while clock.seconds < 0.5 and clock.evaluations < 50 * len(noise):
            denoise(noise, model.schedule.node(model.schedule.t_start))
    return clock.evaluations / clock.seconds
