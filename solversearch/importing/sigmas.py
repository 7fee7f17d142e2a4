"""Schedules that come as a list of sigmas, each with a solver of `SOLVERS`."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from solversearch.errors import UserError, nearest
from solversearch.plan import one_line, read_file
from solversearch.schedules import AYS_SIGMAS, DiscreteVP, Flow, NoiseSchedule, explicit
from solversearch.solvers import get
from solversearch.tableau import Tableau

_SETTINGS = {
    "beta_schedule": "beta_schedule", "beta_start": "beta_start", "beta_end": "beta_end", "num_train_timesteps": "num_train_timesteps",
    "rescale_betas_zero_snr": "zero_terminal_snr",
}  # fmt: skip
"""diffusers' names of what makes a table of betas, and ours."""
_BEYOND = 1e-3  # published lists are rounded, and a model's own ends differ in the last digits


def read_sigmas(source: str) -> list[float]:
    """The numbers of "14.6, 6.5, ..., 0" (brackets and line breaks may stand there too), or of a file that holds such a text.

    What `export --to sigmas` writes is read, too.
    """
    try:
        is_file = Path(source).is_file()
    except (OSError, ValueError):  # too long for a name
        is_file = False
    text = read_file(source, "sigmas").decode("utf-8-sig", errors="replace") if is_file else source
    kept = [line for line in text.splitlines() if not line.lstrip().startswith(("#", "--sigmas"))]  # as 'export --to sigmas' writes them
    words = re.split(r"[\s,]+", "\n".join(kept).strip().strip("[]()").strip(" ,\n"))
    try:
        return [float(word) for word in words]
    except ValueError:
        wrong = next(word for word in words if not _is_number(word))
        raise UserError(f"--sigmas: {one_line(wrong, 60)!r} is no number, nor the name of a file; write them as 14.6,6.5,2.7,0") from None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def ays_sigmas(table: str, steps: int) -> list[float]:
    """A published Align Your Steps table and a 0: ten steps as published, other counts by its authors' log-linear interpolation.

    Sabour et al. 2024, arXiv:2404.14507. The last published sigma stands for the end, where samplers step to 0.
    """
    if table not in AYS_SIGMAS:
        raise UserError(nearest(table, list(AYS_SIGMAS), "Align Your Steps table"))
    logs = np.log(AYS_SIGMAS[table])
    wanted = np.interp(np.linspace(0, 1, steps + 1), np.linspace(0, 1, len(logs)), logs)
    return [*map(float, np.exp(wanted[:-1])), 0.0]


def named_betas(settings: Mapping[str, Any]) -> DiscreteVP:
    """A schedule by diffusers' settings of it; Stable Diffusion's without any."""
    for name in settings:
        if name not in _SETTINGS:
            raise UserError(nearest(name, [*_SETTINGS, "prediction_type"], "setting of a noise schedule"))
    try:
        return DiscreteVP.named(**{_SETTINGS[name]: value for name, value in settings.items()})
    except (TypeError, ValueError) as error:
        raise UserError(f"--set: these settings make no noise schedule: {error}") from None


def from_sigmas(sigmas: Sequence[float], solver: str, schedule: NoiseSchedule, integer: bool = False) -> Tableau:
    """The solver on the schedule's times of these noise levels, as samplers of k-diffusion's kind name them.

    They are sigma / alpha, for flows sigma alone; they fall, and end in 0. integer takes the nearest whole timesteps. Raises `UserError`.
    """
    _check(sigmas)
    levels, flow = np.asarray(sigmas[:-1]), isinstance(schedule, Flow)
    ends = [schedule.sigma(t) / (1.0 if flow else max(float(schedule.alpha(t)), 1e-9)) for t in (schedule.t_start, schedule.t_end)]
    high, low = map(float, ends)
    if levels[0] > high * (1 + _BEYOND) or levels[-1] < low * (1 - _BEYOND):
        raise UserError(
            f"the sigmas {levels[0]:g} .. {levels[-1]:g} leave the model's range, {high:.6g} .. {low:.6g}; they were made for another model"
        )
    times = schedule.time_of_angle(np.arctan2(levels, 1 - levels) if flow else np.arctan(levels))
    return get(solver).tableau(schedule, explicit(schedule, [float(t) for t in times], integer))


def _check(sigmas: Sequence[float]) -> None:
    if len(sigmas) < 2:
        raise UserError("a schedule needs at least two sigmas, the last of them 0")
    for i, (high, low) in enumerate(pairwise(sigmas)):
        if not (isfinite(high) and low < high):
            raise UserError(f"sigmas must fall, but number {i + 2}, {low:g}, comes after {high:g}")
    if sigmas[-1] != 0:
        raise UserError(f"sigmas must end in 0, not {sigmas[-1]:g}; add the 0 if samples are to be clean")
