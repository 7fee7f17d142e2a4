"""The package for k-diffusion, used as k-diffusion's samplers are: a plan samples there what the runtime samples."""

from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from solversearch import runtime
from solversearch.export import EXPORTERS
from solversearch.plan import Plan
from tests.export.consumers import (
    CONDITION,
    NOISE,
    NULL,
    PICTURE,
    PLANS,
    SCHEDULES,
    by_runtime,
    difference,
    imported,
    network,
    plan_of,
    table_of,
)

ARGUMENTS: dict[str, Any] = {"cond": torch.full((2,), CONDITION), "uncond": torch.full((2,), NULL), "cond_scale": 4.0}


class Denoiser(nn.Module):
    """As K.external.CompVisDenoiser and CompVisVDenoiser call a network; flow and EDM models in their own conventions."""

    def __init__(self, kind: str, quantize: bool = True) -> None:
        super().__init__()
        self.kind, self.quantize = kind, quantize
        if kind in ("epsilon", "v", "zero_snr"):
            self.sigmas = torch.from_numpy(SCHEDULES[kind][0].angle(range(1000))).tan().clamp(max=4518.77)
            self.t_to_sigma = self._t_to_sigma

    def _t_to_sigma(self, t: Tensor) -> Tensor:
        low, share = t.double().floor().long(), t.double().frac()
        return torch.lerp(self.sigmas.log()[low], self.sigmas.log()[(low + 1).clamp(max=999)], share).exp()

    def sigma_to_t(self, sigma: Tensor) -> Tensor:
        logs = self.sigmas.log()
        if self.quantize:
            return (sigma.log() - logs[:, None]).abs().argmin(dim=0).view(sigma.shape)
        low = (torch.searchsorted(logs, sigma.log().double()) - 1).clamp(0, 998)
        return low + (sigma.log() - logs[low]) / (logs[low + 1] - logs[low])

    def forward(self, x: Tensor, sigma: Tensor, cond: Tensor) -> Tensor:
        s = sigma.view(-1, *[1] * (x.ndim - 1))
        if self.kind == "edm":
            return network(x, sigma, cond)
        if self.kind == "flow":
            return x - s * network(x, sigma * 1000, cond)
        scale = (1 + s**2).sqrt()
        output = network(x / scale, self.sigma_to_t(sigma), cond)
        return x - s * output if self.kind == "epsilon" else x / scale**2 - s / scale * output


class CFGDenoiser(nn.Module):
    """As scripts write it; with pair it returns the guidance difference too."""

    def __init__(self, inner_model: nn.Module, pair: bool = False) -> None:
        super().__init__()
        self.inner_model, self.pair = inner_model, pair

    def forward(self, x: Tensor, sigma: Tensor, cond: Tensor, uncond: Tensor, cond_scale: float) -> Tensor | tuple[Tensor, Tensor]:
        both = self.inner_model(torch.cat([x, x]), torch.cat([sigma, sigma]), cond=torch.cat([uncond, cond]))
        without, given = both.chunk(2)
        guided = without + cond_scale * (given - without)
        return (guided, given - without) if self.pair else guided


def package(plan: Plan, where: Path) -> ModuleType:
    EXPORTERS["k-diffusion"].write(plan, where)
    return imported(where)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("name", PLANS)
def test_the_sampler_is_the_runtime(name: str, kind: str, tmp_path: Path) -> None:
    plan = PLANS[name](kind)
    module = package(plan, tmp_path / "sampler")
    sigmas = module.get_sigmas().double()
    assert len(sigmas) == plan.nfe + 1 and sigmas[-1] == 0
    seen: list[dict[str, Any]] = []
    model = CFGDenoiser(Denoiser(kind), pair=module.split)
    x = NOISE * sigmas[0]
    if module.start:
        x = x + PICTURE * (1 - sigmas[0] if kind == "flow" else 1)
    result = module.sample_plan(model, x, sigmas, dict(ARGUMENTS), seen.append, disable=True, seed=5)
    assert difference(result, by_runtime(plan, seed=5)) < 1e-6
    assert [step["i"] for step in seen] == list(range(plan.nfe)) and set(seen[0]) == {"x", "i", "sigma", "sigma_hat", "denoised"}


