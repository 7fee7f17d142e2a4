"""What the network of a pipeline is given and returns, before the pipeline combines it.

Pipelines of diffusers guide on their own and hand the scheduler one output, u + w (c - u). A plan whose guidance changes from node to
node, or whose guidance difference has coefficients of its own, needs c and u. They run them in different ways: both in one batch, u first
(Stable Diffusion, PixArt) or c first (DiT, whose latents are doubled throughout), or c and then u in two calls (Flux). Which of the halves
is c is read off the pipeline's own combination: out = a + g (b - a) has g = w > 1 if b is c, and g = 1 - w < 0 if a is.
"""

import inspect
from collections import deque
from math import atan2
from statistics import median
from typing import Any
from weakref import ref

import torch
from torch import Tensor

from solversearch.errors import UserError
from solversearch.models.pipelines.schedule import schedule_of
from solversearch.plan import Plan

TOLERANCE = 0.02  # of the pipeline's combination, computed in half precision


class Watch:
    """Hooks on the network of a pipeline, for as long as the pipeline samples with the given scheduler (a `PlanScheduler`).

    ``arguments`` are what the plan fixes of the pipeline's call.
    """

    def __init__(self, pipe: Any, scheduler: Any) -> None:
        parts = {name: part for name in ("unet", "transformer", "controlnet") if (part := getattr(pipe, name, None)) is not None}
        network = parts.get("unet", parts.get("transformer"))
        if network is None:
            raise ValueError(f"{type(pipe).__name__} has neither a unet nor a transformer: pass the scheduler to a pipeline that has one")
        self.scale = _scale(scheduler.plan)
        self.arguments: dict[str, Any] = {"num_inference_steps": scheduler.plan.nfe} | _guidance(pipe, self.scale)
        self.pipe, self.scheduler = ref(pipe), scheduler
        self.outputs: deque[Tensor] = deque(maxlen=2)
        self.handles = [part.register_forward_pre_hook(self._before, with_kwargs=True) for part in parts.values()]
        self.handles.append(network.register_forward_hook(self._after))

    def close(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _watching(self) -> bool:
        pipe = self.pipe()
        if pipe is not None and pipe.scheduler is self.scheduler:
            return True
        self.close()  # the pipeline samples with another scheduler now, or is gone
        return False

    def _before(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Scales the first input by row 0 of the plan; pipelines start from unit noise."""
        scale = self.scheduler.plan.rows[0].x
        if scale == 1 or not self._watching() or self.scheduler.started:
            return None
        if args:
            return (_scaled(args[0], scale), *args[1:]), kwargs
        name = "hidden_states" if "hidden_states" in kwargs else "sample"
        return args, kwargs | {name: _scaled(kwargs[name], scale)}

    def _after(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        if self._watching():
            self.outputs.append(output[0])

    def pair(self, combined: Tensor, channels: int) -> tuple[Tensor, Tensor | None]:
        """The conditional and the unconditional output of this step, None without guidance, each with one entry a picture.

        combined is what the pipeline made of them. Raises ValueError where it is not plain guidance at the scale of the plan.
        """
        if not self.outputs:
            raise ValueError("the pipeline's network was replaced, or called past its hooks: call scheduler.detach() and attach again")
        outputs = torch.cat([without_variance(output, channels) for output in self.outputs])
        self.outputs.clear()
        if outputs.shape == combined.shape and torch.equal(outputs, combined):
            return outputs, None
        count = len(outputs) // 2
        if len(outputs) % 2 or len(combined) not in (count, 2 * count):
            raise ValueError(_OTHERWISE)
        a, b = outputs.chunk(2)
        out, difference = combined[:count].float() - a, b.float() - a
        g = float((out * difference).sum() / difference.square().sum())
        size = float(combined.float().norm())
        if float((out - g * difference).norm()) > TOLERANCE * (size + abs(g) * float(difference.norm())):
            raise ValueError(_OTHERWISE)
        scale = max(g, 1 - g)
        if abs(scale - self.scale) > TOLERANCE * self.scale and float(difference.norm()) > TOLERANCE * size:
            raise ValueError(
                f"the pipeline guides with {scale:.3g}, but the plan was made for {self.scale:g}: call it with what attach() returned"
            )
        return (b, a) if g > 0.5 else (a, b)


_OTHERWISE = (
    "the pipeline changes the network's outputs in other ways than by plain guidance (guidance_rescale, perturbed attention or skipped "
    "layers?), for which the plan was not made: turn that off"
)


def without_variance(output: Tensor, channels: int) -> Tensor:
    """The prediction of a network that also learned a variance, in twice the channels; others are left as they are."""
    return output[:, :channels] if output.shape[1] == 2 * channels else output


def _scaled(x: Tensor, scale: float) -> Tensor:
    return (x.float() * scale).to(x.dtype)


def _scale(plan: Plan) -> float:
    """The guidance scale to call the pipeline with: the plan's; where that is not above 1, any at which pipelines guide at all."""
    if plan.nfe == plan.network_calls:
        return 1.0
    return plan.guidance if plan.guidance > 1 else 2.0


def _guidance(pipe: Any, scale: float) -> dict[str, float]:
    """Flux's guidance_scale is what its distilled network is told, and not meant."""
    known = inspect.signature(pipe.__call__).parameters
    name = next((name for name in ("true_cfg_scale", "guidance_scale") if name in known), None)
    if name is None and scale != 1:
        raise ValueError(f"the plan guides, but {type(pipe).__name__} has no guidance: make a plan with --guidance 1")
    return {name: scale} if name else {}


def check_stock(plan: Plan, stock: Any) -> None:
    """Raises ValueError where the config of a pipeline's own scheduler tells that its model is not the plan's.

    A single node may read its network off the schedule on purpose; most of them do not.
    """
    try:
        schedule, prediction_type, _ = schedule_of({**stock.config, "_class_name": type(stock).__name__})
    except UserError:  # nothing is known of that scheduler's model
        return
    if prediction_type != plan.prediction_type:
        raise ValueError(
            f"the plan is for a model that predicts {plan.prediction_type!r}, but this pipeline's predicts {prediction_type!r}"
        )
    apart = median(abs(float(schedule.angle(node.t)) - atan2(node.sigma, node.alpha)) for node in plan.nodes)
    if apart > 0.05:
        raise ValueError(
            f"the plan is for another noise schedule than this pipeline's: at the plan's times the noise levels differ by {apart:.2g} "
            f"radians of atan(sigma / alpha); it was made for model {plan.provenance.model!r}"
        )
