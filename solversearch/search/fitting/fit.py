"""The closed-form fit: each row of a table by ridge regression against the teacher's trajectory.

Given the nodes, row i asks for the coefficients a that bring the state nearest to the teacher's,

    min_a  sum_s w_s |F_s a - x*_s(node_i)|^2 + ridge * sum_j G_jj (a_j - prior_j)^2,      G = sum_s w_s F_s^T F_s,

where F_s holds the noise and the outputs so far *of the fitted plan itself*, so later rows mend what earlier ones left. No
backpropagation, one network evaluation a node. The prior is a hand-made table: published ablations lose a third to a half of
the gain without it. Where the prior has components, a coefficient is a number for each. w_s are robust weights (iteratively
reweighted), for errors are heavy-tailed.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from solversearch.models.base import Denoiser
from solversearch.runtime import Row, Tableau, steps
from solversearch.sampling import Sampler, alone
from solversearch.search.fitting.design_matrix import Recorder, differences, frugal, row, squares, weights, whole
from solversearch.teacher import Teacher

RIDGE = 1e-4
"""Where no search chooses it: the middle of its range, 1e-6 to 1e-2. Halved or doubled in the instant plan: within noise on digits."""

Fitted = tuple[Tableau, Tensor]


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
        components = self.seen.parts(i)
        start = weights(self.prior.rows[i], i, self.seen.differences, components)
        products, moments, square = self._products(i, start)
        weight, change = torch.ones(len(square), dtype=torch.float64), torch.zeros_like(start)
        for _ in range(3 if self.robust else 1):
            gram, moment = (torch.tensordot(weight / weight.mean(), each, 1) for each in (products, moments))
            gram = whole(gram)
            change = torch.linalg.solve(gram + self.ridge * torch.diag_embed(gram.diagonal(dim1=1, dim2=2) + 1e-12), moment)
            left = square - 2 * moments.flatten(1) @ change.flatten() + squares(products, change)
            error = left.clamp(min=0) / self.teacher.noise[0].numel()
            weight = 1 / (error + error.median() + 1e-12)
        return row(start + change, i, self.seen.differences, components)

    def _products(self, i: int, start: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of each sample, for what the prior leaves of the target, r: F^T F (see `Recorder.products`), F^T r, and r^T r; on the CPU."""
        nodes, teacher, seen = self.prior.nodes, self.teacher, self.seen
        target = seen.transformed(teacher.endpoint if i == len(nodes) else teacher.state(nodes[i]))
        hats, spans, parts = seen.hats(i), seen.spans(i), []
        given = start.to(hats.device).reshape(len(start), -1, len(hats)) @ hats
        for some, columns in seen.columns(i, len(teacher)):
            residual = target[some].double().reshape(len(columns), len(start), -1) - (columns * given).sum(2)
            moments = torch.stack(
                [(columns[..., at] @ (residual[..., at] * hat[at])[..., None])[..., 0] for hat, at in zip(hats, spans, strict=True)], dim=3
            ).flatten(2)
            parts.append((seen.products(i, columns), moments.cpu(), residual.square().sum((1, 2)).cpu()))
        products, moments, square = map(torch.cat, zip(*parts, strict=True))
        return products, moments, square


def fitting(
    prior: Tableau,
    teacher: Teacher,
    noise: Tensor,
    ridge: float,
    robust: bool,
    split: bool,
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Sampler[Fitted]:
    """`fit` as a sampling loop, for callers that run the network on their own, as `runtime.steps` is one; split as their denoiser is."""
    nodes = frugal(prior) if split else prior.nodes
    seen = Recorder(noise, differences(nodes) if split else (), prior.components)
    rows = _FittedRows(prior, teacher, seen, ridge, robust)
    samples = yield from seen.watched(steps(nodes, rows, noise, callback=callback, components=prior.components))
    return Tableau(nodes, tuple(rows.solved), components=prior.components), samples


def fit(
    prior: Tableau,
    teacher: Teacher,
    denoise: Denoiser,
    noise: Tensor,
    ridge: float = RIDGE,
    robust: bool = False,
    callback: Callable[[int, Tensor, Tensor], None] | None = None,
) -> Fitted:
    """Fits every row of `prior` (a deterministic table) and samples with it.

    noise (B, *shape) begins with the teacher's n samples; the rest goes along unfitted, for validation. The denoiser's conditions
    match it; where it is split, the differences of nodes that guide get columns. callback is `run`'s. Returns the fitted table and the
    samples (B, *shape).
    """
    return alone(denoise.anew(prior.nodes), fitting(prior, teacher, noise, ridge, robust, denoise.split, callback))
