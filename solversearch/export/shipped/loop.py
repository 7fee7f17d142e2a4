"""A plan run on torch tensors through a model in the convention of `levels`."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from .levels import LevelCall
from .reader import ShippedPlan
from .runtime import Node, run

Answer = Tensor | tuple[Tensor, Tensor]
Ask = Callable[[Tensor, Tensor, Node], Answer]
"""ask(x, sigma, node) -> denoised, or the pair (denoised, conditional minus unconditional); sigma has one entry a sample."""


@torch.no_grad()
def sample(
    plan: ShippedPlan,
    calls: Sequence[LevelCall],
    ask: Ask,
    noise: Tensor,
    callback: Callable[[dict[str, Any]], None] | None = None,
    disable: bool | None = None,
    seed: int | None = None,
) -> Tensor:
    """Samples from unit noise, or from noised pictures as the plan's start has them; half precision is accumulated in float32. Fresh noises
    come from the seed, or from torch's own state."""
    if any(node.variant for node in plan.nodes):
        raise ValueError("the plan calls other networks than the model's own at some evaluations, which only Python and diffusers do")
    if plan.anchored:
        raise ValueError(
            "the plan needs an anchor for each sample, such as a degraded picture, which only Python and the NumPy export take"
        )
    wide = torch.promote_types(noise.dtype, torch.float32)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    turns = iter(calls)

    def denoise(x: Tensor, node: Node) -> Answer:
        call = next(turns)
        sigma = torch.full((len(x),), call.sigma, dtype=noise.dtype, device=x.device)
        answer = ask((call.scale * x).to(noise.dtype), sigma, node)
        if isinstance(answer, tuple):
            return call.a * x + call.b * answer[0].to(wide), call.b * answer[1].to(wide)
        return call.a * x + call.b * answer.to(wide)

    def draw(_: int) -> Tensor:
        where = noise.device if generator is None else "cpu"
        return torch.randn(noise.shape, dtype=wide, device=where, generator=generator).to(noise.device)

    with tqdm(total=len(calls), disable=disable) as bar:

        def report(i: int, x: Tensor, d: Tensor) -> None:
            bar.update()
            if callback:
                call = calls[i]
                callback({"x": call.scale * x, "i": i, "sigma": call.sigma, "sigma_hat": call.sigma, "denoised": d})

        return run(plan.nodes, plan.rows, denoise, noise.to(wide), draw, plan.threshold, report, plan.components).to(noise.dtype)