@pytest.mark.parametrize("to", ["comfyui", "k-diffusion"])
def test_a_package_stands_alone(to: str, tmp_path: Path) -> None:
    written = EXPORTERS[to].write(PLANS["a solver"]("flow"), tmp_path / "sampler")
    texts = {path.name: path.read_text() for path in written if path.suffix == ".py"}
    assert texts["runtime.py"].endswith(Path(runtime.__file__).read_text())
    for text in texts.values():
        assert text.startswith("# From solversearch ") and "Apache License, Version 2.0" in text.partition("\n")[0]
        assert "import solversearch" not in text and "from solversearch" not in text


@pytest.mark.parametrize("quantize", [True, False])
def test_broken_times_are_told_unless_the_model_rounds_them(quantize: bool, tmp_path: Path) -> None:
    plan = plan_of(table_of("unipc_2", "v", integer=False, on="karras"), "v")
    module = package(plan, tmp_path / "sampler")
    sigmas = module.get_sigmas().double()
    with pytest.warns(UserWarning, match="rounds times to whole timesteps") if quantize else nullcontext():
        result = module.sample_plan(CFGDenoiser(Denoiser("v", quantize)), NOISE * sigmas[0], sigmas, dict(ARGUMENTS), disable=True)
    assert difference(result, by_runtime(plan, whole=quantize)) < 1e-6


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
def test_lower_precision(dtype: torch.dtype, bound: float, tmp_path: Path) -> None:
    plan = PLANS["a solver"]("flow")
    module = package(plan, tmp_path / "sampler")
    sigmas = module.get_sigmas()
    model, arguments = Denoiser("flow"), {"cond": ARGUMENTS["cond"].to(dtype)}
    result = module.sample_plan(model, (NOISE * sigmas[0]).to(dtype), sigmas, arguments, disable=True)
    assert result.dtype == dtype and difference(result.double(), by_runtime(plan)) < bound


def test_a_plain_function_is_a_model(tmp_path: Path) -> None:
    plan = PLANS["a solver"]("epsilon")
    module, inner = package(plan, tmp_path / "sampler"), Denoiser("epsilon")
    sigmas = module.get_sigmas().double()
    result = module.sample_plan(lambda x, sigma: inner(x, sigma, ARGUMENTS["cond"]), NOISE * sigmas[0], sigmas, disable=True)
    assert difference(result, by_runtime(plan)) < 1e-5  # it does not say which sigma a time is, so the time is a little off


def test_fresh_noise_without_a_seed_follows_torchs(tmp_path: Path) -> None:
    module = package(PLANS["fresh noise"]("flow"), tmp_path / "sampler")
    sigmas = module.get_sigmas().double()
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(module.sample_plan(CFGDenoiser(Denoiser("flow")), NOISE * sigmas[0], sigmas, dict(ARGUMENTS), disable=True))
    assert torch.equal(results[0], results[1]) and not torch.allclose(results[0], results[2])


def test_what_cannot_be_run_is_refused(tmp_path: Path) -> None:
    def refused(name: str, message: str, model: Any, arguments: dict[str, Any], scale: float = 1.0) -> None:
        module = package(PLANS[name]("epsilon"), tmp_path / name.replace(" ", "_"))
        sigmas = module.get_sigmas().double() * scale
        with pytest.raises(ValueError, match=message):
            module.sample_plan(model, NOISE * sigmas[0], sigmas, arguments, disable=True)

    model, inner = CFGDenoiser(Denoiser("epsilon")), Denoiser("epsilon")
    refused("a solver", r"those of get_sigmas\(\)", model, dict(ARGUMENTS), scale=0.9)
    refused("guidance for each node", "pass extra_args with cond_scale", inner, {"cond": ARGUMENTS["cond"]})
    refused("split guidance", "denoise returned no pair", model, dict(ARGUMENTS))
    refused("other times", "pass a model that has t_to_sigma", inner.forward, {"cond": ARGUMENTS["cond"]})
