"""The closed-form fit: each row of a table by ridge regression against the teacher's trajectory.

Given the nodes, row i asks for the coefficients a that bring the state nearest to the teacher's,

    min_a  sum_s w_s |F_s a - x*_s(node_i)|^2 + ridge * sum_j G_jj (a_j - prior_j)^2,      G = sum_s w_s F_s^T F_s,

where F_s holds the noise and the outputs so far *of the fitted plan itself*, so later rows mend what earlier ones left. No
backpropagation, one network evaluation a node. The prior is a hand-made table: published ablations lose a third to a half of
the gain without it. w_s are robust weights (iteratively reweighted), for errors are heavy-tailed.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from solversearch.models.base import Denoiser
from solversearch.runtime import Row, Tableau, run
from solversearch.search.columns import Recorder, row, weights
from solversearch.teacher import Teacher


class _FittedRows(Sequence[Row]):
    """Rows that are solved for when the sampling loop asks for them, from the outputs it has seen by then."""

    def __init__(self, prior: Tableau, teacher: Teacher, seen: Recorder, ridge: float, robust: bool) -> None:
        self.prior, self.teacher, self.seen, self.ridge, self.robust = prior, teacher, seen, ridge, robust
        self.solved: list[Row] = []

    def __len__(self) -> int:
        return len(self.prior.rows)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        index = range(len(self))[index]
        if index == len(self.solved):
            self.solved.append(self._solve(index))
        return self.solved[index]

    def _solve(self, i: int) -> Row:
        nodes, n = self.prior.nodes, len(self.teacher)
        target = self.teacher.endpoint if i == len(nodes) else self.teacher.state(nodes[i])
        features = self.seen.features(i, n)
        start = weights(self.prior.rows[i], i, self.seen.denoise.split)
        residual = target.reshape(n, -1, 1).double() - features @ start[:, None]
        # Of each sample: (n, columns, columns), (n, columns) and (n,).
        grams, moments, square = features.mT @ features, (features.mT @ residual)[:, :, 0], residual.square().sum((1, 2))
        weight, change = torch.ones(n, dtype=torch.float64), torch.zeros_like(start)
        for _ in range(3 if self.robust else 1):
            gram, moment = (torch.tensordot(weight / weight.mean(), each, 1) for each in (grams, moments))
            change = torch.linalg.solve(gram + self.ridge * torch.diag(gram.diagonal() + 1e-12), moment)
            error = (square - 2 * moments @ change + (grams @ change) @ change).clamp(min=0) / residual.shape[1]
            weight = 1 / (error + error.median() + 1e-12)
        return row(start + change, i)


def fit(
    prior: Tableau,
    teacher: Teacher,
    denoise: Denoiser,
    noise: Tensor,
    ridge: float = 1e-4,
    robust: bool = False,
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
) -> tuple[Tableau, Tensor]:
    """Fits every row of `prior` (a deterministic table) and samples with it.

    noise (B, *shape) begins with the teacher's n samples; the rest goes along unfitted, for validation. The denoiser's conditions
    match it; where it is split, the guidance difference gets columns of its own. callback is `run`'s. Returns the fitted table and the
    samples (B, *shape).
    """
    seen = Recorder(denoise, noise)
    rows = _FittedRows(prior, teacher, seen, ridge, robust)
    samples = run(prior.nodes, rows, seen, noise, callback=callback)
    return Tableau(prior.nodes, tuple(rows.solved)), samples
