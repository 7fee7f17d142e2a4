"""The embedded diffusion model: its shipped weights denoise held-out digits and draw recognisable ones."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from solversearch.errors import UserError
from solversearch.models import digits, train_digits
from solversearch.models.base import Model
from solversearch.models.digits import NULL, SHAPE


@pytest.fixture(scope="module")
def model() -> Model:
    return digits.load()


def test_weights_are_small() -> None:
    assert sum(path.stat().st_size for path in digits.WEIGHTS.glob("*.safetensors")) <= 3.2e6
    assert (digits.WEIGHTS / "digits_small.safetensors").stat().st_size <= 0.3e6


def test_model_is_complete(model: Model) -> None:
    assert (model.name, model.prediction_type, model.shape) == ("digits", "v_prediction", SHAPE)
    assert model.conditions is not None and model.conditions.tolist() == list(range(10))
    assert model.null_condition is not None and int(model.null_condition) == NULL
    assert model.data and model.features and model.images
    real = model.data()
    assert real.shape[1:] == SHAPE and float(real.min()) == -1 and float(real.max()) == 1
    assert model.features(real).shape == (len(real), 32)
    pictures = model.images(2 * real)
    assert pictures.shape == (len(real), 8, 8) and float(pictures.min()) == 0 and float(pictures.max()) == 1
    assert not any(p.requires_grad for p in model.network.parameters())  # type: ignore[attr-defined]


def test_halves_are_disjoint_and_stratified() -> None:
    (x_a, y_a), (x_b, y_b) = digits.real_digits(held_out=False), digits.real_digits(held_out=True)
    assert len(y_a) + len(y_b) == 1797
    assert (y_a.bincount() - y_b.bincount()).abs().max() <= 1
    assert torch.cdist(x_a.flatten(1), x_b.flatten(1)).min() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shapes_and_dtypes(dtype: torch.dtype) -> None:
    network = digits.load().network.to(dtype)  # type: ignore[attr-defined]
    v = network(torch.randn(3, *SHAPE, dtype=dtype), torch.tensor([0.0, 0.5, 999.0], dtype=dtype), torch.tensor([0, 9, NULL]))
    assert v.shape == (3, *SHAPE) and v.dtype == dtype and v.isfinite().all()


def test_a_sample_does_not_depend_on_its_batch(model: Model) -> None:
    x, t, condition = torch.randn(64, *SHAPE), torch.linspace(0, 999, 64), torch.arange(64) % 11
    whole = model.network(x, t, condition)
    for rows in (slice(0, 16), slice(32, 64)):
        torch.testing.assert_close(model.network(x[rows], t[rows], condition[rows]), whole[rows], atol=1e-6, rtol=1e-6)


def test_derivatives_forward_and_backward() -> None:
    network = digits.load().network.double()  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(0)
    x, dx, weights = (torch.randn(6, *SHAPE, generator=generator, dtype=torch.float64) for _ in range(3))
    t, dt = torch.linspace(0, 999, 6).double(), torch.randn(6, generator=generator, dtype=torch.float64)

    def call(x: Tensor, t: Tensor) -> Tensor:
        return network(x, t, torch.arange(6))

    forward = torch.func.jvp(call, (x, t), (dx, dt))[1]
    step = 1e-5
    difference = (call(x + step * dx, t + step * dt) - call(x - step * dx, t - step * dt)) / (2 * step)
    torch.testing.assert_close(forward, difference, atol=1e-5, rtol=1e-5)
    x, t = x.requires_grad_(), t.requires_grad_()
    gx, gt = torch.autograd.grad((call(x, t) * weights).sum(), (x, t))
    assert float((gx * dx).sum() + (gt * dt).sum()) == pytest.approx(float((forward * weights).sum()), rel=1e-9)


def test_the_network_has_the_schedule_in_it() -> None:
    t = torch.arange(1000.0, dtype=torch.float64)
    torch.testing.assert_close(digits.half_log_snr(t), torch.as_tensor(digits.noise_schedule().lam(t.numpy())), atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def gaussian() -> tuple[Tensor, Tensor, Tensor]:
    """Mean, axes and variances of the training half."""
    x, _ = digits.real_digits(held_out=False)
    variances, axes = torch.linalg.eigh(x.flatten(1).double().T.cov())
    return x.flatten(1).double().mean(0), axes, variances.clamp(min=0)


@pytest.mark.parametrize("t", [100, 250, 400, 600, 800])
def test_denoises_held_out_digits_better_than_the_best_linear_map(model: Model, gaussian: tuple[Tensor, Tensor, Tensor], t: int) -> None:
    """The Gaussian's posterior mean is the best linear denoiser; unlike it, the network also knows the class."""
    mean, axes, variances = gaussian
    x, y = digits.real_digits(held_out=True)
    times = torch.full((len(x),), float(t))
    noisy, _ = train_digits.noised(x, times, torch.randn(x.shape, generator=torch.Generator().manual_seed(t)))
    alpha, sigma = float(model.schedule.alpha(t)), float(model.schedule.sigma(t))
    shrink = alpha * variances / (alpha**2 * variances + sigma**2)
    linear = mean + ((noisy.flatten(1).double() - alpha * mean) @ axes * shrink) @ axes.T
    clean = alpha * noisy - sigma * model.network(noisy, times, y)
    unknown = alpha * noisy - sigma * model.network(noisy, times, torch.full_like(y, NULL))
    errors = [(guess.flatten(1) - x.flatten(1)).square().mean() for guess in (clean, unknown, linear)]
    assert errors[0] < 0.95 * errors[2]
    assert errors[1] < errors[2]


def test_samples_are_recognised(model: Model) -> None:
    condition = torch.arange(10).repeat(20)
    x = train_digits.sample(model.network, "v_prediction", condition, steps=60, seed=1)
    assert x.isfinite().all()
    assert (digits.load_classifier()(x).argmax(1) == condition).float().mean() >= 0.9


def test_training_runs_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    few = {held_out: tuple(part[:200] for part in digits.real_digits(held_out)) for held_out in (False, True)}
    monkeypatch.setattr(train_digits, "real_digits", lambda held_out: few[held_out])
    monkeypatch.setattr(train_digits, "TEACHER_STEPS", 4)
    train_digits.main(["--out", str(tmp_path), "--steps", "4"])
    assert "held-out half" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits.safetensors", "digits_small.safetensors", "mixture.safetensors"]
    monkeypatch.setattr(digits, "WEIGHTS", tmp_path)
    assert digits.load().network(torch.zeros(1, *SHAPE), torch.zeros(1), torch.zeros(1, dtype=torch.long)).isfinite().all()


@pytest.mark.parametrize("keep", [None, 0, 100, 5000])
def test_missing_or_damaged_weights_are_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int | None) -> None:
    if keep is not None:
        (tmp_path / "digits.safetensors").write_bytes((digits.WEIGHTS / "digits.safetensors").read_bytes()[:keep])
    monkeypatch.setattr(digits, "WEIGHTS", tmp_path)
    with pytest.raises(UserError, match=r"digits\.safetensors are (missing|damaged).*train_digits") as error:
        digits.load()
    assert "\n" not in str(error.value)
