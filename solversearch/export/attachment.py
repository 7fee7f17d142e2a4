"""A plan's scheduler in the calls of one pipeline: what its network returns before the pipeline combines it, and the noise it starts from.

Pipelines of diffusers guide on their own and hand the scheduler one output. Most make it k (u + w (c - u)), with k = -1 where the network
predicts with the other sign, and some add a multiple of the state; they run c and u in one batch or in two calls, in either order. A plan
whose guidance changes from node to node, or whose guidance difference has coefficients of its own, needs c and u: so k, w and the order
are fitted to what the pipeline made of them. What is guided otherwise (renormalised, by three outputs) is taken as it comes, for plans of
one guidance scale, in the pipeline that they were made for.
"""

import functools
import inspect
import re
import threading
from collections.abc import Callable, Mapping
from functools import partial
from math import isclose
from typing import Any, NamedTuple
from weakref import ref

import torch
from torch import Tensor, nn

from solversearch.export.combination import combination
from solversearch.export.single_calls import Order, half, half_features, whole, whole_features
from solversearch.overriding import Cached, Features, Override, Passes, left_out, remembering
from solversearch.pipeline_facts import facts_of

_NETWORK = re.compile(r"(unet|transformer)(_\d)?$")
_PREPARE = ("prepare_latents", "prepare_intermediate_images")
_GUIDING = re.compile("(?!control_|.*guidance_scale$).*(guid|cfg|pag|rescale|skip|normali)")
"""Arguments that change how a pipeline guides; other scales of its own, such as a picture's, are conditions like any other."""
_NEAR = 0.05
"""How far a fitted scale may be off, relative."""
_OTHERWISE = (
    "the pipeline changes the network's outputs in other ways than by plain guidance (guidance_rescale, perturbed attention or skipped "
    "layers?), for which the plan was not made: turn that off"
)


