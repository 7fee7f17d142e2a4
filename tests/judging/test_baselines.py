"""The screening of baselines."""

import pytest
import torch
from torch import Tensor

from solversearch.judging.baselines import Baseline, baselines, screen, screening
from solversearch.models.base import Model
from solversearch.schedules import Flow
from solversearch.teacher import teach

SIZES: list[int] = []


def network(x: Tensor, t: Tensor) -> Tensor:
    """Coins (tests/assets/coins.py) in as many numbers as a small picture has."""
    SIZES.append(len(x))
    t = t.view(-1, 1, 1, 1)
    q = (1 - t) ** 2 * 0.16 + t**2
    return ((1 - t) * 0.16 * x + t**2 * torch.tanh((1 - t) * x / q)) / q


LARGE = Model("wide coins", network, Flow(), "sample", (1, 40, 40))


@pytest.fixture(scope="module")
def found() -> list[Baseline]:
    return [b for b in baselines(LARGE, 4, 1.0) if b.grid in ("linspace", "logsnr", "quadratic", "karras", "cosine", "edm")]


def test_no_network_batch_is_larger_than_asked_for(found: list[Baseline]) -> None:
    teacher = teach(LARGE, "held_out", 8, trajectory=False)
    SIZES.clear()
    one = screen(LARGE, found[:6], teacher, batch_size=3)
    assert max(SIZES) == 3
    SIZES.clear()
    assert [b for _, b in screen(LARGE, found[:6], teacher, batch_size=32)] == [b for _, b in one] and 8 < max(SIZES) <= 32


def test_few_samples_are_screened_on_fewer() -> None:
    assert [screening(n) for n in (1024, 256, 200, 64, 32, 16, 8, 4)] == [64, 64, 50, 16, 8, 8, 8, 4]
