"""What every model adapter supplies, and the denoiser that runs it: batches, guidance, data prediction, time spent."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from solversearch.errors import Halted, UserError, blaming
from solversearch.judging.distances import Moments, Reference
from solversearch.models.digest import Identified
from solversearch.overriding import Cached, Features, remembering
from solversearch.runtime import Node, Start
from solversearch.schedules import NoiseSchedule, data_prediction

Network = Callable[..., Tensor]
STEP = 1e-5
"""Of the range of times, for the slope of a beta."""


@dataclass(frozen=True)
class Variant:
    """A cheaper stand-in for a model's network, with the same arguments: of fewer layers or bits, or another one of the same latents.

    cost is what a call takes of the time that the model's own takes. digest tells it from others of its name; skips are the blocks that it
    leaves out of the model's own network, see `skipping`. reuses are the same blocks where their last features are taken in place of
    running them; then the network is the model's own, which the denoiser makes do with them.
    """

    network: Network
    cost: float
    digest: str = ""
    skips: tuple[str, ...] = ()
    reuses: tuple[Cached, ...] = ()


@dataclass(frozen=True)
class Model(Identified):
    """A pretrained network with what is needed to sample it.

    network(x, t, condition) maps x of shape (B, *shape), t (B,) in the schedule's units and condition (B, ...),
    absent for unconditional models, to a prediction of shape (B, *shape). t is in single precision where dtype is half: bfloat16
    does not tell 999 from 1000.
    conditions holds one condition a row, shape (C, ...); null_condition, shape (...), is the one guidance leads away from.
    features maps samples (B, *shape) to (B, F), and looks names what it looks at, where that is not the model's own; data gives real
    samples (M, *shape), reference the features of other real images; images gives pictures (B, H, W[, 3]) in [0, 1].
    guidance is the scale that the model is usually sampled at. clip bounds data predictions to [-clip, clip], for pixel models that are
    sampled so. conditioning is a digest of what the conditions stand for, where they are numbers of prompts and not the prompts themselves:
    another one needs another teacher, but not another plan.
    weights is a digest of the network's weights where it is known from their files, in whatever precision they were loaded, or of the
    source of a plain function.
    disjoint gives every split of the noise conditions of its own, every third each: for prompts, of which held-out samples shall have
    new ones. Otherwise all conditions are drawn in every split, as the few classes of a class-conditional model.
    facts are what plans for it remember of its pipeline, see `pipeline_facts`.
    lacks says what a search cannot do with it, and why. variants are cheaper stand-ins for the network, by name.
    anchor gives what samples are drawn towards, y (B, *shape), under conditions (B, ...), where the schedule has a beta: the network sees
    x = alpha x0 + beta y + sigma noise. All else, states of a denoiser too, is of x - beta y. It is called for every batch of a search.
    whole is the model that samples from noise, where this one starts from noised pictures (`started`).
    pad fills network batches up to a multiple of it. Processors round a few rows, or the last of many, differently; with
    64, small networks on a CPU give every sample the same result bit for bit, whatever batch it was in.
    """

    name: str
    network: Network
    schedule: NoiseSchedule
    prediction_type: str
    shape: tuple[int, ...]
    conditions: Tensor | None = None
    null_condition: Tensor | None = None
    features: Callable[[Tensor], Tensor] | None = None
    data: Callable[[], Tensor] | None = None
    images: Callable[[Tensor], Tensor] | None = None
    reference: Callable[[], Reference] | None = None
    looks: str = ""
    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    guidance: float = 1.0
    clip: float | None = None
    conditioning: str = ""
    disjoint: bool = False
    pad: int = 1
    weights: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    lacks: str = ""
    variants: Mapping[str, Variant] = field(default_factory=dict)
    anchor: Callable[[Tensor], Tensor] | None = None
    whole: "Model | None" = None

    def started(self, start: Start | None) -> "Model":
        """The same model, sampled from pictures that are noised up to the start's time, or for None from noise."""
        whole = self.whole or self
        if start == self.start:
            return self
        return whole if start is None else replace(self, schedule=whole.schedule.started(start), whole=whole)

    @property
    def start(self) -> Start | None:
        return None if self.whole is None else self.schedule.start_at(self.schedule.t_start)

    @cached_property
    def real(self) -> Reference | None:
        """What the features of real images look like: the reference's, else those of the data, where there are any."""
        if self.features is None:
            return None
        if self.reference is not None:
            return self.reference()
        return None if self.data is None else Reference(Moments.of(self.features(self.data().clone()).cpu()))