class Attachment:
    """A pipeline that samples with the given scheduler (a `PlanScheduler`), from `do` to `undo`.

    Meanwhile the object's class is one of the same name that opens a `PipelineCall` around ``__call__``: nothing is left on the network,
    which other pipelines may share. ``arguments`` are what the plan fixes of the call.
    """

    def __init__(self, pipe: Any, scheduler: Any, told: dict[str, float], variants: Mapping[str, nn.Module]) -> None:
        self.kind: Any = next(each for each in type(pipe).__mro__ if not hasattr(each, "plan_is_attached"))
        self.pipe: Any = ref(pipe)
        if not self.networks():
            raise ValueError(f"{self.kind.__name__} has neither a unet nor a transformer: pass the scheduler to a pipeline that has one")
        self.signature = inspect.signature(self.kind.__call__)
        if "num_inference_steps" not in self.signature.parameters:
            raise ValueError(f"{self.kind.__name__} cannot be called with a number of steps, so it cannot take a plan's")
        self.scheduler, self.plan = scheduler, scheduler.plan
        self.variants, self.skips, self.cached = dict(variants), *self._skips(variants)
        self.guided = self.plan.network_calls > self.plan.nfe
        self.scale = self.plan.guidance if self.plan.guidance > 1 or not self.guided else 2.0  # at which pipelines do guide
        self.made_for, _, said = facts_of(self.plan.decisions)
        self.told = self._told({**said, **self._strength(told), **told})
        guidance = self._guidance()
        # Where the plan has no part in it: as the model was searched with, or by no argument at all.
        self.guides_itself = not guidance or any(name in self.told for name in guidance)
        self.arguments = {"num_inference_steps": self.plan.nfe, **guidance, **self.told}
        self.before: Any = None
        self.lock = threading.Lock()  # one call after the other: tokenizers and pipelines keep what they are doing on themselves

    def networks(self) -> dict[str, nn.Module]:
        """As the pipeline has them now, by the names of its components."""
        return {name: part for name, part in self.pipe().components.items() if _NETWORK.match(name) and isinstance(part, nn.Module)}

    def _skips(
        self, variants: Mapping[str, nn.Module]
    ) -> tuple[dict[tuple[str, str], dict[str, Passes | None]], dict[str, dict[str, Cached]]]:  # fmt: skip
        """By variants and networks of the pipeline, the blocks that are left out; by networks those whose features are kept."""
        found: dict[tuple[str, str], dict[str, Passes | None]] = {}
        cached: dict[str, dict[str, Cached]] = {}
        for name, variant in self.plan.variants.items():
            if not variant.skips and name not in variants:
                raise ValueError(
                    f"the plan calls another network for some evaluations: scheduler.attach(pipe, variants={{{name!r}: it}}), such as the "
                    "transformer or unet of another pipeline"
                )
            for skip in variant.skips:
                part, _, block = skip.partition(".")
                network = self.networks().get(part)
                if network is None or block not in dict(network.named_modules()):
                    raise ValueError(f"the plan leaves out {skip} of its network, which {self.kind.__name__} does not have")
                found.setdefault((name, part), {})[block] = None
                if variant.reuses_features:
                    cached.setdefault(part, {})[block] = Cached(block)
        return found, cached

    def _strength(self, told: Mapping[str, float]) -> dict[str, Any]:
        """What image-to-image pipelines are told, which has no other part in the sampling: the plan has its own start."""
        if self.plan.start is None:
            return {}
        prepares = "strength" in self.signature.parameters and any(hasattr(self.kind, name) for name in _PREPARE)
        timesteps = getattr(self.kind, "get_timesteps", None)
        if not prepares or timesteps is None or "sigmas" in inspect.signature(timesteps).parameters:
            raise ValueError(f"the plan starts from noised pictures, and {self.kind.__name__} does not, as image-to-image pipelines do")
        strength = told.get("strength", self.plan.decisions.get("start"))
        if strength is None:
            raise ValueError("the plan starts from noised pictures and does not say at what strength: scheduler.attach(pipe, strength=...)")
        return {"strength": strength}

    def _distilled(self) -> bool:
        """Whether the network is told a guidance scale."""
        configs = [getattr(part, "config", {}) for part in self.networks().values()]
        embeds = hasattr(self.kind, "get_guidance_scale_embedding")  # others tell their network something else there
        return any(config.get("guidance_embeds") or (embeds and config.get("time_cond_proj_dim") is not None) for config in configs)

    def _told(self, said: dict[str, Any]) -> dict[str, Any]:
        for name in said:
            if name not in self.signature.parameters:
                raise ValueError(f"{self.kind.__name__} takes no {name}, which the plan was made with: it is for another pipeline")
        asked = self._distilled() and "guidance_scale" in self.signature.parameters and self.plan.provenance.model_digest
        if asked and "guidance_scale" not in said:
            raise ValueError(
                "the network is told a guidance scale that was distilled into it, and the plan does not say which it was made with: "
                "pass it, scheduler.attach(pipe, guidance_scale=...)"
            )
        return said

    def _guidance(self) -> dict[str, float]:
        """The scale of guidance by two network calls; guidance_scale of a distilled network is what it is told, and not meant."""
        names = ("true_cfg_scale",) if self._distilled() else ("true_cfg_scale", "guidance_scale")
        name = next((name for name in names if name in self.signature.parameters), None)
        if name is None and self.guided:
            raise ValueError(f"the plan guides, but {self.kind.__name__} has no guidance: make a plan with --guidance 1")
        return {name: self.scale if self.guided else 1.0} if name else {}

    # The pipeline's class --------------------------------------------------------------------------------------------

    def do(self, before: Any) -> None:
        """before is the scheduler that the pipeline gets back."""
        pipe = self.pipe()
        self.before = before
        pipe.scheduler = self.scheduler
        names = [name for name in _PREPARE if hasattr(self.kind, name)]
        methods = {name: self._preparing(getattr(self.kind, name)) for name in names}
        if self.plan.start is not None:
            methods["get_timesteps"] = self._timing(self.kind.get_timesteps)
        about = {name: getattr(self.kind, name) for name in ("__module__", "__qualname__", "__doc__")}
        members = {**about, **methods, "__call__": self._calling(not names), "plan_is_attached": True}
        pipe.__class__ = type(self.kind.__name__, (self.kind,), members)

    def undo(self) -> None:
        pipe = self.pipe()
        if pipe is None:
            return
        pipe.__class__ = self.kind
        if pipe.scheduler is self.scheduler and self.before is not None:
            pipe.scheduler = self.before

    def _calling(self, at_network: bool) -> Any:
        inner = self.kind.__call__

        @functools.wraps(inner)
        def call(pipe: Any, *args: Any, **kwargs: Any) -> Any:
            if pipe is not self.pipe() or pipe.scheduler is not self.scheduler:  # another one of this class, or another scheduler
                return inner(pipe, *args, **kwargs)
            here = self.scheduler._here
            if here.call is not None:
                raise ValueError("another sampling of this pipeline is going on in this thread: let a callback use a pipeline of its own")
            bound = self.signature.bind(pipe, *args, **kwargs)
            bound.apply_defaults()
            changed = self._check(bound.arguments)
            with self.lock:
                here.call = PipelineCall(self, changed)
                handles = here.call.hooks(at_network)
                try:
                    return inner(pipe, *args, **kwargs)
                finally:
                    here.call = here.run = None
                    for handle in handles:
                        handle.remove()

        return call

    def _check(self, given: dict[str, Any]) -> list[str]:
        """Raises ValueError where the plan fixes an argument; returns those by which the person changed how the pipeline guides."""
        numbers = given.get("timesteps"), given.get("sigmas")
        if numbers == (None, None) and given["num_inference_steps"] != self.plan.nfe:
            raise ValueError(steps_differ(self.plan.nfe, given["num_inference_steps"]))
        self.scheduler.check_numbers(*numbers)
        for name, value in self.arguments.items():
            if (
                name == "num_inference_steps"
                or given[name] == value
                or (isinstance(given[name], float | int) and isclose(given[name], value))
            ):
                continue
            what = "tells its network a guidance of" if name in self.told else "guides with"
            what = "has a strength of" if name == "strength" else what
            raise ValueError(
                f"the pipeline {what} {_short(given[name])}, but the plan was made for {_short(value)}: call it with {self.arguments}"
            )
        known, unused = self.signature.parameters, {"guidance_scale"} if "true_cfg_scale" in self.arguments else set()
        names = [name for name in known if _GUIDING.match(name) and name not in {*self.arguments, *unused}]
        return [name for name in names if given[name] is not known[name].default]

    def _preparing(self, inner: Any) -> Any:
        @functools.wraps(inner)
        def prepare(pipe: Any, *args: Any, **kwargs: Any) -> Any:
            prepared, call = inner(pipe, *args, **kwargs), self.scheduler._here.call
            if call is None or pipe is not self.pipe():
                return prepared
            call.check_picture()
            if isinstance(prepared, tuple):
                return (call.scaled(prepared[0]), *prepared[1:])
            return call.scaled(prepared)

        return prepare

    def _timing(self, inner: Any) -> Any:
        """All times are the plan's, which begin at its start."""

        @functools.wraps(inner)
        def get_timesteps(pipe: Any, *args: Any, **kwargs: Any) -> Any:
            if self.scheduler._here.call is None or pipe is not self.pipe():
                return inner(pipe, *args, **kwargs)
            return self.scheduler.timesteps, self.plan.nfe

        return get_timesteps


