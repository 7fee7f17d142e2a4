"""A small stand-in for ComfyUI: how it scales noise, wraps a network, guides it, and calls a SAMPLER. In the input's precision."""

import sys
from collections.abc import Callable, Sequence
from math import isclose
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from solversearch.schedules import NoiseSchedule

Options = dict[str, Any]


class Discrete:
    """Models of whole times: ComfyUI's ModelSamplingDiscrete with EPS or, with v, V_PREDICTION."""

    def __init__(self, schedule: NoiseSchedule, v: bool) -> None:
        angles = torch.from_numpy(schedule.angle(range(1000)))
        self.v, self.sigmas = v, angles.tan().clamp(max=4518.77)
        self.sigma_max = self.sigmas[-1]

    def timestep(self, sigma: Tensor) -> Tensor:
        return (sigma.log() - self.sigmas.log()[:, None]).abs().argmin(dim=0).view(sigma.shape)

    def sigma(self, t: Tensor) -> Tensor:
        low, share = t.double().floor().long(), t.double().frac()
        return torch.lerp(self.sigmas.log()[low], self.sigmas.log()[(low + 1).clamp(max=999)], share).exp()

    def calculate_input(self, sigma: Tensor, x: Tensor) -> Tensor:
        return x / (1 + _wide(sigma, x) ** 2).sqrt()

    def calculate_denoised(self, sigma: Tensor, output: Tensor, x: Tensor) -> Tensor:
        s = _wide(sigma, x)
        return x / (1 + s**2) - output * s / (1 + s**2).sqrt() if self.v else x - output * s

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent: Tensor, max_denoise: bool = False) -> Tensor:
        return noise * ((1 + sigma**2).sqrt() if max_denoise else sigma) + latent


class Rectified:
    """Flow models: ModelSamplingDiscreteFlow with CONST. sigma(t) shifts, though timestep(sigma) does not shift back."""

    sigma_max = torch.tensor(1.0)

    def timestep(self, sigma: Tensor) -> Tensor:
        return sigma * 1000

    def sigma(self, t: Tensor) -> Tensor:
        return 3 * t / (1000 + 2 * t)

    def calculate_input(self, sigma: Tensor, x: Tensor) -> Tensor:
        return x

    def calculate_denoised(self, sigma: Tensor, output: Tensor, x: Tensor) -> Tensor:
        return x - output * _wide(sigma, x)

    def noise_scaling(self, sigma: Tensor, noise: Tensor, latent: Tensor, max_denoise: bool = False) -> Tensor:
        return sigma * noise + (1 - sigma) * latent


class Preconditioned(Discrete):
    """EDM's: the wrapped network itself is asked for the data prediction, as the tests' plans have it."""

    def __init__(self) -> None:
        self.sigma_max = torch.tensor(80.0)

    def timestep(self, sigma: Tensor) -> Tensor:
        return sigma

    def calculate_input(self, sigma: Tensor, x: Tensor) -> Tensor:
        return x

    def calculate_denoised(self, sigma: Tensor, output: Tensor, x: Tensor) -> Tensor:
        return output


def _wide(sigma: Tensor, x: Tensor) -> Tensor:
    return sigma.view(-1, *[1] * (x.ndim - 1))


class BaseModel:
    def __init__(self, sampling: Any, network: Callable[..., Tensor]) -> None:
        self.model_sampling, self.network, self.calls = sampling, network, 0

    def apply_model(self, x: Tensor, sigma: Tensor, condition: float) -> Tensor:
        self.calls += 1
        sampling = self.model_sampling
        output = self.network(sampling.calculate_input(sigma, x), sampling.timestep(sigma), torch.full((len(x),), condition))
        return sampling.calculate_denoised(sigma, output, x)


class Guider:
    """CFGGuider; without a negative condition, BasicGuider."""

    def __init__(self, inner_model: BaseModel, cfg: float, positive: float, negative: float | None) -> None:
        self.inner_model, self.cfg, self.positive, self.negative = inner_model, cfg, positive, negative

    def __call__(self, x: Tensor, sigma: Tensor, model_options: Options | None = None, seed: int | None = None) -> Tensor:
        options = model_options or {}
        negative = self.negative if self.cfg != 1 or options.get("disable_cfg1_optimization") else None
        cond = self.inner_model.apply_model(x, sigma, self.positive)
        uncond = torch.zeros_like(x) if negative is None else self.inner_model.apply_model(x, sigma, negative)
        result = uncond + (cond - uncond) * self.cfg
        for function in options.get("sampler_post_cfg_function", []):
            result = function(
                {
                    "denoised": result,
                    "cond": self.positive,
                    "uncond": negative,
                    "cond_denoised": cond,
                    "uncond_denoised": uncond,
                    "input": x,
                }
            )
        return result


class Inpaint:
    """KSamplerX0Inpaint."""

    def __init__(self, inner_model: Guider) -> None:
        self.inner_model, self.noise, self.latent_image = inner_model, torch.empty(0), torch.empty(0)

    def __call__(self, x: Tensor, sigma: Tensor, denoise_mask: Tensor | None, **options: Any) -> Tensor:
        if denoise_mask is None:
            return self.inner_model(x, sigma, **options)
        kept = 1 - denoise_mask
        scaled = self.inner_model.inner_model.model_sampling.noise_scaling(_wide(sigma, x), self.noise, self.latent_image)
        return self.inner_model(x * denoise_mask + scaled * kept, sigma, **options) * denoise_mask + self.latent_image * kept


class KSAMPLER:
    def __init__(self, sampler_function: Callable[..., Tensor], extra_options: Options | None = None) -> None:
        self.sampler_function, self.extra_options = sampler_function, extra_options or {}

    def sample(
        self, guider: Guider, sigmas: Tensor, extra_args: Options, callback: Any, noise: Tensor, latent: Tensor, mask: Tensor | None
    ) -> Tensor:
        model, sampling = Inpaint(guider), guider.inner_model.model_sampling
        model.latent_image, model.noise = latent, noise
        most = isclose(float(sampling.sigma_max), float(sigmas[0]), rel_tol=1e-5) or sigmas[0] > sampling.sigma_max
        x = sampling.noise_scaling(sigmas[0], noise, latent, bool(most))
        return self.sampler_function(
            model, x, sigmas, extra_args={**extra_args, "denoise_mask": mask}, disable=True,
            callback=lambda step: callback(step["i"], step["denoised"], step["x"], len(sigmas) - 1), **self.extra_options,
        )  # fmt: skip


def sample_custom(
    guider: Guider,
    sampler: KSAMPLER,
    sigmas: Tensor,
    noise: Tensor,
    seed: int = 0,
    latent: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Sequence[tuple[int, int]]]:
    """SamplerCustomAdvanced: the samples, and the (step, steps) that previews were shown for."""
    shown: list[tuple[int, int]] = []
    options = {"transformer_options": {"sample_sigmas": sigmas}}
    latent = torch.zeros_like(noise) if latent is None else latent
    extra = {"model_options": options, "seed": seed}
    return sampler.sample(guider, sigmas, extra, lambda i, d, x, n: shown.append((i, n)), noise, latent, mask), shown


@pytest.fixture
def comfy(monkeypatch: pytest.MonkeyPatch) -> None:
    package, samplers = ModuleType("comfy"), ModuleType("comfy.samplers")
    samplers.KSAMPLER = KSAMPLER  # type: ignore[attr-defined]
    package.samplers = samplers  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "comfy", package)
    monkeypatch.setitem(sys.modules, "comfy.samplers", samplers)
