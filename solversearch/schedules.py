"""Noise schedules and prediction types: pure functions of the time, in float64.

A schedule says how a sample is noised, x_t = alpha(t) x_0 + sigma(t) eps. Two coordinates are shared by all:
the half log-SNR lambda = ln(alpha / sigma), in which exponential integrators step, and the *angle*
phi = atan2(sigma, alpha) in [0, pi/2], which is regular at both ends (alpha = 0 and sigma = 0).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from math import floor, hypot, log, pi
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from solversearch.errors import UserError, nearest
from solversearch.runtime import Node, Start

Floats = NDArray[np.float64]  # scalars in, scalars out: NumPy's own convention

CLEAN = Node(t=0.0, alpha=1.0, sigma=0.0)
"""Where sampling ends: no noise. No network is evaluated there."""


class NoiseSchedule(ABC):
    """How a model noises its data.

    t_start and t_end are the times, in the units the network is told, of the noisiest and the least noisy
    input it was trained on. ``discrete`` marks networks trained on whole timesteps only. ``noised`` says that sampling starts from
    noised pictures at t_start, see `started`.
    """

    t_start: float
    t_end: float
    discrete: bool = False
    noised: bool = False

    @abstractmethod
    def alpha(self, t: ArrayLike) -> Floats:
        """Signal scale at time t, elementwise."""

    @abstractmethod
    def sigma(self, t: ArrayLike) -> Floats:
        """Noise scale at time t, elementwise."""

    @abstractmethod
    def time_of_angle(self, angle: ArrayLike) -> Floats:
        """Inverse of `angle`, clipped to [t_end, t_start]."""

    def angle(self, t: ArrayLike) -> Floats:
        """phi = atan2(sigma, alpha), increasing in the noise."""
        return np.arctan2(self.sigma(t), self.alpha(t))

    def beta(self, t: ArrayLike) -> Floats:
        """Share at time t, elementwise, of a known y that each sample has: x_t = alpha x0 + beta y + sigma eps. 0 but in mean-reverting
        models; all else here is of x_t - beta y."""
        return np.zeros_like(np.asarray(t, dtype=np.float64))

    @property
    def reverts(self) -> bool:
        return bool(np.any(self.beta(np.linspace(self.t_end, self.t_start, 9))))

    def anchored(self, nodes: Sequence[Node]) -> tuple[Node, ...]:
        """The nodes with their beta, that of the time that the network is told, where the schedule has one."""
        return tuple(replace(node, beta=float(self.beta(node.t))) for node in nodes) if self.reverts else tuple(nodes)

    def lam(self, t: ArrayLike) -> Floats:
        """Half log-SNR ln(alpha / sigma); -inf at alpha = 0, +inf at sigma = 0."""
        with np.errstate(divide="ignore"):
            return np.log(self.alpha(t)) - np.log(self.sigma(t))

    def time_of_lam(self, lam: ArrayLike) -> Floats:
        """Inverse of `lam`, clipped to [t_end, t_start]."""
        return self.time_of_angle(np.arctan(np.exp(-np.asarray(lam, dtype=np.float64))))

    def position(self, t: ArrayLike) -> Floats:
        """ln tan(angle / 2), which falls from 0 at alpha = 0: regular at pure noise, and -lambda up to a constant near the data."""
        return np.log(np.tan(self.angle(t) / 2))

    def time_at(self, position: ArrayLike) -> Floats:
        """Inverse of `position`, clipped to [t_end, t_start]."""
        return self.time_of_angle(2 * np.arctan(np.exp(np.asarray(position, dtype=np.float64))))

    def at_fraction(self, u: ArrayLike) -> Floats:
        """Time at the fraction u of the range, 0 at t_end and 1 at t_start: what "uniform in t" means."""
        return np.clip(self.t_end + np.asarray(u, dtype=np.float64) * (self.t_start - self.t_end), self.t_end, self.t_start)

    def pinned(self, times: Floats, u: ArrayLike) -> Floats:
        """Times at fractions u, of which 1 is t_start exactly, also where the coordinate is infinite there."""
        return np.where(np.asarray(u) == 1, self.t_start, times)

    def initial_scale(self, t: float) -> float:
        """By what unit noise is multiplied where sampling starts at time t; 1 unless the schedule explodes, or reverts to a mean: then
        sigma. Of noised pictures, by what those of t_start are: their scale over hypot(alpha, sigma) is held."""
        return self._reach(t) / self._reach(self.t_start) if self.noised else self._noise_scale(t)

    def _noise_scale(self, t: float) -> float:
        return float(self.sigma(t)) if self.reverts else 1.0

    def _reach(self, t: float) -> float:
        return hypot(float(self.alpha(t)), float(self.sigma(t)))

    def started(self, start: Start) -> Self:
        """The same schedule, from pictures that are noised up to the start's time."""
        own = copy(self)
        own.t_start, own.noised = start.t, True
        return own

    def start_at(self, t: float) -> Start:
        node = self.node(t)
        return Start(node.t, node.alpha, node.sigma)

    def start_of(self, share: float) -> Start | None:
        """Where the last share of the times begins, of those that are uniform in t: img2img's strength in diffusers, denoise in ComfyUI.
        Whole on a discrete table, as its trailing spacing has it. None for 1, all times: there is noise."""
        time = self._time_of_share(share)
        return None if share == 1 else self.start_at(float(floor(time)) if self.discrete else time)

    def _time_of_share(self, share: float) -> float:
        return float(self.at_fraction(share))

    def node(self, t: float) -> Node:
        return Node(float(t), float(self.alpha(t)), float(self.sigma(t)))

    def node_at_lam(self, lam: float) -> Node:
        """The node of half log-SNR lam, as singlestep solvers need between two timesteps."""
        return self.node(float(self.time_of_lam(lam)))


