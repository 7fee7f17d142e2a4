"""Blocks that a network can leave out: found in any network by what goes in and out of its modules, with no code for any family.

A residual block adds something to what it is given; left out, it hands that on. Entries of lists of modules that return, in the shape of
their inputs, mostly what they were given, are such blocks, the outermost that are. Those that add least, over a short solve, go first.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from solversearch.models.base import Denoiser, Model, Variant
from solversearch.overriding import Override
from solversearch.teacher import solve

RESIDUAL = 0.5
"""Least cosine of what a residual block returns with what it was given."""
SAMPLES, STEPS = 2, 8
"""Of the solve that blocks are watched over."""
SHARES = (0.25, 0.5, 0.75)
"""Of the blocks that are left out."""
WORTH = 0.98
"""Of the network's cost: what costs more saves nothing."""

Key = int | str
"""An argument by its place or its name."""
Passes = Key | tuple[Key | None, ...]
"""Which argument a block left out returns, in a tuple where it returns several; None where the block itself returns that."""


@dataclass
class Block:
    """A module that may be left out, and how much it adds: |out - in| / |in|, over all calls."""

    name: str
    passes: Passes
    adds: list[float] = field(default_factory=list)


def skipping(network: nn.Module, blocks: Mapping[str, Passes]) -> Any:
    """The network without these blocks, as a function of the same arguments."""

    def call(*args: Any) -> Any:
        with left_out(network, blocks):
            return network(*args)

    return call


@contextmanager
def left_out(network: nn.Module, blocks: Mapping[str, Passes]) -> Iterator[None]:
    overrides = [Override(network.get_submodule(name), partial(_handed_on, passes)) for name, passes in blocks.items()]
    try:
        yield
    finally:
        for each in overrides:
            each.remove()


def _handed_on(passes: Passes, forward: Any, *args: Any, **kwargs: Any) -> Any:
    def given(key: Key | None) -> Any:
        return None if key is None else args[key] if isinstance(key, int) else kwargs[key]

    return tuple(map(given, passes)) if isinstance(passes, tuple) else given(passes)


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
    every: list[tuple[Key, Any]] = [*enumerate(args), *kwargs.items()]
    given = {key: value for key, value in every if isinstance(value, Tensor)}
    passes = _passes(output, given)
    if passes is None or (block.adds and block.passes != passes):
        known[name] = None
        return
    block.passes = passes
    pairs = zip(output, passes, strict=True) if isinstance(passes, tuple) else [(output, passes)]
    added = [(float((after - given[key]).double().norm()), float(given[key].double().norm())) for after, key in pairs if key is not None]
    block.adds.append(max(change / max(size, 1e-30) for change, size in added))
    known[name] = block


def _passes(output: Any, given: Mapping[Key, Tensor]) -> Passes | None:
    """The argument that each part of an output mostly is; None where one is like none of them."""
    if isinstance(output, tuple):
        parts = [_like(each, given) for each in output]
        fits = any(part is not None for part in parts) and all(
            part is not None or each is None for part, each in zip(parts, output, strict=True)
        )
        return tuple(parts) if fits else None
    return _like(output, given)


def _like(output: Any, given: Mapping[Key, Tensor]) -> Key | None:
    if not isinstance(output, Tensor) or not output.is_floating_point():
        return None
    alike = {key: _cosine(output, value) for key, value in given.items() if value.shape == output.shape and value.dtype == output.dtype}
    best = max(alike, key=lambda key: alike[key], default=None)
    return None if best is None or not alike[best] >= RESIDUAL else best


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.double().flatten(), b.double().flatten(), dim=0))


def skip_sets(model: Model) -> dict[str, Variant]:
    """Variants of the model that leave out a quarter, half and three quarters of its blocks, those that add least."""
    blocks = found(model)
    counts = sorted({round(share * len(blocks)) for share in SHARES} - {0, len(blocks)})
    sets = {f"skip{count}": without(model, {block.name: block.passes for block in blocks[:count]}) for count in counts}
    return {name: variant for name, variant in sets.items() if variant.cost < WORTH}


def without(model: Model, blocks: Mapping[str, Passes]) -> Variant:
    """The variant without these blocks; its cost is that of its multiplications."""
    assert isinstance(model.network, nn.Module)
    network = skipping(model.network, blocks)
    return Variant(network, operations(model, network) / operations(model, model.network), skips=tuple(sorted(blocks)))


def named(model: Model, names: Sequence[str]) -> dict[str, Passes]:
    """The blocks of these names. Raises KeyError for one that is none."""
    known = {block.name: block.passes for block in found(model)}
    return {name: known[name] for name in names}


def operations(model: Model, network: Any) -> int:
    """Multiplications and additions of a call with the fewest samples, in matrix products, convolutions and attention."""
    count = model.filled(1)
    t = torch.full((count,), float(model.schedule.t_start), dtype=model.time_dtype, device=model.device)
    x = torch.zeros(count, *model.shape, dtype=model.dtype, device=model.device)
    conditions = () if model.conditions is None else (model.conditions[:1].expand(count, *model.conditions.shape[1:]),)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(x, t, *conditions)
    return counter.get_total_flops()
