"""A pipeline's network at evaluations that reuse guidance differences: with the condition alone, at half the cost.

The pipeline goes on asking for both. What it gets without the condition is the network's last such output: `attachment` knows that it is
stale, and takes it out of what the pipeline makes of the two.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, cat
from torch.utils._pytree import tree_map

from solversearch.overriding import Features


@dataclass(frozen=True)
class Order:
    """How a pipeline asks for c and u: in one call of so many rows, or in two calls (rows is 0), and whether u comes first."""

    rows: int
    first: bool

    @property
    def conditional(self) -> slice:
        half = self.rows // 2
        return slice(half, None) if self.first else slice(0, half)

    @property
    def other(self) -> slice:
        half = self.rows // 2
        return slice(0, half) if self.first else slice(half, None)

    def is_other(self, call: int) -> bool:
        """Whether the call-th of an evaluation is without the condition."""
        return self.rows == 0 and call == (0 if self.first else 1)


def half(value: Any, order: Order) -> Any:
    """Of a network's arguments the rows with the condition: in tensors, and in lists with an entry a row."""
    if isinstance(value, Tensor):
        return value[order.conditional] if value.ndim and len(value) == order.rows else value
    if isinstance(value, dict):
        return {name: half(each, order) for name, each in value.items()}
    if isinstance(value, list | tuple):
        inner = [half(each, order) for each in value]
        if isinstance(value, list) and len(value) == order.rows and all(a is b for a, b in zip(value, inner, strict=True)):
            return value[order.conditional]
        return inner if isinstance(value, list) else type(value)(inner) if type(value) is tuple else value
    return value


def whole(last: Any, given: Any, order: Order) -> Any:
    """The output of a call of all rows: with the condition the given, without it those of the last output. Raises ValueError where the
    network has not taken the rows for samples."""
    if isinstance(given, Tensor | list):
        if not isinstance(last, type(given)) or (2 * len(given), len(last)) != (order.rows, order.rows):
            raise ValueError(f"the network returned {len(given)} rows for {order.rows // 2}: it cannot be asked with the condition alone")
        parts: Any = (last[order.other], given) if order.first else (given, last[order.other])
        return cat(parts) if isinstance(given, Tensor) else [*parts[0], *parts[1]]
    if isinstance(given, tuple):
        return (whole(last[0], given[0], order), *given[1:])
    return type(given)(sample=whole(last.sample, given.sample, order))


def half_features(features: Features, order: Order) -> Features:
    """Those of the rows with the condition; blocks may have several rows for one of the network."""
    found: Features = tree_map(lambda value: _rows(value, order.first, order), features)
    return found


def whole_features(last: Features, given: Features, order: Order) -> Features:
    """With the condition the given, without it the last; of the blocks alone that have both."""

    def both(old: Any, new: Any) -> Any:
        if not isinstance(new, Tensor) or len(new) == len(old):
            return new
        other = _rows(old, not order.first, order)
        return cat([other, new] if order.first else [new, other])

    return {name: tree_map(both, last[name], calls) for name, calls in given.items() if name in last}


def _rows(value: Any, second: bool, order: Order) -> Any:
    if not isinstance(value, Tensor) or not value.ndim or len(value) % order.rows:
        return value
    rows = len(value) // 2
    return value[rows:] if second else value[:rows]
