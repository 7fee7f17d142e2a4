"""Record and replay: how a pipeline calls its network is learned from one visit, and then the network is called without the pipeline.

Between two steps only the state and the time change. Where they enter is seen from states and network outputs that are numbered, digit by
digit: `DIGITS` numbers are exact in any precision. What the pipeline makes of random outputs gives the weights of guidance, and a last
step with a random state, time and outputs has to come out as foretold. A pipeline that does anything else is a `Misfit`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from solversearch.models.pipelines.asking import SCALE
from solversearch.models.pipelines.guest import Arguments, Call, Done, Guest, Misfit, Time, kept
from solversearch.models.pipelines.rows import Path, count_of, differ, guessed, kind_of, leaves, placed, row_of

DIGITS = 64
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-6}
"""Of the guidance, relative; half precision keeps `ROUGH`."""
ROUGH = 0.05
Calls = list[tuple[str, Arguments]]


@dataclass
class Step:
    """Of a visit: what the networks were called with and returned, and what the pipeline made of it for the state."""

    calls: Calls
    outputs: list[Any]
    state: Tensor
    made: Tensor


@torch.no_grad()
def record(
    guest: Guest, call: Call, times: Sequence[Time], states: Sequence[Tensor], respond: Callable[[int, str, Arguments], Any]
) -> list[Step]:
    """A visit of as many steps as there are times: the first starts from noise, the others from the given states.

    respond(k, name, arguments) is what the k-th call of a network in all returns.
    """
    steps: list[Step] = []
    calls: Calls = []
    outputs: list[Any] = []
    number = 0

    def seen(name: str, arguments: Arguments) -> Any:
        nonlocal number
        calls.append((name, kept(arguments)))
        outputs.append(respond(number, name, arguments))
        number += 1
        return plain(outputs[-1])

    def answer(i: int, made: Tensor, state: Tensor) -> Tensor:
        steps.append(Step(list(calls), list(outputs), state[:1].clone(), made[:1].clone()))  # DiT keeps each state twice
        calls.clear()
        outputs.clear()
        if i == len(states):
            raise Done
        return states[i].expand_as(state)

    guest.visit(call, times, answer, seen)
    return steps


def plain(output: Any) -> Any:
    """The tensor, or the list of them, in what a network returns."""
    if isinstance(output, Tensor) or (isinstance(output, list) and output and isinstance(output[0], Tensor)):
        return output
    return plain(output[0]) if isinstance(output, tuple) else output.sample


def _rows(output: Any) -> Tensor:
    """(rows, numbers)"""
    return torch.stack([each.flatten() for each in output]) if isinstance(output, list) else output.flatten(1)


@dataclass
class Slot:
    """One row, of so many, of one call of a network: where state and time enter, and where the output leaves.

    state[i] is the number in the flat state of the i-th number of the network's input, or -1 for conditioning beside it; output[i] the
    number in the flat output of the i-th number of the prediction; sign that of all; weight its share in what is guided.
    """

    name: str
    call: int
    row: int
    rows: int
    kinds: Any
    path: Path
    state: Tensor
    times: dict[Path, "Told"]
    output: Tensor
    weight: float = 1.0
    sign: float = 1.0

    def arguments(self, calls: Calls) -> Arguments:
        if self.call >= len(calls) or calls[self.call][0] != self.name:
            raise Misfit("it calls its networks differently for another prompt")
        return dict(row_of(calls[self.call][1], self.kinds, self.row, self.rows))

    def to(self, device: str | torch.device) -> "Slot":
        self.state, self.output = self.state.to(device), self.output.to(device)
        self.beside = self.state < 0
        self.ordered, self.whole = (torch.equal(each, torch.arange(len(each), device=device)) for each in (self.state, self.output))
        return self

    def fill(self, arguments: Arguments, x: Tensor, t: Tensor) -> Arguments:
        """The joint arguments of as many samples as x has, with their states and times."""
        own = dict(leaves(arguments))[self.path]
        flat, listed = x.flatten(1), len(self.path) > 1 and isinstance(self.path[-1], int)  # an entry a sample
        if not self.ordered:
            there = own.reshape(1, -1) if listed else own.flatten(1)
            flat = torch.where(self.beside, there.to(x), flat[:, self.state.clamp(min=0)])
        shaped = flat.to(own.dtype).view(len(x), *(own.shape if listed else own.shape[1:]))
        arguments = placed(arguments, self.path[:-1], list(shaped.unbind())) if listed else placed(arguments, self.path, shaped)
        for path, told in self.times.items():
            arguments = placed(arguments, path, told(t))
        return arguments

    def prediction(self, output: Any, shape: Sequence[int]) -> Tensor:
        """(B, *shape)"""
        flat = _rows(plain(output))
        flat = flat if self.whole and len(self.output) == flat.shape[1] else flat[:, self.output]
        return (flat if self.sign == 1 else -flat).reshape(len(flat), *shape)


@dataclass
class Told:
    """The time as the network is told it: offset + t / scale, rounded before or after; shape is that of one sample."""

    offset: float
    scale: float
    early: bool
    dtype: torch.dtype
    shape: tuple[int, ...]

    def __call__(self, t: Tensor) -> Tensor:
        t = t.to(self.dtype) if self.early else t
        value = (t if self.scale == 1 else t / self.scale) if self.offset == 0 else self.offset + t / self.scale
        return value.to(self.dtype).view(-1, *[1] * len(self.shape)).expand(-1, *self.shape)


def _told(seen: Sequence[Tensor], times: Sequence[float]) -> Told:
    """The simplest one that gives every number that was seen."""
    first, second = (float(each.flatten()[0]) for each in seen[:2])
    if first == second:
        raise Misfit("the time that its network is told does not follow the time of the scheduler")
    slope = (second - first) / (times[1] - times[0])
    shape = tuple(seen[0].shape[1:]) if seen[0].ndim else ()
    ways: list[Told] = []
    for digits in range(1, 8):
        scale = float(f"{1 / slope:.{digits}g}")
        offset = float(f"{first - times[0] / scale:.{digits}f}") + 0.0
        ways += [Told(offset, scale, early, seen[0].dtype, shape) for early in (False, True)]

    def off(told: Told) -> float:
        values = told(torch.tensor(times, dtype=torch.float32)).double()
        return max(float((value - each.double().cpu()).abs().max()) for value, each in zip(values, seen, strict=True))

    best = min(ways, key=off)  # the first of equals
    if off(best) > 1e-2 * abs(second - first):
        raise Misfit("the time that its network is told is not linear in the time of the scheduler")
    return best


def _number(count: int, digit: int, like: Tensor) -> Tensor:
    """One more than digit 0, 1, ... of the numbers 0 .. count - 1, for some pipelines divide by it; before them (-1) a mark."""
    if digit < 0:
        return torch.full((count,), -1.0).to(like)
    return (torch.arange(count) // DIGITS**digit % DIGITS + 1).to(like)


def _read(marks: Tensor, digits: Sequence[Tensor]) -> Tensor:
    """The numbers that went to each place, -1 where none did."""
    numbers = sum((digit.double().round().long() - 1) * DIGITS**i for i, digit in enumerate(digits))
    assert isinstance(numbers, Tensor)
    followed = (marks == -1) & torch.stack([digit > 0 for digit in digits]).all(0)
    return torch.where(followed, numbers, -1).cpu()


def _digits(count: int) -> int:
    return next(n for n in range(1, 12) if DIGITS**n >= count)


def _filled(template: Any, numbers: Callable[[int, Tensor], Tensor]) -> Any:
    """An output like the template with other numbers in every row."""
    if isinstance(template, list):
        return [numbers(each.numel(), each).view_as(each) for each in template]
    rows = template.shape[0]
    return torch.stack([numbers(template[0].numel(), template).view_as(template[0]) for _ in range(rows)])


def guided(conditional: Tensor, unconditional: Tensor, scale: float, renormalised: bool) -> Tensor:
    """Of (B, *shape) each. Renormalised, it is as long as the conditional one along the last dimension, as in Qwen-Image and Lumina 2."""
    made = unconditional + scale * (conditional - unconditional)
    return made * (conditional.norm(dim=-1, keepdim=True) / made.norm(dim=-1, keepdim=True)) if renormalised else made


def learn(guest: Guest, call: Call, pair: Call | None, times: Sequence[Time], first: Step) -> tuple[list[Slot], bool]:
    """The slots of a step, the one with the greatest weight last, and whether what is guided is renormalised.

    first is a step with the networks' own outputs; pair the call for two samples of the same prompt; times are three, of which the middle
    one lies anywhere between the others.
    """
    shape = first.state.shape[1:]
    per = len(first.calls)
    size = first.state[0].numel()
    count = max(_digits(size), *(_digits(_rows(plain(each)).shape[1]) for each in first.outputs))
    generator = torch.Generator().manual_seed(1)

    def randomly(n: int, like: Tensor) -> Tensor:
        return torch.randn(n, generator=generator).to(like)

    def respond(k: int, name: str, arguments: Arguments) -> Any:
        step, at = divmod(k, per)
        numbers = (lambda n, like: _number(n, step - 2, like)) if step <= count + 1 else randomly
        return _filled(plain(first.outputs[at]), numbers)

    states = [_number(size, i, first.state).view(1, *shape) for i in range(-1, count)]
    states += [states[0], randomly(size, first.state).view(1, *shape)]
    told = [times[0]] * (count + 2) + [times[1], times[2]]
    steps = record(guest, call, told, states, respond)[1:]
    if any([name for name, _ in step.calls] != [name for name, _ in first.calls] for step in steps):
        raise Misfit("it calls its networks differently from step to step")
    twice = None
    if pair is not None:
        twice = record(guest, pair, times[:1], [], lambda k, name, arguments: _doubled(plain(first.outputs[k])))[0]
    slots = [
        slot
        for k, (name, arguments) in enumerate(steps[0].calls)
        for slot in _slots(k, name, [step.calls[k][1] for step in steps], twice.calls[k][1] if twice else None, count, times)
    ]
    _leave(slots, steps, count)
    renormalised = _weigh(slots, steps[count + 1 :])
    return sorted(slots, key=lambda slot: slot.weight), renormalised


def _doubled(output: Any) -> Any:
    return [*output, *output] if isinstance(output, list) else torch.cat([output, output])


def _slots(k: int, name: str, given: list[Arguments], twice: Arguments | None, count: int, times: Sequence[Time]) -> list[Slot]:
    """Of one call. given are its arguments under the mark, the digits, the second time, and the third."""
    last = count + 2
    changed = [path for path, leaf in leaves(given[0]) if differ(leaf, dict(leaves(given[1]))[path])]
    entered = {path[0] for path in changed}
    if len(entered) != 1:
        raise Misfit(f"the state enters its network as {', '.join(map(str, sorted(entered))) or 'nothing'}")
    state = given[0][changed[0][0]]
    kinds = kind_of(given[0], twice) if twice else guessed(given[0], len(state))
    rows = max(count_of(state, kinds[changed[0][0]]), 1)
    slots = []
    for row in range(rows):
        taken = [dict(leaves(row_of(each, kinds, row, rows))) for each in given]
        paths = [path for path, leaf in taken[0].items() if differ(leaf, taken[1][path])]
        told = [path for path, leaf in taken[0].items() if differ(leaf, taken[count + 1][path])]
        strange = [p for p, leaf in taken[0].items() if p not in (*paths, *told) and any(differ(leaf, each[p]) for each in taken[1:])]
        if len(paths) != 1 or not told or set(paths) & set(told) or strange:
            raise Misfit(f"{', '.join(str(path[0]) for path in strange or [*paths, *told])} of its network changes from step to step")
        (path,) = paths
        places = _read(taken[0][path].flatten(), [each[path].flatten() for each in taken[1 : count + 1]])
        if (places < 0).all():
            raise Misfit("the state is scaled on its way into its network")
        seen = {
            p: _told([torch.as_tensor(each[p]) for each in (taken[0], taken[count + 1], taken[last])], [each.t for each in times])
            for p in told
        }
        slots.append(Slot(name, k, row, rows, kinds, path, places, seen, torch.empty(0)))
    return slots


def _leave(slots: list[Slot], steps: list[Step], count: int) -> None:
    """Where the prediction is in the outputs, which are numbered alike in all rows: guidance leaves them as they are."""
    made = [step.made.flatten().float() for step in steps[: count + 1]]
    sign = -float(made[0].sign().median())
    places = _read(made[0] * sign, [each * sign for each in made[1:]])
    if (places < 0).any():
        raise Misfit("what it steps with is not its network's output in another order")
    for slot in slots:
        slot.output, slot.sign = places, sign


def _weigh(slots: list[Slot], steps: list[Step]) -> bool:
    """The share of every slot in what is guided, from the first step; the others have to agree. Returns whether it is renormalised."""
    wanted = [step.made.cpu().double() for step in steps]
    parts = [
        [(slot.sign * _rows(plain(step.outputs[slot.call]))[slot.row].cpu().double()[slot.output]).view_as(made) for slot in slots]
        for step, made in zip(steps, wanted, strict=True)
    ]
    dtypes = {steps[0].made.dtype, *(_rows(plain(each)).dtype for each in steps[0].outputs)}  # some step in another than they guide in
    tolerance = max(TOLERANCE.get(dtype, ROUGH) for dtype in dtypes)

    def off(found: list[Tensor]) -> float:
        return max(float((each - made).norm() / made.norm()) for each, made in zip(found, wanted, strict=True))

    columns = torch.stack([part.flatten() for part in parts[0]], 1)
    shares = torch.linalg.lstsq(columns, wanted[0].flatten()[:, None]).solution[:, 0].tolist()
    for slot, share in zip(slots, shares, strict=True):
        slot.weight = share
    error = off([torch.stack([slot.weight * part for slot, part in zip(slots, own, strict=True)]).sum(0) for own in parts])
    if error < tolerance:
        return False
    for scale in (SCALE, SCALE + 1):
        for one, other in ((0, 1), (1, 0)) if len(slots) == 2 else ():
            if off([guided(own[one], own[other], scale, True) for own in parts]) < tolerance:
                slots[one].weight, slots[other].weight = scale, 1 - scale
                return True
    raise Misfit(f"it guides by more than a fixed scale of the difference (off by {error:.1g} of the output)")
