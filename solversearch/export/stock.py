"""Plans that are only a schedule, for the schedulers that diffusers has: custom `sigmas` or `timesteps`, and the settings beside them.

A stock scheduler is tried by running it: `from_diffusers` reads its table at the plan's schedule, and the two tables are compared.
"""

import inspect
import json
from collections.abc import Iterator
from functools import partial
from itertools import product
from math import atan2, inf
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from solversearch.errors import UserError
from solversearch.export.exporter import Exporter, check_consumer
from solversearch.importing import from_diffusers, scheduler_by_name
from solversearch.outputs import check_place
from solversearch.pipeline_facts import facts_of
from solversearch.plan import Plan, write_text
from solversearch.runtime import Node, Row, Tableau
from solversearch.schedules import LEAST_ALPHA, DiscreteVP, Floats

Argument = Literal["sigmas", "timesteps"]

TOLERANCE = 1e-4
"""What schedulers that compute in single precision keep, relative."""
_ANY = "use solversearch.export.diffusers.PlanScheduler, which runs any plan"
_BETAS: tuple[dict[str, Any], ...] = (
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02},
    {"beta_schedule": "squaredcos_cap_v2"},
)
"""Stable Diffusion's, DDPM's (DiT's and PixArt's too), and the cosine."""


class Stock(NamedTuple):
    """A scheduler class of diffusers, the settings in which it differs from its defaults, and the argument of the pipeline's call."""

    scheduler: str
    config: dict[str, Any]
    arguments: dict[str, list[float]]


def as_stock(plan: Plan, *arguments: Argument) -> Stock:
    """The stock scheduler that samples by the plan when it is given the plan's `sigmas` or `timesteps` (by default either).

    Raises `UserError` with the nearest scheduler and how far its table is, where none does.
    """
    from solversearch.models.pipelines.library import quiet

    _check_plain(plan)
    candidates = _flow(plan) if plan.prediction_type == "flow" else _variance_preserving(plan)
    tried: list[tuple[float, Stock]] = []
    for stock in candidates:
        if arguments and not set(stock.arguments) <= set(arguments):
            continue
        try:
            scheduler = scheduler_by_name(stock.scheduler, **stock.config)
            with quiet():
                distance = _distance(plan, from_diffusers(scheduler, None, None, **stock.arguments))
        except UserError:  # it cannot take this list, or lacks a setting
            continue
        tried.append((distance, Stock(type(scheduler).__name__, _settings(scheduler), stock.arguments)))
        if distance <= TOLERANCE:
            return tried[-1][1]
    if not tried:
        kinds = " or ".join(arguments or get_args(Argument))
        raise UserError(
            f"no stock scheduler of diffusers takes this plan's schedule as {kinds} (timesteps are whole numbers, of models that are not "
            f"flow models); {_ANY}"
        )
    distance, nearest = min(tried, key=lambda each: each[0])
    settings = ", ".join(f"{key}={value!r}" for key, value in nearest.config.items())
    raise UserError(
        f"the plan's coefficients are its own: the table of the nearest stock scheduler, {nearest.scheduler}({settings}), is "
        f"{distance:.2g} away, {TOLERANCE:g} is allowed; {_ANY}"
    )


def write(argument: Argument, plan: Plan, out: Path, overwrite: bool = False) -> list[Path]:
    """The plan as `sigmas` or `timesteps` of a stock scheduler: a JSON file of its class, settings, list, and lines of Python for them."""
    check_place(out, "stock", overwrite)
    check_consumer(plan, "a stock scheduler")
    stock = as_stock(plan, argument)
    call = stock.arguments | {"guidance_scale": plan.nodes[0].guidance}
    content = {"scheduler": stock.scheduler, "config": stock.config, **call, "python": _python(stock, call), "plan": plan.digest}
    write_text(out, json.dumps(content, indent=1) + "\n")
    return [out]


def _python(stock: Stock, call: dict[str, Any]) -> list[str]:
    """Ready to paste, for a loaded pipeline named pipe."""

    def listed(arguments: dict[str, Any]) -> str:
        return ", ".join(f"{key}={value!r}" for key, value in arguments.items())

    return [
        f"from diffusers import {stock.scheduler}",
        f"pipe.scheduler = {stock.scheduler}({listed(stock.config)})",
        f'images = pipe("a red fox in the snow", {listed(call)}).images  # Flux: true_cfg_scale instead of guidance_scale',
    ]


def _settings(scheduler: Any) -> dict[str, Any]:
    known = inspect.signature(type(scheduler).__init__).parameters
    return {key: value for key, value in scheduler.config.items() if key in known and value != known[key].default}


