"""The embedded diffusion model: class-conditional 8x8 digits with classifier-free guidance, small enough for any CPU.

Half of scikit-learn's 1,797 digits trained it (`python -m solversearch.models.train_digits`); the other half is held out
and is the real data that samples are judged against.
"""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from solversearch.errors import UserError, short
from solversearch.models.base import Model, Variant
from solversearch.models.digest import weights_digest
from solversearch.schedules import DiscreteVP

WEIGHTS = Path(__file__).parent / "weights"
SHAPE = (1, 8, 8)
PIXELS = 64
CLASSES = 10
NULL = CLASSES
"""The condition that means "any digit"."""
SMALL, SMALL_COST = {"width": 80, "blocks": 2, "embedding": 48}, 0.25
"""The small network, and its time over that of the large one: .20 in batches of 512 on a core of a CPU, .27 in batches of 64."""
SPLIT_SEED = 0
"""Fixed, unlike the seed of the training: the held-out half must be the same for all weights."""


def noise_schedule() -> DiscreteVP:
    """Stable Diffusion's schedule, which all embedded models share."""
    return DiscreteVP.named("scaled_linear")


def half_log_snr(t: Tensor) -> Tensor:
    """ln(alpha / sigma) of the schedule at times t, 3.5 .. -2.7 over 0 .. 999, as one smooth formula.

    The schedule interpolates a table; here -ln(1 - beta), to second order in beta = (a + b t)^2, is integrated instead,
    so that the network has every derivative in t. The two agree within 2 % of sigma.
    """
    start, end = 0.00085**0.5, 0.012**0.5
    slope = (end - start) / 999
    # With b - a = slope (t + 1) factored out of b^3 - a^3 and b^5 - a^5, which would cancel in float32 near t = 0.
    a, b = start - slope * 0.5, start + slope * (t + 0.5)
    cubic, quintic = a**2 + a * b + b**2, a**4 + a**3 * b + a**2 * b**2 + a * b**3 + b**4
    total = (t + 1) * (cubic / 3 + quintic / 10)
    return -0.5 * torch.log(torch.expm1(total))


class NoiseEmbedding(nn.Module):
    """(B,) half log-SNRs to features (B, width): a few slow waves and two linear layers."""

    FREQUENCIES = (0.5, 1.0, 2.0)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(1 + 2 * len(self.FREQUENCIES), width)
        self.second = nn.Linear(width, width)

    def forward(self, lam: Tensor) -> Tensor:
        waves = [wave(frequency * lam) for frequency in self.FREQUENCIES for wave in (torch.sin, torch.cos)]
        features = torch.stack([lam / 3, *waves], dim=-1)
        return self.second(nn.functional.silu(self.first(features)))


class ResidualBlock(nn.Module):
    """Residual two-layer perceptron whose normalised input the embedding scales and shifts (Peebles and Xie 2022, arXiv:2212.09748)."""

    def __init__(self, width: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(embedding, 2 * width)
        self.first = nn.Linear(width, width)
        self.second = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding).chunk(2, dim=-1)
        inner = torch.addcmul(shift, self.norm(h), 1 + scale)
        return h + self.second(self.dropout(nn.functional.silu(self.first(inner))))