class Latents(NamedTuple):
    """The pipeline's latents before the first step, and the plan's."""

    given: Tensor
    x: Tensor


class PipelineCall:
    """One call of the pipeline, in the thread that makes it. changed are arguments by which the person changed how it guides."""

    def __init__(self, attachment: Attachment, changed: list[str]) -> None:
        self.attachment, self.changed = attachment, changed
        self.here = attachment.scheduler._here
        self.outputs: list[Tensor] = []
        self.noise: tuple[Tensor, Tensor] | None = None
        self.noised = False
        """Whether the scheduler was given a picture to add noise to."""
        self.at_network = False
        self.order: Order | None = None
        self.last: list[Any] = []
        """What the network's calls of one evaluation returned, and how c and u are among them, when that is known."""
        self.left: dict[tuple[str, int], Features] = {}
        """By the network's name and the number of its call in an evaluation, the features that its blocks have left."""

    def hooks(self, at_network: bool) -> list[Any]:
        """On the network for this call; at_network is for pipelines that prepare no latents: then its first input is scaled."""
        self.at_network = at_network
        networks = list(self.attachment.networks().values())
        handles: list[Any] = [network.register_forward_hook(self._after) for network in networks]
        if self.attachment.plan.tableau.cheaper:
            handles += [Override(network, partial(self._asked, name)) for name, network in self.attachment.networks().items()]
        if at_network:
            handles += [network.register_forward_pre_hook(self._before, with_kwargs=True) for network in networks]
        return handles

    # The noise -------------------------------------------------------------------------------------------------------

    @property
    def scale(self) -> float:
        return float(self.attachment.scheduler._start_scale())

    def scaled(self, noise: Any) -> Any:
        """The pipeline's latents, unit noise, as the plan starts; the noise is kept, unrounded."""
        if self.scale == 1 or not isinstance(noise, Tensor):
            return noise
        scaled = _times(noise, self.scale)
        self.noise = noise, scaled
        return scaled

    def check_picture(self) -> None:
        """Raises ValueError where the plan starts from a noised picture, and the pipeline has prepared none."""
        if self.attachment.plan.start is not None and not self.noised:
            raise ValueError(
                "the plan starts from a picture that its scheduler adds noise to: give the pipeline an image, and no latents; a pipeline "
                "that adds the noise in another way cannot take the plan"
            )

    def start(self) -> Latents | None:
        return None if self.noise is None else Latents(self.noise[1], self.noise[0].float() * self.attachment.plan.rows[0].x)

    def unscaled(self, start: Tensor) -> Tensor:
        """The noise behind the state of the first step, or the noised picture."""
        self.check_picture()
        if self.scale == 1 or self.at_network:
            return start
        if self.noise is None or self.noise[0].numel() != start.numel():
            raise ValueError(
                f"the plan starts from noise times {self.scale:g}, but this pipeline keeps pictures among its latents, or prepares them in "
                "ways of its own: it cannot take this plan"
            )
        noise, scaled = (each.reshape(start.shape).to(start) for each in self.noise)
        return noise.clone() if torch.equal(scaled, start) else start / self.scale

    def _before(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self.scale == 1 or self.here.call is not self or self.here.run is not None:
            return None
        if args:
            return (_times(args[0], self.scale), *args[1:]), kwargs
        name = "hidden_states" if "hidden_states" in kwargs else "sample"
        return args, kwargs | {name: _times(kwargs[name], self.scale)}

    # The outputs -----------------------------------------------------------------------------------------------------

    def _asked(self, part: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The answer of the network, or of the variant that the plan calls in its place; at evaluations that reuse, what it returns
        without the condition is what it returned last."""
        if self.here.call is not self:
            return forward(*args, **kwargs)
        node = self.attachment.plan.nodes[self.here.run.i if self.here.run else 0]
        number, order, ask = len(self.outputs), self.order, partial(self._called, part, node.variant, forward)
        left = self.left.get((part, number), {})
        if order is None or not node.reuses:
            del self.last[number:]
            output, self.left[part, number] = ask(left, *args, **kwargs)
            self.last.append(output)
            return output
        if order.is_other(number):
            return self.last[number]
        if not order.rows:
            output, self.left[part, number] = ask(left, *args, **kwargs)
            return output
        given, features = ask(half_features(left, order), *half(args, order), **half(kwargs, order))
        self.left[part, number] = whole_features(left, features, order)
        return whole(self.last[0], given, order)

    def _called(
        self, part: str, variant: str, forward: Callable[..., Any], left: Features, *args: Any, **kwargs: Any
    ) -> tuple[Any, Features]:  # fmt: skip
        """With the features that are left after it."""
        attachment = self.attachment
        if variant in attachment.variants:
            return attachment.variants[variant](*args, **kwargs), left
        network, skips = attachment.networks()[part], attachment.skips.get((variant, part), {})
        reuses = bool(variant) and attachment.plan.variants[variant].reuses_features
        with (
            remembering(network, attachment.cached.get(part, {}).values(), skips if reuses else (), left) as kept,
            left_out(network, {} if reuses else skips),
        ):
            output = forward(*args, **kwargs)
        return output, {**left, **{name: calls for name, calls in kept.items() if calls}}

    def _after(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        if self.here.call is not self:
            return  # another thread's
        first = output if isinstance(output, Tensor) else output[0]
        if isinstance(first, list | tuple):
            first = torch.stack(tuple(first)) if len({each.shape for each in first}) == 1 else None
        if isinstance(first, Tensor):
            self.outputs.append(first)

    def guided(self, combined: Tensor, sample: Tensor, guidance: float, i: int) -> tuple[Tensor, Tensor | None]:
        """The output at that guidance, and k (c - u), which is None where it is not known and not needed; one entry a sample.

        combined is what the pipeline made of its outputs at evaluation i, for the state sample. Raises ValueError where it is not what
        the plan was made for.
        """
        outputs, self.outputs = self.outputs, []
        plan, guided = self.attachment.plan, self.attachment.guided
        single = not plan.tableau.split and all(node.guidance == plan.nodes[0].guidance for node in plan.nodes)
        rows = sum(map(len, outputs))
        if not outputs and guided:
            raise ValueError("the pipeline calls its network past its hooks, so the plan cannot see what it returns: use a stock scheduler")
        if guided and rows == len(combined):
            raise ValueError(
                f"the plan guides, but at evaluation {i} the pipeline ran its network without the condition or without its opposite: call "
                f"it with {self.attachment.arguments}, without a callback that ends guidance early, and with a negative_prompt where it "
                "guides by that (Flux, Qwen-Image)"
            )
        plain = combination(outputs, combined, sample) if rows == 2 * len(combined) and not self.attachment.guides_itself else None
        if plain is not None:
            self.order = Order(rows if len(outputs) == 1 else 0, plain.first)
        if plain is not None and single and guided and guidance > 1:
            # Taken as it comes: some take the plan's scale for c + g (c - u).
            far = plain.w - guidance if plain.shows else 0.0
            if abs(far) < _NEAR * guidance:
                return combined, None
            if abs(far - 1) < _NEAR * (guidance + 1):
                return combined - plain.difference, None
        elif plain is not None:
            return plain.at(guidance if guided else 1.0, combined), plain.difference
        made_for, kind = self.attachment.made_for, self.attachment.kind.__name__
        if not single or (guided and guidance <= 1) or (rows > len(combined) and (self.changed or made_for not in ("", kind))):
            raise ValueError(_OTHERWISE + (f" ({', '.join(self.changed)})" if self.changed else ""))
        return combined, None


def steps_differ(steps: int, asked: int | None) -> str:
    return f"the plan has {steps} steps, not {asked}: pass num_inference_steps={steps}"


def without_variance(output: Tensor, channels: int) -> Tensor:
    """The prediction of a network that also learned a variance, in twice the channels; others are left as they are."""
    return output[:, :channels] if output.ndim > 1 and output.shape[1] == 2 * channels else output


def _times(x: Tensor, scale: float) -> Tensor:
    return (x.float() * scale).to(x.dtype)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float | int) else str(value)
