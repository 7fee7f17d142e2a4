"""A pipeline of diffusers as a network: visits of it, from the first call of its own networks to a way of calling them."""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log
from typing import Any

import torch
from torch import Tensor, nn

from solversearch.errors import UserError
from solversearch.models.pipelines.asking import SCALE, Asking
from solversearch.models.pipelines.guest import Call, Guest, Misfit, Time
from solversearch.models.pipelines.network import Called, Range, Replayed
from solversearch.models.pipelines.prompts import Encoded
from solversearch.models.pipelines.replay import Calls, Step, learn, plain, record
from solversearch.models.pipelines.rows import differ, leaves
from solversearch.schedules import NoiseSchedule

NEAR, ROUGH = 1e-4, 0.05
"""What counts as the same in single and in half precision, relative."""


@dataclass
class Adapted:
    """network is a `Replayed`, or a `Called`; why says what keeps guidance a part of it. guidance is the model's usual scale.

    made_up are outputs of the pipeline's networks for one sample.
    """

    network: nn.Module
    shape: tuple[int, ...]
    guidance: float
    guided: bool
    made_up: list[Any]
    why: str = ""


class Adapter:
    """Visits a guest. prompts has one entry a condition, or none at all; encoded is what is known of them."""

    def __init__(
        self, guest: Guest, networks: dict[str, nn.Module], asking: Asking, prompts: list[Any], encoded: Encoded | None,
        schedule: NoiseSchedule, kind: str, inverted: bool = False,
    ):  # fmt: skip
        self.guest, self.networks, self.asking, self.prompts, self.encoded = guest, networks, asking, prompts, encoded
        self.schedule, self.kind = schedule, kind
        start, end = float(schedule.t_start), float(schedule.t_end)
        if kind == "edm":  # networks are told ln(sigma) / 4, see `Preconditioned`
            start, end = log(start) / 4, log(end) / 4
        if inverted:
            start, end = 0.0, start - end
        boundary = float(guest.pipe.config.get("boundary_ratio") or 0) * start
        self.spans = [(boundary, start), (end, boundary)] if boundary else [(end, start)]
        """Of times, each with networks of its own."""
        self.times = [self._times(*span) for span in self.spans]

    @staticmethod
    def time_of(schedule: NoiseSchedule, kind: str, t: float) -> Time:
        """Of t as the network is told it."""
        if kind == "edm":
            return Time(t, exp(4 * t))
        node = schedule.node(t)
        return Time(t, node.sigma if kind == "flow" else node.sigma / max(node.alpha, 1e-8))

    def time(self, t: float) -> Time:
        return self.time_of(self.schedule, self.kind, t)

    def _times(self, least: float, most: float) -> list[Time]:
        """Three: the last, between the others, is no whole number where the schedule knows others."""
        times = [least + fraction * (most - least) for fraction in (0.8, 0.25, 0.6)]
        if abs(most - least) > 100:
            times = [float(round(t)) for t in times[:2]] + [round(times[2]) + (0.0 if self.schedule.discrete else 0.3)]
        return [self.time(t) for t in times]

    def call(self, number: int) -> Call:
        return self.asking.call(self.prompts[number] if self.prompts else None, self.encoded[number] if self.encoded else None)

    def _pair(self) -> Call | None:
        """Of the first prompt twice; None where the pipeline takes no two."""
        two = self.encoded.two() if self.encoded else None
        if self.encoded and two is None:
            return None
        return self.asking.call(self.prompts[0] if self.prompts else None, two, 2)

    def adapt(self, asked: float | None, told: float | None) -> Adapted:
        """asked is the usual guidance scale in the pipeline's terms, where it is not the pipeline's own; told what the network is told,
        or what a pipeline is called with that guides in a way of its own.

        Raises `UserError` for a pipeline whose evaluations depend on the steps before.
        """
        self._find_told(told)
        own = self.guest.parameters[self.asking.guides].default if self.asking.guides else 1.0
        scale = float((own if isinstance(own, int | float) else 1.0) if asked is None else asked)
        kept = scale if told is None else told  # where guidance is the pipeline's own
        replayed: list[nn.Module] = []
        try:
            firsts = [self._own(span) for span in range(len(self.spans))]
            network, renormalised = self._replayed(firsts)
            share, guides = network.ranges[0].conditional.weight, network.ranges[0].unconditional is not None
            offset = round(share - SCALE)
            if not renormalised and network.one_opposite():
                return Adapted(network, network.shape, (scale + offset) if guides else 1.0, guides, _plain(firsts[0]))
            why = "it renormalises what it has guided" if renormalised else "what it guides away from depends on the prompt"
            if len(self.spans) == 1:
                network.guidance = kept + offset, renormalised
                replayed.append(network)
        except Misfit as misfit:
            why = str(misfit)
        if self.asking.guides:
            self.asking.fixed[self.asking.guides] = kept
        first = self._own(0)
        called = Called(self.networks, self.guest, self.call, _plain(first), self.time).eval()
        for each in (*replayed, called):
            if self._agrees(each, first):
                return Adapted(each, tuple(first.state.shape[1:]), 1.0, False, _plain(first), why)
        unguided = "; without guidance it may be, --distilled-guidance 1" if self.asking.guides else ""
        raise UserError(f"{self.guest.name} cannot be sampled by a plan: what it guides by depends on the steps before{unguided}")

    def _own(self, span: int) -> Step:
        """With the networks' own outputs."""
        return record(self.guest, self.call(0), self.times[span][:1], [], lambda k, name, arguments: self.networks[name](**arguments))[0]

    def _made_up(self, call: Call, time: Time, outputs: list[Any]) -> Step:
        return record(self.guest, call, [time], [], lambda k, name, arguments: outputs[k])[0]

    def _find_told(self, told: float | None) -> None:
        """Whether guidance_scale is what the network is told; then it is the pipeline's own or the given one, and not what guides."""
        asking = self.asking
        if "guidance_scale" not in self.guest.parameters:
            return
        default = self.guest.parameters["guidance_scale"].default
        before = asking.fixed.get("guidance_scale", default)
        asking.fixed["guidance_scale"] = SCALE
        one = self._own(0)
        asking.fixed["guidance_scale"] = SCALE + 1
        other = self._made_up(self.call(0), self.times[0][0], _plain(one))
        pairs = zip(one.calls, other.calls, strict=True)
        if any(differ(leaf, dict(leaves(theirs))[path]) for (_, ours), (_, theirs) in pairs for path, leaf in leaves(ours)):
            asking.tells, before = "guidance_scale", default if told is None else told
            asking.guides = "" if asking.guides == "guidance_scale" else asking.guides
        asking.fixed["guidance_scale"] = before

    def _replayed(self, firsts: list[Step]) -> tuple[Replayed, bool]:
        """The network, and whether what is guided is renormalised."""
        ranges, fixed, renormalised = [], dict(self.asking.fixed), False
        for span, first, times in zip(self.spans, firsts, self.times, strict=True):
            slots, renormalised = learn(self.guest, self.call(0), self._pair(), times, first)
            if len(slots) > 2 or abs(sum(slot.weight for slot in slots) - 1) > ROUGH:
                raise Misfit(f"it combines {len(slots)} outputs of its networks, and not by plain guidance")
            slots = [slot.to(first.state.device) for slot in slots]
            ranges.append(Range(span[0], slots[-1], slots[0] if len(slots) == 2 else None))

        def calls(number: int, span: int) -> Calls:
            call = self.call(number)
            return self._made_up(call._replace(arguments=call.arguments | fixed), self.times[span][0], _plain(firsts[span])).calls

        network = Replayed(self.networks, firsts[0].state.shape[1:], ranges, calls, len(self.prompts)).eval()
        network.joint = self._pair() is not None
        for own, times, step in zip(ranges, self.times, firsts, strict=True):
            self._check(network, step, own, times[0].t)
        return network, renormalised

    @torch.no_grad()
    def _check(self, network: Replayed, step: Step, own: Range, t: float) -> None:
        """Two samples in one call against the pipeline's own; one by one where the network takes no two."""
        x = torch.cat([step.state] * 2)
        for number, slot in ((0, own.conditional), (network.count, own.unconditional)):
            if slot is None:
                continue
            output = plain(step.outputs[slot.call])
            expected = slot.prediction(output[slot.row : slot.row + 1], network.shape).expand_as(x)
            given = x, torch.full((2,), t, device=x.device), torch.full((2,), number, device=x.device)
            if network.joint and not _near(network, expected, *given):
                network.joint = False
                network.forget()
            if not network.joint and not _near(network, expected, *given):
                raise Misfit("its networks return something else when they are called alone")

    @torch.no_grad()
    def _agrees(self, network: nn.Module, first: Step) -> bool:
        """Whether it gives what the pipeline steps with after other steps: else no single evaluation says what that is."""
        times, own = self.times[0], self.networks
        x = torch.randn(first.state.shape, generator=torch.Generator().manual_seed(2)).to(first.state)
        try:
            steps = record(
                self.guest, self.call(0), [times[0], times[2], times[1]], [first.state, x], lambda k, name, given: own[name](**given)
            )
        except Misfit as why:
            raise UserError(f"{self.guest.name} cannot be sampled by a plan: {why}") from None
        given = torch.full((1,), times[1].t, device=x.device), torch.zeros(1, dtype=torch.long, device=x.device)
        return _near(network, steps[2].made, x, *given)


def _plain(step: Step) -> list[Any]:
    return [plain(each) for each in step.outputs]


def _near(network: Callable[..., Tensor], expected: Tensor, *given: Tensor) -> bool:
    try:
        output = network(*given)
    except (RuntimeError, ValueError, TypeError, IndexError):
        return False
    apart = float((output.float() - expected.float()).norm() / expected.float().norm().clamp(min=1e-12))
    return apart < (NEAR if output.dtype == torch.float32 else ROUGH)
