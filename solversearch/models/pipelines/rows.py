"""What a network is called with, taken apart into what every sample of a batch brings and what all share, and put together again.

A pipeline guides with several rows a sample in one call (unconditional and conditional), or with several calls; some networks take lists
with an entry a row in place of tensors. Which parts are rows is seen from the same call for one sample and for two.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from solversearch.models.pipelines.guest import Misfit

Path = tuple[Any, ...]
SAME, ROWS = "same", "rows"


def kind_of(one: Any, two: Any) -> Any:
    """`ROWS` for what is twice as long for two samples as for one, `SAME` for what is as long, or a container of such kinds."""
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        if one.shape == two.shape:
            return SAME
        if one.ndim == two.ndim and two.shape[0] == 2 * one.shape[0] and two.shape[1:] == one.shape[1:]:
            return ROWS
        raise Misfit(f"for two samples its network is given a tensor of {tuple(two.shape)}, for one of {tuple(one.shape)}")
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        return {key: kind_of(one[key], two[key]) for key in one}
    if isinstance(one, list | tuple) and isinstance(two, list | tuple):
        if len(two) == 2 * len(one):
            return ROWS
        if len(two) == len(one):
            return [kind_of(*pair) for pair in zip(one, two, strict=True)]
    if type(one) is type(two) and one == two:
        return SAME
    raise Misfit("for two samples its network is given other settings than for one")


def guessed(value: Any, count: int) -> Any:
    """`kind_of` where the pipeline takes no two samples: what is as long as the rows of the state."""
    if isinstance(value, dict):
        return {key: guessed(each, count) for key, each in value.items()}
    return ROWS if isinstance(value, Tensor | list | tuple) and _long(value) == count else SAME


def _long(value: Any) -> int:
    return value.shape[0] if isinstance(value, Tensor) and value.ndim else len(value) if isinstance(value, list | tuple) else 0


def count_of(value: Any, kind: Any) -> int:
    """How many rows there are."""
    if kind is ROWS:
        return _long(value)
    if isinstance(kind, dict | list):
        return max((count_of(value[key], each) for key, each in _entries(kind)), default=0)
    return 0


def row_of(value: Any, kind: Any, row: int, rows: int) -> Any:
    """One row of so many, as a batch of one; some videos have an entry a frame in each."""

    def part(each: Any) -> Any:
        size = max(len(each) // rows, 1)
        return each[row * size : (row + 1) * size]

    return _mapped(kind, part, value)


def joined(values: list[Any], kind: Any) -> Any:
    """The batch of rows that `row_of` gave."""

    def batch(*rows: Any) -> Any:
        return torch.cat(rows) if isinstance(rows[0], Tensor) else type(rows[0])(each for row in rows for each in row)

    return _mapped(kind, batch, *values)


def _mapped(kind: Any, function: Callable[..., Any], value: Any, *others: Any) -> Any:
    if kind is ROWS:
        return function(value, *others)
    if isinstance(kind, dict):
        return {key: _mapped(kind[key], function, value[key], *(each[key] for each in others)) for key in value}
    if isinstance(kind, list):
        return type(value)(_mapped(each, function, value[i], *(other[i] for other in others)) for i, each in enumerate(kind))
    return value


def _entries(kind: Any) -> Iterator[tuple[Any, Any]]:
    return iter(kind.items() if isinstance(kind, dict) else enumerate(kind))


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Everything that is no container, and where it is."""
    if isinstance(value, dict | list | tuple):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(each, (*path, key))
    else:
        yield path, value


def placed(value: Any, path: Path, leaf: Any) -> Any:
    """A copy of the containers on the way to the path, with another leaf there."""
    if not path:
        return leaf
    if isinstance(value, dict):
        return value | {path[0]: placed(value[path[0]], path[1:], leaf)}
    return type(value)(placed(each, path[1:], leaf) if i == path[0] else each for i, each in enumerate(value))


def differ(one: Any, two: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        return one.shape != two.shape or not torch.equal(one, two)
    return bool(type(one) is not type(two) or (isinstance(one, int | float | str | bool | torch.dtype) and one != two))
