"""Restoration of digits whose denoiser is known exactly: mean-reverting models of a digit's picture y of four grey squares, with noise.

Clean samples are x0 = d_k + WIDTH n for one of the training digits d_k, and y = P x0 + GRAIN P n, where P averages each quarter of the
picture (an orthogonal projection). A state is x = alpha x0 + beta y + sigma n. Given k, what P keeps of x0 and what it does not are
independent normals, so that E[x0 | x, y] is a softmax over k away.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from solversearch.models.base import Model
from solversearch.models.digits import load_classifier, real_digits, to_images
from solversearch.schedules import Floats, MeanReverting, NoiseSchedule

SHAPE = (1, 8, 8)
WIDTH, GRAIN = 0.15, 0.2
SCALE = 100 / 255
"""IR-SDE's lambda of 50 / 255 for pictures in [0, 1], for those in [-1, 1]."""


class ResShift(NoiseSchedule):
    """alpha = 1 - eta, beta = eta, sigma = kappa sqrt(eta); sqrt(eta) grows by a power of the time in the exponent, from t = 0, where
    sigma is 0.04, to t = 1 (Yue et al. 2023, arXiv:2307.12348, equations 1, 10 and 11)."""

    t_start, t_end = 1.0, 0.0
    kappa, power, last = 2.0, 0.3, 0.999

    def eta(self, t: ArrayLike) -> Floats:
        first = (0.04 / self.kappa) ** 2
        return np.asarray(first * (self.last / first) ** np.power(np.asarray(t, dtype=np.float64), self.power))

    def alpha(self, t: ArrayLike) -> Floats:
        return 1 - self.eta(t)

    def beta(self, t: ArrayLike) -> Floats:
        return self.eta(t)

    def sigma(self, t: ArrayLike) -> Floats:
        return self.kappa * np.sqrt(self.eta(t))

    def time_of_angle(self, angle: ArrayLike) -> Floats:
        # tan (1 - q^2) = kappa q in q = sqrt(eta)
        first, tangent = (0.04 / self.kappa) ** 2, np.tan(np.asarray(angle, dtype=np.float64))
        root = 2 * tangent / (self.kappa + np.hypot(self.kappa, 2 * tangent))
        share = np.log(np.clip(root**2, first, self.last) / first) / np.log(self.last / first)
        return np.asarray(np.clip(share, 0, 1) ** (1 / self.power))


def squares(x: Tensor) -> Tensor:
    """P x, (B, 1, 8, 8)."""
    return nn.functional.avg_pool2d(x, 4).repeat_interleave(4, -1).repeat_interleave(4, -2)


class Restorer(nn.Module):
    """x (B, 1, 8, 8), t (B,) and y (B, 1, 8, 8) to E[x0 | x, y], or to the noise that it stands for. Odds are in float64."""

    seen: Tensor
    """P d_k, (K, 64)."""
    hidden: Tensor
    """d_k - P d_k, (K, 64)."""

    def __init__(self, schedule: NoiseSchedule, noise: bool) -> None:
        super().__init__()
        self.schedule, self.noise = schedule, noise
        clean = real_digits(held_out=False)[0].double()
        self.register_buffer("seen", squares(clean).flatten(1))
        self.register_buffer("hidden", (clean - squares(clean)).flatten(1))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        times = t.detach().cpu().double().numpy()
        alpha, beta, sigma = (torch.from_numpy(getattr(self.schedule, name)(times))[:, None] for name in ("alpha", "beta", "sigma"))
        flat = y.flatten(1).double()
        z = x.flatten(1).double() - beta * flat
        low, total = squares(z.view_as(x)).flatten(1), GRAIN**2 + WIDTH**2
        rest = (GRAIN * WIDTH) ** 2 / total
        own, others = GRAIN**2 / total, WIDTH**2 / total  # E[P x0 | y, k] = own P d_k + others y
        below, aside = alpha**2 * rest + sigma**2, alpha**2 * WIDTH**2 + sigma**2
        pull = flat / total + alpha * own * (low - alpha * others * flat) / below
        odds = pull @ self.seen.T - (1 / total + (alpha * own) ** 2 / below) * self.seen.square().sum(1) / 2
        odds += alpha / aside * ((z - low) @ self.hidden.T - alpha * self.hidden.square().sum(1) / 2)
        share = torch.softmax(odds, dim=1)
        clean = (sigma**2 * (own * (share @ self.seen) + others * flat) + alpha * rest * low) / below
        clean = clean + (sigma**2 * (share @ self.hidden) + alpha * WIDTH**2 * (z - low)) / aside
        return ((z - alpha * clean) / sigma if self.noise else clean).to(x).view_as(x)


def degraded() -> Tensor:
    """y of the digits that the restorer has not seen."""
    clean = real_digits()[0]
    noise = np.random.default_rng(0).standard_normal((2, *clean.shape))
    noises = torch.from_numpy(noise).to(clean)
    return squares(clean + WIDTH * noises[0]) + GRAIN * squares(noises[1])


def build() -> Model:
    """The conditions are y themselves; every split has others."""
    made = MeanReverting(SCALE)
    return Model(
        "restoration", Restorer(made, noise=False), made, "sample", SHAPE, conditions=degraded(), disjoint=True, pad=64,
        features=load_classifier().features, images=to_images,
    )  # fmt: skip


def numbered() -> dict[str, object]:
    """The same with numbers in the place of y, ResShift's schedule and a network that predicts noise."""
    made, y = ResShift(), degraded()
    network = Restorer(made, noise=True)

    class Numbered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor, t: Tensor, number: Tensor) -> Tensor:
            return network(x, t, y[number])

    return {
        "network": Numbered(), "schedule": made, "prediction_type": "epsilon", "shape": SHAPE, "conditions": torch.arange(len(y)),
        "anchor": lambda number: y[number], "disjoint": True, "pad": 64,
    }  # fmt: skip
