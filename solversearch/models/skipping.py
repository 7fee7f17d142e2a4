"""Blocks that a network can leave out, found in any network by what goes in and out of its modules, with no code for any family.

Entries of lists of modules that mostly return what they were given (`overriding`), the outermost that do. Those that add least, over a
short solve, go first.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from solversearch.models.base import Denoiser, Model, Network, Variant
from solversearch.overriding import Passes, left_out, passed, tensors
from solversearch.teacher import solve

SAMPLES, STEPS = 2, 8
"""Of the solve that blocks are watched over."""
SHARES = (0.25, 0.5, 0.75)
"""Of the blocks that are left out."""
WORTH = 0.98
"""Of the network's cost: what costs more saves nothing."""
CORE = re.compile(r"(.*?\.)?core\.")
"""Before the names of a pipeline's own networks in those of the module that calls them; a plan's names are without it."""


@dataclass
class Block:
    """A module that may be left out, and how much it adds: |out - in| / |in|, over all calls."""

    name: str
    passes: Passes
    adds: list[float] = field(default_factory=list)


def skip_sets(model: Model) -> dict[str, Variant]:
    """Variants of the model that leave out a quarter, half and three quarters of its blocks, those that add least. None where the
    network's multiplications cannot be counted, as in quantised ones, or its weights are not there."""
    blocks = [] if model.device == "meta" or not operations(model, model.network) else found(model)
    counts = sorted({max(1, round(share * len(blocks))) for share in SHARES if blocks} - ({len(blocks)} if len(blocks) > 1 else set()))
    sets = {f"skip{count}": without(model, [_short(block.name) for block in blocks[:count]]) for count in counts}
    return {name: variant for name, variant in sets.items() if variant.cost < WORTH}


def without(model: Model, names: Sequence[str]) -> Variant:
    """The variant without blocks of these names; its cost is that of its multiplications. Raises KeyError for a name that is none."""
    assert isinstance(model.network, nn.Module)
    known = {_short(name): name for name, _ in model.network.named_modules()}
    network = _skipping(model.network, {known[name]: None for name in names})
    return Variant(network, operations(model, network) / operations(model, model.network), skips=tuple(sorted(names)))


def _short(name: str) -> str:
    found = CORE.match(name)
    return name[found.end() :] if found else name


def _skipping(network: nn.Module, blocks: dict[str, Passes | None]) -> Network:
    def call(*args: Any) -> Any:
        with left_out(network, blocks):
            return network(*args)

    return call


def found(model: Model) -> list[Block]:
    """Blocks of the model's network, those that add least first; none where it is no module."""
    network = model.network
    if not isinstance(network, nn.Module):
        return []
    known: dict[str, Block | None] = {}
    handles = [
        module.register_forward_hook(partial(_watch, known, name), with_kwargs=True)
        for name, module in network.named_modules()
        if name.rpartition(".")[2].isdigit() and next(module.parameters(), None) is not None
    ]
    conditions = None if model.conditions is None else model.conditions[torch.arange(SAMPLES) % len(model.conditions)]
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((SAMPLES, *model.shape))).float().to(model.device)
    try:
        solve(model, Denoiser(model, conditions), noise, 1.0, STEPS)
    finally:
        for handle in handles:
            handle.remove()
    fitting = {name: block for name, block in known.items() if block is not None}
    most = max((len(block.adds) for block in fitting.values()), default=0)  # others are not called every time
    outermost = [
        block for name, block in fitting.items() if len(block.adds) == most and not any(name.startswith(f"{other}.") for other in fitting)
    ]
    return sorted(outermost, key=lambda block: float(np.mean(block.adds)))


def _watch(known: dict[str, Block | None], name: str, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
    block = known.get(name, Block(name, ()))
    if block is None:
        return
    given = tensors(args, kwargs)
    passes = passed(output, given)
    if passes is None or (block.adds and block.passes != passes):
        known[name] = None
        return
    block.passes = passes
    pairs = zip(output, passes, strict=True) if isinstance(passes, tuple) else [(output, passes)]
    added = [(float((after - given[key]).double().norm()), float(given[key].double().norm())) for after, key in pairs if key is not None]
    block.adds.append(max(change / max(size, 1e-30) for change, size in added))
    known[name] = block


def operations(model: Model, network: Network) -> int:
    """Multiplications and additions of a call with the fewest samples, in matrix products, convolutions and attention."""
    count = model.filled(1)
    t = torch.full((count,), float(model.schedule.t_start), dtype=model.time_dtype, device=model.device)
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((count, *model.shape)))
    x = (model.schedule.initial_scale(model.schedule.t_start) * noise).to(model.device, model.dtype)
    conditions = () if model.conditions is None else (model.conditions[:1].expand(count, *model.conditions.shape[1:]),)
    with torch.no_grad():
        network(x, t, *conditions)  # in which blocks left out are learned
        with FlopCounterMode(display=False) as counter:
            network(x, t, *conditions)
    return counter.get_total_flops()
