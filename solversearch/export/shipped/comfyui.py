"""Plans of solversearch in ComfyUI: a folder of custom_nodes with two nodes under sampling/solversearch.

"Plan sampler" gives the SAMPLER that runs a plan, "Plan sigmas" the SIGMAS that belong to it (and serve stock samplers too, which run
the plan's noise levels but not its coefficients). Connect both to SamplerCustomAdvanced or SamplerCustom with an empty latent, or with
the latent of a picture where the plan starts from one. Plans are the files of the folder plans; copy others there.

Guidance is the plan's own, whatever cfg the guider has; where it is not 1 the guider needs a negative prompt. ComfyUI's models with
discrete times tell their network whole ones only: other times are rounded, which is logged.
"""

import logging
from math import isclose
from pathlib import Path
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from .levels import LevelCall, calls, kind, matches, pictures_scale, sigmas
from .loop import Answer, sample
from .reader import ShippedPlan, coefficients, parse
from .runtime import Node

PLANS = Path(__file__).parent / "plans"


def read(name: str) -> ShippedPlan:
    return parse((PLANS / name).read_bytes())


def sample_plan(
    model: Any, x: Tensor, sigmas: Tensor, extra_args: dict[str, Any], callback: Any = None, disable: bool | None = None, *,
    plan: ShippedPlan,
) -> Tensor:  # fmt: skip
    """What ComfyUI calls for a SAMPLER; model is its KSamplerX0Inpaint, around the guider, around the network."""
    sampling = model.inner_model.inner_model.model_sampling
    if not matches(plan, sigmas.tolist()):
        raise ValueError("A plan has its own sigmas, and its own start: connect 'Plan sigmas' with the same plan.")
    if plan.start and not torch.any(model.latent_image):
        raise ValueError("The plan starts from a picture: connect the latent of one, of VAE Encode.")
    made = calls(plan, lambda t: float(sampling.sigma(torch.tensor(t))))
    _check(plan, made[0], sampling)
    _warn(plan, made, sampling, getattr(model.inner_model, "cfg", None))

    def ask(x: Tensor, sigma: Tensor, node: Node) -> Answer:
        if node.reuses:
            return _conditional(model, x, sigma, extra_args)
        return _guided(model, x, sigma, extra_args, node.guidance, plan.split)

    seed = ((extra_args.get("seed") or 0) + 1) % 2**64  # the seed itself has given the initial noise
    scale = pictures_scale(plan, plan.start) if plan.start else _noise_scale(sampling, sigmas[0])
    return sample(plan, made, ask, x / scale, callback, disable, seed)


def _noise_scale(sampling: Any, sigma: Tensor) -> float:
    """What ComfyUI has multiplied unit noise by, as its KSAMPLER does."""
    most, first = float(sampling.sigma_max), float(sigma)
    one = torch.ones(1, 1, 1, 1, device=sigma.device)
    scaled: Tensor = sampling.noise_scaling(sigma, one, torch.zeros_like(one), first > most or isclose(first, most, rel_tol=1e-5))
    return scaled.item()


def _guided(model: Any, x: Tensor, sigma: Tensor, extra_args: dict[str, Any], guidance: float, split: bool) -> Answer:
    """The data prediction at the given guidance; with split, the difference that it is made of as well."""
    if not split and guidance == getattr(model.inner_model, "cfg", None):
        return model(x, sigma, **extra_args)
    options, differences = extra_args.get("model_options", {}), []

    def guide(seen: dict[str, Any]) -> Tensor:
        if seen["uncond"] is None:
            raise ValueError("The plan needs guidance: connect a CFGGuider (or SamplerCustom) with a negative prompt.")
        differences.append(seen["cond_denoised"] - seen["uncond_denoised"])
        return seen["uncond_denoised"] + guidance * differences[-1]

    hooked = {
        **options,
        "disable_cfg1_optimization": True,  # or a guider at cfg 1 leaves out the negative prompt
        "sampler_post_cfg_function": [guide, *options.get("sampler_post_cfg_function", [])],
    }
    denoised = model(x, sigma, **{**extra_args, "model_options": hooked})
    if not split:
        return denoised
    mask = extra_args.get("denoise_mask")
    return denoised, differences[-1] if mask is None else differences[-1] * mask


def _conditional(model: Any, x: Tensor, sigma: Tensor, extra_args: dict[str, Any]) -> Tensor:
    """The data prediction with the condition alone: at cfg 1 a guider leaves out the negative prompt, which saves half the time."""
    guider, options = model.inner_model, extra_args.get("model_options", {})
    functions = [lambda seen: seen["cond_denoised"], *options.get("sampler_post_cfg_function", [])]
    cfg, guider.cfg = getattr(guider, "cfg", None), 1.0
    try:
        denoised: Tensor = model(x, sigma, **{**extra_args, "model_options": {**options, "sampler_post_cfg_function": functions}})
    finally:
        guider.cfg = cfg
    return denoised


def _check(plan: ShippedPlan, call: LevelCall, sampling: Any) -> None:
    """Whether the model scales its network's input, and reads its output, as the plan does."""
    if plan.prediction_type in ("sample", "edm"):
        return
    one, sigma = torch.ones(1, 1, 1, 1), torch.tensor([call.sigma])
    zero = torch.zeros_like(one)
    seen = (
        sampling.calculate_input(sigma, one).item() * call.scale,
        sampling.calculate_denoised(sigma, zero, one).item() * call.scale,
        sampling.calculate_denoised(sigma, one, zero).item(),
    )
    alpha = 1 - call.sigma if kind(plan) == "flow" else 1 / call.scale
    expected = (1.0, *coefficients(plan.prediction_type, alpha, call.sigma / call.scale))
    if not all(isclose(s, e, rel_tol=1e-3, abs_tol=1e-3) for s, e in zip(seen, expected, strict=True)):
        raise ValueError(f"The plan is for a network that predicts {plan.prediction_type}, which this model's does not.")


def _warn(plan: ShippedPlan, made: list[LevelCall], sampling: Any, cfg: float | None) -> None:
    if cfg not in (None, plan.guidance):
        logging.warning("solversearch: the plan's guidance %g is used, not the guider's cfg %g", plan.guidance, cfg)
    if kind(plan) == "vp":
        told = [float(sampling.timestep(torch.tensor(call.sigma))) for call in made]
        moved = [f"{node.t:g} as {t:g}" for node, t in zip(plan.nodes, told, strict=True) if abs(node.t - t) > 1e-2]
        if moved:
            logging.warning("solversearch: this model tells its network whole times only: %s", ", ".join(moved))


class _Node:
    CATEGORY = "sampling/solversearch"
    FUNCTION = "make"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"plan": (sorted(path.name for path in PLANS.glob("*.json")),)}}

    @classmethod
    def IS_CHANGED(cls, plan: str) -> str:
        return read(plan).digest


class PlanSampler(_Node):
    RETURN_TYPES = ("SAMPLER",)

    def make(self, plan: str) -> tuple[Any]:
        return (comfy.samplers.KSAMPLER(sample_plan, {"plan": read(plan)}),)


class PlanSigmas(_Node):
    RETURN_TYPES = ("SIGMAS",)

    def make(self, plan: str) -> tuple[Tensor]:
        return (torch.FloatTensor(sigmas(read(plan))),)


NODE_CLASS_MAPPINGS = {"SolversearchPlanSampler": PlanSampler, "SolversearchPlanSigmas": PlanSigmas}
NODE_DISPLAY_NAME_MAPPINGS = {"SolversearchPlanSampler": "Plan sampler", "SolversearchPlanSigmas": "Plan sigmas"}
