"""Blocks that a network need not run, found in any network by what goes in and out of its modules, with no code for any family.

They are entries of lists of modules, over a short solve. Those that mostly return what they were given (`overriding`), the outermost that
do, can be left out, those that add least first. Of any, the outermost, features can be reused, of those first that change least from one
evaluation to the next.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from solversearch.models.base import Denoiser, Model, Network, Variant
from solversearch.overriding import Cached, Passes, left_out, passed, remembering, tensors
from solversearch.teacher import solve

SAMPLES, STEPS = 2, 8
"""Of the solve that blocks are watched over."""
SHARES, REUSED = (0.25, 0.5, 0.75), (0.5, 0.75, 1.0)
"""Of the blocks that are left out, and of those whose features are reused."""
LEAST, WORTH = 0.02, 0.98
"""Of the network's cost: what costs less does nothing, as where a whole output is reused, and what costs more saves nothing."""
CORE = re.compile(r"(.*?\.)?core\.")
"""Before the names of a pipeline's own networks in those of the module that calls them; a plan's names are without it."""


@dataclass
class Block:
    """A module that need not be run: what it passes on where it is left out, if it can be, and how much it adds, |out - in| / |in|; its
    features, how often it was called, and how much they change, |f - f before| / |out|."""

    name: str
    cached: Cached
    passes: Passes | None = None
    adds: list[float] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)
    last: dict[Any, list[Any]] = field(default_factory=dict)
    calls: int = 0


def skip_sets(model: Model) -> dict[str, Variant]:
    """Variants of the model that do not run so many of its blocks: skip... leave out those that add least, features... reuse the features
    of those that change least. None where the network's multiplications cannot be counted, as in quantised ones, or its weights are not
    there."""
    blocks = [] if model.device == "meta" or not operations(model, model.network) else found(model)
    left = sorted(_outermost([block for block in blocks if block.passes is not None]), key=lambda block: float(np.mean(block.adds)))
    reused = sorted(_outermost([block for block in blocks if block.changes]), key=lambda block: float(np.mean(block.changes)))
    counts = sorted({max(1, round(share * len(left))) for share in SHARES if left} - ({len(left)} if len(left) > 1 else set()))
    sets = {f"skip{count}": without(model, [_short(block.name) for block in left[:count]]) for count in counts}
    for count in sorted({max(1, round(share * len(reused))) for share in REUSED if reused}):
        sets[f"features{count}"] = reusing(model, [block.cached for block in reused[:count]])
    return {name: variant for name, variant in sets.items() if LEAST < variant.cost < WORTH}


def without(model: Model, names: Sequence[str]) -> Variant:
    """The variant without blocks of these names; its cost is that of its multiplications. Raises KeyError for a name that is none."""
    assert isinstance(model.network, nn.Module)
    network = _skipping(model.network, {block.name: None for block in blocks_of(model, names)})
    return Variant(network, operations(model, network) / operations(model, model.network), skips=tuple(sorted(names)))


def reusing(model: Model, blocks: Sequence[Cached]) -> Variant:
    """The variant that reuses the features of these blocks; its cost is that of the other multiplications."""
    own = model.network
    assert isinstance(own, nn.Module)
    last: dict[str, list[list[Any]]] = {}

    def call(*args: Any) -> Any:
        with remembering(own, blocks, [block.name for block in blocks], last) as kept:
            output = own(*args)
        last.update(kept)
        return output

    cost = operations(model, call) / operations(model, own)
    return Variant(own, cost, skips=tuple(sorted(_short(block.name) for block in blocks)), reuses=tuple(blocks))


def blocks_of(model: Model, names: Sequence[str]) -> list[Cached]:
    """By their names in a plan. Raises KeyError for a name that is none."""
    assert isinstance(model.network, nn.Module)
    known = {_short(name): name for name, _ in model.network.named_modules()}
    return [Cached(known[name]) for name in names]


def _short(name: str) -> str:
    found = CORE.match(name)
    return name[found.end() :] if found else name


def _skipping(network: nn.Module, blocks: dict[str, Passes | None]) -> Network:
    def call(*args: Any) -> Any:
        with left_out(network, blocks):
            return network(*args)

    return call


def found(model: Model) -> list[Block]:
    """Blocks of the model's network that are called every time, within each other, too; none where it is no module."""
    network = model.network
    if not isinstance(network, nn.Module):
        return []
    known = {
        name: Block(name, Cached(name))
        for name, module in network.named_modules()
        if name.rpartition(".")[2].isdigit() and next(module.parameters(), None) is not None
    }
    handles = [network.get_submodule(name).register_forward_hook(partial(_watch, block), with_kwargs=True) for name, block in known.items()]
    conditions = None if model.conditions is None else model.conditions[torch.arange(SAMPLES) % len(model.conditions)]
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((SAMPLES, *model.shape))).float().to(model.device)
    try:
        solve(model, Denoiser(model, conditions), noise, 1.0, STEPS)
    finally:
        for handle in handles:
            handle.remove()
    most = max((block.calls for block in known.values()), default=0)
    return [block for block in known.values() if block.calls == most]


def _outermost(blocks: Sequence[Block]) -> list[Block]:
    return [block for block in blocks if not any(block.name.startswith(f"{other.name}.") for other in blocks)]


def _watch(block: Block, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> None:
    given = tensors(args, kwargs)
    passes = passed(output, given)
    if not block.calls:
        block.passes = passes
    if passes is None or block.passes != passes:
        block.passes = None
    else:
        pairs = zip(output, passes, strict=True) if isinstance(passes, tuple) else [(output, passes)]
        added = [(_size([after - given[key]]), _size([given[key]])) for after, key in pairs if key is not None]
        block.adds.append(max(change / max(size, 1e-30) for change, size in added))
    features = block.cached.features(output, given)
    shapes = tuple(each.shape if isinstance(each, Tensor) else None for each in features)  # prompts of another length are called apart
    if shapes in block.last:
        changed = [new - old for new, old in zip(features, block.last[shapes], strict=True) if isinstance(new, Tensor)]
        block.changes.append(_size(changed) / max(_size(tree_leaves(output)), 1e-30))
    block.last[shapes], block.calls = features, block.calls + 1


def _size(parts: Sequence[Any]) -> float:
    return float(sum(float(part.double().square().sum()) for part in parts if isinstance(part, Tensor)) ** 0.5)


def operations(model: Model, network: Network) -> int:
    """Multiplications and additions of a call with the fewest samples, in matrix products, convolutions and attention."""
    from torch.utils.flop_counter import FlopCounterMode  # a third of a second, which only searches by price have to spend

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
