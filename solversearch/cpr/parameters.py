"""What of a plan is regressed, and the way back: curves of numbers over the steps, by name.

    position        ln tan(angle / 2) of each evaluation (`NoiseSchedule.position`), i = 0 .. N - 1
    input_shift     position of the time that the network is told, minus that; where any plan has it
    compensation, epsilon_scale, derivative_scale, prediction
                    of a plan that its decisions make again: one number a step, i = 1 .. N (compensation from step 3 on)
    x, d0, d1 ...   of any other plan: coefficients of row i, i = 0 .. N - 1, and `end_` for those of the result
    delta0 ...      the same of the guidance difference, where it has columns of its own

Rows of a table are far from smooth over the steps, for they sum up what the steps before them did. Increments are smoother, and on a
hand-made solver's the residuals are small. With row i of the plan A_i, of the hand-made table H_i at the plan's own times,

    x^i, d_lag^i, delta_lag^i = (A_i - r_i A_{i-1}) - (H_i - r_i H_{i-1}),      r_i = sigma_i / sigma_{i-1},

lags counted from the newest output. This is linear in A and has an exact inverse.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from math import atan2, log, tan
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solversearch.errors import UserError
from solversearch.models.base import Model
from solversearch.models.digest import is_of
from solversearch.plan import Plan
from solversearch.runtime import Node, Row, Tableau
from solversearch.schedules import CLEAN, NoiseSchedule
from solversearch.solvers.mixed import Decision, mixed
from solversearch.tableau import trace

Curves = dict[str, dict[int, float]]
"""By name, the value at each step i."""

SMOOTH = {"compensation": 3, "epsilon_scale": 1, "derivative_scale": 1, "prediction": 1}
"""Decisions that are numbers, with the first step that has them."""
_CLOSEST = 1e-3
"""Least distance of two positions that are predicted."""


def position(node: Node) -> float:
    return log(tan(atan2(node.sigma, node.alpha) / 2))


def time_curves(plan: Plan, schedule: NoiseSchedule) -> Curves:
    places = {i: position(node) for i, node in enumerate(plan.nodes)}
    shifts = {i: float(schedule.position(node.t)) - places[i] for i, node in enumerate(plan.nodes)}
    return {"position": places, "input_shift": {i: shift if abs(shift) > 1e-6 else 0.0 for i, shift in shifts.items()}}


def nodes_at(curves: Curves, schedule: NoiseSchedule, guidance: float, whole: bool = False) -> list[Node]:
    """Nodes of predicted times, and `CLEAN`. Rearranged to fall, kept apart and within the schedule; whole rounds them."""
    places = np.array(sorted(curves["position"].values(), reverse=True))
    end, start = schedule.position([schedule.t_end, schedule.t_start])
    steps = _CLOSEST * np.arange(len(places))
    places = np.minimum.accumulate(np.minimum(places, start) + steps) - steps
    places = np.maximum(places, end + steps[::-1])
    times = schedule.time_at(places)
    if whole:
        count = np.arange(len(times))
        times = np.minimum.accumulate(np.maximum(np.round(times), schedule.t_end + count[::-1]) + count) - count
    return [*(replace(schedule.node(float(t)), guidance=guidance) for t in times), CLEAN]


def told(table: Tableau, curves: Curves, schedule: NoiseSchedule, whole: bool = False) -> Tableau:
    """The table with the times that the network is told instead of those of its inputs."""
    nodes = list(table.nodes)
    for i, shift in curves.get("input_shift", {}).items():
        t = float(schedule.time_at(position(nodes[i]) + shift))
        nodes[i] = replace(nodes[i], t=round(t) * 1.0 if whole else t)
    return replace(table, nodes=tuple(nodes))


def _untold(plan: Plan, schedule: NoiseSchedule) -> list[Node]:
    """The evaluations at the times of their inputs, and `CLEAN`."""
    return [*(replace(node, t=float(schedule.time_at(position(node))), beta=None) for node in plan.nodes), CLEAN]


# Plans that their decisions make again -------------------------------------------------------------------------


def decisions_of(plan: Plan, schedule: NoiseSchedule) -> tuple[Decision, ...] | None:
    """The decisions that make the plan's table; None where it has no such record, or has been changed since."""
    given = plan.decisions

    def at(value: Any, i: int) -> Any:
        return value[i] if isinstance(value, list) else value

    try:
        steps = tuple(Decision(**{f.name: at(given[f.name], i) for f in fields(Decision) if f.name in given}) for i in range(plan.nfe))
        table = trace(mixed(steps), schedule, _untold(plan, schedule))
    except (UserError, TypeError, ValueError, LookupError, ArithmeticError):
        return None
    same = len(table.rows) == len(plan.rows) and torch.allclose(matrix_of(table), matrix_of(plan.tableau), rtol=0, atol=1e-9)
    return steps if same else None


