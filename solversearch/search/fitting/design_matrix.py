"""What the rows of a table combine, seen while the sampling loop runs: shared by the fit and the polish.

A row's columns are the noise and the outputs so far. Where the table has components, each column is many, one a component: products
of two of them are sums over the transformed columns under the hats of their bands, and nothing where their channel directions
or their bands are apart. So all products are kept as one small matrix for each channel direction, (directions, columns * bands, same).
The first row, which scales the noise, has one number: pipelines start from scaled noise.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from solversearch.components import Components, Transform
from solversearch.runtime import Coefficient, Row, scalars
from solversearch.sampling import Sampler

CHUNK = 2**23
"""Numbers in double precision at a time."""


class Recorder:
    """Keeps the outputs, split or not, that a sampling loop is sent: with the noise, the columns of every row."""

    def __init__(self, noise: Tensor, split: bool, components: Components | None = None) -> None:
        self.noise, self.split, self.components = noise, split, components
        self.transform = Transform(components, noise) if components else None
        self.directions = shape(components)[0]
        self.x = self.transformed(noise)
        self.d: list[Tensor] = []
        self.delta: list[Tensor] = []

    def watched(self, sampler: Sampler[Tensor]) -> Sampler[Tensor]:
        """The same loop, whose outputs are kept."""
        request = next(sampler)
        while True:
            output = yield request
            prediction, difference = output if isinstance(output, tuple) else (output, None)
            self.d.append(self.transformed(prediction))
            if difference is not None:
                self.delta.append(self.transformed(difference))
            try:
                request = sampler.send(output)
            except StopIteration as end:
                return end.value

    def transformed(self, array: Tensor) -> Tensor:
        """Samples (B, *shape) as the columns are kept: (B, directions, numbers)."""
        return (self.transform.forward(array) if self.transform else array).reshape(len(array), self.directions, -1)

    def parts(self, i: int) -> Components | None:
        """Those of row i."""
        return self.components if i else None

    def hats(self, i: int) -> Tensor:
        """The weight of each band of row i in the numbers of a direction, (bands, numbers), float64."""
        if self.transform is None or i == 0:
            return torch.ones(1, 1, dtype=torch.float64, device=self.noise.device)
        hats = self.transform.bands.flatten(1).double()
        return hats.repeat(1, self.x.shape[2] // hats.shape[1])

    def columns(self, i: int, n: int) -> Iterator[tuple[slice, Tensor]]:
        """Those that row i may use, of the first n samples, a few at a time: (samples, directions, columns, numbers), float64."""
        columns = [self.x, *self.d[:i], *self.delta[:i]]
        count = max(1, CHUNK // (self.x[0].numel() * len(columns)))
        for first in range(0, n, count):
            some = slice(first, min(first + count, n))
            together = torch.stack([column[some] for column in columns], dim=2).double()
            yield some, together if i else together.flatten(1)[:, None, None]

    def products(self, i: int, columns: Tensor) -> Tensor:
        """Of each sample, of every two columns in every two bands: (samples, directions, columns * bands, columns * bands), on the CPU."""
        n, directions, count, _ = columns.shape
        hats = self.hats(i)
        bands = len(hats)
        found = columns.new_zeros(n, directions, count, bands, count, bands)
        for p in range(bands):
            for q in range(p, min(p + 2, bands)):  # hats further apart do not meet
                found[:, :, :, p, :, q] = (columns * (hats[p] * hats[q])) @ columns.mT
                found[:, :, :, q, :, p] = found[:, :, :, p, :, q]
        return found.reshape(n, directions, count * bands, count * bands).cpu()

    def gram(self, i: int) -> Tensor:
        """Products of the columns that row i may use, over all samples: (directions, columns * bands, columns * bands), on the CPU."""
        return torch.stack([self.products(i, columns).sum(0) for _, columns in self.columns(i, len(self.noise))]).sum(0)


def shape(components: Components | None) -> tuple[int, int]:
    """Channel directions and bands, (1, 1) for plain coefficients."""
    return (max(1, len(components.channels)), max(1, len(components.bands))) if components else (1, 1)


def weights(row: Row, i: int, split: bool, components: Components | None = None) -> Tensor:
    """Row i's coefficients of those columns, (directions, columns * bands), float64."""
    directions, bands = shape(components)

    def each(coefficient: Coefficient) -> Tensor:
        return torch.tensor(scalars(coefficient), dtype=torch.float64).expand(directions * bands).reshape(directions, bands)

    both = (row.d, row.delta) if split else (row.d,)
    return torch.cat([each(row.x), *(each(value) for part in both for value in (*part, *[0.0] * (i - len(part))))], dim=1)


def columns_of(weights: Tensor, components: Components | None) -> Tensor:
    """Coefficients (..., directions, columns * bands) in the order of a row's: (..., columns, components)."""
    bands = shape(components)[1]
    return weights.reshape(*weights.shape[:-1], -1, bands).transpose(-3, -2).flatten(-2)


def row(weights: Tensor, i: int, components: Components | None = None) -> Row:
    """Inverse of `weights`."""
    x, *rest = (tuple(each) if components else each[0] for each in columns_of(weights, components).tolist())
    return Row(x, tuple(rest[:i]), tuple(rest[i:]))
