"""Whether the price of what is not run is real: processor seconds of a network call with blocks left out, or their features reused, over
those of the network's own call, beside its nominal cost.

    python -m tests.benchmarks.variant_seconds [--model unet] [--latents 32] [--samples 1] [--repeats 3]

The model is `unet`, Stable Diffusion 1.5's of 860 million parameters with random weights, in 3.5 GB, or any that `--model` takes. In one
thread, so that seconds of the processor, which others do not change, are those of the call. By hand.
"""

import argparse
import time
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from solversearch import models
from solversearch.models.base import Denoiser, Model
from solversearch.models.variants import with_skips
from solversearch.runtime import Node
from solversearch.schedules import DiscreteVP


class Conditioned(torch.nn.Module):
    """x (B, 4, H, W), t (B,) to the noise prediction, under a prompt that is the same for all."""

    def __init__(self, unet: torch.nn.Module, prompt: torch.Tensor) -> None:
        super().__init__()
        self.core = torch.nn.ModuleDict({"unet": unet})
        self.prompt = prompt

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        output: Any = self.core["unet"](x, t, self.prompt.expand(len(x), -1, -1), return_dict=False)
        return output[0]


def unet(latents: int) -> Model:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    network = UNet2DConditionModel(sample_size=latents, cross_attention_dim=768, attention_head_dim=8)
    given = Conditioned(network.eval().requires_grad_(False), torch.randn(1, 77, 768))
    return Model("unet", given, DiscreteVP.named("scaled_linear"), "epsilon", (4, latents, latents))


def seconds(denoise: Denoiser, node: Node, source: Node, samples: int, repeats: int) -> float:
    """The least of so many calls at the node, each after one at the source."""
    x, found = torch.randn(samples, *denoise.model.shape, generator=torch.Generator().manual_seed(0)), []
    for _ in range(repeats):
        denoise(x, source)
        start = time.process_time()
        denoise(x, node)
        found.append(time.process_time() - start)
    return min(found)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description="Whether the price of what is not run is real.")
    parser.add_argument("--model", default="unet")
    parser.add_argument("--latents", type=int, default=32)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = with_skips(unet(given.latents) if given.model == "unet" else models.load(given.model))
    source, node = (model.schedule.node(t) for t in (700.0, 600.0))
    conditions = None if model.conditions is None else model.conditions[:1].expand(given.samples, *model.conditions.shape[1:])
    own = seconds(Denoiser(model, conditions), node, source, given.samples, given.repeats)
    shown = Table("variant", "blocks", "cost", "seconds", "over the own", "over the cost", title=f"{model.name}: {own:.3g} s a call")
    for name, variant in model.variants.items():
        at = replace(node, variant=name)
        took = seconds(Denoiser(model, conditions).anew([source, at]), at, source, given.samples, given.repeats)
        shown.add_row(
            name, str(len(variant.skips)), f"{variant.cost:.3f}", f"{took:.3g}", f"{took / own:.3f}", f"{took / own / variant.cost:.2f}"
        )
        blocks = [block.name for block in variant.reuses]
        print(name, f"{variant.cost:.3f}", f"{took / own:.3f}", *(blocks or variant.skips), flush=True)
    remembers = Denoiser(model, conditions).anew(replace(node, variant=name) for name in model.variants)
    shown.add_row(
        "own, features kept",
        "",
        "1",
        f"{(kept := seconds(remembers, node, source, given.samples, given.repeats)):.3g}",
        f"{kept / own:.3f}",
        "",
    )
    Console(width=120).print(shown)


if __name__ == "__main__":
    main()
