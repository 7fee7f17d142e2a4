"""A model whose denoiser is known exactly and costs nothing: every pixel is a coin, -1 or 1 with a little spread.

With data x0 = r + s n, r = +-1 with log-odds 2 b and n normal, and x = alpha x0 + sigma eps, let q = alpha^2 s^2 + sigma^2. Then
E[r | x] = tanh(alpha x / q + b) and E[x0 | x] = (alpha s^2 x + sigma^2 E[r | x]) / q. The condition chooses b; the null condition is 0.
"""

import torch
from torch import Tensor

from solversearch.models.base import Model
from solversearch.schedules import Flow

SPREAD = 0.4
ODDS = torch.tensor([-1.0, 1.0, 0.0])
SHAPE = (1, 2, 2)


class Coins(torch.nn.Module):
    """x (B, 1, 2, 2), t (B,) in 0 .. 1, condition (B,) of 0 .. 2 to the data prediction (B, 1, 2, 2)."""

    def __init__(self, spread: float = SPREAD) -> None:
        super().__init__()
        self.register_buffer("spread", torch.tensor(spread))
        self.spread: Tensor

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        t = t.view(-1, 1, 1, 1).to(x.dtype)
        alpha, variance = 1 - t, t**2
        q = alpha**2 * self.spread**2 + variance
        expected = torch.tanh(alpha * x / q + ODDS[condition].view(-1, 1, 1, 1).to(x.dtype))
        return (alpha * self.spread**2 * x + variance * expected) / q


def data() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    odds = ODDS[torch.randint(0, 2, (500,), generator=generator)].view(-1, 1, 1, 1)
    signs = 2.0 * (torch.rand(500, *SHAPE, generator=generator) < torch.sigmoid(2 * odds)) - 1
    return signs + SPREAD * torch.randn(500, *SHAPE, generator=generator)


def factory() -> Model:
    return Model(
        "coins", Coins(), Flow(), "sample", SHAPE, torch.arange(2), torch.tensor(2), features=lambda x: x.flatten(1), data=data
    )  # fmt: skip


def unconditional() -> dict[str, object]:
    class Free(Coins):
        def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
            return super().forward(x, t, torch.full((len(x),), 2))

    return {"network": Free(), "schedule": Flow(), "prediction_type": "sample", "shape": SHAPE}


def other_weights() -> Model:
    return Model("other", Coins(0.3), Flow(), "sample", SHAPE, torch.arange(2), torch.tensor(2))


def returns_nan() -> dict[str, object]:
    return {**unconditional(), "network": lambda x, t: x * float("nan")}


def fails() -> None:
    raise RuntimeError("no weights here")
