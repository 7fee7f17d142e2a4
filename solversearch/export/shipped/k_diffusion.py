"""A plan of solversearch as a sampler of k-diffusion: from THIS_FOLDER import get_sigmas, sample_plan.

    sigmas = get_sigmas(device)
    x = torch.randn(shape, device=device) * sigmas[0]
    samples = sample_plan(model, x, sigmas, extra_args={"cond": c, "uncond": uc, "cond_scale": 7.5})

A plan that starts from pictures (`start` below) takes x = pictures + noise * sigmas[0], of flow models noise * sigmas[0] + pictures *
(1 - sigmas[0]).

model(x, sigma, **extra_args) returns the data prediction, as K.external.CompVisDenoiser and its relatives do; one made of such a model
and keeping it as inner_model serves too. Guidance is the plan's own: each call gets its node's as cond_scale where extra_args has one;
without one, the model is taken to be guided already, or not to need it. A plan with split guidance (`split` below) asks for more: its
model returns the pair (denoised, conditional minus unconditional).
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .levels import calls, kind, matches, pictures_scale, sigmas
from .loop import Answer, sample
from .reader import parse
from .runtime import Node

PLAN = parse(Path(__file__).with_name("plan.json").read_bytes())
split, start = PLAN.split, PLAN.start


def get_sigmas(device: Any = "cpu") -> Tensor:
    """The N + 1 noise levels of the plan, the last of them 0."""
    return torch.tensor(sigmas(PLAN), dtype=torch.float32, device=device)


def sample_plan(
    model: Callable[..., Answer],
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], None] | None = None,
    disable: bool | None = None,
    seed: int | None = None,
) -> Tensor:
    """Samples the plan; the arguments are those of k-diffusion's samplers, sigmas those of `get_sigmas` and x noise times sigmas[0], added
    to pictures where the plan starts from them.

    seed is that of the fresh noises of a stochastic plan. Raises ValueError where the plan cannot be run as it is.
    """
    arguments = dict(extra_args or {})
    if not matches(PLAN, sigmas.tolist()):
        raise ValueError("a plan has its own sigmas, and its own start: pass those of get_sigmas()")
    if "cond_scale" not in arguments and any(node.guidance != PLAN.guidance for node in PLAN.nodes):
        raise ValueError("the plan has a guidance scale of its own at some evaluations: pass extra_args with cond_scale")

    def ask(x: Tensor, sigma: Tensor, node: Node) -> Answer:
        if "cond_scale" in arguments:
            arguments["cond_scale"] = node.guidance
        return model(x, sigma, **arguments)

    if kind(PLAN) == "vp" and _found(model, "quantize") and any(node.t != round(node.t) for node in PLAN.nodes):
        warnings.warn(
            "the model rounds times to whole timesteps (quantize=True), and the plan has others: make it with quantize=False", stacklevel=2
        )
    scale = pictures_scale(PLAN, start) if start else sigmas[0]
    return sample(PLAN, calls(PLAN, _sigma_of_time(model)), ask, x / scale, callback, disable, seed)


def _sigma_of_time(model: Any) -> Callable[[float], float] | None:
    known = _found(model, "t_to_sigma")
    return None if known is None else lambda t: float(known(torch.tensor(t)))


def _found(model: Any, name: str) -> Any:
    """The attribute of the model, or of the first one inside that has it; None without."""
    while model is not None and not hasattr(model, name):
        model = getattr(model, "inner_model", None)
    return getattr(model, name, None)
