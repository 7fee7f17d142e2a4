"""The numbers that the polish moves: residuals on a table's times and coefficients.

Coefficients of one row are nearly collinear (successive outputs resemble each other), so each row's residual is expressed in the
orthonormal basis of its own columns; a time moves in its schedule's `position`, and the noise level of its input with it.
"""

from dataclasses import replace
from math import atan2
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solversearch.models.base import Model
from solversearch.runtime import Node, Row, Tableau
from solversearch.search.fitting.design_matrix import Recorder, columns_of, row, row_of, weights

COLLINEAR = 1e-6
"""Least eigenvalue of a row's columns, over the largest: below it single precision cannot tell directions apart."""
SHIFT = 1e-4
"""Of a position, for the slope of a node."""


class Coordinates:
    """theta (P,), zero at the given table, and the way from it to nodes and rows; all numbers float64."""

    def __init__(self, model: Model, table: Tableau, seen: Recorder, times: bool) -> None:
        self.model, self.table, self.times = model, table, times
        self.differences = seen.differences
        self.parts = [seen.parts(i) for i in range(len(table.rows))]
        self.told = [float(model.schedule.position(node.t)) for node in table.nodes]
        self.level = [float(np.log(np.tan(atan2(node.sigma, node.alpha) / 2))) for node in table.nodes]
        self.start: list[Tensor] = []
        self.basis: list[Tensor] = []
        for i, given in enumerate(table.rows):
            values, vectors = torch.linalg.eigh(seen.gram(i) / seen.noise.numel())
            self.basis.append(vectors / values.clamp(min=COLLINEAR * float(values.max())).sqrt()[:, None])
            self.start.append(weights(given, i, seen.differences, seen.parts(i)))
        self.sizes = [table.nfe if times else 0, *(start.numel() for start in self.start)]

    def table_at(self, theta: Tensor) -> Tableau:
        """The table of theta (P,), in plain numbers."""
        shifts, *residuals = torch.split(theta, self.sizes)
        nodes = [self._node(i, float(shift))[0] for i, shift in enumerate(shifts)] if self.times else self.table.nodes
        rows = [row(self._moved(i, residual[None])[0], i, self.differences, self.parts[i]) for i, residual in enumerate(residuals)]
        return Tableau(tuple(nodes), tuple(rows), components=self.table.components)

    def differentiable(self, theta: Tensor, like: Tensor) -> tuple[list[Node], list[Row]]:
        """Nodes and rows of theta (B, P), one copy a sample, whose numbers broadcast against arrays like the given one, (B, *shape).

        A gradient a sample is what keeps the sum over samples, and so the plan, independent of the batch size.
        """
        view = (-1, *[1] * (like.ndim - 1))
        shifts, *residuals = torch.split(theta, self.sizes, dim=1)
        nodes = list(self.table.nodes)
        if self.times:
            for i in range(len(nodes)):
                shift = shifts[:, i]
                node, slope = self._node(i, float(shift[0].detach()))
                moved = shift - shift.detach()  # zero, but carries the gradient
                t, alpha, sigma = (getattr(node, name) + getattr(slope, name) * moved for name in ("t", "alpha", "sigma"))
                nodes[i] = replace(node, t=t.to(like), alpha=alpha.to(like).view(view), sigma=sigma.to(like).view(view))
        rows = []
        for i, residual in enumerate(residuals):
            columns = columns_of(self._moved(i, residual).to(like), self.parts[i])
            each: list[Any] = [w if self.parts[i] else w.reshape(view) for w in columns.unbind(1)]
            rows.append(row_of(each, i, self.differences))
        return nodes, rows

    def _moved(self, i: int, residuals: Tensor) -> Tensor:
        """Row i's coefficients (B, directions, columns * bands) at residuals (B, numbers)."""
        start, basis = self.start[i], self.basis[i]
        return start + (basis @ residuals.reshape(-1, *start.shape)[..., None])[..., 0]

    def _node(self, i: int, shift: float, h: float = SHIFT) -> tuple[Node, Node]:
        """The given node moved by a shift, kept within the schedule, and its derivative by the shift.

        The time that the network is told and the noise level of its input may differ (`Candidate.input_shift`): both move alike.
        """
        schedule, given = self.model.schedule, self.table.nodes[i]

        def at(moved: float) -> Node:
            node = schedule.node(float(schedule.time_at(self.level[i] + moved)))
            return replace(given, t=float(schedule.time_at(self.told[i] + moved)), alpha=node.alpha, sigma=node.sigma)

        low, high = at(shift - h), at(shift + h)
        t, alpha, sigma = ((getattr(high, name) - getattr(low, name)) / (2 * h) for name in ("t", "alpha", "sigma"))
        return at(shift) if shift else given, Node(t, alpha, sigma)
