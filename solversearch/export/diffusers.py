"""`PlanScheduler`: a plan as a drop-in scheduler of diffusers.

    scheduler = PlanScheduler.from_plan("plan.json")
    images = pipe("a red fox in the snow", **scheduler.attach(pipe)).images

`attach` puts the scheduler into the pipeline, checks that the plan was made for such a model, and returns the arguments that the plan
fixes. A plan of one guidance scale also works without it, `StableDiffusionPipeline(..., scheduler=scheduler)` called with the plan's
number of steps and guidance scale; a plan that needs more says so.
"""

import json
from collections.abc import Sequence
from math import isclose
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_ddpm import DDPMSchedulerOutput
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from diffusers.utils.torch_utils import randn_tensor
from numpy.typing import ArrayLike
from torch import Tensor

from solversearch.export.network_hook import Watch, check_stock, without_variance
from solversearch.plan import Plan
from solversearch.runtime import Output, steps
from solversearch.schedules import data_prediction

Numbers = Sequence[float] | Tensor
Generators = torch.Generator | list[torch.Generator] | None

_MIDDLE = (
    "a plan starts from noise, and its rows refer to every evaluation from there: it cannot be entered in the middle with a picture "
    "(img2img, strength below 1, denoising_start); use a stock scheduler for that"
)
_CHANGED = "the latents were changed between two steps (by a mask or a callback?), but a plan's rows do not start from them: leave them"


class PlanScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """Samples by the table of a plan; a call of a pipeline is one run of it, from noise to the result.

    The number of steps is the plan's. The state is kept in float32 where the pipeline works in half precision.
    There is no img2img: the rows of a plan combine the initial noise with every evaluation, so it cannot be entered in the middle
    (strength below 1, `denoising_start`), and latents must not be changed between steps (inpainting by masks). All that is refused.
    A pipeline that was saved with this scheduler loads after `import solversearch.export.diffusers`.
    """

    order = 1
    _compatibles = [*(each.name for each in KarrasDiffusionSchedulers), "FlowMatchEulerDiscreteScheduler"]  # noqa: RUF012 (diffusers')

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, plan: dict[str, Any] | None = None, num_train_timesteps: int = 1000, use_flow_sigmas: bool = True) -> None:
        """plan is the content of a plan file. use_flow_sigmas keeps Flux from passing sigmas of its own."""
        if plan is None:
            raise ValueError("this scheduler is made of a plan: PlanScheduler.from_plan('plan.json')")
        self.plan = Plan.parse(json.dumps(plan), "scheduler config")
        if self.plan.rows[0].x == 0 or any(self.plan.rows[0].z):
            raise ValueError("row 0 of the plan is not the initial noise alone, from which pipelines start; use solversearch.runtime")
        self._watch: Watch | None = None
        self._stock: Any = None
        self._reset(None)

    @classmethod
    def from_plan(cls, plan: str | Path | Plan) -> "PlanScheduler":
        """From a plan or its file. Raises `UserError` for a file that is not a valid plan."""
        plan = plan if isinstance(plan, Plan) else Plan.read(plan)
        return cls(plan=plan.model_dump(mode="json"))

    def __deepcopy__(self, memo: dict[int, Any]) -> "PlanScheduler":
        """A scheduler of the same plan at its start, not attached to anything: a sampling cannot be copied half-way."""
        return type(self).from_config(self.config)

    # What pipelines call -------------------------------------------------------------------------------------------

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: str | torch.device | None = None,
        timesteps: Numbers | None = None, sigmas: Numbers | None = None, mu: float | None = None,
    ) -> None:  # fmt: skip
        """Starts a new sampling. mu, which pipelines compute from the picture's size to shift times, has no effect: a plan's are fixed.

        Raises ValueError for any other number of steps than the plan's, for other times or noise levels, and where the plan needs `attach`.
        """
        n, given = self.plan.nfe, timesteps if timesteps is not None else sigmas
        count = num_inference_steps if given is None else len(given)
        if count not in (None, n):
            raise ValueError(f"the plan has {n} steps, not {count}: pass num_inference_steps={n}")
        if timesteps is not None and not _close(timesteps, [node.t for node in self.plan.nodes]):
            raise ValueError("the plan has its own timesteps: leave timesteps out")
        # Pipelines of flow models pass evenly spaced sigmas where the person gave none.
        levels = [node.sigma for node in self.plan.nodes], np.linspace(1, 1 / n, n)
        if sigmas is not None and not any(_close(sigmas, level) for level in levels):
            raise ValueError("the plan has its own noise levels: leave sigmas out")
        if self._watch is None and (needs := _needs_watch(self.plan)):
            raise ValueError(f"the plan {needs}, which pipelines cannot do: call pipe(..., **scheduler.attach(pipe))")
        self._reset(device)

    def _reset(self, device: str | torch.device | None) -> None:
        times = [node.t for node in self.plan.nodes]
        whole = all(t.is_integer() for t in times)
        self.timesteps = torch.tensor(times, dtype=torch.int64 if whole else torch.float32, device=device)
        self.num_inference_steps = self.plan.nfe
        self._run: _Run | None = None
        self._scale_was_read = False
        if self._watch is not None:
            self._watch.outputs.clear()

    @property
    def init_noise_sigma(self) -> float:
        """By what pipelines scale unit noise; DDPM, DiT, SD3 and Flux never ask, so it is noted whether this one did.

        1 where the scheduler is attached: then the network's first input is scaled, in every pipeline and without rounding the noise.
        """
        self._scale_was_read = True
        return self.plan.rows[0].x if self._watch is None else 1.0

    @property
    def started(self) -> bool:
        """Whether a step was done since `set_timesteps`."""
        return self._run is not None

    def set_begin_index(self, begin_index: int = 0) -> None:
        if begin_index:
            raise ValueError(_MIDDLE)

    def add_noise(self, *args: Any, **kwargs: Any) -> Tensor:
        raise ValueError(_MIDDLE)

    scale_noise = add_noise

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        return sample

    def step(
        self, model_output: Tensor, timestep: float | Tensor, sample: Tensor, generator: Generators = None, return_dict: bool = True
    ) -> DDPMSchedulerOutput | tuple[Tensor, Tensor]:
        """The next state, and the data prediction of this step; at the last step both are the plan's result.

        generator draws the fresh noises of a stochastic plan.
        """
        channels = sample.shape[1]
        conditional, unconditional = without_variance(model_output, channels), None
        if self._watch is not None:
            conditional, unconditional = self._watch.pair(conditional, channels)
        copies = len(sample) // len(conditional)  # DiT keeps each latent twice
        if self._run is None:
            self._run = self._start(sample[: len(conditional)], timestep, generator)
        elif self._run.done:
            raise ValueError(f"all {self.plan.nfe} steps of the plan are done: call set_timesteps before the next sampling")
        elif sample is not self._run.given and not torch.equal(sample, self._run.given):
            raise ValueError(_CHANGED)
        self._run.send(self._data_predictions(self._run, conditional, unconditional))
        x, prediction = (torch.cat([each.to(sample.dtype)] * copies) for each in (self._run.x, self._run.prediction))
        self._run.given = x
        return DDPMSchedulerOutput(prev_sample=x, pred_original_sample=prediction) if return_dict else (x, prediction)

    def _start(self, sample: Tensor, timestep: float | Tensor, generator: Generators) -> "_Run":
        if not isclose(float(timestep), self.plan.nodes[0].t, rel_tol=0.01):  # some pipelines round it to half precision
            raise ValueError(_MIDDLE)
        noise, scale = sample.to(torch.promote_types(sample.dtype, torch.float32)), self.plan.rows[0].x
        if self._watch is not None or scale == 1:
            return _Run(self.plan, noise, generator)
        if not self._scale_was_read:
            raise ValueError(
                f"the plan starts from noise times {scale:g}, but this pipeline does not scale its noise: "
                "call pipe(..., **scheduler.attach(pipe))"
            )
        return _Run(self.plan, noise / scale, generator)

    def _data_predictions(self, run: "_Run", conditional: Tensor, unconditional: Tensor | None) -> Output:
        """What the runtime is sent: the data prediction at the node's guidance, with the guidance difference where rows use it."""
        split = self.plan.tableau.split
        a, b = data_prediction(self.plan.prediction_type, run.node.alpha, run.node.sigma)

        def data(output: Tensor) -> Tensor:
            return a * run.x + b * output.to(run.x.dtype)

        if self._watch is None or not (split or run.node.guidance != 1):
            return data(conditional)
        if unconditional is None:
            raise ValueError(
                "the plan guides, but the pipeline ran its network without the condition or without its opposite: "
                f"call it with {self._watch.arguments}, and Flux with a negative_prompt too"
            )
        base = data(unconditional)
        difference = data(conditional) - base
        guided = base + run.node.guidance * difference
        return (guided, difference) if split else guided

    # The pipeline it is used in --------------------------------------------------------------------------------------

    def attach(self, pipe: Any) -> dict[str, Any]:
        """Puts the scheduler into a pipeline, and returns the arguments to call it with: the number of steps and the guidance scale.

        From then on the scheduler sees the outputs of the pipeline's network and guides on its own, by the scale of each node; the
        pipeline's scale only makes it run both, at every node. Calling it again changes nothing; `detach` undoes it.
        Raises ValueError for a pipeline whose scheduler was made for another model, and for one that cannot guide where the plan does.
        """
        if pipe.scheduler is not self:
            self.detach()
            if isinstance(pipe.scheduler, PlanScheduler):
                pipe.scheduler.detach()
            if not isinstance(pipe.scheduler, PlanScheduler):
                check_stock(self.plan, pipe.scheduler)
        watch = Watch(pipe, self)
        if self._watch is not None:
            self._watch.close()
        if pipe.scheduler is not self:
            self._stock = pipe.scheduler
            # Other schedulers are made from the config of the one in place, and need the model's betas.
            self.register_to_config(**{key: value for key, value in self._stock.config.items() if key not in ("plan", "use_flow_sigmas")})
            pipe.scheduler = self
        self._watch = watch
        return watch.arguments

    def detach(self) -> None:
        """Takes the hooks off the pipeline, and gives it back the scheduler that it had."""
        if self._watch is None:
            return
        self._watch.close()
        pipe = self._watch.pipe()
        if pipe is not None and pipe.scheduler is self and self._stock is not None:
            pipe.scheduler = self._stock
        self._watch = self._stock = None


