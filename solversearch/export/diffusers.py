"""`PlanScheduler`: a plan as a drop-in scheduler of diffusers.

    scheduler = PlanScheduler.from_plan("plan.json")
    images = pipe("a red fox in the snow", **scheduler.attach(pipe)).images

`attach` puts the scheduler into the pipeline, checks that the plan was made for such a model, and returns the arguments that the plan
fixes. A plan of one guidance scale also works without it, `StableDiffusionPipeline(..., scheduler=scheduler)` called with the plan's
number of steps and guidance scale; a plan that needs more says so.
"""

import json
import threading
from collections.abc import Mapping
from math import isclose
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, SchedulerMixin
from diffusers.configuration_utils import register_to_config
from diffusers.schedulers.scheduling_ddpm import DDPMSchedulerOutput
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers
from torch import Tensor, nn

from solversearch.export.attachment import Attachment, PipelineCall, steps_differ, without_variance
from solversearch.export.exporter import NO_ANCHOR
from solversearch.export.sampling_run import Generators, Numbers, SamplingRun, caller, close, even, needs_attachment
from solversearch.export.stock_scheduler import Frame, StockConfig, check_stock, scheduler_from
from solversearch.pipeline_facts import facts_of
from solversearch.plan import Plan
from solversearch.runtime import Output, used

_MIDDLE = (
    "the plan starts from noise, and its rows refer to every evaluation from there: it cannot be entered in the middle with a picture "
    "(img2img, strength below 1, denoising_start); make one that starts there by 'optimize --start', or use a stock scheduler"
)
_ATTACH = "call pipe(..., **scheduler.attach(pipe))"
_CHANGED = "the latents were changed between two steps (by a mask or a callback?), but a plan's rows do not start from them: leave them"


class _Here(threading.local):
    """What one thread is sampling: its run, whether it asked for the scale of noise, and the call of the attached pipeline, if any."""

    run: "SamplingRun | None" = None
    call: PipelineCall | None = None
    asked_scale = False
    asked_input = False


class PlanScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]
    """Samples by the table of a plan; a call of a pipeline is one run of it, from noise to the result. Threads do not mix: calls of
    a pipeline that it is attached to wait for each other.

    The state is kept in float32 where the pipeline works in half precision, and pipelines see it in the frame of the scheduler that they
    were made with. Its config has that scheduler's settings, where the plan or `attach` tells them, so that others are made from it as
    from the model's own. What a plan cannot do is refused with the reason: one that starts from noise has no place in image-to-image
    pipelines, where one that starts from noised pictures is attached.
    A pipeline that was saved with this scheduler loads after `import solversearch.export.diffusers`: diffusers imports nothing on its own.
    """

    order = 1
    _compatibles = [*(each.name for each in KarrasDiffusionSchedulers), "FlowMatchEulerDiscreteScheduler"]  # noqa: RUF012 (diffusers')

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, plan: dict[str, Any] | None = None) -> None:
        """plan is the content of a plan file."""
        if plan is None:
            raise ValueError("this scheduler is made of a plan: PlanScheduler.from_plan('plan.json')")
        self.plan = Plan.parse(json.dumps(plan), "scheduler config")
        start = self.plan.rows[0]
        if self.plan.tableau.anchored:
            raise ValueError(NO_ANCHOR.format("a pipeline of diffusers"))
        if not isinstance(start.x, float) or start.x == 0 or used(start.z):
            raise ValueError("row 0 of the plan is not the initial noise alone, from which pipelines start; use solversearch.runtime")
        self._here, self._stock = _Here(), None
        self._attached: Attachment | None = None
        if settings := facts_of(self.plan.decisions)[1]:
            self._keep(settings, settings["_class_name"])
        self.num_inference_steps = self.plan.nfe
        self._place(None)

    @classmethod
    def from_plan(cls, plan: str | Path | Plan, stock: Any = None) -> "PlanScheduler":
        """From a plan or its file. stock is the model's own scheduler, for plans that do not say what that was.

        Raises `UserError` for a file that is not a valid plan.
        """
        plan = plan if isinstance(plan, Plan) else Plan.read(plan)
        scheduler = cls(plan=plan.content())
        if stock is not None:
            scheduler._take(stock)
        return scheduler

    @classmethod
    def from_config(cls, config: Any = None, *args: Any, **kwargs: Any) -> Any:
        return super().from_config(dict(config) if isinstance(config, StockConfig) else config, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> "PlanScheduler":
        """A scheduler of the same plan at its start, not attached to anything: a sampling cannot be copied half-way."""
        if self._here.call is not None and (self._start_scale() != 1 or needs_attachment(self.plan)):
            raise ValueError(
                "the pipeline samples a second state with a copy of its scheduler, which only plans of plain guidance from unit noise do"
            )
        return type(self).from_config(self.config)

    # The model's own scheduler ---------------------------------------------------------------------------------------

    def _keep(self, settings: Any, name: str) -> None:
        self.register_to_config(**{key: value for key, value in settings.items() if key[0] != "_" and key != "plan"}, stock=name)

    def _take(self, stock: Any) -> None:
        """Other schedulers are made from the config of the one in place, and need the model's settings."""
        unsaid = stock.config.get("_use_default_values", ())
        self._keep({key: value for key, value in stock.config.items() if key not in unsaid}, type(stock).__name__)
        self._stock = None
        self._place(None)

    @property
    def stock(self) -> Any:
        """The scheduler that the pipeline's model had, as far as the plan or `attach` tells; else None."""
        name = self._internal_dict.get("stock")
        if self._stock is None and name:
            self._stock = scheduler_from(self._internal_dict, name)
        return self._stock

    @property
    def config(self) -> Any:
        return StockConfig(self._internal_dict, self.stock, self.plan.prediction_type)

    def __getattr__(self, name: str) -> Any:
        """Whatever else a pipeline reads of its scheduler (betas, alphas_cumprod, preconditioning) is the stock one's."""
        value = getattr(self.stock, name, None) if name[:2] != "__" and "_stock" in self.__dict__ else None
        if value is not None and (not callable(value) or name.startswith("precondition_")):
            return value
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    # What pipelines call -------------------------------------------------------------------------------------------

    def set_timesteps(
        self, num_inference_steps: int | None = None, device: str | torch.device | None = None,
        timesteps: Numbers | None = None, sigmas: Numbers | None = None, mu: float | None = None, **shifts: Any,
    ) -> None:  # fmt: skip
        """Starts a new sampling. What pipelines compute from the picture's size to shift times (mu) has no effect: a plan's are fixed.

        Raises ValueError for any other number of steps than the plan's, for other times or noise levels, and where the plan needs `attach`.
        """
        n, given = self.plan.nfe, timesteps if timesteps is not None else sigmas
        count = num_inference_steps if given is None else len(given)
        if count not in (None, n):
            raise ValueError(steps_differ(n, count))
        if self._here.call is None:  # otherwise it is known what the pipeline was called with
            # Pipelines pass noise levels of their own, some with their times, where the person gave none: evenly spaced, as a rule.
            told = caller(self)
            if told.get("denoising_end") is not None and self.stock is None:
                raise ValueError(
                    "the plan does not say how the next pipeline wants its latents (denoising_end): use scheduler.attach(pipe)"
                )
            own = sigmas is not None and (even(sigmas) or ("self" in told and "sigmas" not in told))
            self.check_numbers(None if own else timesteps, None if own else sigmas)
            if needs := needs_attachment(self.plan):
                raise ValueError(f"the plan {needs}, which pipelines cannot do: {_ATTACH}")
        self._place(device)
        self._frame.check()
        self._here.run, self._here.asked_scale, self._here.asked_input = None, False, False
        if self._here.call is not None:
            self._here.call.outputs.clear()

    def check_numbers(self, timesteps: Numbers | None, sigmas: Numbers | None) -> None:
        """Raises ValueError where these are not the plan's."""
        if timesteps is not None and not close(timesteps, self._frame.times()):
            raise ValueError("the plan has its own timesteps: leave timesteps out")
        if sigmas is not None and not any(close(sigmas, each) for each in (self._frame.levels()[:-1], [n.sigma for n in self.plan.nodes])):
            raise ValueError(
                "the plan has its own noise levels: leave sigmas out, or scheduler.attach(pipe) where the pipeline passes its own"
            )

    def _place(self, device: str | torch.device | None) -> None:
        self._frame = Frame(self.plan, self.stock)
        times = self._frame.times()
        whole = all(t.is_integer() for t in times)
        self.timesteps = torch.tensor(times, dtype=torch.int64 if whole else torch.float32, device=device)
        self.sigmas = torch.tensor(self._frame.levels(), device=device)

    def _start_scale(self) -> float:
        return self.plan.rows[0].x * self._frame.scale(0)

    @property
    def init_noise_sigma(self) -> float:
        """By what pipelines scale unit noise; DDPM, DiT, SD3 and Flux never ask, so it is noted whether this one did.

        1 where the scheduler is attached: then the noise is scaled in every pipeline, and without rounding it.
        """
        self._here.asked_scale = True
        return self._start_scale() if self._here.call is None else 1.0

    @property
    def step_index(self) -> int:
        """How many evaluations of this sampling are done."""
        return self._here.run.i if self._here.run else 0

    begin_index = 0

    @property
    def _step_index(self) -> int:
        raise ValueError("the pipeline sets its scheduler back and takes each step twice (Cosmos 1), which a plan cannot: use a stock one")

    def set_begin_index(self, begin_index: int = 0) -> None:
        if begin_index:
            raise ValueError(_MIDDLE)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Any) -> Tensor:
        """A picture at the plan's start, whatever the time. Raises ValueError where the plan starts from noise."""
        if self.plan.start is None:
            raise ValueError(_MIDDLE)
        if self._here.call is None or self._here.run is not None:
            raise ValueError(_CHANGED if self._here.run else f"the plan starts from noised pictures: {_ATTACH}")
        self._here.call.noised = True
        return self.plan.start.noised(original_samples, noise)

    def scale_noise(self, sample: Tensor, timestep: Any, noise: Tensor) -> Tensor:
        """As `add_noise`, for flow models."""
        return self.add_noise(sample, noise, timestep)

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        here = self._here
        here.asked_input = True
        held = here.run or (here.call and here.call.start())
        if self._frame.divides and held and sample.shape[1:] == held.given.shape[1:]:
            copies = len(sample) // len(held.given)
            if copies and torch.equal(sample, torch.cat([held.given] * copies)):  # rounded once, not in the pipeline's frame and again here
                return torch.cat([held.x.to(sample.dtype)] * (len(sample) // len(held.x)))
        return self._frame.network_input(sample, self.step_index)

    def step(
        self, model_output: Tensor, timestep: float | Tensor, sample: Tensor, generator: Generators = None, return_dict: bool = True,
        eta: float = 0.0, **others: Any,
    ) -> DDPMSchedulerOutput | tuple[Tensor, Tensor]:  # fmt: skip
        """The next state, and the data prediction of this step; at the last step both are the plan's result.

        generator draws the fresh noises of a stochastic plan. Raises ValueError for what would change the sampling (eta, noise given).
        """
        for name, value in {"eta": eta, **others}.items():
            if value is not None and not (isinstance(value, bool | int | float) and not value):
                raise ValueError(f"a plan steps by its own table, without {name} of its step: leave it out, or use a stock scheduler")
        here, output = self._here, without_variance(model_output, sample.shape[1])
        if output.shape != sample.shape:
            raise ValueError(f"the pipeline hands on an output of shape {tuple(output.shape)} for latents of {tuple(sample.shape)}")
        if here.run is None:
            here.run = self._start(sample, output, timestep, generator)
        elif here.run.done:
            raise ValueError(f"all {self.plan.nfe} steps of the plan are done: call set_timesteps before the next sampling")
        elif not here.run.is_at(sample):
            raise ValueError(_CHANGED)
        if (self._frame.divides or self._frame.edm) and not here.asked_input:
            raise ValueError("the pipeline does not have its scheduler scale the network's input, which the model's own asks for")
        here.asked_input = False
        run = here.run
        run.send(self._data_predictions(run, run.one(output), run.one(sample)))
        state = run.x if (scale := self._frame.scale(run.i)) == 1 else run.x * scale
        x, prediction = (torch.cat([each.to(sample.dtype)] * run.copies) for each in (state, run.prediction))
        run.given = x.clone()  # pipelines write into their latents
        return DDPMSchedulerOutput(prev_sample=x, pred_original_sample=prediction) if return_dict else (x, prediction)

    def _start(self, sample: Tensor, output: Tensor, timestep: float | Tensor, generator: Generators) -> "SamplingRun":
        told, first = float(torch.as_tensor(timestep).flatten()[0]), float(self.timesteps[0])
        if not isclose(told, first, rel_tol=0.01, abs_tol=1e-6):  # some pipelines round it to half precision
            raise ValueError(_MIDDLE)
        halves = sample.chunk(2), output.chunk(2)
        doubled = len(sample) % 2 == 0 and all(torch.equal(*each) for each in halves)  # as DiT keeps its latents
        noise, scale = sample[: len(sample) // (1 + doubled)], self._start_scale()
        noise = noise.to(torch.promote_types(sample.dtype, torch.float32), copy=True)
        if self._here.call is not None:
            noise = self._here.call.unscaled(noise)
        elif scale != 1:
            if not self._here.asked_scale:
                raise ValueError(
                    f"the plan starts from noise times {scale:g}, but this pipeline does not scale its noise: "
                    "call pipe(..., **scheduler.attach(pipe))"
                )
            noise /= scale
        asked = caller(self)
        size = (asked["height"], asked["width"]) if asked.get("height") and asked.get("width") else None
        return SamplingRun(self.plan, noise, generator, sample, 1 + doubled, size)

    def _data_predictions(self, run: "SamplingRun", output: Tensor, sample: Tensor) -> Output:
        """What the runtime is sent: the data prediction at the node's guidance, with the guidance difference where rows use it."""
        output, difference = output.to(run.x.dtype), None
        if self._here.call is not None:
            output, difference = self._here.call.guided(output, sample, run.node.guidance, run.i)
        data = self._frame.data(run.x, output, run.node)
        if not self.plan.tableau.split:
            return data
        assert difference is not None  # it is attached, and such plans get no other
        return data, self._frame.data(torch.zeros_like(run.x), difference, run.node)

    # The pipeline it is used in --------------------------------------------------------------------------------------

    def attach(self, pipe: Any, variants: Mapping[str, nn.Module] | None = None, **told: float) -> dict[str, Any]:
        """Puts the scheduler into a pipeline, and returns the arguments to call it with: the number of steps and the guidance scale.

        From then on the scheduler sees the outputs of the pipeline's network in the calls of this pipeline, and guides on its own, by the
        scale of each node; the pipeline's scale only makes it run both. Calling it again changes nothing; `detach` undoes it.
        variants are the networks, by name, that a plan calls besides the pipeline's own; blocks that it leaves out need none.
        told are further arguments, such as the guidance_scale that a network is told which it was distilled into, where the plan does not
        say it. Raises ValueError for a pipeline that cannot take the plan: of another model, without a scheduler, without guidance.
        """
        if not hasattr(pipe, "scheduler"):
            raise ValueError(f"{type(pipe).__name__} has no scheduler of its own: attach the plan to the pipeline inside it that samples")
        before = pipe.scheduler
        if before is self:
            before = self._attached.before if self._attached is not None else None
        else:
            self.detach()
            if isinstance(before, PlanScheduler):
                before.detach()
                before = pipe.scheduler
        own = before.stock if isinstance(before, PlanScheduler) else before
        if own is not None:
            check_stock(self.plan, own)
        attachment = Attachment(pipe, self, told, variants or {})
        if own is not None:
            self._take(own)
        self.detach()
        attachment.do(before)
        self._attached = attachment
        return dict(attachment.arguments)

    def detach(self) -> None:
        """Leaves the pipeline, which gets back the scheduler that it had."""
        if self._attached is not None:
            self._attached.undo()
        self._attached = None
