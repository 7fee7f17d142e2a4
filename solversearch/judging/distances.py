"""Distances between sets of features: Frechet (Heusel et al. 2017, arXiv:1706.08500) and kernel (Binkowski et al. 2018, arXiv:1801.01401).

For Gaussians N(m_a, C_a) and N(m_b, C_b)

    d = |m_a - m_b|^2 + tr C_a + tr C_b - 2 T,    T = tr (C_a^1/2 C_b C_a^1/2)^1/2.

With centred features A, one a row, over sqrt(n - 1), C_a = A^T A. Then T is the sum of the singular values of A B^T, or of the roots of
the eigenvalues of A C_b A^T. No (F, F) matrix is made or rooted, so that few samples of many features are cheap, and sound.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Moments of features: mean (F,) and covariance (F, F), float64."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Moments":
        """Of features (n, F)."""
        features = features.double()
        return cls(features.mean(0), torch.cov(features.T).view(features.shape[1], -1))

    @cached_property
    def root(self) -> Tensor:
        """The symmetric square root of the covariance."""
        values, vectors = torch.linalg.eigh(self.covariance)
        return (vectors * values.clamp(min=0).sqrt()[..., None, :]) @ vectors.mT


@dataclass(frozen=True, eq=False)
class Reference:
    """What the features of real images look like: as moments and, where they were kept, features (M, F) of some of the images."""

    gaussian: Moments
    features: Tensor | None = None


def frechet(a: Moments, b: Moments) -> Tensor:
    """The distance of Gaussians, by eigenvalues; batch shapes broadcast."""
    product = torch.linalg.eigvalsh(a.root @ b.covariance @ a.root).clamp(min=0)
    traces = (a.covariance + b.covariance).diagonal(dim1=-2, dim2=-1).sum(-1)
    return ((a.mean - b.mean) ** 2).sum(-1) + traces - 2 * product.sqrt().sum(-1)


def frechet_distance(a: Tensor, b: Tensor | Moments) -> Tensor:
    """The same number from features (n, F) and (m, F) themselves, or from features and moments, float64; a scalar."""
    rows = _thin(_centred(a))
    if isinstance(b, Moments):
        mean, trace = b.mean, b.covariance.trace()
        mixed = torch.linalg.eigvalsh(rows @ b.covariance @ rows.T).clamp(min=0).sqrt().sum()
    else:
        others = _thin(_centred(b))
        mean, trace = b.mean(0), others.square().sum()
        mixed = torch.linalg.svdvals(rows @ others.T).sum()
    return (a.mean(0) - mean).square().sum() + rows.square().sum() + trace - 2 * mixed


class FrechetToTwins:
    """The distance to features b (n, F) of twins, from the same noise, where sample i of both stands for weights[w, i] samples.

    Called with features a (n, F), float64, it gives the distance for each row of weights (W, n), as (W,). What b needs is computed once.
    """

    def __init__(self, b: Tensor, weights: Tensor) -> None:
        self.share, self.scale = weights / weights.sum(1, keepdim=True), (weights / (weights.sum(1, keepdim=True) - 1)).sqrt()[:, :, None]
        self.mean, self.rows = self._moments(b)
        self.trace = self.rows.square().sum((1, 2))
        self.root = Moments(self.mean, self.rows.mT @ self.rows).root if b.shape[0] > b.shape[1] else None

    def __call__(self, a: Tensor) -> Tensor:
        mean, rows = self._moments(a)
        if self.root is None:
            mixed = torch.linalg.svdvals(rows @ self.rows.mT).sum(1)
        else:
            mixed = torch.linalg.eigvalsh(self.root @ (rows.mT @ rows) @ self.root).clamp(min=0).sqrt().sum(1)
        return (mean - self.mean).square().sum(1) + rows.square().sum((1, 2)) + self.trace - 2 * mixed

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The means (W, F), and centred rows A (W, n, F) with covariances A^T A."""
        mean = self.share @ x
        return mean, (x - mean[:, None, :]) * self.scale


def frechet_influence(a: Tensor, b: Tensor | Moments) -> tuple[Tensor, Tensor]:
    """`frechet_distance`, and how it changes (n,) with the weight of each sample of a, and of its twin in b where b are features.

    The first term of the distance's expansion in the weights w around 1, for weights with the sum n:

        d(w) = d + sum_i (w_i - 1) g_i + ...,    g_i = 2 (m_a - m_b).(x_i - m_a) / n + |A_i|^2 - (U S U^T)_ii

    with the singular value decomposition A B^T = U S V^T, for d T = tr(P d C_a) / 2 with A P A^T = U S U^T; twins add the same of b, -m and
    V. One decomposition thus stands for all samples of a bootstrap (the infinitesimal jackknife, Jaeckel 1972; Efron 1982, chapter 6).
    """
    rows = _centred(a)
    basis, thin = _factors(rows)
    if isinstance(b, Moments):
        values, vectors = torch.linalg.eigh(thin @ b.covariance @ thin.T)
        singular, shift, trace = values.clamp(min=0).sqrt(), a.mean(0) - b.mean, b.covariance.trace()
        influence = _share(rows, shift, basis @ vectors, singular)
    else:
        others, shift = _centred(b), a.mean(0) - b.mean(0)
        other_basis, other_thin = _factors(others)
        u, singular, vh = torch.linalg.svd(thin @ other_thin.T, full_matrices=False)
        trace = others.square().sum()
        influence = _share(rows, shift, basis @ u, singular) + _share(others, -shift, other_basis @ vh.T, singular)
    return shift.square().sum() + rows.square().sum() + trace - 2 * singular.sum(), influence


def kernel_distance(x: Tensor, y: Tensor, paired: bool) -> Tensor:
    """The unbiased estimate of MMD^2 (KID) from features x (n, F) and y (m, F), float64 and n, m >= 2; a scalar.

        k(x, y) = (x.y / F + 1)^3,    F features
        MMD^2   = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

    Paired samples depend on each other, x_i on y_i. Their estimate (Gretton et al. 2012, JMLR 13, equation 4) leaves k(x_i, y_i) out and
    is unbiased all the same: its mean is 0 where the distributions are one, so it can be negative; and it is exactly 0 where x is y.
    """

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T / x.shape[1] + 1) ** 3

    across = kernel(x, y)
    return _apart(kernel(x, x)) + _apart(kernel(y, y)) - 2 * (_apart(across) if paired else across.mean())


def _apart(k: Tensor) -> Tensor:
    """The mean of what is not on the diagonal."""
    return (k.sum() - k.trace()) / (len(k) * (len(k) - 1))


def _centred(x: Tensor) -> Tensor:
    """A: centred features over sqrt(n - 1)."""
    return (x - x.mean(0)) / (len(x) - 1) ** 0.5


def _thin(rows: Tensor) -> Tensor:
    """R with R^T R = A^T A and no more rows than columns."""
    return rows if len(rows) <= rows.shape[1] else torch.linalg.qr(rows, mode="r").R


def _factors(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Q with orthonormal columns and R as `_thin`'s, A = Q R."""
    if len(rows) <= rows.shape[1]:
        return torch.eye(len(rows), dtype=rows.dtype), rows
    basis, thin = torch.linalg.qr(rows)
    return basis, thin


def _share(rows: Tensor, shift: Tensor, vectors: Tensor, singular: Tensor) -> Tensor:
    """g_i of one side."""
    n = len(rows)
    return 2 * (n - 1) ** 0.5 / n * rows @ shift + rows.square().sum(1) - vectors.square() @ singular
