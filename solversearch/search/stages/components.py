"""Components: the best table fitted once more, with coefficients for frequency bands and channel directions.

Bands lie evenly in the logarithm of the frequency; channel directions are the principal ones of the teacher's ends.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import product

import torch
from torch import Tensor

from solversearch.components import Components, check_size
from solversearch.models.base import NotFinite
from solversearch.search.evaluating.evaluator import Evaluated, Evaluator
from solversearch.search.fitting.fit import RIDGE
from solversearch.search.stages.task import Budget, Task
from solversearch.spaces.sections import ComponentChoice

WORTH = 0.95
"""Of the value with fewer components: more of them have to bring that, for each is one more number to learn."""


def run(task: Task, evaluator: Evaluator, budget: Budget, candidates: Sequence[Evaluated]) -> Iterator[Evaluated]:
    """The fit of the best table with the fewest components that are worth it, after that of the plain table.

    None where the space has no choice, the budget is spent, or the fit runs away.
    """
    best = min((each for each in candidates if not each.table.stochastic), key=lambda each: each.value)
    chosen: Evaluated | None = None
    for bands, channels in choices(task.settings.space.components, task.model.shape):
        parts = components(bands, channels, evaluator.fitting.endpoint)
        table = replace(best.table, components=parts)
        origin = best.origin | ({"bands": bands, "channels": channels} if parts else {})
        with suppress(NotFinite):
            if not budget.spent():
                result = task.once(f"components {bands} {channels}", partial(evaluator.fitted, table, RIDGE, origin))
                if chosen is None or result.value < WORTH * chosen.value:
                    chosen = result
    if chosen:
        yield chosen


def choices(space: ComponentChoice, shape: Sequence[int]) -> list[tuple[int, bool]]:
    """Bands and whether channels count, the fewest components first; none where there is nothing to choose, as for what is no picture."""
    if len(shape) < 3:
        return []
    single = shape[0] == 1
    found = {(bands if _fit(bands, shape) else 1, channels and not single) for bands, channels in product(space.bands, space.channels)}
    return sorted(found, key=lambda each: each[0] * (shape[0] if each[1] else 1)) if found != {(1, False)} else []


def components(bands: int, channels: bool, endpoint: Tensor) -> Components | None:
    """For samples like the given ones, (B, C, ..., H, W); None for one component."""
    if bands == 1 and not channels:
        return None
    return Components(_centres(bands, endpoint.shape), principal(endpoint) if channels else ())


def _centres(bands: int, shape: Sequence[int]) -> tuple[float, ...]:
    lowest = 1 / (2 * max(shape[-2:]))
    return tuple(lowest ** (1 - k / (bands - 1)) for k in range(bands)) if bands > 1 else ()


def _fit(bands: int, shape: Sequence[int]) -> bool:
    """Whether every band has a frequency."""
    with suppress(ValueError):
        check_size(_centres(bands, shape), *shape[-2:])
        return True
    return False


def principal(samples: Tensor) -> tuple[tuple[float, ...], ...]:
    """The principal directions of the channels of samples (B, C, ...), the strongest first; their largest entries are positive."""
    covariance = samples.double().cpu().transpose(0, 1).flatten(1).cov()
    directions = torch.linalg.eigh(covariance).eigenvectors.T.flip(0)
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return tuple(map(tuple, (directions * largest.sign()).tolist()))
