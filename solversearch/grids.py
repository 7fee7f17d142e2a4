"""Timestep grids, from the noisiest time to the data.

A grid of n steps is n + 1 nodes from t_start to CLEAN. By default the n evaluated times are the first n of n + 1
that span [t_end, t_start], and the last step goes from there to no noise; the `_tmin` forms spend the last
evaluation at t_end, as EDM and DDIM do.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from solversearch.errors import UserError, nearest
from solversearch.runtime import Node
from solversearch.schedules import CLEAN, Floats, NoiseSchedule, karras_ratios

Grid = Callable[[NoiseSchedule, int], list[Node]]


def _nodes(schedule: NoiseSchedule, times: ArrayLike) -> list[Node]:
    return [schedule.node(t) for t in np.asarray(times, dtype=np.float64)] + [CLEAN]


def uniform(schedule: NoiseSchedule, u: ArrayLike) -> Floats:
    """Uniform in t: diffusers' linspace."""
    return schedule.at_fraction(u)


def quadratic(schedule: NoiseSchedule, u: ArrayLike) -> Floats:
    """Quadratic in t, dense near the data (DDIM, Song et al. 2020, arXiv:2010.02502)."""
    return schedule.at_fraction(np.asarray(u) ** 2)


def logsnr(schedule: NoiseSchedule, u: ArrayLike) -> Floats:
    """Uniform in lambda (DPM-Solver, Lu et al. 2022, arXiv:2206.00927); from lambda = -8 where it starts at -inf."""
    start = max(float(schedule.lam(schedule.t_start)), -8.0)
    end = float(schedule.lam(schedule.t_end))
    return schedule.pinned(schedule.time_of_lam(end + np.asarray(u) * (start - end)), u)


def karras(schedule: NoiseSchedule, u: ArrayLike, rho: float = 7.0) -> Floats:
    """Uniform in (sigma / alpha)^(1/rho) (Karras et al. 2022, arXiv:2206.00364, equation 5); from 3000 where the ratio is infinite."""
    first, last = np.exp(-schedule.lam([schedule.t_start, schedule.t_end]))
    return schedule.pinned(schedule.time_of_angle(np.arctan(karras_ratios(min(first, 3000.0), last, u, rho))), u)


AYS_SIGMAS: dict[str, tuple[float, ...]] = {
    "sd15": (14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092,
             0.9642583904, 0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582),
    "sdxl": (14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141,
             0.5550693289, 0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582),
}  # fmt: skip
"""Published Align Your Steps noise levels sigma / alpha at 10 steps (Sabour et al. 2024, arXiv:2404.14507)."""


def ays(table: str) -> Callable[[NoiseSchedule, ArrayLike], Floats]:
    """A published Align Your Steps table; other counts by log-linear interpolation, other ranges by stretching in log sigma."""
    logs = np.log(AYS_SIGMAS[table])
    heights = (logs - logs[-1]) / (logs[0] - logs[-1])

    def times(schedule: NoiseSchedule, u: ArrayLike) -> Floats:
        """The published Align Your Steps table, log-linear between its entries (Sabour et al. 2024, arXiv:2404.14507)."""
        height = np.interp(np.asarray(u), np.linspace(0, 1, len(heights)), heights[::-1])
        return logsnr(schedule, height)

    return times


def _spanning(times: Callable[[NoiseSchedule, ArrayLike], Floats]) -> Grid:
    return lambda schedule, n: _nodes(schedule, times(schedule, np.linspace(1, 0, n + 1)[:-1]))


def _to_t_end(times: Callable[[NoiseSchedule, ArrayLike], Floats]) -> Grid:
    return lambda schedule, n: _nodes(schedule, times(schedule, np.linspace(1, 0, n) if n > 1 else np.ones(1)))


def trailing(schedule: NoiseSchedule, n: int) -> list[Node]:
    """Diffusers' trailing spacing: t_start - i (range + 1) / n on a discrete table."""
    fraction = np.arange(n, 0, -1) / n
    if schedule.discrete:
        return _nodes(schedule, fraction * (schedule.t_start + 1) - 1)
    return _nodes(schedule, schedule.at_fraction(fraction))


def leading(schedule: NoiseSchedule, n: int) -> list[Node]:
    """Diffusers' leading spacing with a steps offset of 1: i * (T // n) + 1; it never reaches t_start."""
    if schedule.discrete:
        stride = int(schedule.t_start + 1) // n
        return _nodes(schedule, np.minimum(np.arange(n - 1, -1, -1) * stride + 1, schedule.t_start))
    return _nodes(schedule, schedule.at_fraction(np.arange(n - 1, -1, -1) / n + 1e-3))


FAMILIES: dict[str, Callable[[NoiseSchedule, ArrayLike], Floats]] = {
    "linspace": uniform,
    "quadratic": quadratic,
    "logsnr": logsnr,
    "karras": karras,
    "ays_sd15": ays("sd15"),
    "ays_sdxl": ays("sdxl"),
}

GRIDS: dict[str, Grid] = {
    **{name: _spanning(times) for name, times in FAMILIES.items()},
    **{f"{name}_tmin": _to_t_end(times) for name, times in FAMILIES.items()},
    "trailing": trailing,
    "leading": leading,
}


def grid(name: str, schedule: NoiseSchedule, n: int, integer: bool = False) -> list[Node]:
    """The named grid of n steps: n + 1 nodes, the last `CLEAN`. Raises `UserError` for an unknown name or repeated times.

    integer rounds the times of a discrete schedule to whole timesteps.
    """
    if name not in GRIDS:
        raise UserError(nearest(name, list(GRIDS), "grid"))
    nodes = GRIDS[name](schedule, n)
    if schedule.noised and nodes[0].t != schedule.t_start:
        raise UserError(f"the grid {name} begins at t = {nodes[0].t:g}, below the pictures' noise at {schedule.t_start:g}; choose another")
    return explicit(schedule, [node.t for node in nodes[:-1]], integer)


def explicit(schedule: NoiseSchedule, times: Sequence[float], integer: bool = False) -> list[Node]:
    """The grid of the given times, which must fall, and CLEAN after them."""
    kept = np.asarray(times, dtype=np.float64)
    if kept.ndim != 1 or len(kept) == 0:
        raise UserError("a grid needs at least one timestep")
    if integer and schedule.discrete:
        kept = np.round(kept)
    if not np.all(np.isfinite(kept)) or np.any(np.diff(kept) >= 0):
        raise UserError(f"timesteps must fall strictly, got {[round(float(t), 4) for t in kept]}; ask for fewer steps or another grid")
    if kept[0] > schedule.t_start or kept[-1] < schedule.t_end:
        raise UserError(f"timesteps must lie in [{schedule.t_end:g}, {schedule.t_start:g}], got {kept[0]:g} .. {kept[-1]:g}")
    return _nodes(schedule, kept)