@dataclass
class Clock:
    """Seconds spent inside the network, and samples it evaluated (guidance counts twice)."""

    seconds: float = 0.0
    evaluations: int = 0


class NotFinite(UserError):
    """The network returned a number that is not finite: fatal for a sample, a failed candidate in a search."""


TensorOutput = Tensor | tuple[Tensor, Tensor]
Request = tuple[Tensor, Node]
"""Samples (B, *shape) that want to be evaluated at a node."""


class Part(NamedTuple):
    """So many samples that were in one network call, and the features that its blocks have left."""

    size: int
    features: Features


_FITTED: dict[tuple[str, tuple[int, ...]], int] = {}
"""By the name and shape of a model, the batch that its network has room for, where a larger one ran out of memory."""


class Denoiser:
    """The data prediction of a model for samples with the given conditions, as `runtime.run` calls it.

    conditions has one row a sample, shape (B, ...), or is None for unconditional models. With ``split`` the conditional minus the
    unconditional data prediction is returned as well, but where a node reuses; `Model.clip` bounds the prediction alone. No network
    call has more than batch_size samples (filled up to `Model.pad`); where memory runs out the batch is halved, for all that follows.
    Raises `NotFinite` where the network returns NaN or inf for a sample; a lenient one returns NaN for that sample from then on, unless
    none is left. checkpointing keeps no activations for a gradient, but makes them again.

    Where the model has an anchor, samples are given without their share of it, but at nodes that have a beta: those of a plan, whose
    runtime has added it.

    Nodes whose variant reuses features are for one sampling run, and a denoiser of its own (`anew`).
    """

    def __init__(
        self, model: Model, conditions: Tensor | None, batch_size: int = 512, split: bool = False, clock: Clock | None = None,
        lenient: bool = False, checkpointing: bool = False,
    ):  # fmt: skip
        self.model, self.conditions, self.split, self.lenient, self.checkpointing = model, conditions, split, lenient, checkpointing
        self.asked = model.filled(batch_size)
        with torch.no_grad():
            self.anchor = None if model.anchor is None or conditions is None else model.anchor(conditions).float()
        self.clock = clock or Clock()
        self.cached: dict[str, Cached] = {}
        self.left: dict[tuple[int, bool], list[Part]] = {}
        """By the run, and whether under the conditions: what blocks have left."""

    def anew(self, nodes: Iterable[Node]) -> Self:
        """The same denoiser for a sampling run through these nodes, which remembers the features that they reuse. Of several runs, see
        `together`."""
        other, variants = copy(self), (self.model.variants.get(node.variant) for node in nodes)
        other.cached = {block.name: block for variant in variants if variant for block in variant.reuses}
        other.left = {}
        return other

    @property
    def batch_size(self) -> int:
        return min(self.asked, _FITTED.get((self.model.name, self.model.shape), self.asked))

    def __call__(self, x: Tensor, node: Node) -> TensorOutput:
        (output,) = self.together([(x, node)])
        if isinstance(output, NotFinite):
            raise output
        return output

    def together(self, requests: Sequence[Request], runs: Sequence[int] | None = None) -> list[TensorOutput | NotFinite]:
        """Several evaluations, of all samples each, in joint network calls; one that is not finite fails alone. runs are the numbers of
        the sampling runs that ask for them, where they are not their places."""
        runs = range(len(requests)) if runs is None else runs
        guided = [k for k, (_, node) in enumerate(requests) if node.guidance != 1 or (self.split and not node.reuses)]
        null, free = self.model.null_condition, {}
        if guided and null is None:
            raise UserError(f"model {self.model.name!r} has no null condition, so guidance is not possible; use guidance 1")
        start = time.perf_counter()
        requests = [(x if node.beta is None else x - self._pull(x, node), node) for x, node in requests]
        conditional = self._predict(requests, self.conditions, [(run, True) for run in runs])
        if guided:
            assert self.conditions is not None and null is not None
            unconditional = self._predict(
                [requests[k] for k in guided], null.expand_as(self.conditions), [(runs[k], False) for k in guided]
            )
            free = dict(zip(guided, unconditional, strict=True))
        outputs = [self._output(x, node, conditional[k], free.get(k)) for k, (x, node) in enumerate(requests)]
        self.clock.seconds += time.perf_counter() - start
        return outputs

    def _output(self, x: Tensor, node: Node, prediction: Tensor, unconditional: Tensor | None) -> TensorOutput | NotFinite:
        difference = None
        if unconditional is not None:
            difference = prediction - unconditional
            prediction = unconditional + node.guidance * difference
        fine = torch.isfinite(prediction)
        if self.lenient:
            fine = (fine & torch.isfinite(x)).flatten(1).all(1)
            prediction = prediction.where(fine.view(-1, *[1] * (x.ndim - 1)), torch.nan)
        if not (fine.any() if self.lenient else fine.all()):
            at = float(torch.as_tensor(node.t).detach().flatten()[0])  # times may be given one a sample
            return NotFinite(f"the network of {self.model.name!r} returned NaN or inf at t = {at:g}; check its weights and dtype")
        if self.model.clip is not None:
            prediction = prediction.clip(-self.model.clip, self.model.clip)
        return (prediction, difference) if self.split and difference is not None else prediction

    def _predict(self, requests: Sequence[Request], conditions: Tensor | None, runs: Sequence[tuple[int, bool]]) -> list[Tensor]:
        """Data predictions in the dtype of x, for every sample under its condition."""
        groups: dict[Any, list[int]] = {}  # of one network call, that may leave features of one run
        for k, (_, node) in enumerate(requests):
            groups.setdefault((node.variant, runs[k] if self.cached else None), []).append(k)
        found: dict[int, Tensor] = {}
        for _, own in sorted(groups.items(), key=lambda group: group[0][0]):
            found |= zip(own, self._predicted([requests[k] for k in own], conditions, runs[own[0]]), strict=True)
        return [found[k] for k in range(len(requests))]

    def _predicted(self, requests: Sequence[Request], conditions: Tensor | None, run: tuple[int, bool]) -> list[Tensor]:
        """Those of one variant."""
        model = self.model
        told = [torch.as_tensor(node.t, dtype=model.time_dtype, device=x.device).expand(len(x)) for x, node in requests]
        repeated = None if conditions is None else _joined([conditions] * len(requests))
        seen = [x if self.anchor is None else x + self._pull(x, node) for x, node in requests]
        output, predictions = self._run(_joined(seen), _joined(told), repeated, requests[0][1].variant, run), []
        for (x, node), each in zip(requests, torch.split(output, [len(x) for x, _ in requests]), strict=True):
            a, b = data_prediction(model.prediction_type, node.alpha, node.sigma)
            predictions.append(b * each if isinstance(a, float) and a == 0 else a * x + b * each)
        return predictions

    def _pull(self, x: Tensor, node: Node) -> Tensor | float:
        """The anchor's share of a state, by the node's beta or that of its time, which may be one a sample and carry a gradient."""
        if self.anchor is None:
            raise UserError(f"the plan's nodes have a beta, but model {self.model.name!r} has no anchor")
        if node.beta is not None or not isinstance(node.t, Tensor):
            return (float(self.model.schedule.beta(node.t)) if node.beta is None else node.beta) * self.anchor
        schedule, t = self.model.schedule, node.t.detach().cpu().double().numpy()
        step = STEP * (schedule.t_start - schedule.t_end)
        high, low = (np.clip(t + h, schedule.t_end, schedule.t_start) for h in (step, -step))
        slope = (schedule.beta(high) - schedule.beta(low)) / (high - low)
        beta, slope = (torch.as_tensor(each).to(x) for each in (schedule.beta(t), slope))
        return (beta + slope * (node.t - node.t.detach())).view(-1, *[1] * (x.ndim - 1)) * self.anchor

    def _run(self, x: Tensor, t: Tensor, conditions: Tensor | None, variant: str, run: tuple[int, bool]) -> Tensor:
        """The network's output for every row, in batches; where features are reused, in those that have left them."""
        last = self.left.get(run, []) if variant else []  # the model's own network runs every block
        if last and sum(part.size for part in last) != len(x):
            raise UserError("the denoiser has the features of another sampling run: make one for each, denoise.anew(nodes)")
        parts: list[Tensor] = []
        left: list[Part] = []
        done = 0
        while done < len(x):
            known = last[len(parts)] if last else Part(self.batch_size, {})
            batch = slice(done, done + known.size)
            found = self._run_batch(x[batch], t[batch], None if conditions is None else conditions[batch], variant, known.features)
            if found is not None:
                parts.append(found[0])
                left.append(Part(len(found[0]), found[1]))
                done += len(found[0])
        if self.cached:
            self.left[run] = left
        return _joined(parts)

    def _run_batch(
        self, x: Tensor, t: Tensor, conditions: Tensor | None, variant: str, last: Features
    ) -> tuple[Tensor, Features] | None:  # fmt: skip
        """With the features that are left after it. None where the batch was too large and is smaller now."""
        model, size = self.model, len(x)
        fill = torch.arange(model.filled(size), device=x.device).clamp(max=size - 1) if size % model.pad else slice(None)
        arguments = (x[fill].to(model.dtype), t[fill], *(() if conditions is None else (conditions[fill],)))
        call = partial(self._call, variant, last)
        if self.checkpointing:
            call = partial(checkpoint, call, use_reentrant=False, preserve_rng_state=False)
        try:  # copies, in and out: a network may write into what it is given, and into what it has returned before
            output, features = call(*(each.clone() for each in arguments))
            output = output[:size].to(x.dtype, copy=True)
        except torch.cuda.OutOfMemoryError:
            if torch.is_grad_enabled() or last:  # what is kept for the gradient is too much, and that is the caller's to share out
                raise
            self._halve(model.filled(size))
            return None
        except (UserError, MemoryError):
            raise
        except Exception:
            with blaming(f"the network of {model.name!r}", kind=Halted):
                raise
        self.clock.evaluations += size
        return output, features

    def _call(self, variant: str, last: Features, *arguments: Tensor) -> tuple[Tensor, Features]:
        """The network's output, and the features that are left after it: of every block those of the last call that ran it."""
        network, own = self._network(variant), self.model.network
        reused = [block.name for block in self.model.variants[variant].reuses] if variant else []
        if not self.cached.keys() >= set(reused):
            raise UserError(f"the variant {variant!r} reuses features: make the denoiser for the sampling run, denoise.anew(nodes)")
        if not self.cached:
            return network(*arguments), last
        assert isinstance(own, nn.Module)
        with remembering(own, list(self.cached.values()), reused, last) as kept:
            output = network(*arguments)
        return output, {**last, **{name: calls for name, calls in kept.items() if calls}}

    def _network(self, variant: str) -> Network:
        if not variant:
            return self.model.network
        if variant not in self.model.variants:
            raise UserError(f"model {self.model.name!r} has no variant {variant!r}; it has {', '.join(self.model.variants) or 'none'}")
        return self.model.variants[variant].network

    def _halve(self, size: int) -> None:
        half = self.model.filled(size // 2)
        if half in (0, size):
            raise UserError(
                f"model {self.model.name!r} runs out of memory on {self.model.device} with a network batch of {size}; "
                "use a device with more memory, --dtype bfloat16, --offload or a smaller --resolution"
            )
        _FITTED[self.model.name, self.model.shape] = half


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))
