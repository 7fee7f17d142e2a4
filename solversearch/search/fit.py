"""The closed-form fit: each row of a table by ridge regression against the teacher's trajectory.

Given the nodes, row i asks for the coefficients a that bring the state nearest to the teacher's,

    min_a  sum_s w_s |F_s a - x*_s(node_i)|^2 + ridge * sum_j G_jj (a_j - prior_j)^2,      G = sum_s w_s F_s^T F_s,

where F_s holds the noise and the outputs so far *of the fitted plan itself*, so later rows mend what earlier ones left. No
backpropagation, one network evaluation a node. The prior is a hand-made table: published ablations lose a third to a half of
the gain without it. w_s are robust weights (iteratively reweighted), for errors are heavy-tailed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from solversearch.models.base import Denoiser
from solversearch.runtime import Node, Row, Tableau, run
from solversearch.teacher import Teacher


class _FittedRows(Sequence[Row]):
    """Rows that are solved for when the sampling loop asks for them, from the outputs it has seen by then."""

    def __init__(self, nodes: Sequence[Node], prior: Sequence[Row], teacher: Teacher, ridge: float, robust: bool, split: bool) -> None:
        self.nodes, self.prior, self.teacher = nodes, prior, teacher
        self.ridge, self.robust, self.split = ridge, robust, split
        self.d: list[Tensor] = []
        self.delta: list[Tensor] = []
        self.solved: list[Row] = []

    def __len__(self) -> int:
        return len(self.prior)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        index = range(len(self))[index]
        if index == len(self.solved):
            self.solved.append(self._solve(index))
        return self.solved[index]

    def _solve(self, i: int) -> Row:
        n = len(self.teacher)
        target = self.teacher.endpoint if i == len(self.nodes) else self.teacher.state(self.nodes[i])
        columns = [self.teacher.noise, *self.d, *self.delta]
        features = torch.stack([column[:n].reshape(n, -1) for column in columns], dim=-1).double()
        prior = self.prior[i]
        start = torch.tensor([prior.x, *_padded(prior.d, i), *_padded(prior.delta, i if self.split else 0)], dtype=torch.float64)
        residual = target.reshape(n, -1).double() - features @ start
        change = torch.zeros_like(start)
        for _ in range(3 if self.robust else 1):
            error = (residual - features @ change).square().mean(1)
            weight = 1 / (error + error.median() + 1e-12) if self.robust else torch.ones_like(error)
            weighted = (features * (weight / weight.mean())[:, None, None]).reshape(-1, len(start))
            gram = weighted.T @ features.reshape(-1, len(start))
            change = torch.linalg.solve(gram + self.ridge * torch.diag(gram.diagonal() + 1e-12), weighted.T @ residual.reshape(-1))
        solved = (start + change).tolist()
        return Row(solved[0], tuple(solved[1 : 1 + i]), tuple(solved[1 + i :]))


def _padded(weights: Sequence[float], size: int) -> tuple[float, ...]:
    return (*weights, *[0.0] * (size - len(weights)))


def fit(
    prior: Tableau, teacher: Teacher, denoise: Denoiser, noise: Tensor, ridge: float = 1e-4, robust: bool = False
) -> tuple[Tableau, Tensor]:
    """Fits every row of `prior` (a deterministic table) and samples with it.

    noise (B, *shape) begins with the teacher's n samples; the rest goes along unfitted, for validation. The denoiser's conditions
    match it; where it is split, the guidance difference gets columns of its own. Returns the fitted table and the samples (B, *shape).
    """
    rows = _FittedRows(prior.nodes, prior.rows, teacher, ridge, robust, denoise.split)

    def observed(x: Tensor, node: Node) -> Tensor | tuple[Tensor, Tensor]:
        output = denoise(x, node)
        prediction, difference = output if isinstance(output, tuple) else (output, None)
        rows.d.append(prediction)
        if difference is not None:
            rows.delta.append(difference)
        return output

    samples = run(prior.nodes, rows, observed, noise)
    return Tableau(prior.nodes, tuple(rows.solved)), samples