LEAST_ALPHA = 2.0**-12  # at zero terminal SNR, of schedulers of diffusers that divide by it: an alpha_bar of 2^-24


class DiscreteVP(NoiseSchedule):
    """Variance-preserving schedule given by a table of betas (DDPM, Ho et al. 2020); t in 0 .. len(betas) - 1.

    Between table entries the angle is interpolated linearly in t, which stays regular at zero terminal SNR.
    ``zero_terminal_snr`` rescales the table so that alpha is 0 at the end (Lin et al. 2023, arXiv:2305.08891, algorithm 1), or least_alpha:
    a network that predicts noise says nothing of the data at 0, and diffusers puts `LEAST_ALPHA` there.
    """

    discrete = True

    def __init__(self, betas: ArrayLike, zero_terminal_snr: bool = False, least_alpha: float = 0.0) -> None:
        betas = np.asarray(betas, dtype=np.float64)
        if betas.ndim != 1 or len(betas) < 2 or not np.all((betas > 0) & (betas < 1)):
            raise UserError("a beta table is a list of at least two numbers between 0 and 1")
        root = np.sqrt(np.cumprod(1 - betas))
        if zero_terminal_snr:
            root = np.maximum((root - root[-1]) * root[0] / (root[0] - root[-1]), least_alpha)
        self.alphas_cumprod: Floats = root**2
        self._angles = np.arctan2(np.sqrt(1 - root**2), root)
        self.t_start, self.t_end = float(len(betas) - 1), 0.0

    @classmethod
    def named(
        cls, beta_schedule: str = "scaled_linear", beta_start: float = 0.00085, beta_end: float = 0.012,
        num_train_timesteps: int = 1000, zero_terminal_snr: bool = False, least_alpha: float = 0.0,
    ) -> "DiscreteVP":  # fmt: skip
        """The tables by the names that diffusers gives them; the defaults are Stable Diffusion's."""
        n = num_train_timesteps
        if beta_schedule == "linear":
            betas = np.linspace(beta_start, beta_end, n)
        elif beta_schedule == "scaled_linear":
            betas = np.linspace(beta_start**0.5, beta_end**0.5, n) ** 2
        elif beta_schedule == "squaredcos_cap_v2":
            bar = np.cos((np.arange(n + 1) / n + 0.008) / 1.008 * pi / 2) ** 2
            betas = np.minimum(1 - bar[1:] / bar[:-1], 0.999)
        else:
            raise UserError(nearest(beta_schedule, ["linear", "scaled_linear", "squaredcos_cap_v2"], "beta schedule"))
        return cls(betas, zero_terminal_snr, least_alpha)

    def angle(self, t: ArrayLike) -> Floats:
        return np.interp(np.asarray(t), np.arange(len(self._angles)), self._angles)

    def alpha(self, t: ArrayLike) -> Floats:
        # cos(pi/2) is 6e-17, not 0; the sine of the complement is exact there.
        return np.sin(pi / 2 - self.angle(t))

    def sigma(self, t: ArrayLike) -> Floats:
        return np.sin(self.angle(t))

    def time_of_angle(self, angle: ArrayLike) -> Floats:
        times = np.interp(np.asarray(angle), self._angles, np.arange(len(self._angles), dtype=np.float64))
        return np.minimum(times, self.t_start)


