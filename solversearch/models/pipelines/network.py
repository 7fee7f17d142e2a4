"""The networks of a pipeline as `forward(x, t, condition)`, where a condition is the number of a prompt, and the one after the last stands
for what guidance leads away from: under the first prompt, and so on for the others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from solversearch.models.pipelines.guest import Arguments, Call, Done, Guest, Misfit, Time
from solversearch.models.pipelines.library import quiet
from solversearch.models.pipelines.replay import Calls, Slot, guided, plain
from solversearch.models.pipelines.rows import differ, joined, leaves

BATCHES = 8
"""Joint arguments that are kept: a search asks for the same batches at every evaluation."""


@dataclass(frozen=True)
class Range:
    """Which network is called down to which time: of some models another one for the times with little noise."""

    least: float
    conditional: Slot
    unconditional: Slot | None

    @cached_property
    def together(self) -> bool:
        """Whether both are rows of one call of the pipeline's, and so may be of one here."""
        one, other = self.conditional, self.unconditional
        return other is None or (
            (one.call, one.path) == (other.call, other.path)
            and torch.equal(one.state, other.state)
            and torch.equal(one.output, other.output)
        )


class Replayed(nn.Module):
    """Calls the networks as the pipeline does, many samples at once, each under its own prompt.

    calls(i, at) is what the networks are called with under the i-th prompt in that range, for i below count. joint says whether a call may
    have several samples. Where a guidance of the pipeline's is given, the scale of the difference and whether it renormalises, outputs are
    guided so; otherwise they are conditional or not.
    """

    guidance: tuple[float, bool] | None = None

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        shape: Sequence[int],
        ranges: Sequence[Range],
        calls: Callable[[int, int], Calls],
        count: int,
    ) -> None:
        super().__init__()
        self.core = nn.ModuleDict(networks)
        self.shape, self.ranges, self.calls, self.count, self.joint = tuple(shape), list(ranges), calls, max(count, 1), True
        self._known: dict[tuple[int, int], Arguments] = {}
        self._batches: dict[Any, list[tuple[Tensor | None, Slot, Arguments]]] = {}

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        numbers = [0] * len(x) if condition is None else condition.tolist()
        if self.guidance is None:
            return self._apart(x, t, numbers)
        both = self._apart(torch.cat([x, x]), torch.cat([t, t]), numbers + [number + self.count for number in numbers])
        conditional, unconditional = both.chunk(2)
        return guided(conditional, unconditional, *self.guidance)

    def _apart(self, x: Tensor, t: Tensor, numbers: list[int]) -> Tensor:
        at = [0] * len(x) if len(self.ranges) == 1 else [self._range(each) for each in t.tolist()]
        result: Tensor | None = None
        for places, slot, arguments in self._batch(tuple(zip(numbers, at, strict=True)), x.device):
            own_x, own_t = (x, t) if places is None else (x[places], t[places])
            part = slot.prediction(self.core[slot.name](**slot.fill(arguments, own_x, own_t)), self.shape)
            if places is None:
                return part
            result = part.new_empty(len(x), *self.shape) if result is None else result
            result = result.index_put((places,), part)
        assert result is not None
        return result

    def _range(self, t: float) -> int:
        return next((i for i, each in enumerate(self.ranges) if t >= each.least), len(self.ranges) - 1)

    def _batch(self, samples: tuple[tuple[int, int], ...], device: torch.device) -> list[tuple[Tensor | None, Slot, Arguments]]:
        """Which samples go together, the slot they go to, and their joint arguments: prompts of another length need a call of their own."""
        if samples not in self._batches:
            groups: dict[Any, list[int]] = {}
            for i, (number, at) in enumerate(samples):
                groups.setdefault(self._likeness(number, at) if self.joint else i, []).append(i)
            found = []
            for members in groups.values():
                slot = self._slot(*samples[members[0]])
                places = None if len(groups) == 1 else torch.tensor(members, device=device)
                found.append((places, slot, joined([self.arguments(*samples[i]) for i in members], slot.kinds)))
            while len(self._batches) >= BATCHES:
                del self._batches[next(iter(self._batches))]
            self._batches[samples] = found
        return self._batches[samples]

    def _slot(self, number: int, at: int) -> Slot:
        own = self.ranges[at]
        slot = own.conditional if number < self.count else own.unconditional
        if slot is None:
            raise Misfit("it has no unconditional network call")
        return slot

    def arguments(self, number: int, at: int) -> Arguments:
        """Of one sample; from count on, those that a prompt is guided away from."""
        if (number, at) not in self._known:
            slot = self._slot(number, at)
            self._known[number, at] = slot.arguments(self.calls(number % self.count, at))
        return self._known[number, at]

    def _likeness(self, number: int, at: int) -> Any:
        shapes = tuple((path, tuple(each.shape) if isinstance(each, Tensor) else None) for path, each in leaves(self.arguments(number, at)))
        return self.ranges[at].together or number < self.count, at, shapes

    def forget(self) -> None:
        self._batches.clear()

    def one_opposite(self) -> bool:
        """Whether guidance leads away from the same under the second prompt as under the first."""
        for at, own in enumerate(self.ranges):
            if self.count > 1 and (slot := own.unconditional) is not None:
                first, other = (dict(leaves(self.arguments(number, at))) for number in (self.count, self.count + 1))
                free = {slot.path, *slot.times}
                if other.keys() != first.keys() or any(differ(first[path], other[path]) for path in first if path not in free):
                    return False
        return True


class Inverted(nn.Module):
    """A network whose time runs from 0 at the noise, and that predicts data - noise (Mochi), as one of a flow from t = start down."""

    def __init__(self, network: nn.Module, start: float) -> None:
        super().__init__()
        self.network, self.start = network, start

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        output: Tensor = self.network(x, self.start - t, condition)
        return -output


class Called(nn.Module):
    """Runs the pipeline for every evaluation of a sample, guidance included: where its guidance is not the plain one.

    A first step, whose network outputs are made up, ends at the state that is asked for.
    """

    def __init__(
        self, networks: Mapping[str, nn.Module], guest: Guest, call: Callable[[int], Call], made_up: Sequence[Any],
        time: Callable[[float], Time],
    ) -> None:  # fmt: skip
        super().__init__()
        self.core = nn.ModuleDict(networks)
        self.guest, self.call, self.made_up, self.time = guest, call, list(made_up), time

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        numbers = [0] * len(x) if condition is None else condition.tolist()
        with quiet():
            return torch.cat([self._one(*each) for each in zip(torch.split(x, 1), t.unbind(), numbers, strict=True)])

    def _one(self, x: Tensor, t: Tensor, number: int) -> Tensor:
        asked, result = 0, []

        def respond(name: str, arguments: Arguments) -> Any:
            nonlocal asked
            asked += 1
            return self.made_up[asked - 1] if asked <= len(self.made_up) else plain(self.core[name](**arguments))

        def answer(i: int, made: Tensor, state: Tensor) -> Tensor:
            if i == 1:
                result.append(made[:1])
                raise Done
            return x.expand_as(state)

        self.guest.visit(self.call(number), [self.time(float(t.detach()))._replace(t=t)] * 2, answer, respond)
        return result[0]
