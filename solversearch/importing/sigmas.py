"""Schedules that come as a list of sigmas or timesteps, each with a solver."""

import warnings
from collections.abc import Sequence
from itertools import pairwise
from math import isfinite, pi

import numpy as np

from solversearch.errors import UserError
from solversearch.grids import explicit
from solversearch.importing.aliases import Named
from solversearch.schedules import LEAST_ALPHA, VE, Flow, NoiseSchedule
from solversearch.tableau import Tableau

_BEYOND = 1e-3  # published lists are rounded, and a model's own ends differ in the last digits
_NO_SIGNAL = (1 - _BEYOND) / LEAST_ALPHA  # diffusers' finite stand-in for sigma / alpha at alpha = 0; ComfyUI's is larger


def from_sigmas(sigmas: Sequence[float], solver: Named, schedule: NoiseSchedule, integer: bool = False, nfe: int | None = None) -> Tableau:
    """The solver on the schedule's times of these noise levels, as samplers of k-diffusion's kind name them.

    They are sigma / alpha, for flows sigma alone, and fall. Where they end above 0 a warning says what is made of that. At zero terminal
    SNR any level that stands for infinity is the first timestep. integer takes the nearest whole timesteps. Raises `UserError`.
    """
    flow = isinstance(schedule, Flow)
    ends = [schedule.sigma(t) / (1.0 if flow else max(float(schedule.alpha(t)), 1e-9)) for t in (schedule.t_start, schedule.t_end)]
    high, low = map(float, ends)
    check_falling(sigmas, "sigmas", high >= _NO_SIGNAL)
    levels = np.asarray(_evaluated(sigmas, low * (1 + _BEYOND), solver, nfe))
    silent = (levels >= _NO_SIGNAL) & (high >= _NO_SIGNAL)
    if (levels[0] > high * (1 + _BEYOND) and not silent[0]) or levels[-1] < low * (1 - _BEYOND):
        raise UserError(
            f"the sigmas {levels[0]:g} .. {levels[-1]:g} leave the model's range, {high:.6g} .. {low:.6g}; "
            "they were made for another model (without --model, say of what kind: --set prediction_type=flow, edm ...)"
        )
    angles = np.arctan2(levels, 1 - levels) if flow else np.where(silent, pi / 2, np.arctan(levels))
    return solver.tableau(schedule, explicit(schedule, [float(t) for t in schedule.time_of_angle(angles)], integer))


def from_timesteps(
    times: Sequence[float], solver: Named, schedule: NoiseSchedule, integer: bool = False, nfe: int | None = None
) -> Tableau:
    """The solver on the times that the network is told. The time 0 of a flow has no noise: it is the end. Raises `UserError`.

    The time 0 of other networks is evaluated, as diffusers does, unless nfe leaves it for the end, as published lists mean it.
    """
    if isinstance(schedule, VE):
        raise UserError("--timesteps: a network of EDM's kind is named by its noise levels; use --sigmas")
    check_falling(times, "timesteps", False)
    end = times[-1] == 0 and (isinstance(schedule, Flow) or _is_end(times, False, solver, nfe))
    return solver.tableau(schedule, explicit(schedule, list(times[:-1] if end else times), integer))


def _evaluated(sigmas: Sequence[float], least: float, solver: Named, nfe: int | None) -> list[float]:
    """All but a last that is the end: 0, or in published lists a level that is not above the least that the model knows.

    At any other last level the network is evaluated, and its clean prediction taken. nfe says otherwise.
    """
    last = sigmas[-1]
    if last == 0:
        return list(sigmas[:-1])
    end = _is_end(sigmas, last <= least, solver, nfe)
    told = "stands for the end: the step to it takes the clean prediction" if end else "is evaluated: its clean prediction is the result"
    warnings.warn(f"the sigmas end at {last:g}, not 0; that level {told} (end the list in 0 to be exact)", stacklevel=2)
    return list(sigmas[:-1] if end else sigmas)


def _is_end(numbers: Sequence[float], usually: bool, solver: Named, nfe: int | None) -> bool:
    """Whether the last number is no evaluation; nfe tells, where it fits one of both."""
    if nfe is not None and (steps := solver.solver.steps(nfe)) in (len(numbers), len(numbers) - 1):
        return steps < len(numbers)
    return usually and len(numbers) > 1


def check_falling(numbers: Sequence[float], what: str, endless: bool) -> None:
    """They fall from a finite number, or an infinite one where endless, and not below 0."""
    if len(numbers) - (what == "sigmas" and numbers[-1:] == [0]) < 1:
        raise UserError(f"a schedule needs at least {'two sigmas, the last of them 0' if what == 'sigmas' else 'one timestep'}")
    for i, (high, low) in enumerate(pairwise(numbers)):
        if not (low < high and (isfinite(high) or (endless and i == 0 and high > 0))):
            raise UserError(f"{what} must fall, but number {i + 2}, {low:g}, comes after {high:g}")
    if not isfinite(numbers[-1]) or numbers[-1] < 0:
        raise UserError(f"{what} must be finite and not below 0, but number {len(numbers)} is {numbers[-1]:g}")