class LinearVP(NoiseSchedule):
    """Continuous VP with linear beta (Song et al. 2021, arXiv:2011.13456): ln alpha = -(bmax - bmin) t^2 / 4 - bmin t / 2."""

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0, t_end: float = 1e-3) -> None:
        self.beta_min, self.beta_max = beta_min, beta_max
        self.t_start, self.t_end = 1.0, t_end

    def _log_alpha(self, t: ArrayLike) -> Floats:
        t = np.asarray(t, dtype=np.float64)
        return -(self.beta_max - self.beta_min) * t**2 / 4 - self.beta_min * t / 2

    def alpha(self, t: ArrayLike) -> Floats:
        return np.exp(self._log_alpha(t))

    def sigma(self, t: ArrayLike) -> Floats:
        return np.sqrt(-np.expm1(2 * self._log_alpha(t)))

    def time_of_angle(self, angle: ArrayLike) -> Floats:
        # 1 - sin^2 loses the small angles that log1p keeps.
        rest = -2 * np.log1p(-(np.sin(np.asarray(angle, dtype=np.float64)) ** 2))
        slope = self.beta_max - self.beta_min
        t = rest / (np.sqrt(self.beta_min**2 + slope * rest) + self.beta_min)
        return np.clip(t, self.t_end, self.t_start)


class CosineVP(NoiseSchedule):
    """Continuous VP with alpha = cos(pi/2 (t + s)/(1 + s)) / cos(pi/2 s/(1 + s)) (Nichol and Dhariwal 2021, arXiv:2102.09672)."""

    def __init__(self, s: float = 0.008, t_start: float = 0.9946, t_end: float = 1e-3) -> None:
        self.s, self.t_start, self.t_end = s, t_start, t_end

    def alpha(self, t: ArrayLike) -> Floats:
        t = np.asarray(t, dtype=np.float64)
        return np.cos(pi / 2 * (t + self.s) / (1 + self.s)) / np.cos(pi / 2 * self.s / (1 + self.s))

    def sigma(self, t: ArrayLike) -> Floats:
        # 1 - alpha^2 as a product of sines, exact for small t.
        a, b = (np.asarray(t, dtype=np.float64) + self.s) / (1 + self.s) * pi / 2, self.s / (1 + self.s) * pi / 2
        return np.sqrt(np.sin(a + b) * np.sin(a - b)) / np.cos(b)

    def time_of_angle(self, angle: ArrayLike) -> Floats:
        cosine = np.cos(angle) * np.cos(pi / 2 * self.s / (1 + self.s))
        t = np.arccos(np.clip(cosine, -1, 1)) * 2 / pi * (1 + self.s) - self.s
        return np.clip(t, self.t_end, self.t_start)


