"""Latents that a pipeline packs (Flux, Qwen-Image, Chroma): squares of pixels as tokens. A model samples them as pictures, (C, H, W)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

SIDE = 2
"""Of a square."""


@dataclass(frozen=True)
class Packing:
    """Rows and columns of tokens."""

    rows: int
    columns: int

    @classmethod
    def of(cls, pipe: Any, shape: tuple[int, ...], asked: Mapping[str, Any]) -> "Packing | None":
        """Of a pipeline whose states have the shape; None where it does not pack, or in another way."""
        if len(shape) != 2 or not hasattr(pipe, "_unpack_latents"):
            return None
        factor = getattr(pipe, "vae_scale_factor", 8)
        own = getattr(pipe, "default_sample_size", 0) * factor
        tokens = torch.arange(float(shape[0] * shape[1])).reshape(1, *shape)
        try:
            expected = pipe._unpack_latents(tokens, asked.get("height") or own, asked.get("width") or own, factor)
        except (TypeError, RuntimeError, ValueError, AttributeError):
            return None
        picture = expected[:, :, 0] if expected.ndim == 5 and expected.shape[2] == 1 else expected
        if picture.ndim != 4 or any(side % SIDE for side in picture.shape[2:]):
            return None
        found = cls(picture.shape[2] // SIDE, picture.shape[3] // SIDE)
        same = found.rows * found.columns == shape[0] and shape[1] % SIDE**2 == 0 and torch.equal(found.unpacked(tokens), picture)
        return found if same else None

    def shape(self, tokens: tuple[int, ...]) -> tuple[int, int, int]:
        return tokens[1] // SIDE**2, self.rows * SIDE, self.columns * SIDE

    def packed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) as (B, rows * columns, 4 C)."""
        squares = x.reshape(len(x), -1, self.rows, SIDE, self.columns, SIDE)
        return squares.permute(0, 2, 4, 1, 3, 5).reshape(len(x), self.rows * self.columns, -1)

    def unpacked(self, tokens: Tensor) -> Tensor:
        """Inverse of `packed`."""
        squares = tokens.reshape(len(tokens), self.rows, self.columns, -1, SIDE, SIDE)
        return squares.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), -1, self.rows * SIDE, self.columns * SIDE)

    def images(self, decode: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda samples: decode(self.packed(samples))


class Unpacked(nn.Module):
    """A network of tokens as one of pictures."""

    def __init__(self, network: nn.Module, packing: Packing) -> None:
        super().__init__()
        self.network, self.packing = network, packing

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        output: Tensor = self.network(self.packing.packed(x), t, condition)
        return self.packing.unpacked(output)
