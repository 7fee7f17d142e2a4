"""Feature networks as TorchScript files: one in the place of Inception, with what clean-fid calls of it, and a small one."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn


class Layers(nn.Module):
    """(B, 3, 299, 299) to (B, 2048, 1, 1), as Inception's body."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mix", torch.randn(192, 2048, generator=torch.Generator().manual_seed(0)))
        self.mix: Tensor

    def forward(self, x: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(x, (8, 8)).flatten(1)
        return (pooled @ self.mix).relu().unsqueeze(-1).unsqueeze(-1)


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers()

    def forward(self, x: Tensor, return_features: bool = True) -> Tensor:
        return self.layers((nn.functional.interpolate(x, (299, 299)) - 128) / 128).flatten(1)


class Summary(nn.Module):
    """(B, 3, H, W) to (B, 7): mean and maximum of every channel, and H."""

    def forward(self, x: Tensor) -> Tensor:
        height = torch.full((x.size(0), 1), float(x.size(2)))
        return torch.cat([x.mean((2, 3)), x.amax((2, 3)), height], dim=1)


class Flat(nn.Module):
    """2 x 2 pictures to their first channel, (B, 4); no other size is possible."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0].reshape(-1, 4)


class Unfinished(nn.Module):
    """No features: what should be (B, F) is still a picture."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def save(network: nn.Module, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is of the past
        torch.jit.script(network.eval()).save(str(path))  # type: ignore[no-untyped-call]
    return path