class ContinuousVP(NoiseSchedule):
    """Variance preserving, t = ln(sigma / alpha) / 4: EDM's (arXiv:2206.00364), and Stable Video Diffusion's "continuous" timesteps."""

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 700.0) -> None:
        self.t_start, self.t_end = log(sigma_max) / 4, log(sigma_min) / 4

    def alpha(self, t: ArrayLike) -> Floats:
        return 1 / np.hypot(1, np.exp(4 * np.asarray(t, dtype=np.float64)))

    def sigma(self, t: ArrayLike) -> Floats:
        return 1 / np.hypot(1, np.exp(-4 * np.asarray(t, dtype=np.float64)))

    def time_of_angle(self, angle: ArrayLike) -> Floats:
        return np.clip(np.log(np.maximum(np.tan(angle), 1e-300)) / 4, self.t_end, self.t_start)

    def at_fraction(self, u: ArrayLike) -> Floats:
        return self.pinned(super().at_fraction(u), u)  # the sum of a negative t_end and the range is not exact


def karras_ratios(first: float, last: float, u: ArrayLike, rho: float = 7.0) -> Floats:
    """Ratios sigma / alpha, uniform in their rho-th root: the last at u = 0, the first at 1 (Karras et al. 2022, arXiv:2206.00364,
    equation 5)."""
    high, low = first ** (1 / rho), last ** (1 / rho)
    return np.asarray((low + np.asarray(u) * (high - low)) ** rho)


class VE(NoiseSchedule):
    """Variance exploding, alpha = 1 and sigma = t, as in EDM (Karras et al. 2022, arXiv:2206.00364)."""

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0) -> None:
        self.t_start, self.t_end = sigma_max, sigma_min

    def alpha(self, t: ArrayLike) -> Floats:
        return np.ones_like(np.asarray(t, dtype=np.float64))

    def sigma(self, t: ArrayLike) -> Floats:
        return np.asarray(t, dtype=np.float64)

    def time_of_angle(self, angle: ArrayLike) -> Floats:
        return np.clip(np.tan(angle), self.t_end, self.t_start)

    def _noise_scale(self, t: float) -> float:
        return t

    def _time_of_share(self, share: float) -> float:
        """On the grid that such models are sampled on: most of the range of sigma is no picture."""
        return float(self.time_of_angle(np.arctan(karras_ratios(self.t_start, self.t_end, share))))


class Flow(NoiseSchedule):
    """Rectified flow, alpha = 1 - sigma (Liu et al. 2022, arXiv:2209.03003).

    The network is told t = scale * sigma. ``shift`` moves uniform grids toward the noise,
    sigma = shift u / (1 + (shift - 1) u) (Esser et al. 2024, arXiv:2403.03206, equation 23); it does not change the path.
    """

    def __init__(self, shift: float = 1.0, scale: float = 1.0, sigma_end: float = 1e-3) -> None:
        self.shift, self.scale = shift, scale
        self.t_start, self.t_end = scale, scale * sigma_end

    def alpha(self, t: ArrayLike) -> Floats:
        return 1 - self.sigma(t)

    def sigma(self, t: ArrayLike) -> Floats:
        return np.asarray(t, dtype=np.float64) / self.scale

    def time_of_angle(self, angle: ArrayLike) -> Floats:
        sine, cosine = np.sin(angle), np.cos(angle)
        return np.clip(self.scale * sine / (sine + cosine), self.t_end, self.t_start)

    def at_fraction(self, u: ArrayLike) -> Floats:
        ends = np.array([self.t_end, self.t_start]) / self.scale
        low, high = ends / (self.shift - (self.shift - 1) * ends)  # where they are without the shift
        times = self._shifted(low + np.asarray(u, dtype=np.float64) * (high - low))
        return self.pinned(np.clip(times, self.t_end, self.t_start), u)

    def _shifted(self, u: ArrayLike) -> Floats:
        u = np.asarray(u, dtype=np.float64)
        return self.scale * self.shift * u / (1 + (self.shift - 1) * u)

    def _time_of_share(self, share: float) -> float:
        """Of all times, which end at 0, before t_end."""
        return float(self._shifted(share))


