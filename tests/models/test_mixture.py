"""The mixture's denoiser is exact: checked against dense matrices and against its own density."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from solversearch.errors import UserError
from solversearch.models import mixture
from solversearch.models.digits import CLASSES, NULL, PIXELS, SHAPE
from solversearch.models.mixture import MixtureDenoiser

SCALES = [(1.0, 0.0), (1.0, 1e-6), (0.9995, 0.03), (0.8, 0.6), (0.07, 0.9975), (0.0, 1.0)]


@pytest.fixture(scope="module")
def random_mixture() -> MixtureDenoiser:
    """Two random Gaussians a class in float64, with standard deviations 0.05 .. 1."""
    denoiser = MixtureDenoiser(2 * CLASSES).double()
    generator = torch.Generator().manual_seed(0)
    denoiser.centres.copy_(0.7 * torch.randn(20, PIXELS, generator=generator, dtype=torch.float64))
    axes = torch.linalg.qr(torch.randn(20, PIXELS, PIXELS, generator=generator, dtype=torch.float64)).Q
    denoiser.axes.copy_(torch.cat(list(axes), dim=1))
    denoiser.variances.copy_(10 ** (2.6 * torch.rand(20, PIXELS, generator=generator, dtype=torch.float64) - 2.6))
    denoiser.log_weights.copy_(torch.log_softmax(torch.randn(20, generator=generator, dtype=torch.float64), 0))
    return denoiser


def means_and_axes(denoiser: MixtureDenoiser) -> tuple[Tensor, Tensor]:
    """Means (K, 64) and axes (K, 64, 64), one axis a column."""
    axes = torch.stack(torch.split(denoiser.axes, PIXELS, dim=1))
    return torch.einsum("kpa,ka->kp", axes, denoiser.centres), axes


def draws(denoiser: MixtureDenoiser, alpha: float, sigma: float, count: int = 22) -> tuple[Tensor, Tensor]:
    """Noisy samples near component means, with conditions that run over all eleven."""
    generator = torch.Generator().manual_seed(1)
    condition = torch.arange(count) % (CLASSES + 1)
    each = denoiser.components // CLASSES
    noise = torch.randn(count, PIXELS, generator=generator, dtype=torch.float64)
    x = alpha * means_and_axes(denoiser)[0][condition.clamp(max=CLASSES - 1) * each] + (sigma + 0.1 * alpha) * noise
    return x.reshape(count, *SHAPE), condition


def dense_posterior_mean(denoiser: MixtureDenoiser, x: np.ndarray, alpha: float, sigma: float, condition: int) -> np.ndarray:
    """E[x0 | x] by textbook Gaussian conditioning with full matrices."""
    means, axes = (value.numpy() for value in means_and_axes(denoiser))
    variances, log_weights = denoiser.variances.numpy(), denoiser.log_weights.numpy()
    each = denoiser.components // CLASSES
    among = range(denoiser.components) if condition == NULL else range(condition * each, (condition + 1) * each)
    logs, posteriors = [], []
    for k in among:
        covariance = axes[k] @ np.diag(variances[k]) @ axes[k].T
        noisy = alpha**2 * covariance + sigma**2 * np.eye(PIXELS)
        solved = np.linalg.solve(noisy, x - alpha * means[k])
        logs.append(log_weights[k] - 0.5 * (x - alpha * means[k]) @ solved - 0.5 * np.linalg.slogdet(noisy)[1])
        posteriors.append(means[k] + alpha * covariance @ solved)
    shares = np.exp(np.array(logs) - max(logs))
    return shares @ np.array(posteriors) / shares.sum()


@pytest.mark.parametrize(("alpha", "sigma"), SCALES)
def test_agrees_with_dense_matrices(random_mixture: MixtureDenoiser, alpha: float, sigma: float) -> None:
    x, condition = draws(random_mixture, alpha, sigma)
    ours = random_mixture.denoise(
        x, torch.full((len(x),), alpha, dtype=torch.float64), torch.full((len(x),), sigma, dtype=torch.float64), condition
    )
    for i in range(len(x)):
        dense = dense_posterior_mean(random_mixture, x[i].flatten().numpy(), alpha, sigma, int(condition[i]))
        np.testing.assert_allclose(ours[i].flatten().numpy(), dense, atol=1e-8)


def log_density(denoiser: MixtureDenoiser, x: Tensor, alpha: float, sigma: float, condition: int) -> Tensor:
    """ln p(x_t | condition) of x (B, 1, 8, 8), (B,), up to a constant, from dense covariances."""
    means, axes = means_and_axes(denoiser)
    own = slice(None) if condition == NULL else slice(2 * condition, 2 * condition + 2)
    spread = alpha**2 * axes[own] @ torch.diag_embed(denoiser.variances[own]) @ axes[own].mT + sigma**2 * torch.eye(PIXELS).double()
    each = torch.distributions.MultivariateNormal(alpha * means[own], spread).log_prob(x.reshape(-1, 1, PIXELS))  # type: ignore[no-untyped-call]
    return torch.logsumexp(each + denoiser.log_weights[own], dim=-1)


@pytest.mark.parametrize(("alpha", "sigma"), [(1.0, 1e-3), (0.9995, 0.03), (0.8, 0.6), (0.07, 0.9975), (0.0, 1.0)])
@pytest.mark.parametrize("condition", [3, NULL])
def test_tweedie_by_finite_differences(random_mixture: MixtureDenoiser, alpha: float, sigma: float, condition: int) -> None:
    """alpha D = x + sigma^2 grad ln p(x) (Efron 2011)."""
    x, _ = draws(random_mixture, alpha, sigma, 4)
    d = random_mixture.denoise(
        x, torch.full((4,), alpha, dtype=torch.float64), torch.full((4,), sigma, dtype=torch.float64), torch.full((4,), condition)
    )
    step = 1e-5
    for direction in torch.eye(PIXELS, dtype=torch.float64)[::7].reshape(-1, *SHAPE):
        up, down = (log_density(random_mixture, x + sign * step * direction, alpha, sigma, condition) for sign in (1, -1))
        slope = (alpha * d - x).mul(direction).flatten(1).sum(1)
        torch.testing.assert_close(slope, sigma**2 * (up - down) / (2 * step), atol=1e-6, rtol=1e-6)


def test_at_no_signal_it_is_the_prior_mean_and_at_no_noise_the_sample(random_mixture: MixtureDenoiser) -> None:
    x, condition = draws(random_mixture, 0.0, 1.0)
    zero, one = torch.zeros(len(x)).double(), torch.ones(len(x)).double()
    weights = random_mixture.log_weights[8:10].softmax(0)
    prior = (weights @ means_and_axes(random_mixture)[0][8:10]).reshape(SHAPE)
    torch.testing.assert_close(random_mixture.denoise(x, zero, one, condition)[condition == 4], prior.expand(2, *SHAPE))
    torch.testing.assert_close(random_mixture.denoise(x, one, zero, condition), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shipped_model(dtype: torch.dtype) -> None:
    model = mixture.load()
    network = model.network.to(dtype)  # type: ignore[attr-defined]
    x = torch.randn(32, *SHAPE, dtype=dtype)
    t, condition = torch.linspace(0, 999, 32, dtype=dtype), torch.arange(32) % 11
    d = network(x, t, condition)
    assert d.shape == x.shape and d.dtype == dtype and d.isfinite().all()
    assert (model.name, model.prediction_type, model.shape) == ("mixture", "sample", SHAPE)
    alpha, sigma = (torch.as_tensor(scale(t.numpy()), dtype=dtype) for scale in (model.schedule.alpha, model.schedule.sigma))
    torch.testing.assert_close(d, network.denoise(x, alpha, sigma, condition), atol=1e-4, rtol=1e-4)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    network = mixture.load().network
    x, t, condition = torch.randn(64, *SHAPE), torch.linspace(0, 999, 64), torch.arange(64) * 7 % 11
    whole = network(x, t, condition)
    for rows in (slice(0, 16), slice(40, 64), slice(5, 6)):
        torch.testing.assert_close(network(x[rows], t[rows], condition[rows]), whole[rows], atol=0, rtol=0)


def test_derivatives_forward_and_backward(random_mixture: MixtureDenoiser) -> None:
    x, condition = draws(random_mixture, 0.8, 0.6, 6)
    t, dx, dt = torch.full((6,), 400.5, dtype=torch.float64), torch.randn(x.shape).double(), torch.randn(6).double()

    def call(x: Tensor, t: Tensor) -> Tensor:
        return random_mixture(x, t, condition)

    forward = torch.func.jvp(call, (x, t), (dx, dt))[1]
    step = 1e-6
    difference = (call(x + step * dx, t + step * dt) - call(x - step * dx, t - step * dt)) / (2 * step)
    torch.testing.assert_close(forward, difference, atol=1e-6, rtol=1e-6)
    x, t = x.requires_grad_(), t.requires_grad_()
    weights = torch.randn(x.shape).double()
    gx, gt = torch.autograd.grad((call(x, t) * weights).sum(), (x, t))
    assert float((gx * dx).sum() + (gt * dt).sum()) == pytest.approx(float((forward * weights).sum()), rel=1e-9)


def test_a_missing_file_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixture, "WEIGHTS", tmp_path)
    with pytest.raises(UserError, match=r"mixture\.safetensors are missing") as error:
        mixture.load()
    assert "\n" not in str(error.value)
