"""Tables as functions of the numbers that published methods learn, in parametrisations of their own.

A method has up to three groups of numbers: `times`, from which the evaluated times follow; `told`, by which the times that the network is
told differ from those; and `coefficients`, by which the steps of the solver that is started from are changed,

    x_{n+1} = step(x_n, D_0 .. D_n) + sum_k c_k sum_i B_{k,n,i} D_i + sum_i a_{n,i} x_i,    i <= n.

A table follows from them by the solver's rule, so the derivatives are central differences, which ask the network nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar

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
    """What a method learns, from the table of a candidate on. The first time stays t_start: N evaluations have N - 1 times to be learned.

    theta (P,) are the groups one after the other, float64; `start` is theta at the given candidate. Where states is true the coefficients a
    (of i <= n, row by row) follow on c.
    """

    groups: ClassVar[tuple[str, ...]] = ("times", "told")
    states: ClassVar[bool] = False

    def __init__(self, schedule: NoiseSchedule, candidate: Candidate) -> None:
        self.schedule, self.count, self.range = schedule, len(candidate.times), schedule.t_start - schedule.t_end
        self._compiled = lru_cache(64)(lambda times: self._compile(replace(candidate, times=times)))
        self.lower = np.tril_indices(self.count)
        times = self.numbers_of(candidate.times)
        numbers = {"times": times, "told": np.zeros(self.count)}
        if "coefficients" in self.groups:
            bases = self.bases(self._compiled(tuple(self.times(times).tolist()))[0])
            numbers["coefficients"] = np.zeros(len(bases) + self.states * len(self.lower[0]))
        self.start = np.concatenate([numbers[name] for name in self.groups])
        ends = np.cumsum([0, *(len(numbers[name]) for name in self.groups)]).tolist()
        self.places = {name: slice(*ends[k : k + 2]) for k, name in enumerate(self.groups)}
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

    def bases(self, table: Tableau) -> Floats:
        """B (K, N, N) of a table of the solver, zero for i > n."""
        return np.zeros((0, self.count, self.count))

    def table_of(self, theta: Floats) -> Tableau:
        nodes, rows = self._numbers(theta)
        base = self._compiled(tuple(self.times(theta[self.places["times"]]).tolist()))[0]
        moved = tuple(replace(node, t=float(t)) for node, t in zip(base.nodes, nodes[:, 0], strict=True))
        return Tableau(moved, tuple(Row(x, tuple(d[:i])) for i, (x, *d) in enumerate(rows.tolist())))

    def table_at(self, theta: Tensor) -> Tableau:
        return self.table_of(theta.detach().cpu().numpy())

    def differentiable(self, theta: Tensor, like: Tensor) -> tuple[list[Node], list[Row]]:
        """Nodes and rows at theta (B, P), the same in all copies, as arrays that broadcast against the given one, (B, *shape)."""
        view, at = (-1, *[1] * (like.ndim - 1)), theta[0].detach().cpu().numpy()
        slopes = [(self._flat(at + h) - self._flat(at - h)) / (2 * STEP) for h in STEP * np.eye(len(at))]
        moved = (theta - theta.detach()) @ torch.tensor(np.array(slopes), device=theta.device)  # zero, but carries the gradient
        numbers: Iterator[Any] = iter((torch.tensor(self._flat(at), device=theta.device) + moved).to(like).unbind(1))
        guided = self.table.nodes
        nodes = [replace(node, t=next(numbers), alpha=next(numbers).view(view), sigma=next(numbers).view(view)) for node in guided]
        return nodes, [Row(next(numbers).view(view), tuple(next(numbers).view(view) for _ in range(i))) for i in range(self.count + 1)]

    def _compile(self, candidate: Candidate) -> tuple[Tableau, Floats, Floats]:
        """The solver's table, its rows as an array (N + 1, N + 1), and B."""
        table = candidate.tableau(self.schedule)
        rows = np.zeros((self.count + 1, self.count + 1))
        for i, row in enumerate(table.rows):
            rows[i, : 1 + len(row.d)] = row.x, *row.d
        return table, rows, self.bases(table) if "coefficients" in self.groups else np.zeros(0)

    def _numbers(self, theta: Floats) -> tuple[Floats, Floats]:
        """Time told, alpha and sigma of every node, (N, 3), and the rows, (N + 1, N + 1)."""
        each = {name: theta[place] for name, place in self.places.items()}
        times = self.times(each["times"])
        table, rows, bases = self._compiled(tuple(times.tolist()))
        levels = [(node.alpha, node.sigma) for node in table.nodes]
        nodes = np.column_stack([self.told(times, each["told"]), levels])
        if "coefficients" not in each:
            return nodes, rows
        states = np.zeros((self.count, self.count))
        if self.states:
            states[self.lower] = each["coefficients"][len(bases) :]
        return nodes, stepped(rows, np.tensordot(each["coefficients"][: len(bases)], bases, 1), states)

    def _flat(self, theta: Floats) -> Floats:
        nodes, rows = self._numbers(theta)
        return np.concatenate([nodes.ravel(), rows[np.tril_indices(self.count + 1)]])


def stepped(rows: Floats, outputs: Floats, states: Floats) -> Floats:
    """Rows (N + 1, N + 1) of x_{n+1} = step(x_n, D_0 .. D_n) + sum_i outputs[n, i] D_i + sum_i states[n, i] x_i, i <= n.

    The given rows are those of the steps alone, which are linear in the last state.
    """
    found = rows.copy()
    for n, (own, back) in enumerate(zip(outputs, states, strict=True)):
        found[n + 1] += rows[n + 1, 0] / rows[n, 0] * (found[n] - rows[n]) + back @ found[:-1]
        found[n + 1, 1:] += own
    return found
