"""What the rows of a table combine, seen while the sampling loop runs: shared by the fit and the polish."""

import torch
from torch import Tensor

from solversearch.models.base import Denoiser
from solversearch.runtime import Node, Row


class Recorder:
    """A denoiser that keeps its outputs: with the noise, the columns of every row."""

    def __init__(self, denoise: Denoiser, noise: Tensor) -> None:
        self.denoise, self.noise = denoise, noise
        self.d: list[Tensor] = []
        self.delta: list[Tensor] = []

    def __call__(self, x: Tensor, node: Node) -> Tensor | tuple[Tensor, Tensor]:
        output = self.denoise(x, node)
        prediction, difference = output if isinstance(output, tuple) else (output, None)
        self.d.append(prediction)
        if difference is not None:
            self.delta.append(difference)
        return output

    def features(self, i: int, n: int) -> Tensor:
        """The columns that row i may use, of the first n samples: (n, dimensions, columns), float64."""
        columns = [self.noise, *self.d[:i], *self.delta[:i]]
        return torch.stack([column[:n].reshape(n, -1) for column in columns], dim=-1).double()


def weights(row: Row, i: int, split: bool) -> Tensor:
    """Row i's coefficients of those columns, (columns,), float64."""
    both = (row.d, row.delta) if split else (row.d,)
    return torch.tensor([row.x, *(value for each in both for value in (*each, *[0.0] * (i - len(each))))], dtype=torch.float64)


def row(weights: Tensor, i: int) -> Row:
    """Inverse of `weights`."""
    x, *rest = weights.tolist()
    return Row(x, tuple(rest[:i]), tuple(rest[i:]))
