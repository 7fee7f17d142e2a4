"""What a search would cost, told before it begins."""

import math
import time

import numpy as np
import torch

from solversearch import empirical, memory
from solversearch.grids import GRIDS
from solversearch.judging.baselines import baselines, pairs, screening
from solversearch.judging.compare import RACED
from solversearch.judging.contenders import KEPT
from solversearch.judging.objectives import parse_many
from solversearch.judging.objectives.ays import LEVELS
from solversearch.judging.race import first_round, hard_samples
from solversearch.models.base import Clock, Denoiser, Model
from solversearch.parametrization import DATA
from solversearch.search.fitting.compensation import FREE_FROM, ITERATIONS
from solversearch.search.fitting.compensation import SAMPLES as FEWEST
from solversearch.search.fitting.design_matrix import CHUNK
from solversearch.search.settings import Settings, check
from solversearch.search.stages import polish
from solversearch.search.stages.baseline import SCREENED, STARTS
from solversearch.search.stages.components import choices
from solversearch.search.stages.price import CHOICES
from solversearch.search.stages.price import choices as patterns
from solversearch.search.stages.search import OBSERVED, shifts_by_variance
from solversearch.search.strategies import predicts, recipe
from solversearch.search.surrogates.anchored import NOISES
from solversearch.solvers import SOLVERS
from solversearch.spaces import Domain
from solversearch.teacher import ROUGH, STEPS, cost
from solversearch.threads import few_threads

BOUNDED = ("price", "fit", "search", "components", "polish", "recipe")
"""Stages that `Settings.evaluations` bounds together."""
SHARES = [2.0**-k for k in range(8)]
"""Of the samples that suit a model, where its network is too slow for all of them."""
TAUGHT = 5
"""Steps of the teacher that the comparison mostly needs, an evaluation of the plan."""
RUNGS, FULL, GOING_ON = 3, 16, 0.4
"""Of the comparison, usually: NFEs of its ladder, baselines that are run on all samples, and what share of them goes on to hard samples."""
REST, TRACED = 50, 10
"""What a search takes besides its network (traces of other NFEs, surrogates, fits, pictures), in tracings of all baselines, of which one
in ten is timed. With it the estimate was .76 to 1.07 times the seconds of the whole command, on digits (5 and 8 evaluations, guidance 4)
and the mixture."""
SECONDS, CALLS, FEW = 0.3, 50, 8
"""How long the network is tried, how often at most, and with how many samples first."""


def estimate(model: Model, settings: Settings) -> dict[str, str | int | float]:
    """Evaluations a stage and memory; and seconds, at the speed of a few network calls made now."""
    settings, model = settings.sized(model), settings.started(model)
    check(model, settings)
    settings = within(model, settings, room(model, settings))
    different = {each.table for each in baselines(model, settings.nfe, settings.guidance, settings.integer, own=lambda: DATA)}
    evaluations = _evaluations(model, settings, len(different))
    with few_threads(model):
        speed = _speed(model, settings)
    return {
        "model": model.name,
        **({"start": f"pictures noised to t = {model.start.t:.4g}"} if model.start else {}),
        "space": settings.space.name,
        "strategy": settings.strategy,
        "discrete choices of the space": f"{settings.space.size(settings.nfe):,}",
        **{f"objective {each.name}": each.cost for each in parse_many(settings.objective)},
        "samples": f"{settings.samples} held out, {settings.fit_samples} to fit, {settings.validation_samples} to validate",
        **{f"network evaluations, {name}": f"up to {value:,}" for name, value in evaluations.items()},
        "samples in a network batch": settings.batch_size,
        **{f"memory, {name}": text for name, text in _memory(model, settings).items()},
        "evaluations a second": _rounded(speed),
        "estimated seconds": math.ceil(_total(evaluations, settings) / speed + _rest(model, settings)),
        "missing": model.lacks or "nothing",
    }


def room(model: Model, settings: Settings) -> int | None:
    """Network evaluations that the hours of the settings have room for, to two digits; None where they have room for all, or the person
    bounds the evaluations."""
    if settings.evaluations is not None:
        return None
    seconds, total = 3600 * settings.hours, _total(_evaluations(model, settings), settings)
    with few_threads(model):
        granted = seconds * _speed(model, settings, enough=total / seconds)
    return None if granted >= total else int(float(f"{granted:.1e}"))


