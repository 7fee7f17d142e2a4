"""The exact model: a Gaussian mixture fitted to digits, whose denoiser is known in closed form.

No network error stands between a solver and the true flow, so what is measured on it is the solver alone.
"""

from math import pi

import numpy as np
import torch
from torch import Tensor, nn

from solversearch.models import digits
from solversearch.models.base import Model
from solversearch.models.digits import CLASSES, NULL, PIXELS, SHAPE, WEIGHTS

GROUP = 16
"""Samples of one class are evaluated in multiples of this, so that matrix products round them alike in any company."""
COMPONENTS = 3
"""Gaussians a class."""
FLOOR = 0.05
"""Standard deviation added to every pixel (two pixel levels are 0.125 apart), so that no Gaussian is flat."""
POOLING = 20.0
"""Images' worth of the covariance common to all Gaussians that each of them is shrunk towards."""


class MixtureDenoiser(nn.Module):
    """The posterior mean E[x0 | x_t] for x0 from sum_k w_k N(m_k, C_k), with C_k = V_k diag(variances_k) V_k'.

    Noised, x_t = alpha x0 + sigma eps, component k has the mean alpha m_k and in its own axes V_k the diagonal covariance
    s_k = alpha^2 variances_k + sigma^2. With c_k = V_k' m_k and z_k = V_k' x - alpha c_k,

        ln r_k    = ln w_k - sum(z_k^2 / s_k + ln s_k) / 2 + a constant        the share of component k, to be normalised
        E[x0 | x] = sum_k r_k V_k (c_k + alpha variances_k z_k / s_k),

    which is regular at alpha = 0 and, since all variances are positive, at sigma = 0.
    Conditions 0 .. 9 leave only the components of one class; condition 10 leaves all, by the classes' frequencies.
    """

    centres: Tensor
    """c_k, the means in the components' own axes, (K, 64)."""
    axes: Tensor
    """V_1 ... V_K side by side, (64, K * 64), one axis a column: one matrix product leads into all axes, its transpose back."""
    variances: Tensor
    """(K, 64), along the axes."""
    log_weights: Tensor
    """(K,), of the frequencies among all images; the components of a class lie side by side."""
    angles: Tensor
    """atan2(sigma, alpha) at t = 0 .. 999."""

    def __init__(self, components: int = CLASSES * COMPONENTS) -> None:
        super().__init__()
        self.components = components
        self.register_buffer("centres", torch.zeros(components, PIXELS))
        self.register_buffer("axes", torch.eye(PIXELS).repeat(1, components))
        self.register_buffer("variances", torch.ones(components, PIXELS))
        self.register_buffer("log_weights", torch.zeros(components))
        angles = torch.as_tensor(digits.noise_schedule().angle(np.arange(1000.0)))
        self.register_buffer("angles", angles, persistent=False)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        """x (B, 1, 8, 8), t (B,) in [0, 999], condition (B,) of 0 .. 10 to E[x0 | x_t = x] (B, 1, 8, 8)."""
        below = t.detach().long().clip(0, len(self.angles) - 2)
        start, end = self.angles[below], self.angles[below + 1]
        angle = start + (end - start) * (t.to(start.dtype) - below)
        # As in the schedule: the sine of the complement is exact at alpha = 0.
        return self.denoise(x, torch.sin(pi / 2 - angle).to(x.dtype), torch.sin(angle).to(x.dtype), condition)

    def denoise(self, x: Tensor, alpha: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        """The same at signal and noise scales alpha, sigma (B,), whatever their schedule."""
        flat, alpha, sigma = x.reshape(len(x), PIXELS), alpha[:, None], sigma[:, None]
        order, means = [], []
        # Samples of one condition together: a class needs a tenth of the components.
        for each in sorted(set(condition.tolist())):
            rows = torch.nonzero(condition == each)[:, 0]
            fill = rows[torch.arange(-(-len(rows) // GROUP) * GROUP, device=x.device).clamp(max=len(rows) - 1)]
            order.append(rows)
            means.append(self._posterior_mean(flat[fill], alpha[fill], sigma[fill], each)[: len(rows)])
        return torch.cat(means)[torch.argsort(torch.cat(order))].reshape(x.shape)

    def _among(self, condition: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Views of the centres, axes, variances and log weights of the components that a condition leaves."""
        each = self.components // CLASSES
        first, last = (0, self.components) if condition == NULL else (condition * each, (condition + 1) * each)
        k = slice(first, last)
        return self.centres[k], self.axes[:, first * PIXELS : last * PIXELS], self.variances[k], self.log_weights[k]

    def _posterior_mean(self, x: Tensor, alpha: Tensor, sigma: Tensor, condition: int) -> Tensor:
        """x (B, 64), alpha and sigma (B, 1), all of one condition, to E[x0 | x] (B, 64)."""
        centres, axes, variances, _ = self._among(condition)
        log_shares, scaled = self._log_shares(x, alpha, sigma, condition)
        posteriors = torch.addcmul(centres, alpha[:, :, None], variances * scaled)
        weighted = torch.softmax(log_shares, dim=-1)[:, :, None] * posteriors
        return weighted.flatten(1) @ axes.T

    def _log_shares(self, x: Tensor, alpha: Tensor, sigma: Tensor, condition: int) -> tuple[Tensor, Tensor]:
        """ln r_k (B, K) without the constant that all components share, and z_k / s_k (B, K, 64)."""
        centres, axes, variances, log_weights = self._among(condition)
        alpha, sigma = alpha[:, :, None], sigma[:, :, None]
        z = torch.addcmul((x @ axes).reshape(len(x), *centres.shape), alpha, centres, value=-1)
        s = torch.addcmul(sigma.square(), alpha.square(), variances)
        scaled = z / s
        return torch.log_softmax(log_weights, dim=0) - 0.5 * ((z * scaled).sum(-1) + s.log().sum(-1)), scaled


def fit_mixture(x: Tensor, y: Tensor, seed: int = 0, components: int = COMPONENTS, pooling: float = POOLING) -> MixtureDenoiser:
    """A few Gaussians a class, fitted to images x (M, 1, 8, 8) with labels y (M,).

    With some thirty images a Gaussian the empirical covariances are poor, so each is shrunk towards the covariance that they have
    in common, as if ``pooling`` more images had shown that one.
    """
    from sklearn.mixture import GaussianMixture

    data, labels = x.flatten(1).double().numpy(), y.numpy()
    parts = []
    for digit in range(CLASSES):
        images = data[labels == digit]
        em = GaussianMixture(components, covariance_type="tied", reg_covar=FLOOR**2, n_init=5, random_state=seed).fit(images)
        share = em.predict_proba(images).T
        means = share @ images / share.sum(1, keepdims=True)
        scatter = np.stack([(r[:, None] * (images - mean)).T @ (images - mean) for r, mean in zip(share, means, strict=True)])
        parts.append((share.sum(1), means, scatter))
    counts, means, scatter = (np.concatenate(part) for part in zip(*parts, strict=True))
    common = scatter.sum(0) / counts.sum()
    covariances = (scatter + pooling * common) / (counts + pooling)[:, None, None] + FLOOR**2 * np.eye(PIXELS)
    variances, axes = np.linalg.eigh(covariances)

    denoiser = MixtureDenoiser(CLASSES * components)
    stored = {
        "centres": np.einsum("kp,kpa->ka", means, axes),
        "axes": np.concatenate(axes, axis=1),
        "variances": variances,
        "log_weights": np.log(counts / counts.sum()),
    }
    denoiser.load_state_dict({name: torch.as_tensor(array, dtype=torch.float32) for name, array in stored.items()})
    return denoiser.eval()


def load() -> Model:
    """The shipped mixture with the digits' schedule, classifier features and held-out half."""
    denoiser = MixtureDenoiser()
    digits.read_into(denoiser, WEIGHTS / "mixture.safetensors")
    return Model(
        name="mixture",
        network=denoiser,
        schedule=digits.noise_schedule(),
        prediction_type="sample",
        shape=SHAPE,
        pad=64,
        conditions=torch.arange(CLASSES),
        null_condition=torch.tensor(NULL),
        features=digits.load_classifier().features,
        data=lambda: digits.real_digits()[0],
        images=digits.to_images,
    )