def pattern(steps: Sequence[Decision], nfe: int) -> tuple[Decision, ...]:
    """The decisions of nfe <= len(steps) steps that are like these at the beginning and at the end."""
    return (*steps[: nfe // 2], *steps[len(steps) - (nfe - nfe // 2) :])


def plain(step: Decision) -> Decision:
    """The decision without its numbers."""
    return replace(step, **{name: getattr(Decision(), name) for name in SMOOTH if isinstance(getattr(step, name), float)})


def decision_curves(steps: Sequence[Decision]) -> Curves:
    curves: Curves = {}
    for name, first in SMOOTH.items():
        values = [getattr(step, name) for step in steps]
        if all(isinstance(value, float) for value in values):
            curves[name] = dict(enumerate(values[first - 1 :], first))
    return curves


def numbers_used(curves: Sequence[Curves]) -> list[str]:
    """The numbers that some plan has moved from their defaults."""
    return [name for name in SMOOTH if any(value != getattr(Decision(), name) for each in curves for value in each.get(name, {}).values())]


def decided(curves: Curves, steps: Sequence[Decision]) -> list[Decision]:
    """The steps with predicted numbers."""

    def numbers(i: int) -> dict[str, Any]:
        return {name: _legal(name, curves[name][i]) for name in SMOOTH if i in curves.get(name, {})}

    return [replace(step, **numbers(i)) for i, step in enumerate(steps, 1)]


def _legal(name: str, value: float) -> float:
    if name == "prediction":
        return min(max(value, 0.0), 1.0)
    return max(value, 0.5) if name == "epsilon_scale" else value


# Any plan: coefficients ---------------------------------------------------------------------------------------


def names_of(i: int, n: int) -> dict[str, int]:
    """Names of the columns of row i that are regressed, with their places in the table's matrix."""
    end = "end_" if i == n else ""
    columns = {f"{end}x": 0}
    for kind, first in (("d", 1), ("delta", 1 + n)):
        columns |= {f"{end}{kind}{lag}": first + i - 1 - lag for lag in range(i)}
    return columns


def matrix_of(table: Tableau) -> Tensor:
    """(N + 1, 1 + 2 N) coefficients of the noise, the outputs and the guidance differences."""
    n = table.nfe
    matrix = torch.zeros(n + 1, 1 + 2 * n, dtype=torch.float64)
    for i, row in enumerate(table.rows):
        for first, weights in ((0, (row.x,)), (1, row.d), (1 + n, row.delta)):
            matrix[i, first : first + len(weights)] = torch.tensor(weights, dtype=torch.float64)
    return matrix


def table_of(nodes: Sequence[Node], matrix: Tensor) -> Tableau:
    n, split = len(nodes), bool(matrix[:, 1 + len(nodes) :].any())
    rows = [Row(x, tuple(rest[:i]), tuple(rest[n : n + i]) if split else ()) for i, (x, *rest) in enumerate(matrix.tolist())]
    return Tableau(tuple(nodes), tuple(rows))


def summed(alphas: Tensor, sigmas: Tensor, scale: float, residuals: Tensor) -> Tensor:
    """The matrix of a table from the increments' residuals, at N evaluations with these alpha and sigma; differentiable.

    The hand-made increment of a step from s to t is that of UniP-2 (see `solvers.unipc`), of order 1 in the first and last step:

        r x_s + (alpha_t - alpha_s r) D_0 + alpha_t w (D_1 - D_0),      w = -(h + e^{-h} - 1) / (lambda_s - lambda_s').
    """
    n = len(alphas)
    one = torch.ones(1, dtype=alphas.dtype)
    alphas, sigmas = torch.cat([alphas, one]), torch.cat([sigmas, 0 * one])
    lams = (alphas[:n].clamp(min=1e-30) / sigmas[:n]).log()
    rows = [torch.nn.functional.one_hot(torch.tensor(0), 1 + 2 * n).to(alphas) * scale + residuals[0]]
    for i in range(1, n + 1):
        ratio = sigmas[i] / sigmas[i - 1]
        newest = alphas[i] - alphas[i - 1] * ratio
        if 2 <= i < n:
            h = lams[i] - lams[i - 1]
            moved = -alphas[i] * (h + torch.expm1(-h)) / (lams[i - 1] - lams[i - 2])
            weights, places = torch.stack([newest - moved, moved]), [i, i - 1]
        else:
            weights, places = newest[None], [i]
        hand_made = torch.zeros_like(rows[0]).index_put((torch.tensor(places),), weights)
        rows.append(ratio * rows[-1] + hand_made + residuals[i])
    return torch.stack(rows)


def _frame(nodes: Sequence[Node]) -> tuple[Tensor, Tensor]:
    alphas, sigmas = (torch.tensor([getattr(node, name) for node in nodes], dtype=torch.float64) for name in ("alpha", "sigma"))
    return alphas, sigmas


def coefficient_curves(table: Tableau, schedule: NoiseSchedule) -> Curves:
    n = table.nfe
    alphas, sigmas = _frame(table.nodes)
    scale = schedule.initial_scale(float(schedule.time_at(position(table.nodes[0]))))
    difference = matrix_of(table) - summed(alphas, sigmas, scale, torch.zeros(n + 1, 1 + 2 * n, dtype=torch.float64))
    ratios = torch.cat([torch.zeros(1), sigmas[1:] / sigmas[:-1], torch.zeros(1)])
    residuals = difference - ratios[:, None] * difference.roll(1, 0)
    curves: Curves = {}
    for i in range(n + 1):
        for name, place in names_of(i, n).items():
            curves.setdefault(name, {})[i] = float(residuals[i, place])
    return curves


def coefficient_table(curves: Curves, schedule: NoiseSchedule, nodes: Sequence[Node]) -> Tableau:
    """Inverse of `coefficient_curves`; nodes without `CLEAN`."""
    n = len(nodes)
    residuals = torch.zeros(n + 1, 1 + 2 * n, dtype=torch.float64)
    for i in range(n + 1):
        for name, place in names_of(i, n).items():
            residuals[i, place] = curves.get(name, {}).get(i, 0.0)
    alphas, sigmas = _frame(nodes)
    scale = schedule.initial_scale(float(schedule.time_at(position(nodes[0]))))
    return table_of(nodes, summed(alphas, sigmas, scale, residuals))


def check_plan(plan: Plan, model: Model) -> None:
    """Raises `UserError` for a plan that has no place in a regression of this model's plans."""
    name = f"the plan for NFE {plan.nfe} and guidance {plan.guidance:g}"
    if plan.prediction_type != model.prediction_type or not is_of(plan.provenance.model_digest, model):
        raise UserError(
            f"{name} was made for model {plan.provenance.model!r} with other weights than {model.name!r}; give plans of one model"
        )
    if plan.start is not None:
        raise UserError(f"{name} starts from noised pictures; only plans that start from noise can be regressed")
    if plan.tableau.stochastic:
        raise UserError(f"{name} adds fresh noise; only deterministic plans can be regressed")
    if plan.guidance == 1 and plan.tableau.split:
        raise UserError(f"{name} weighs the guidance difference, though there is no guidance; search it without --split")
    if any(node.guidance != plan.guidance for node in plan.nodes):
        raise UserError(f"{name} has a guidance of its own at some evaluations; give plans of one guidance at all evaluations")
