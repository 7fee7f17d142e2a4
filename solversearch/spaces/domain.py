"""A search space at one schedule, number of evaluations and guidance: its parameters, and the candidates that they name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from solversearch.errors import UserError, nearest
from solversearch.grids import GRIDS, karras
from solversearch.parametrization import DATA, Parametrization
from solversearch.runtime import Node, Tableau
from solversearch.schedules import Floats, NoiseSchedule
from solversearch.solvers.mixed import FAMILIES, Decision
from solversearch.spaces.candidate import Candidate, canonical
from solversearch.spaces.grammar import KINDS, Choice, Value
from solversearch.spaces.parameters import allowed, check, closest, distribution, drawn, idle
from solversearch.spaces.sections import RHO, SHAPE, SHAPES, GuidanceInterval
from solversearch.spaces.space import SearchSpace

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Params = dict[str, Any]
"""Flat parameters of a candidate: "time.0", "order.3", "solver", ...; plain numbers, words and true/false."""

CLOSEST = 1e-4
"""Least distance of two times, as a fraction of the range: coinciding times make singular tables."""
MARGIN = 0.03
"""How far beyond the good grids times are searched, as a fraction of the range."""

STEP_KEYS = tuple(field.name for field in fields(Decision))
"""The decisions of a space that `Decision` holds."""


def fractions_of(schedule: NoiseSchedule, times: ArrayLike) -> Floats:
    """Places of times in the range of `NoiseSchedule.position`: 0 at t_end, 1 at t_start."""
    last, first = schedule.position([schedule.t_end, schedule.t_start])
    return (schedule.position(times) - last) / (first - last)


def times_at(schedule: NoiseSchedule, fractions: Sequence[float] | Floats, integer: bool, analytic: bool = False) -> Floats:
    """The times at falling fractions of the range, held apart; analytic keeps them apart from t_start, too."""
    count, start = len(fractions), int(analytic)
    apart = np.array(fractions) - CLOSEST * np.arange(start, count + start)
    apart = np.maximum(apart, CLOSEST * np.arange(count - 1, -1, -1))
    last, first = schedule.position([schedule.t_end, schedule.t_start])
    times = schedule.time_at(last + apart * (first - last))
    return whole(schedule, times, analytic) if integer else times


def whole(schedule: NoiseSchedule, times: Floats, analytic: bool) -> Floats:
    """The nearest whole times that fall strictly."""
    times = np.maximum(np.round(times), schedule.t_end + np.arange(len(times) - 1, -1, -1))
    above = schedule.t_start + (not analytic)
    for i in range(len(times)):
        above = times[i] = min(times[i], above - 1)
    return times


@lru_cache(maxsize=1024)
def grid_times(schedule: NoiseSchedule, name: str, rho: float, count: int, integer: bool, analytic: bool) -> tuple[float, ...]:
    """The count evaluated times of a grid; after an analytic first step they are those of one step more, without the first."""
    steps = count + analytic
    if name.startswith("karras") and rho != RHO.default:
        u = np.linspace(1, 0, steps) if name.endswith("_tmin") and steps > 1 else np.linspace(1, 0, steps + 1)[:-1]
        times = karras(schedule, u, rho)[steps - count :]
    else:
        times = np.array([node.t for node in GRIDS[name](schedule, steps)[steps - count : -1]])
    if integer:
        times = whole(schedule, times, analytic)
    if np.any(np.diff(times) >= 0):
        raise UserError(f"the grid {name} has no {steps} different times; ask for fewer evaluations or another grid")
    return tuple(times.tolist())


def ranges(schedule: NoiseSchedule, nfe: int, starts: Sequence[Sequence[Node]]) -> tuple[tuple[float, float], ...]:
    """Where each time is worth searching, as fractions: between its places on good grids, and a margin beyond; anywhere without grids."""
    if not starts:
        return ((0.0, 1.0),) * nfe
    times = [[node.t for node in nodes if node.sigma] for nodes in starts]
    if any(len(each) != nfe for each in times):
        raise UserError(f"a search of {nfe} evaluations starts from grids of as many times, got {sorted({len(each) for each in times})}")
    places = np.clip(fractions_of(schedule, times) + CLOSEST * np.arange(nfe), 0, 1)
    low, high = np.clip([places.min(0) - MARGIN, places.max(0) + MARGIN], 0, 1)
    return tuple(zip(low.tolist(), high.tolist(), strict=True))


@dataclass(frozen=True)
class Domain:
    """A space with what its parameters depend on. time_ranges bounds the free times, as fractions of the range of positions."""

    space: SearchSpace
    schedule: NoiseSchedule
    nfe: int
    guidance: float
    integer: bool
    time_ranges: tuple[tuple[float, float], ...]
    parametrization: Parametrization = DATA

    @classmethod
    def of(
        cls, space: SearchSpace, schedule: NoiseSchedule, nfe: int, guidance: float, starts: Sequence[Sequence[Node]] = (),
        integer: bool = False, parametrization: Parametrization = DATA,
    ) -> "Domain":  # fmt: skip
        """Free times are searched about those of the starts. Raises `UserError` for more evaluations than whole times."""
        whole = (integer or space.integer) and schedule.discrete
        if whole and nfe > schedule.t_start - schedule.t_end + 1:
            raise UserError(f"nfe {nfe} is more than the model's whole timesteps; ask for fewer")
        return cls(space, schedule, nfe, guidance, whole, ranges(schedule, nfe, starts), parametrization)

    @cached_property
    def parameters(self) -> dict[str, Choice]:
        """What is chosen; which of them count depends on the conditions, and `candidate` ignores the rest."""
        space, found = self.space, dict[str, Choice]()
        if space.timesteps.free:
            found |= {f"time.{i}": Choice(low=low, high=high) for i, (low, high) in enumerate(self.time_ranges)}
        choices = [] if space.timesteps.free else [("grid", space.timesteps.named()), ("rho", space.timesteps.rho())]
        for key in KINDS:
            choice: Choice = getattr(space, key)
            if (key == "ridge" and not space.fits) or (key == "guidance" and self.guidance == 1):
                continue
            if key == "analytic_first_step" and not self._may_start_free:
                continue
            names = [key] if choice.per == "plan" else [f"{key}.{i}" for i in range(self.nfe) if self._acts(key, i)]
            choices += [(name, choice) for name in names]
        if self.guidance != 1:
            choices += [(f"guidance_{key}", getattr(space.guidance_interval, key)) for key in GuidanceInterval.model_fields]
        return found | {name: choice for name, choice in choices if not choice.fixed}

    @cached_property
    def distributions(self) -> "dict[str, BaseDistribution]":
        """The parameters as Optuna has them."""
        return {name: distribution(choice) for name, choice in self.parameters.items()}

    @cached_property
    def _may_start_free(self) -> bool:
        """An analytic first step takes the start for noise alone, but needs signal there, and a time below it for the first evaluation."""
        room = self.nfe > 1 and (not self.integer or self.nfe <= self.schedule.t_start - self.schedule.t_end)
        signal = not self.schedule.noised and float(self.schedule.alpha(self.schedule.t_start)) > 0
        return room and signal and self.space.analytic_first_step.allows(True)

    def _acts(self, key: str, step: int) -> bool:
        """One step earlier after an analytic first step, which joins the history."""
        return step >= KINDS[key].after - self._may_start_free and (KINDS[key].last or step < self.nfe - 1)

    @cached_property
    def _checks(self) -> dict[str, Callable[[Any], bool]]:
        return {name: check(each) for name, each in self.parameters.items()}

    @cached_property
    def _idle(self) -> dict[str, Value]:
        """What a decision is where it has no parameter."""
        return {key: idle(getattr(self.space, key), KINDS[key].default) for key in KINDS}

    def candidate(self, params: Params) -> Candidate:
        """The candidate of the parameters; raises `UserError` naming a parameter that is missing, unknown or out of range."""
        for name, legal in self._checks.items():
            if name not in params:
                raise UserError(f"parameter {name} is missing")
            if not legal(params[name]):
                raise UserError(f"parameter {name} cannot be {params[name]!r}: it is {allowed(self.parameters[name])}")
        if len(params) > len(self._checks):
            unknown = next(name for name in params if name not in self._checks)
            raise UserError(nearest(unknown, list(self._checks), "parameter"))
        plan = self._resolved(params, None)
        analytic = bool(plan["analytic_first_step"]) and self._may_start_free
        times = self._times(params, analytic)
        steps = [self._resolved(params, i) for i in range(self.nfe)]
        decisions = [Decision(**{key: step[key] for key in STEP_KEYS}) for step in steps]
        return Candidate(
            times,
            canonical(decisions, analytic),
            tuple(float(step["input_shift"]) for step in steps),
            self._guidance(params, times, [float(step["guidance"]) for step in steps]),
            analytic,
            float(plan["ridge"]) if self.space.fits else None,
            self.integer,
            self.parametrization,
        )

    def tableau(self, params: Params) -> Tableau:
        return self.candidate(params).tableau(self.schedule)

    def random(self, rng: np.random.Generator) -> Params:
        """Parameters drawn uniformly, logarithmically where the space says so."""
        return {name: drawn(each, rng) for name, each in self.parameters.items()}

    def seed(
        self, nodes: Sequence[Node], decision: Decision | Sequence[Decision] | None = None, shifts: Sequence[float] | None = None
    ) -> Params:
        """The parameters nearest to given times, decisions and input shifts, by default to the defaults; others have their first value."""
        decision = decision or Decision()
        decisions = [decision] * self.nfe if isinstance(decision, Decision) else decision
        times = [node.t for node in nodes if node.sigma]
        if len(times) != self.nfe or len(decisions) != self.nfe:
            raise UserError(f"a seed of {self.nfe} evaluations needs as many times and decisions, got {len(times)} and {len(decisions)}")
        places = fractions_of(self.schedule, times)
        params: Params = {}
        for name, each in self.parameters.items():
            key, _, index = name.partition(".")
            wanted: Any = KINDS[key].default if key in KINDS else None
            if key == "time":
                wanted = float(places[int(index)] + CLOSEST * int(index))
            elif key == "grid":
                wanted = self._nearest_grid(each, places)
            elif key == "guidance_below":
                wanted = 1.0
            elif key in STEP_KEYS:
                wanted = getattr(decisions[int(index or 0)], key)
            elif key == "input_shift" and shifts is not None:
                wanted = shifts[int(index or 0)]
            params[name] = closest(each, wanted)
        return params

    def _nearest_grid(self, grids: Choice, places: Floats) -> str:
        names = [str(name) for name in grids.choose]
        times = [grid_times(self.schedule, name, float(RHO.default), self.nfe, self.integer, False) for name in names]
        return names[int(np.argmin([np.abs(fractions_of(self.schedule, each) - places).max() for each in times]))]

    def _times(self, params: Params, analytic: bool) -> tuple[float, ...]:
        timesteps = self.space.timesteps
        if timesteps.free:
            fractions = np.sort([params[f"time.{i}"] for i in range(self.nfe)])[::-1]
            if analytic:  # the same curve with one step more, the first of which is free
                fractions = np.interp(np.linspace(0, self.nfe - 1, self.nfe + 1)[1:], np.arange(self.nfe), fractions)
            return tuple(times_at(self.schedule, fractions, self.integer, analytic).tolist())
        name = str(params.get("grid", timesteps.grids[0].names[0]))
        rho = params.get("rho", timesteps.rho().first) if name.startswith("karras") else RHO.default
        return grid_times(self.schedule, name, float(rho), self.nfe, self.integer, analytic)

    def _guidance(self, params: Params, times: Sequence[float], shares: Sequence[float]) -> tuple[float, ...]:
        """1 + share (guidance - 1) inside the interval, 1 outside; the share times that of the interval's shape."""
        if self.guidance == 1:
            return (1.0,) * self.nfe
        interval = self.space.guidance_interval
        above, below, shape = (params.get(f"guidance_{key}", getattr(interval, key).first) for key in GuidanceInterval.model_fields)
        inside: Sequence[bool] = (True,) * self.nfe
        places = fractions_of(self.schedule, times)
        if above > 0 or below < 1:
            inside = ((places >= above) & (places <= below)).tolist()
        if shape != SHAPE.default:
            shares = [share * float(own) for share, own in zip(shares, SHAPES[shape](places), strict=True)]
        # The scale asked for is kept to the last bit.
        scales = [self.guidance if share == 1 else 1 + share * (self.guidance - 1) for share in shares]
        return tuple(scale if guided else 1.0 for scale, guided in zip(scales, inside, strict=True))

    def _resolved(self, params: Params, step: int | None) -> dict[str, Any]:
        """Every decision at a step, or those of the plan; a decision whose condition does not hold has its default."""
        values: dict[str, Any] = dict(self._idle)
        for key, choice, default in self._open:
            if step is None and choice.per == "step":
                continue
            if any(values[other] not in allowed for other, allowed in choice.when.items()):
                values[key] = default
            else:
                name = key if choice.per == "plan" else f"{key}.{step}"
                values[key] = params.get(name, values[key])
        left = self.nfe - step if step is not None and values["lower_final_order"] else self.nfe
        values["order"] = min(values["order"], FAMILIES[values["solver"]][0], left)
        return values

    @cached_property
    def _open(self) -> list[tuple[str, Choice, Value]]:
        """The decisions that are not the same in all candidates, each after those that it depends on."""
        choices = [(key, getattr(self.space, key), KINDS[key].default) for key in self.space.resolution]
        return [each for each in choices if each[1].when or not each[1].fixed]