def within(model: Model, settings: Settings, granted: int | None) -> Settings:
    """Settings that take about so many network evaluations, teacher and comparison included; the same for None.

    Counts of samples that nobody chose are halved until the teacher, the baselines and the comparison take half of that, or fewer would
    make no sense. The rest, half at least, is for the stages between.
    """
    if granted is None:
        return settings
    own = [name for name, count in settings.counts(model).items() if getattr(settings, name) == count]
    for share in SHARES:
        counts = settings.counts(model, share)
        settings = settings.model_copy(update={name: counts[name] for name in own})
        evaluations = _evaluations(model, settings)
        fixed = sum(count for name, count in evaluations.items() if name not in BOUNDED)
        if fixed <= granted / 2:
            break
    return settings.model_copy(update={"evaluations": max(granted - fixed, granted // 2, 1)})


def _total(evaluations: dict[str, int], settings: Settings) -> int:
    """As a search mostly is: few candidates see all samples."""
    bounded = sum(evaluations[name] for name in BOUNDED) - evaluations["search"] // 2
    return sum(evaluations[name] for name in evaluations if name not in BOUNDED) + min(bounded, settings.evaluations or bounded)


def _evaluations(model: Model, settings: Settings, count: int | None = None) -> dict[str, int]:
    """Network evaluations of each stage, at most, where so many baselines are different: by default all of them."""
    nfe, count = settings.nfe, len(pairs(model, settings.nfe, settings.integer)) if count is None else count
    guided = 2 if settings.guidance != 1 or settings.splits else 1
    pictures = model.whole is not None and model.anchor is None
    goes_on, bounds = not settings.only_instant, sum("klub" in objective.name for objective in parse_many(settings.objective))
    learning = (
        nfe * (settings.fit_samples * settings.fit + settings.validation_samples) + bounds * (2 * nfe + 1) * settings.validation_samples
    )
    gradient = settings.polish in ("all", "coefficients")
    way = memory.backward(model, nfe * guided, polish.batch(settings), settings.batch_size) if gradient else None
    taught = cost(settings.fit_samples, STEPS if settings.fits else ROUGH, pictures) + cost(settings.validation_samples, pictures=pictures)
    stages = {
        "teacher": taught + cost(settings.samples, min(STEPS, TAUGHT * nfe), pictures),
        "baselines": empirical.cost(model) + nfe * (SCREENED * screening(settings.validation_samples) + 2 * settings.validation_samples),
        "price": CHOICES * sum(nfe for nfe, _ in patterns(model, settings)) * learning // nfe * goes_on,
        "fit": (STARTS + settings.instant) * learning * settings.fit * (not settings.straight) * goes_on,
        "search": (settings.trials * learning + _prepared(model, settings, bounds > 0)) * settings.searches * goes_on,
        "components": len(choices(settings.space.components, model.shape)) * learning * goes_on if gradient else 0,
        "polish": sum(polish.most(settings, nfe, way.checkpointing, polish.most_entrants(settings))) * goes_on if way else 0,
        "recipe": 0,
        "comparison": nfe * (_racing(count, settings.samples) + FULL * settings.samples)
        + RUNGS * (nfe + 2) * (_racing(count // 3, settings.samples) + 3 * settings.samples)
        + nfe * _judging(settings),
    }  # fmt: skip
    evaluations = {name: value * guided for name, value in stages.items()}
    evaluations["teacher"] += sum(cost(count, ROUGH, pictures) for count in (settings.fit_samples, settings.validation_samples)) * (
        settings.guidance != 1
    )
    if learner := recipe(settings.strategy):
        evaluations["recipe"] = learner.made().cost(settings, nfe * guided)
    if settings.evaluations is not None:
        for name in BOUNDED:
            evaluations[name] = min(evaluations[name], settings.evaluations)
    return evaluations


def _prepared(model: Model, settings: Settings, bounds: bool) -> int:
    """What a search evaluates beside its candidates: for the times of least KLUB, for greedy ratios, and what the surrogates observe,
    and for the times of the states' variance."""
    nfe = settings.nfe
    domain = Domain.of(settings.space.fitting(settings.fit), model.schedule, nfe, settings.guidance)
    ratios = f"compensation.{nfe - 1}" in domain.distributions
    observed = min(NOISES, settings.validation_samples) * nfe * (STARTS + OBSERVED) * predicts(settings.strategy)
    observed += settings.fit_samples * nfe * shifts_by_variance(settings, domain)
    return bounds * LEVELS * settings.fit_samples + ratios * FEWEST * (nfe + (nfe - FREE_FROM) * (1 + 3 * ITERATIONS)) + observed


def _racing(count: int, samples: int) -> int:
    """Samples of the first two rounds of a race of so many baselines."""
    return int(count * (first_round(samples) + GOING_ON * hard_samples(samples)))


def _judging(settings: Settings) -> int:
    """Samples on which baselines are run for an objective that the race does not look at."""
    if parse_many(settings.objective)[0].name in RACED:
        return 0
    stochastic = sum(solver.stochastic for solver in SOLVERS.values())
    entered, first = len(SOLVERS) + stochastic * len(GRIDS), screening(settings.samples)
    rounds = math.ceil(math.log(settings.samples / first, KEPT))
    return entered * first * rounds + 2 * FULL * settings.samples


def _memory(model: Model, settings: Settings) -> dict[str, str]:
    """What the network takes on its device, and the samples on the host."""
    needs, latent = memory.footprint(model), 4 * model.numbers
    guided = 2 if settings.guidance != 1 or settings.splits else 1
    learning = settings.fit_samples + settings.validation_samples
    told = {
        "free": memory.free(model.device),
        "weights": needs.weights,
        "network batch": needs.forward * model.filled(settings.batch_size),
        "fit": learning * latent * (guided * settings.nfe + 2) + 8 * CHUNK if settings.fit else 0,
        "trajectories, in files": learning * latent * 2 * STEPS,
    }
    texts = {name: _bytes(size) for name, size in told.items() if size}
    if settings.polish in ("all", "coefficients"):
        way = memory.backward(model, guided * settings.nfe, polish.batch(settings), settings.batch_size)
        how = "with checkpointing" if way.checkpointing else "without checkpointing"
        texts["polish"] = f"{_bytes(way.bytes(model, guided * settings.nfe))}, {way.batch} samples at a time {how}"
    return texts


def _bytes(size: float) -> str:
    units = ("B", "KiB", "MiB", "GiB")
    power = min(int(math.log(max(size, 1), 1000)), len(units) - 1)
    return f"{size / 1024**power:.3g} {units[power]}"


def _rest(model: Model, settings: Settings) -> float:
    """Seconds besides the network."""
    some = pairs(model, settings.nfe, settings.integer)[::TRACED]
    start = time.perf_counter()
    for solver, _, nodes in some:
        solver.tableau(model.schedule, nodes)
    return REST * TRACED * (time.perf_counter() - start)


def _rounded(speed: float) -> int | float:
    return round(speed) if speed > 10 else float(f"{speed:.2g}")


def _speed(model: Model, settings: Settings, enough: float = math.inf) -> float:
    """Network evaluations a second, in batches of the size asked for unless a few samples take long enough to tell, or are fast enough."""
    node, clock = model.schedule.node(model.schedule.t_start), Clock()
    for size in (min(FEW, settings.batch_size), settings.batch_size):
        noise = torch.from_numpy(np.random.default_rng(0).standard_normal((size, *model.shape))).float().to(model.device)
        conditions = None
        if model.conditions is not None:
            conditions = model.conditions[torch.arange(size, device=model.device) % len(model.conditions)]
        denoise = Denoiser(model, conditions, size, clock=clock)
        with torch.no_grad():
            denoise(noise, node)
            if clock.seconds > 2 * SECONDS or clock.evaluations >= enough * clock.seconds:
                break
            clock.seconds, clock.evaluations = 0.0, 0
            while clock.seconds < SECONDS and clock.evaluations < CALLS * size:
                denoise(noise, node)
    return clock.evaluations / clock.seconds
