"""What the rows of a table combine, seen while the sampling loop runs: shared by the fit and the polish.

A row's columns are the noise and the outputs so far. Where the table has components, each column is many, one a component: products
of two of them are sums over the transformed columns under the hats of their bands, and nothing where their channel directions
or their bands are apart. So products are kept for each channel direction and each pair of bands that meet, see `meeting`.
The first row, which scales the noise, has one number: pipelines start from scaled noise.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from solversearch.components import Components, Transform
from solversearch.runtime import Coefficient, Node, Row, Tableau, scalars
from solversearch.sampling import Sampler

CHUNK = 2**23
"""Numbers in double precision at a time."""


def frugal(table: Tableau) -> tuple[Node, ...]:
    """Its nodes, where rows are to split the guidance: those of guidance 1 then make one call and reuse the differences of others.

    One whose own difference is used already stays as it is.
    """
    return tuple(
        replace(node, guidance_difference="reuse") if node.guidance == 1 and not table.uses_difference(i) else node
        for i, node in enumerate(table.nodes)
    )


def differences(nodes: Sequence[Node]) -> tuple[int, ...]:
    """The evaluations that have a guidance difference, where rows split the guidance."""
    return tuple(i for i, node in enumerate(nodes) if not node.reuses)


class Recorder:
    """Keeps the outputs that a sampling loop is sent, and the guidance differences of some: with the noise, the columns of every row."""

    def __init__(self, noise: Tensor, differences: Sequence[int] = (), components: Components | None = None) -> None:
        self.noise, self.differences, self.components = noise, differences, components
        self.transform = Transform(components, noise) if components else None
        self.directions = shape(components)[0]
        self.order: Tensor | None = None
        if self.transform and components and len(components.bands) > 1:  # by frequency: each band is then a slice
            hats = self.transform.bands.flatten(1).double()
            per = noise[0].numel() // self.directions
            place = (torch.arange(len(hats), device=hats.device, dtype=hats.dtype) @ hats).repeat(per // hats.shape[1])
            self.order = place.argsort(stable=True)
        self.x = self.transformed(noise)
        self.d: list[Tensor] = []
        self.delta: dict[int, Tensor] = {}

    def watched(self, sampler: Sampler[Tensor]) -> Sampler[Tensor]:
        """The same loop, whose outputs are kept."""
        request = next(sampler)
        while True:
            output = yield request
            prediction, difference = output if isinstance(output, tuple) else (output, None)
            if difference is not None and len(self.d) in self.differences:
                self.delta[len(self.d)] = self.transformed(difference)
            self.d.append(self.transformed(prediction))
            try:
                request = sampler.send(output)
            except StopIteration as end:
                return end.value

    def transformed(self, array: Tensor) -> Tensor:
        """Samples (B, *shape) as the columns are kept: (B, directions, numbers)."""
        found = (self.transform.forward(array) if self.transform else array).reshape(len(array), self.directions, -1)
        return found if self.order is None else found[..., self.order]

    def parts(self, i: int) -> Components | None:
        """Those of row i."""
        return self.components if i else None

    def hats(self, i: int) -> Tensor:
        """The weight of each band of row i in the numbers of a direction, (bands, numbers), float64."""
        if self.transform is None or self.order is None or i == 0:
            return torch.ones(1, 1, dtype=torch.float64, device=self.noise.device)
        hats = self.transform.bands.flatten(1).double()
        return hats.repeat(1, self.x.shape[2] // hats.shape[1])[:, self.order]

    def spans(self, i: int) -> list[slice]:
        """Where the weights of each band are not zero."""
        hats = self.hats(i)
        if len(hats) == 1:
            return [slice(None)]
        there = [torch.nonzero(hat).flatten() for hat in hats]
        return [slice(int(each[0]), int(each[-1]) + 1) for each in there]

    def columns(self, i: int, n: int) -> Iterator[tuple[slice, Tensor]]:
        """Those that row i may use, of the first n samples, a few at a time: (samples, directions, columns, numbers), float64."""
        columns = [self.x, *self.d[:i], *(self.delta[j] for j in self.differences if j < i)]
        count = max(1, CHUNK // (self.x[0].numel() * len(columns)))
        for first in range(0, n, count):
            some = slice(first, min(first + count, n))
            together = torch.stack([column[some] for column in columns], dim=2).double()
            yield some, together if i else together.flatten(1)[:, None, None]

    def products(self, i: int, columns: Tensor) -> Tensor:
        """Of every two columns under the hats of `meeting` bands: (samples, directions, pairs, columns, columns), on the CPU."""
        hats, spans, found = self.hats(i), self.spans(i), []
        for p, q in meeting(len(hats)):
            both = slice(spans[q].start, spans[p].stop)
            some = columns[..., both]
            found.append((some * (hats[p] * hats[q])[both]) @ some.mT)
        return torch.stack(found, dim=2).cpu()

    def gram(self, i: int) -> Tensor:
        """Products of the columns that row i may use, over all samples: (directions, columns * bands, columns * bands), on the CPU."""
        return whole(torch.stack([self.products(i, columns).sum(0) for _, columns in self.columns(i, len(self.noise))]).sum(0))


def meeting(bands: int) -> list[tuple[int, int]]:
    """Pairs of bands whose hats meet: each with itself, and with the next."""
    return [(p, q) for p in range(bands) for q in range(p, min(p + 2, bands))]


def whole(products: Tensor) -> Tensor:
    """Products (directions, pairs of `meeting` bands, columns, columns) as one matrix a direction, columns and bands together."""
    directions, pairs, count, _ = products.shape
    bands = (pairs + 1) // 2
    found = products.new_zeros(directions, count, bands, count, bands)
    for k, (p, q) in enumerate(meeting(bands)):
        found[:, :, p, :, q] = found[:, :, q, :, p] = products[:, k]
    return found.reshape(directions, count * bands, count * bands)


def squares(products: Tensor, weights: Tensor) -> Tensor:
    """|F w|^2 of each sample, (samples,), from its products and weights (directions, columns * bands)."""
    bands = (products.shape[2] + 1) // 2
    each = weights.reshape(len(weights), -1, bands)
    pairs = [((1 if p == q else 2) * each[..., p], each[..., q]) for p, q in meeting(bands)]
    outer = torch.stack([p[..., :, None] * q[..., None, :] for p, q in pairs], dim=1)
    return products.flatten(1) @ outer.flatten()


def shape(components: Components | None) -> tuple[int, int]:
    """Channel directions and bands, (1, 1) for plain coefficients."""
    return (max(1, len(components.channels)), max(1, len(components.bands))) if components else (1, 1)


def weights(row: Row, i: int, differences: Sequence[int] = (), components: Components | None = None) -> Tensor:
    """Row i's coefficients of those columns, (directions, columns * bands), float64."""
    directions, bands = shape(components)

    def each(coefficient: Coefficient) -> Tensor:
        return torch.tensor(scalars(coefficient), dtype=torch.float64).expand(directions * bands).reshape(directions, bands)

    d, delta = ((*part, *[0.0] * (i - len(part))) for part in (row.d, row.delta))
    return torch.cat([each(value) for value in (row.x, *d, *(delta[j] for j in differences if j < i))], dim=1)


def columns_of(weights: Tensor, components: Components | None) -> Tensor:
    """Coefficients (..., directions, columns * bands) in the order of a row's: (..., columns, components)."""
    bands = shape(components)[1]
    return weights.reshape(*weights.shape[:-1], -1, bands).transpose(-3, -2).flatten(-2)


def row(weights: Tensor, i: int, differences: Sequence[int] = (), components: Components | None = None) -> Row:
    """Inverse of `weights`."""
    return row_of([tuple(each) if components else each[0] for each in columns_of(weights, components).tolist()], i, differences)


def row_of(columns: Sequence[Any], i: int, differences: Sequence[int]) -> Row:
    """Row i with those coefficients of the noise, the outputs and the differences that there are; others have none."""
    known = dict(zip(differences, columns[1 + i :], strict=False))
    return Row(columns[0], tuple(columns[1 : 1 + i]), tuple(known.get(j, 0.0) for j in range(1 + max(known, default=-1))))
