"""The scheduler of a pipeline that a plan takes the place of: its settings, the frame of its states, and its preconditioning.

Not how it steps: that is the plan's.
"""

import inspect
from collections.abc import Mapping
from statistics import median
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers.configuration_utils import FrozenDict
from torch import Tensor

from solversearch.errors import UserError
from solversearch.models.pipelines.library import quiet
from solversearch.models.pipelines.schedule import schedule_of
from solversearch.plan import Plan
from solversearch.runtime import Node
from solversearch.schedules import data_prediction

_STANDING_IN = {"flow": "FlowMatchEulerDiscreteScheduler", "edm": "EDMEulerScheduler"}
"""By prediction type, whose defaults a pipeline reads where nothing is known of the model's own scheduler; DDPM's for others."""
_LEAST = 2.0**-12
"""Of alpha, where a state is divided by it, as in diffusers."""


class StockConfig(FrozenDict):  # type: ignore[misc]
    """The config of a plan's scheduler: what it was told, and to read besides, the defaults of the model's own, or of one of its kind.

    Where the model's own is not known, no other scheduler is made from it.
    """

    def __init__(self, told: Mapping[str, Any], stock: Any, prediction_type: str) -> None:
        kind: Any = type(stock) if stock is not None else getattr(diffusers, _STANDING_IN.get(prediction_type, "DDPMScheduler"))
        settings = inspect.signature(kind).parameters.values()
        self.defaults = {each.name: each.default for each in settings if each.default is not each.empty}
        self.known = stock is not None
        super().__init__(told)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self.defaults:
            raise AttributeError(f"the scheduler has no setting {name!r}")
        return self.defaults[name]

    def get(self, key: str, default: Any = None) -> Any:
        if key == "_use_default_values" and not self.known:  # what from_config of every class begins with
            raise ValueError(
                "the plan does not say what scheduler its model has, so no other can be made from this config: use scheduler.attach(pipe) "
                "or PlanScheduler.from_plan(plan, pipe.scheduler), which keep the settings, or take the config of the pipeline's own"
            )
        return super().get(key, self.defaults.get(key, default))


def scheduler_from(config: Mapping[str, Any], name: str) -> Any:
    """The scheduler of that class and of these settings. Raises ValueError where diffusers has no such class."""
    kind: Any = getattr(diffusers, name, None)
    if not name.endswith("Scheduler") or not isinstance(kind, type):
        raise ValueError(f"the plan's model has the scheduler {name!r}, which diffusers {diffusers.__version__} does not have")
    known = set(inspect.signature(kind).parameters)
    with quiet():
        made: Any = kind.from_config({key: value for key, value in config.items() if key in known})  # type: ignore[attr-defined]
    return made


class Frame:
    """How a pipeline holds its states, and reads its network, with the scheduler that it was made with; None where that is not known.

    A plan's state x is x / alpha in the loops of schedulers that scale the network's input (Euler's and its like), and x in all others.
    """

    def __init__(self, plan: Plan, stock: Any) -> None:
        self.plan = plan
        self.edm = stock if plan.prediction_type == "edm" and hasattr(stock, "precondition_outputs") else None
        inverts = plan.prediction_type == "flow" and stock is not None and stock.config.get("invert_sigmas")
        self.inverted = float(stock.config.num_train_timesteps) if inverts else None  # the last time, see `Inverted`
        self.divides = stock is not None and plan.prediction_type != "edm" and _scales_input(stock)

    def check(self) -> None:
        """Raises ValueError where the plan's network is preconditioned in a way that is not known."""
        if self.plan.prediction_type == "edm" and self.edm is None:
            raise ValueError(
                "the plan is for a preconditioned network (EDM) and does not say by what: call pipe(..., **scheduler.attach(pipe)), or "
                "make it with PlanScheduler.from_plan(plan, pipe.scheduler)"
            )

    def times(self) -> list[float]:
        """What the network is told at each node."""
        if self.inverted is not None:
            return [self.inverted - node.t for node in self.plan.nodes]
        if self.edm is None:
            return [node.t for node in self.plan.nodes]
        return [float(self.edm.precondition_noise(torch.tensor(node.t, dtype=torch.float64))) for node in self.plan.nodes]

    def levels(self) -> list[float]:
        """What schedulers keep as `sigmas`: the noise over the data, of flow models the noise itself; 0 at the end. Inverted, the data."""
        if self.inverted is not None:
            return [*(node.alpha for node in self.plan.nodes), 1.0]
        flow = self.plan.prediction_type == "flow"
        return [*(node.sigma if flow else node.sigma / max(node.alpha, _LEAST) for node in self.plan.nodes), 0.0]

    def scale(self, i: int) -> float:
        """By which the pipeline's state at evaluation i is the plan's; the result has 1."""
        return 1 / max(self.plan.nodes[i].alpha, _LEAST) if self.divides and i < self.plan.nfe else 1.0

    def network_input(self, sample: Tensor, i: int) -> Tensor:
        if self.edm is not None:
            return self.edm.precondition_inputs(sample, torch.tensor(self.plan.nodes[i].t))
        return sample / self.scale(i)

    def data(self, x: Tensor, output: Tensor, node: Node) -> Tensor:
        """The data prediction of a network's output, for a state in the plan's frame."""
        if self.edm is not None:
            return self.edm.precondition_outputs(x, output, torch.tensor(node.t, device=x.device))
        a, b = data_prediction(self.plan.prediction_type, node.alpha, node.sigma)
        return a * x + (b if self.inverted is None else -b) * output


def _scales_input(stock: Any) -> bool:
    """Found by trying it: the first input of a sampling of two steps."""
    try:
        trial: Any = type(stock).from_config(stock.config)
        arguments = {"mu": 1.0} if stock.config.get("use_dynamic_shifting") else {}
        trial.set_timesteps(2, **arguments)
        return bool(torch.any(trial.scale_model_input(torch.ones(1), trial.timesteps[0]) != 1))
    except (AttributeError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
        return False  # it has no such method, or none for two steps


def check_stock(plan: Plan, stock: Any) -> None:
    """Raises ValueError where the config of a pipeline's own scheduler tells that its model is not the plan's.

    A single node may read its network off the schedule on purpose; most of them do not.
    """
    config = {**stock.config, "_class_name": type(stock).__name__, "thresholding": False}
    try:
        schedule, prediction_type, _ = schedule_of(config)
    except UserError as error:
        raise ValueError(f"the pipeline cannot take a plan: {error}") from None
    if prediction_type != plan.prediction_type:
        raise ValueError(
            f"the plan is for a model that predicts {plan.prediction_type!r}, but this pipeline's predicts {prediction_type!r}"
        )
    apart = median(abs(float(schedule.angle(node.t)) - float(np.arctan2(node.sigma, node.alpha))) for node in plan.nodes)
    if apart > 0.05:
        raise ValueError(
            f"the plan is for another noise schedule than this pipeline's: at the plan's times the noise levels differ by {apart:.2g} "
            f"radians of atan(sigma / alpha); it was made for model {plan.provenance.model!r}"
        )
