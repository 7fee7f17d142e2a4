"""Frechet distance between samples in a feature space (Heusel et al. 2017, arXiv:1706.08500)."""

import torch
from torch import Tensor


class Gaussian:
    """Mean and covariance of features (n, F), with the square root of the covariance that the distance needs."""

    def __init__(self, features: Tensor) -> None:
        features = features.double()
        self.mean = features.mean(0)
        self.covariance = torch.cov(features.T)
        values, vectors = torch.linalg.eigh(self.covariance)
        self.root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
        self.trace = float(values.sum())


def frechet(features: Tensor, reference: Gaussian, weights: Tensor | None = None) -> Tensor:
    """|m - m_r|^2 + tr(C + C_r - 2 (C_r^1/2 C C_r^1/2)^1/2), by eigenvalues.

    features (n, F). weights (R, n), non-negative counts, gives R distances at once, each of a weighted (bootstrap) sample;
    without it one distance, shape (1,).
    """
    features = features.double()
    if weights is None:
        weights = torch.ones(1, len(features), dtype=torch.float64)
    weights = weights.double()
    total = weights.sum(1)
    mean = weights @ features / total[:, None]
    moments = torch.stack([(features * w[:, None]).T @ features for w in weights])
    covariance = (moments - total[:, None, None] * mean[:, :, None] * mean[:, None, :]) / (total - 1)[:, None, None]
    eigenvalues = torch.linalg.eigvalsh(reference.root @ covariance @ reference.root).clamp(min=0)
    trace = covariance.diagonal(dim1=1, dim2=2).sum(1) + reference.trace
    return ((mean - reference.mean) ** 2).sum(1) + trace - 2 * eigenvalues.sqrt().sum(1)