class DigitsNetwork(nn.Module):
    """x (B, 1, 8, 8), t (B,) in [0, 999], condition (B,) of 0 .. 10 to the v-prediction (B, 1, 8, 8).

    v = alpha eps - sigma x0 (Salimans and Ho 2022, arXiv:2202.00512). The perceptron F says only what a Gaussian does not: if pixels
    were independent with means m and variances s^2, then with q = alpha^2 s^2 + sigma^2 the posterior mean of v would be
    sigma (alpha (1 - s^2) x - m) / q and its standard deviation s / sqrt(q), so

        v = sigma (alpha (1 - s^2) x - m) / q + s / sqrt(q) F(x, t, condition),

    the preconditioning of EDM (Karras et al. 2022, arXiv:2206.00364, section 5) pixel by pixel. The corners of a digit are always
    blank, s = 0, and there v is exact. Half of all pixels are blank and many are full, x0 = -1 or 1, which a perceptron of this width
    is slow to see one by one; so it is also shown the soft steps tanh((x +- alpha) / sqrt(sigma^2 + 0.06^2)), and F has a gain of each.
    """

    mean: Tensor
    """m, (64,)."""
    variance: Tensor
    """s^2, (64,)."""

    def __init__(self, width: int = 256, blocks: int = 3, embedding: int = 64, dropout: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(PIXELS))
        self.register_buffer("variance", torch.ones(PIXELS))
        self.noise = NoiseEmbedding(embedding)
        self.label = nn.Embedding(CLASSES + 1, embedding)
        self.stem = nn.Linear(3 * PIXELS, width)
        self.blocks = nn.ModuleList(ResidualBlock(width, embedding, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, PIXELS)
        self.gain = nn.Linear(embedding, 2 * PIXELS)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        flat = x.reshape(x.shape[0], PIXELS)
        lam = half_log_snr(t)
        alpha, sigma = torch.sigmoid(2 * lam).sqrt()[:, None], torch.sigmoid(-2 * lam).sqrt()[:, None]
        steps = torch.tanh(torch.cat([flat + alpha, flat - alpha], dim=-1) * (sigma.square() + 0.06**2).rsqrt())
        embedding = nn.functional.silu(self.noise(lam) + self.label(condition))
        h = self.stem(torch.cat([flat, steps], dim=-1))
        for block in self.blocks:
            h = block(h, embedding)
        below, above = (self.gain(embedding) * steps).chunk(2, dim=-1)
        perceptron = self.head(self.norm(h)) + below + above
        q = torch.addcmul(sigma.square(), alpha.square(), self.variance)
        gaussian = sigma * (alpha * (1 - self.variance) * flat - self.mean) / q
        # Not (variance / q).sqrt(), whose derivative in t is NaN where the variance is 0.
        return torch.addcmul(gaussian, self.variance.sqrt() * q.rsqrt(), perceptron).reshape(x.shape)


class DigitsClassifier(nn.Module):
    """Recognises digits, (B, 1, 8, 8) to (B, 10) logits; its penultimate layer is the feature space of Frechet distances."""

    FEATURES = 32

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(PIXELS, 128), nn.SiLU(), nn.Dropout(dropout), nn.Linear(128, self.FEATURES), nn.SiLU()
        )
        self.head = nn.Linear(self.FEATURES, CLASSES)

    def features(self, x: Tensor) -> Tensor:
        """Samples (B, 1, 8, 8) to features (B, 32)."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def real_digits(held_out: bool = True) -> tuple[Tensor, Tensor]:
    """Half of the digits of every class: images (M, 1, 8, 8) in [-1, 1], on the 17 levels they were scanned with, and labels (M,)."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.as_tensor(bunch.data / 8 - 1, dtype=torch.float32).reshape(-1, *SHAPE)
    y = torch.as_tensor(bunch.target, dtype=torch.long)
    # RandomState's stream is frozen by NumPy's policy; default_rng's is not.
    order = np.random.RandomState(SPLIT_SEED).permutation(len(y))
    order = order[np.argsort(bunch.target[order], kind="stable")]
    chosen = torch.as_tensor(np.sort(order[1::2] if held_out else order[::2]))
    return x[chosen], y[chosen]


def to_images(x: Tensor) -> Tensor:
    """Samples (B, 1, 8, 8) to grey pictures (B, 8, 8) in [0, 1]."""
    return ((x[:, 0] + 1) / 2).clip(0, 1)


def read_into(module: nn.Module, path: Path, prefix: str = "") -> nn.Module:
    """The module with the weights stored under ``prefix``, frozen and in eval mode; `UserError` for a missing or damaged file."""
    remedy = "reinstall solversearch, or make it anew with 'python -m solversearch.models.train_digits'"
    try:
        tensors = load_file(path)
        stored = {name.removeprefix(prefix): tensor.float() for name, tensor in tensors.items() if name.startswith(prefix)}
        module.load_state_dict(stored)
    except FileNotFoundError:
        raise UserError(f"the weights {path} are missing; {remedy}") from None
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = short(error, 120)
        raise UserError(f"the weights {path} are damaged ({reason}); {remedy}") from None
    return module.eval().requires_grad_(False)


@cache
def load_classifier() -> DigitsClassifier:
    """The trained classifier, read once."""
    classifier = DigitsClassifier()
    read_into(classifier, WEIGHTS / "digits.safetensors", "classifier.")
    return classifier


def small() -> Variant:
    """A network of an eighth of the weights that learned what the large one says."""
    network = read_into(DigitsNetwork(**SMALL), WEIGHTS / "digits_small.safetensors")
    return Variant(network, SMALL_COST, weights_digest(network))


def load() -> Model:
    """The trained network with its schedule, classifier features and held-out digits."""
    return Model(
        name="digits",
        network=read_into(DigitsNetwork(), WEIGHTS / "digits.safetensors", "network."),
        schedule=noise_schedule(),
        prediction_type="v_prediction",
        shape=SHAPE,
        pad=64,
        conditions=torch.arange(CLASSES),
        null_condition=torch.tensor(NULL),
        features=load_classifier().features,
        data=lambda: real_digits()[0],
        images=to_images,
        variants={"small": small()},
    )
