"""Frechet distance between samples in a feature space (Heusel et al. 2017, arXiv:1706.08500)."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


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