class MeanReverting(NoiseSchedule):
    """Mean-reverting diffusion dx = theta (y - x) dt + scale sqrt(2 theta) dw towards a known y, theta constant (IR-SDE: Luo et al. 2023,
    arXiv:2301.11699, proposition 3.1, where scale is lambda):

        alpha = exp(-theta t) = alpha_end^t    beta = 1 - alpha    sigma = scale sqrt(1 - alpha^2)    t in 0 .. 1

    Where theta depends on the time, the same alpha is at another t: override the four functions.
    """

    def __init__(self, scale: float, alpha_end: float = 0.005, t_end: float = 1e-3) -> None:
        self.scale, self.rate = scale, log(1 / alpha_end)
        self.t_start, self.t_end = 1.0, t_end

    def alpha(self, t: ArrayLike) -> Floats:
        return np.exp(-self.rate * np.asarray(t, dtype=np.float64))

    def beta(self, t: ArrayLike) -> Floats:
        return -np.expm1(-self.rate * np.asarray(t, dtype=np.float64))

    def sigma(self, t: ArrayLike) -> Floats:
        return self.scale * np.sqrt(-np.expm1(-2 * self.rate * np.asarray(t, dtype=np.float64)))

    def time_of_angle(self, angle: ArrayLike) -> Floats:
        # tan = scale sqrt(1 / alpha^2 - 1)
        ratio = np.tan(np.asarray(angle, dtype=np.float64)) / self.scale
        return np.clip(np.log1p(ratio**2) / (2 * self.rate), self.t_end, self.t_start)


PREDICTION_TYPES = ("epsilon", "v_prediction", "sample", "flow", "edm")
_FLOW = (
    "'flow', the velocity noise - data of a rectified flow, as in diffusers, with noise at t = 1 and data at 0: where the network learned "
    "data - noise, return minus its output, and where noise is at its t = 0, give it 1 - t ('v_prediction' is alpha eps - sigma x0)"
)
_CALLED = {
    _FLOW: "velocity flow_prediction flow_matching flow_match flow_velocity rectified_flow vector_field",
    "'v_prediction', alpha eps - sigma x0; the velocity of a flow, noise - data, is 'flow'": "v v_pred vpred",
    "'epsilon', the noise": "eps e noise epsilon_prediction noise_prediction",
    "'sample', the clean data": "x0 x_0 x x_start data clean denoised original x0_prediction",
    "'epsilon', which is -sigma times the score: return that": "score",
}
"""What other programs and papers call them."""


def unknown_prediction_type(name: str) -> str:
    """The message for it, with what other programs call so."""
    plain = name.lower().replace("-", "_").replace(" ", "_")
    meant = next((meant for meant, names in _CALLED.items() if plain in names.split()), None)
    if meant is None:
        return nearest(name, list(PREDICTION_TYPES), "prediction type")
    return f"unknown prediction type {name!r}; here it is {meant}. Known: {', '.join(PREDICTION_TYPES)}"


def data_prediction(prediction_type: str, alpha: float, sigma: float) -> tuple[float, float]:
    """Coefficients (a, b) of D = a x + b output, the data prediction of a network of the given type.

    epsilon predicts eps, v_prediction alpha eps - sigma x0 (Salimans and Ho 2022, arXiv:2202.00512),
    flow eps - x0, and sample and edm (an EDM-preconditioned denoiser) x0 itself. All but epsilon are regular at alpha = 0,
    where eps carries no information about x0: that raises `UserError`.
    """
    if prediction_type == "epsilon":
        if isinstance(alpha, float) and alpha == 0:
            raise UserError("an epsilon-predicting network has no data prediction at alpha = 0; start at an earlier time")
        return 1 / alpha, -sigma / alpha
    if prediction_type == "v_prediction":
        square = alpha**2 + sigma**2
        return alpha / square, -sigma / square
    if prediction_type == "flow":
        return 1 / (alpha + sigma), -sigma / (alpha + sigma)
    if prediction_type in ("sample", "edm"):
        return 0.0, 1.0
    raise UserError(unknown_prediction_type(prediction_type))
