"""A Gaussian mixture whose denoiser knows conditions and guidance, fitted to samples of a teacher: a stand-in for the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from solversearch.teacher import Teacher

PRINCIPAL, RANDOM = 24, 8
"""Principal axes, and random directions that stand for all others."""
COMPONENTS = 32
POOLING = 1.0
"""Samples' worth of the variances common to all components that each is shrunk towards."""
SMOOTHING = 1.0
"""The same for the components' weights under one condition, towards those under none."""
FLOOR = 1e-3
"""Least variance, in units of the mean one."""
ITERATIONS = 20


@dataclass(frozen=True)
class Axes:
    """Coordinates y = scale * (x @ directions), in which squared lengths are those of x (random directions count for many)."""

    directions: Tensor
    scale: Tensor

    @classmethod
    def of(cls, samples: Tensor, seed: int) -> Self:
        n, p = samples.shape
        principal = torch.linalg.svd(samples - samples.mean(0), full_matrices=False)[2][: min(PRINCIPAL, n - 1)].T
        k = principal.shape[1]
        count = min(RANDOM, p - k)
        random = torch.from_numpy(np.random.default_rng([seed, p]).standard_normal((p, count))).to(samples)
        others = torch.linalg.qr(random - principal @ (principal.T @ random))[0]
        scale = torch.cat([torch.ones(k), torch.full((count,), ((p - k) / max(count, 1)) ** 0.5)])
        return cls(torch.cat([principal, others], dim=1), scale)

    def project(self, x: Tensor) -> Tensor:
        """(..., *shape) of p numbers in all to (..., axes); the leading dimensions are those before the model's shape."""
        return (x.float().cpu() @ self.directions) * self.scale


@dataclass(frozen=True)
class Mixture:
    """E[x0 | x] for x0 from sum_k w_k N(m_k, diag(v_k)) in the coordinates of `axes`, x = alpha x0 + sigma eps:

        s_k = alpha^2 v_k + sigma^2        ln r_k = ln w_k - sum((x - alpha m_k)^2 / s_k + ln s_k) / 2 + a constant
        E[x0 | x] = sum_k r_k (m_k + alpha v_k (x - alpha m_k) / s_k)

    A condition c has the weights w_k(c) alone of its own, so that guidance costs a second softmax, not a second evaluation.
    """

    axes: Axes
    centres: Tensor
    variances: Tensor
    log_weights: Tensor
    """(conditions + 1, K): of each known condition, and last of none."""
    conditions: Tensor | None
    """The known ones, (conditions, ...)."""
    parameters: int
    """Numbers of a sample."""

    @classmethod
    def fit(cls, teachers: Sequence[Teacher], seed: int = 0, components: int = COMPONENTS) -> Self:
        """From the endpoints of *unguided* teachers: expectation maximisation with variances shrunk towards the common ones."""
        from sklearn.cluster import KMeans

        samples = torch.cat([teacher.endpoint.flatten(1) for teacher in teachers]).float().cpu()
        axes = Axes.of(samples, seed)
        y = samples @ axes.directions
        k = max(1, min(components, len(y) // 8))
        label = torch.from_numpy(KMeans(k, n_init=1, random_state=seed).fit(y.numpy()).labels_).long()
        share = torch.nn.functional.one_hot(label, k).float()
        square = y.square()
        floor = FLOOR * float(y.var(0).mean())
        for _ in range(ITERATIONS):
            count = share.sum(0)[:, None] + 1e-6
            centres = share.T @ y / count
            scatter = (share.T @ square - count * centres.square()).clamp(min=0)
            variances = (scatter + POOLING * scatter.sum(0) / len(y)) / (count + POOLING) + floor
            weights = (count[:, 0] / count.sum()).log()
            distance = (
                square @ (1 / variances).T - 2 * y @ (centres / variances).T + (centres.square() / variances + variances.log()).sum(1)
            )
            share = torch.softmax(weights - distance / 2, dim=1)
        average = share.mean(0)
        known, table = None, average[None]
        if teachers[0].conditions is not None:
            given = torch.cat([teacher.conditions for teacher in teachers if teacher.conditions is not None]).cpu()
            known, which = given.unique(dim=0, return_inverse=True)  # type: ignore[no-untyped-call]
            sums = torch.zeros(len(known), k).index_add_(0, which, share)
            table = torch.cat([sums + SMOOTHING * average, average[None]])
        log_weights = (table / table.sum(1, keepdim=True) + 1e-12).log()
        return cls(axes, centres, variances, log_weights, known, samples.shape[1])

    def weights_of(self, conditions: Tensor | None, count: int) -> Tensor:
        """ln w_k(c) of each sample, (count, K); those of no condition where it is unknown."""
        if conditions is None or self.conditions is None:
            return self.log_weights[-1].expand(count, -1)
        known = len(self.conditions)
        both, which = torch.cat([self.conditions, conditions.cpu()]).unique(dim=0, return_inverse=True)  # type: ignore[no-untyped-call]
        place = torch.full((len(both),), known).scatter(0, which[:known], torch.arange(known))
        return self.log_weights[place[which[known:]]]

    def denoise(
        self, y: Tensor, alpha: Tensor, sigma: Tensor, log_weights: Tensor, guidance: Tensor | None = None, split: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """y (C, S, axes) at noise scales alpha, sigma (C,) under weights (S, K) to D, guided by guidance (C,) where that is given.

        Second, with split: the guidance difference.
        """
        x = y / self.axes.scale
        alpha, square = alpha[:, None, None], alpha.square()[:, None, None]
        inverse = 1 / (square * self.variances + sigma.square()[:, None, None])
        linear, constant = alpha * inverse * self.centres, square * inverse * self.centres.square() - inverse.log()
        logits = torch.cat([x, x * x], dim=-1) @ torch.cat([linear, inverse * -0.5], dim=-1).mT - 0.5 * constant.sum(-1)[:, None]
        slope = alpha * self.variances * inverse
        outputs = torch.cat([slope, (1 - alpha * slope) * self.centres], dim=-1)

        def mean(share: Tensor) -> Tensor:
            factor, rest = (share @ outputs).chunk(2, dim=-1)
            return torch.addcmul(rest, factor, x) * self.axes.scale

        share = torch.softmax(logits + log_weights, dim=-1)
        if guidance is None:
            return mean(share), None
        free = torch.softmax(logits + self.log_weights[-1], dim=-1)
        difference = share - free
        return mean(torch.addcmul(free, guidance[:, None, None], difference)), mean(difference) if split else None