class _Run:
    """One sampling: the runtime's loop, and the state and node at which it waits. given is the state as the pipeline has it."""

    def __init__(self, plan: Plan, noise: Tensor, generator: Generators) -> None:
        def draw(k: int) -> Tensor:
            return randn_tensor(noise.shape, generator=generator, device=noise.device, dtype=noise.dtype)

        def see(i: int, x: Tensor, prediction: Tensor) -> None:
            self.prediction = prediction

        self.loop = steps(plan.nodes, plan.rows, noise, draw, plan.threshold.function() if plan.threshold else None, see)
        self.x, self.node = next(self.loop)
        self.given, self.done = noise, False

    def send(self, output: Output) -> None:
        try:
            self.x, self.node = self.loop.send(output)
        except StopIteration as end:
            self.x = self.prediction = end.value
            self.done = True


def _needs_watch(plan: Plan) -> str | None:
    """Why a plan must see the network's outputs: pipelines guide by one scale, and not at all up to 1."""
    scales = {node.guidance for node in plan.nodes}
    if plan.tableau.split:
        return "has coefficients for the guidance difference"
    if len(scales) > 1:
        return "has a guidance scale for each node"
    scale = scales.pop()
    return f"guides by {scale:g}" if scale < 1 else None


def _close(given: Numbers, known: ArrayLike) -> bool:
    values = given.cpu().numpy() if isinstance(given, Tensor) else np.asarray(given, dtype=np.float64)
    return bool(np.allclose(values, known, rtol=1e-4, atol=1e-4))
