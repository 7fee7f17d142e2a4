"""Frechet distance between samples in a feature space (Heusel et al. 2017, arXiv:1706.08500)."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from solversearch.objectives.base import Objective, Outcome, features_of


@dataclass(frozen=True)
class Gaussian:
    """Moments of features: mean (..., F) and covariance (..., F, F), float64, with any batch shape in front."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, features: Tensor) -> "Gaussian":
        """Of features (n, F)."""
        return cls.resampled(features, torch.ones(1, len(features)))

    @classmethod
    def resampled(cls, features: Tensor, weights: Tensor) -> "Gaussian":
        """Of R bootstrap samples of features (n, F), given by their counts, weights (R, n)."""
        features, weights = features.double(), weights.double()
        total = weights.sum(1)[:, None]
        mean = weights @ features / total
        products = (features[:, :, None] * features[:, None, :]).flatten(1)
        moments = (weights @ products).view(len(weights), features.shape[1], -1)
        outer = mean[:, :, None] * mean[:, None, :]
        return cls(mean, (moments - total[:, :, None] * outer) / (total[:, :, None] - 1))

    @cached_property
    def root(self) -> Tensor:
        """The symmetric square root of the covariance."""
        values, vectors = torch.linalg.eigh(self.covariance)
        return (vectors * values.clamp(min=0).sqrt()[..., None, :]) @ vectors.mT


def frechet(a: Gaussian, b: Gaussian) -> Tensor:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2), (R,), by eigenvalues; batch shapes broadcast."""
    product = torch.linalg.eigvalsh(a.root @ b.covariance @ a.root).clamp(min=0)
    traces = (a.covariance + b.covariance).diagonal(dim1=-2, dim2=-1).sum(-1)
    return ((a.mean - b.mean) ** 2).sum(-1) + traces - 2 * product.sqrt().sum(-1)


def frechet_distance(a: Tensor, b: Tensor) -> Tensor:
    """The same number from features (n, F) and (m, F) themselves, float64; a scalar.

    With centred features A and B, C_a = A^T A, and the last trace is the sum of the singular values of A B^T. Nothing is squared
    and rooted again, so it is sound where there are fewer samples than features, and cheap: no (F, F) matrix is made there.
    """
    r_a, r_b = (torch.linalg.qr((x - x.mean(0)) / (len(x) - 1) ** 0.5, mode="r").R for x in (a, b))
    mixed = torch.linalg.svdvals(r_a @ r_b.T).sum()
    return (a.mean(0) - b.mean(0)).square().sum() + r_a.square().sum() + r_b.square().sum() - 2 * mixed


def _value(outcome: Outcome) -> float:
    return float(frechet_distance(*features_of(outcome)))


OBJECTIVE = Objective(
    "frechet",
    _value,
    cost="the feature network, once a sample, and a singular value decomposition of the smaller of samples and features",
    source="Heusel et al. 2017, arXiv:1706.08500",
    needs=frozenset({"features"}),
)
