"""What the rows of a table combine, seen while the sampling loop runs: shared by the fit and the polish."""

from collections.abc import Iterator

import torch
from torch import Tensor

from solversearch.runtime import Row
from solversearch.sampling import Sampler

CHUNK = 2**23
"""Numbers in double precision at a time."""


class Recorder:
    """Keeps the outputs, split or not, that a sampling loop is sent: with the noise, the columns of every row."""

    def __init__(self, noise: Tensor, split: bool) -> None:
        self.noise, self.split = noise, split
        self.d: list[Tensor] = []
        self.delta: list[Tensor] = []

    def watched(self, sampler: Sampler[Tensor]) -> Sampler[Tensor]:
        """The same loop, whose outputs are kept."""
        request = next(sampler)
        while True:
            output = yield request
            prediction, difference = output if isinstance(output, tuple) else (output, None)
            self.d.append(prediction)
            if difference is not None:
                self.delta.append(difference)
            try:
                request = sampler.send(output)
            except StopIteration as end:
                return end.value

    def features(self, i: int, n: int) -> Iterator[tuple[slice, Tensor]]:
        """The columns that row i may use, of the first n samples, a few at a time: (samples, dimensions, columns), float64."""
        columns = [self.noise, *self.d[:i], *self.delta[:i]]
        count = max(1, CHUNK // (self.noise[0].numel() * len(columns)))
        for first in range(0, n, count):
            some = slice(first, min(first + count, n))
            yield some, torch.stack([column[some].flatten(1) for column in columns], dim=-1).double()

    def gram(self, i: int) -> Tensor:
        """Products of those columns, over all samples: (columns, columns), on the CPU."""
        products = [features.flatten(0, 1).T @ features.flatten(0, 1) for _, features in self.features(i, len(self.noise))]
        return torch.stack(products).sum(0).cpu()


def weights(row: Row, i: int, split: bool) -> Tensor:
    """Row i's coefficients of those columns, (columns,), float64."""
    both = (row.d, row.delta) if split else (row.d,)
    return torch.tensor([row.x, *(value for each in both for value in (*each, *[0.0] * (i - len(each))))], dtype=torch.float64)


def row(weights: Tensor, i: int) -> Row:
    """Inverse of `weights`."""
    x, *rest = weights.tolist()
    return Row(x, tuple(rest[:i]), tuple(rest[i:]))
