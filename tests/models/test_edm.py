"""Networks preconditioned as in EDM."""

import dataclasses
import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from solversearch.models import edm as module
from solversearch.models.base import Denoiser, Model
from solversearch.models.custom import load_custom
from solversearch.models.edm import Preconditioned, edm
from solversearch.schedules import VE
from solversearch.teacher import teach

SHAPE = (3, 4, 4)


class Raw(nn.Module):
    """F of the optimal denoiser of normal data of deviation sigma_data: there D = c_skip x, so F = 0; plus what it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.0))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        self.seen = [x, noise] if labels is None else [x, noise, labels]
        return self.gain * x


@pytest.mark.parametrize("sigma", [0.002, 0.5, 80.0])
def test_coefficients_are_those_of_the_paper(sigma: float) -> None:
    """Table 1, written out."""
    raw, data = Raw(), 0.7
    raw.gain.data.fill_(2.0)
    x = torch.randn(2, *SHAPE, dtype=torch.float64)
    output = Preconditioned(raw, data)(x, torch.full((2,), sigma, dtype=torch.float64))
    root = math.sqrt(sigma**2 + data**2)
    inner, noise = raw.seen
    torch.testing.assert_close(inner, x / root)
    torch.testing.assert_close(noise, torch.full((2,), math.log(sigma) / 4, dtype=torch.float64))
    torch.testing.assert_close(output, data**2 / root**2 * x + sigma * data / root * (2.0 * x / root))


def test_every_sample_has_its_own_noise_level() -> None:
    raw = Raw()
    raw.gain.data.fill_(0.3)
    x, sigma = torch.randn(3, *SHAPE), torch.tensor([0.1, 1.0, 10.0])
    denoise = Preconditioned(raw)
    torch.testing.assert_close(denoise(x, sigma), torch.cat([denoise(x[i : i + 1], sigma[i : i + 1]) for i in range(3)]))


def test_the_network_sees_its_own_precision_and_the_denoiser_keeps_the_other() -> None:
    raw = Raw().bfloat16()
    model = edm(raw, SHAPE)
    assert model.dtype == torch.bfloat16
    output = model.network(torch.randn(2, *SHAPE).bfloat16(), torch.tensor([0.01, 60.0]))
    assert [each.dtype for each in raw.seen] == [torch.bfloat16, torch.float32]
    assert output.dtype == torch.float32


def test_a_model_is_sampled_as_any_other() -> None:
    """Normal data: the flow scales the noise by sigma_data / sqrt(sigma_max^2 + sigma_data^2), known in closed form."""
    model = edm(Raw(), SHAPE, sigma_data=0.7, sigma_max=40.0)
    assert isinstance(model.schedule, VE)
    assert (model.prediction_type, model.dtype, model.conditions) == ("edm", torch.float32, None)
    teacher = teach(model, "fit", 3, steps=48)
    expected = teacher.noise * 40 * 0.7 / math.hypot(40, 0.7)
    torch.testing.assert_close(teacher.endpoint, expected, rtol=2e-3, atol=2e-3)


def test_conditions_reach_the_network() -> None:
    raw = Raw()
    model = edm(raw, SHAPE, conditions=torch.eye(4), null_condition=torch.zeros(4), name="mine", guidance=2.0)
    assert (model.name, model.guidance) == ("mine", 2.0)
    Denoiser(model, torch.eye(4)[:2])(torch.randn(2, *SHAPE), model.schedule.node(3.0))
    assert torch.equal(raw.seen[2], torch.eye(4)[:2])


def test_a_preconditioned_network_is_taken_as_it_is() -> None:
    raw = Raw()
    wrapped = Preconditioned(raw, 0.7)
    model: Model = edm(wrapped, SHAPE, preconditioned=True)
    assert model.network is wrapped
    assert dataclasses.replace(model).digest == model.digest != edm(raw, SHAPE, sigma_data=0.7, sigma_max=40).digest


def test_the_documented_example_is_complete(tmp_path: Path) -> None:
    lines = re.findall(r"^    (.*)$|^$", module.__doc__ or "", flags=re.MULTILINE)
    file = tmp_path / "mine.py"
    file.write_text("\n".join(lines))
    model = load_custom(f"python:{file}:factory")
    assert model.shape == (3, 32, 32)
    assert model.null_condition is not None and model.null_condition.shape == (10,)
