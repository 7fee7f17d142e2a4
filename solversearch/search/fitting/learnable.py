"""Tables as functions of the numbers that published methods learn, in parametrisations of their own.

A method has up to three groups of numbers: `times`, from which the evaluated times follow; `told`, by which the times that the network is
told differ from those; and `coefficients`, by which the steps differ from those of the solver that is started from. A table follows from
them by the solver's rule, so the derivatives are central differences, which ask the network nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from solversearch.runtime import Node, Row, Tableau
from solversearch.schedules import Floats, NoiseSchedule
from solversearch.spaces import Candidate

STEP = 1e-5
"""Of the differences: in double precision their error is some 1e-10."""
LEAST = 1e-4
"""Share of the range that steps of the start have at least, so that its times are those of finite numbers."""


class Learnable(ABC):
    """What a method learns, from the table of a candidate on. The first time stays t_start; N evaluations have N - 1 times to be learned.

    theta (P,) are the groups one after the other, float64; `start` is theta at the given candidate.
    """

    groups: ClassVar[tuple[str, ...]] = ("times", "told")

    def __init__(self, schedule: NoiseSchedule, candidate: Candidate) -> None:
        self.schedule, self.count = schedule, len(candidate.times)
        self._base = lru_cache(64)(lambda times: replace(candidate, times=times).tableau(schedule))
        numbers = {"times": self.numbers_of(candidate.times), "told": np.zeros(self.count), "coefficients": np.zeros(self.coefficients)}
        self.start = np.concatenate([numbers[name] for name in self.groups])
        ends = np.cumsum([0, *(len(numbers[name]) for name in self.groups)])
        self.places = {name: slice(*ends[k : k + 2].tolist()) for k, name in enumerate(self.groups)}
        self.table = self.table_of(self.start)

    @abstractmethod
    def times(self, numbers: Floats) -> Floats:
        """The N falling times, for any numbers."""

    @abstractmethod
    def numbers_of(self, times: Sequence[float]) -> Floats:
        """Inverse of `times`, the first of which is taken for t_start."""

    @abstractmethod
    def told(self, times: Floats, numbers: Floats) -> Floats:
        """The times (N,) that the network is told, within the schedule; at zeros the given ones."""

    @property
    def coefficients(self) -> int:
        """How many there are."""
        return 0

    def rows(self, table: Tableau, numbers: Floats) -> tuple[Row, ...]:
        """Those of the table, changed by the coefficients' numbers."""
        return table.rows

    def table_of(self, theta: Floats) -> Tableau:
        each = {name: theta[place] for name, place in self.places.items()}
        times = self.times(each["times"])
        base = self._base(tuple(times.tolist()))
        nodes = [replace(node, t=t) for node, t in zip(base.nodes, self.told(times, each["told"]).tolist(), strict=True)]
        return Tableau(tuple(nodes), self.rows(base, each["coefficients"]) if "coefficients" in each else base.rows)

    def table_at(self, theta: Tensor) -> Tableau:
        return self.table_of(theta.detach().cpu().numpy())

    def differentiable(self, theta: Tensor, like: Tensor) -> tuple[list[Node], list[Row]]:
        """Nodes and rows at theta (B, P), the same in all copies, as arrays that broadcast against the given one, (B, *shape)."""
        view, at = (-1, *[1] * (like.ndim - 1)), theta[0].detach().cpu().numpy()
        table, apart = self.table_of(at), STEP * np.eye(len(at))
        slopes = [(_flat(self.table_of(at + h)) - _flat(self.table_of(at - h))) / (2 * STEP) for h in apart]
        moved = (theta - theta.detach()) @ torch.tensor(np.array(slopes), device=theta.device)  # zero, but carries the gradient
        numbers = iter((torch.tensor(_flat(table), device=theta.device) + moved).to(like).unbind(1))
        nodes = [replace(node, t=next(numbers), alpha=next(numbers).view(view), sigma=next(numbers).view(view)) for node in table.nodes]
        return nodes, [Row(next(numbers).view(view), tuple(next(numbers).view(view) for _ in row.d)) for row in table.rows]


def _flat(table: Tableau) -> Floats:
    nodes = [number for node in table.nodes for number in (node.t, node.alpha, node.sigma)]
    return np.array([*nodes, *(number for row in table.rows for number in (row.x, *row.d))])


def stepped(rows: Sequence[Row], outputs: Sequence[Floats], states: Floats | None = None) -> tuple[Row, ...]:
    """Rows of x_{n+1} = step(x_n, D_0 .. D_n) + sum_i states[n, i] x_i + sum_i outputs[n][i] D_i, i <= n.

    The given rows are those of the steps alone, which are linear in the last state. states (N, N), outputs N arrays (n + 1,).
    """
    count = len(rows) - 1
    given, change = np.zeros((count + 1, count + 1)), np.zeros((count + 1, count + 1))
    for i, row in enumerate(rows):
        given[i, : 1 + len(row.d)] = row.x, *row.d
    for n in range(count):
        change[n + 1] = given[n + 1, 0] / given[n, 0] * change[n]
        change[n + 1, 1 : n + 2] += outputs[n]
        if states is not None:
            change[n + 1] += states[n, : n + 1] @ (given + change)[: n + 1]
    return tuple(Row(x, tuple(d[:i])) for i, (x, *d) in enumerate((given + change).tolist()))