def _check_plain(plan: Plan) -> None:
    table = plan.tableau
    own = {
        "needs an anchor for each sample": table.anchored,
        "thresholds its data predictions": plan.threshold is not None,
        "starts from noised pictures": plan.start is not None,
        "adds fresh noise": table.stochastic,
        "has coefficients for the guidance difference": table.split,
        "has coefficients for each frequency band or channel": table.components is not None,
        "has a guidance scale for each node": len({node.guidance for node in plan.nodes}) > 1,
        "guides by less than 1, at which pipelines do not guide": plan.nodes[0].guidance < 1,
        "is for a model whose scheduler inverts its sigmas": facts_of(plan.decisions)[1].get("invert_sigmas", False),
    }
    for what, does in own.items():
        if does:
            raise UserError(f"the plan {what}: it is more than a schedule; {_ANY}")


# Candidates, the likeliest first -----------------------------------------------------------------------------------


def _flow(plan: Plan) -> Iterator[Stock]:
    """Euler alone: UniPC rounds the times of flow models, and the multistep solvers take no list from them."""
    yield Stock("FlowMatchEulerDiscrete", {}, {"sigmas": [node.sigma for node in plan.nodes]})


def _variance_preserving(plan: Plan) -> Iterator[Stock]:
    model = {"prediction_type": plan.prediction_type, **_betas(plan)}
    spacings = ("leading", "linspace")  # they decide the scale of the initial noise
    if all(node.alpha > 0 for node in plan.nodes):
        sigmas = [*(node.sigma / node.alpha for node in plan.nodes), 0.0]
        for spacing in spacings:
            yield Stock("EulerDiscrete", model | {"timestep_spacing": spacing}, {"sigmas": sigmas})
    if not all(node.t.is_integer() for node in plan.nodes):
        return
    times: list[float] = [int(node.t) for node in plan.nodes]
    for spacing in spacings:
        yield Stock("EulerDiscrete", model | {"timestep_spacing": spacing}, {"timesteps": times})
        yield Stock("HeunDiscrete", model | {"timestep_spacing": spacing}, {"timesteps": times[:1] + times[1::2]})
    # The noise-prediction form cannot end at sigma = 0.
    for (form, final), order, kind in product((("dpmsolver++", "zero"), ("dpmsolver", "sigma_min")), (2, 3, 1), ("midpoint", "heun")):
        config = model | {"algorithm_type": form, "final_sigmas_type": final, "solver_order": order, "solver_type": kind}
        yield Stock("DPMSolverMultistep", config, {"timesteps": times})
        yield Stock("DPMSolverMultistep", config | {"lower_order_final": False}, {"timesteps": times})
        yield Stock("DPMSolverSinglestep", config, {"timesteps": times})


def _betas(plan: Plan) -> dict[str, Any]:
    """The betas that give the plan's noise levels at its times."""
    for betas, (zero, least) in product(_BETAS, ((False, 0.0), (True, 0.0), (True, LEAST_ALPHA))):
        schedule = DiscreteVP.named(**betas, zero_terminal_snr=zero, least_alpha=least)
        if all(abs(float(schedule.angle(node.t)) - atan2(node.sigma, node.alpha)) < TOLERANCE for node in plan.nodes):
            return {**betas, "rescale_betas_zero_snr": True} if zero else betas
    raise UserError(f"the plan's noise levels at its times are of no noise schedule that stock schedulers make from betas; {_ANY}")


def _distance(plan: Plan, table: Tableau) -> float:
    """Largest difference of two tables, of each row and each node relative to its largest number."""
    if table.nfe != plan.nfe:
        return inf
    pairs = [(_levels(a), _levels(b)) for a, b in zip(plan.nodes, table.nodes, strict=True)]
    pairs += [(_weights(a, plan.nfe), _weights(b, plan.nfe)) for a, b in zip(plan.rows, table.rows, strict=True)]
    return max(float(np.max(np.abs(a - b)) / np.max(np.abs(a))) for a, b in pairs)


def _levels(node: Node) -> Floats:
    """The time counts as much as the noise level: in thousandths."""
    return np.array([node.t / 1000, node.alpha, node.sigma])


def _weights(row: Row, nfe: int) -> Floats:
    return np.array([row.x, *row.d, *[0.0] * (nfe - len(row.d))])


EXPORTERS = tuple(
    Exporter(
        f"diffusers-{argument}",
        f"{argument.capitalize()} for the stock scheduler of diffusers that the plan amounts to.",
        partial(write, argument),
        f"{argument}.json",
        "{out} names the scheduler and has the lines of Python that use it.",
    )
    for argument in get_args(Argument)
)
