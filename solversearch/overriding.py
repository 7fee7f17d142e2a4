"""Modules that answer otherwise for a while, and blocks of a network that are left out.

A residual block adds something to what it is given; left out, it hands that on. Or it adds what it added when it was last run (FORA,
Selvaraju et al. 2024, arXiv:2407.01425; Delta-DiT, Chen et al. 2024, arXiv:2406.01125), and a block that returns another shape returns
what it returned then (DeepCache, Ma et al. 2023, arXiv:2312.00858).
"""

import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

RESIDUAL = 0.5
"""Least cosine of what a residual block returns with what it was given."""
Key = int | str
"""An argument by its place or its name."""
Passes = Key | tuple[Key | None, ...]
"""Which argument a block left out returns, in a tuple where it returns several; None where the block itself returns that."""
Features = Mapping[str, list[list[Any]]]
"""By the names of blocks, of each of its calls within one of the network, what every tensor of its output adds to an argument."""


@dataclass
class Cached:
    """A block whose features are kept: by every part of its output the argument that it adds to, None where it adds to none, how the
    output is made of the parts, and whether it writes into what it is given. All are learned from its first call."""

    name: str
    keys: list[Key | None] | None = None
    form: TreeSpec | None = None
    writes: bool = True

    def features(self, output: Any, given: Mapping[Key, Tensor]) -> list[Any]:
        parts, form = tree_flatten(output)
        if self.keys is None:
            self.keys, self.form = [_like(part, given, least=-1.0) for part in parts], form
        return [_copied(part) if key is None else part - given[key] for key, part in zip(self.keys, parts, strict=True)]

    def output(self, features: list[Any], given: Mapping[Key, Tensor]) -> Any:
        assert self.keys is not None and self.form is not None
        return tree_unflatten(
            [_copied(part) if key is None else given[key] + part for key, part in zip(self.keys, features, strict=True)], self.form
        )


class Override:
    """Calls of module.forward become ask(forward, *args, **kwargs), until removed. Several may be on a module, and go in any order."""

    def __init__(self, module: nn.Module, ask: Callable[..., Any]) -> None:
        self.module, self.below, self.removed = module, module.__dict__.get("forward"), False
        inner = module.forward

        @functools.wraps(inner)
        def forward(*args: Any, **kwargs: Any) -> Any:
            return inner(*args, **kwargs) if self.removed else ask(inner, *args, **kwargs)

        forward.override = self  # type: ignore[attr-defined]
        module.forward = forward

    def remove(self) -> None:
        """Takes off what has been removed from the top: one below others stays until they go."""
        self.removed, members = True, self.module.__dict__
        while (top := getattr(members.get("forward"), "override", None)) is not None and top.removed:
            if top.below is None:
                del members["forward"]
            else:
                members["forward"] = top.below


@contextmanager
def left_out(network: nn.Module, blocks: dict[str, Passes | None]) -> Iterator[None]:
    """Leaves out the blocks of these names. What is not known to pass yet (None) is learned, and noted, when the block is first called.

    Raises ValueError for one that returns nothing of the shape of what it is given, AttributeError for one that is not there.
    """
    overrides = [Override(network.get_submodule(name), partial(_pass_on, blocks, name)) for name in blocks]
    try:
        yield
    finally:
        for each in overrides:
            each.remove()


def _pass_on(blocks: dict[str, Passes | None], name: str, forward: Any, *args: Any, **kwargs: Any) -> Any:
    passes = blocks[name]
    if passes is None:
        passes = blocks[name] = passed(forward(*args, **kwargs), tensors(args, kwargs), least=-1.0)
    if passes is None:
        raise ValueError(f"{name} cannot be left out: it returns nothing of the shape of what it is given")

    def given(key: Key | None) -> Any:
        return None if key is None else args[key] if isinstance(key, int) else kwargs[key]

    return tuple(map(given, passes)) if isinstance(passes, tuple) else given(passes)


@contextmanager
def remembering(
    network: nn.Module, blocks: Collection[Cached], reused: Collection[str], last: Features
) -> Iterator[dict[str, list[list[Any]]]]:
    """Within, blocks keep their features in what is yielded. Those reused are not run, and have their last ones, where there are any."""
    kept: dict[str, list[list[Any]]] = {block.name: [] for block in blocks}

    def ask(block: Cached, forward: Any, *args: Any, **kwargs: Any) -> Any:
        given, done = tensors(args, kwargs), kept[block.name]
        earlier = last.get(block.name, []) if block.name in reused else []
        if len(done) < len(earlier):
            done.append(earlier[len(done)])
            return block.output(done[-1], given)
        before = {key: value.clone() for key, value in given.items()} if block.writes else given
        versions = _versions(given)
        output = forward(*args, **kwargs)
        block.writes = not versions or versions != _versions(given)
        done.append(block.features(output, before))
        return output

    overrides = [Override(network.get_submodule(block.name), partial(ask, block)) for block in blocks]
    try:
        yield kept
    finally:
        for each in overrides:
            each.remove()


def _versions(given: Mapping[Key, Tensor]) -> list[int]:
    """How often tensors were written into; none where that is not counted."""
    return [] if any(value.is_inference() for value in given.values()) else [value._version for value in given.values()]


def _copied(part: Any) -> Any:
    return part.clone() if isinstance(part, Tensor) else part


def tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[Key, Tensor]:
    every: list[tuple[Key, Any]] = [*enumerate(args), *kwargs.items()]
    return {key: value for key, value in every if isinstance(value, Tensor)}


def passed(output: Any, given: Mapping[Key, Tensor], least: float = RESIDUAL) -> Passes | None:
    """The argument that each part of a block's output is most like, by its cosine, least at least; None where one is like none of them."""
    if not isinstance(output, tuple):
        return _like(output, given, least)
    parts = [_like(each, given, least) for each in output]
    whole = all(part is not None or each is None for part, each in zip(parts, output, strict=True))
    return tuple(parts) if whole and any(part is not None for part in parts) else None


def _like(output: Any, given: Mapping[Key, Tensor], least: float) -> Key | None:
    if not isinstance(output, Tensor) or not output.is_floating_point():
        return None
    alike = {key: _cosine(output, value) for key, value in given.items() if value.shape == output.shape and value.dtype == output.dtype}
    best = max(alike, key=lambda key: alike[key], default=None)
    return None if best is None or not alike[best] >= least else best


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.detach().double().flatten(), b.detach().double().flatten(), dim=0))
