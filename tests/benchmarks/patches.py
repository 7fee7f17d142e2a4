"""A network of photograph patches, 16 x 16 RGB, with two conditions: `python -m tests.benchmarks.patches FILE.safetensors [--steps N]`.

Trains it on crops of scikit-learn's two photographs (about 4 minutes on one core). It stands for pictures whose statistics are alike
everywhere, as those of latents are and those of `digits` are not. Then:

    SOLVERSEARCH_PATCHES=FILE.safetensors solversearch optimize --model python:tests/benchmarks/patches.py:build --nfe 5
"""

import argparse
import os
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from solversearch.models.base import Model
from solversearch.models.digits import NoiseEmbedding, half_log_snr, noise_schedule
from solversearch.models.train_digits import TrainingRecipe, trained

SHAPE, NULL = (3, 16, 16), 2


class Block(nn.Module):
    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * width)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, 1)
        y = self.first(nn.functional.silu(self.norm(h)))
        return h + self.second(nn.functional.silu(y * (1 + scale) + shift))


class Network(nn.Module):
    """Two resolutions, 0.9 million weights; predicts v."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.embedding, self.condition = NoiseEmbedding(128), nn.Embedding(3, 128)
        self.inside = nn.Conv2d(3, width, 3, padding=1)
        self.high = nn.ModuleList(Block(width, 128) for _ in range(4))
        self.down, self.up = nn.Conv2d(width, 2 * width, 2, stride=2), nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.low = nn.ModuleList(Block(2 * width, 128) for _ in range(3))
        self.outside = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        e = self.embedding(half_log_snr(t)) + self.condition(condition)
        h = self.inside(x)
        for block in self.high[:2]:
            h = block(h, e)
        low = self.down(h)
        for block in self.low:
            low = block(low, e)
        h = h + self.up(low)
        for block in self.high[2:]:
            h = block(h, e)
        return self.outside(nn.functional.silu(h))


@cache
def photographs() -> list[Tensor]:
    """Both, in [-1, 1], at a third of their size: (3, H, W)."""
    from sklearn.datasets import load_sample_images

    found = [torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1 for image in load_sample_images().images]
    return [nn.functional.avg_pool2d(image, 3) for image in found]


def crops(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Patches (B, *SHAPE), half of them mirrored, and which photograph they are of, (B,)."""
    which = torch.randint(2, (count,), generator=generator)
    patches = []
    for k in which.tolist():
        image = photographs()[k]
        top, left, mirrored = (int(torch.randint(most, (), generator=generator)) for most in (image.shape[1] - 15, image.shape[2] - 15, 2))
        patch = image[:, top : top + 16, left : left + 16]
        patches.append(patch.flip(-1) if mirrored else patch)
    return torch.stack(patches), which


def train(steps: int) -> Network:
    torch.manual_seed(0)
    generator, recipe = torch.Generator().manual_seed(1), TrainingRecipe(steps, batch=48, weight_decay=0.01, ema=0.995)
    return trained(Network(), lambda: crops(recipe.batch, generator), NULL, recipe)


def build() -> Model:
    network = Network().eval().requires_grad_(False)
    network.load_state_dict(load_file(os.environ["SOLVERSEARCH_PATCHES"]))
    return Model(
        "patches", network, noise_schedule(), "v_prediction", SHAPE, torch.arange(2), torch.tensor(NULL), pad=64,
        data=lambda: crops(512, torch.Generator().manual_seed(2))[0], images=lambda x: (x.permute(0, 2, 3, 1) / 2 + 0.5).clamp(0, 1),
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    save_file(train(options.steps).state_dict(), options.file)
