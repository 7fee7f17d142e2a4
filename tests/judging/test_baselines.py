"""The screening of baselines: of large models most are tried on a few samples only, and every solver keeps a good grid."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from solversearch.judging.baselines import BETTER, Baseline, baselines, rounds, screen, screening
from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.models.base import Clock, Model
from solversearch.sampling import sample
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


def test_large_models_are_screened_on_few_samples_first(found: list[Baseline]) -> None:
    teacher, clock, counts = teach(LARGE, "held_out", 16, trajectory=False), Clock(), Counter[int]()
    screened = screen(LARGE, found, teacher, clock=clock, progress=lambda done, total: counts.update([total]))
    different = {b.table for b in found}
    few, going_on = sorted(counts, reverse=True)
    assert few == len(different) and len(different) / BETTER < going_on < 0.8 * few
    assert clock.evaluations == 4 * (4 * few + 16 * going_on)
    assert len(screened) == len(found) and {b for _, b in screened} == set(found)
    errors = {b: error for error, b in screened}
    for baseline in [b for _, b in screened][: len(different) // 4]:  # what comes first has been seen on all samples
        alone = float(endpoint_mse(sample(LARGE, baseline.table, teacher), teacher.endpoint).mean())
        assert errors[baseline] == pytest.approx(alone, rel=1e-5)
    assert screened[0][0] == min(errors.values())


def test_no_network_batch_is_larger_than_asked_for(found: list[Baseline]) -> None:
    teacher = teach(LARGE, "held_out", 8, trajectory=False)
    SIZES.clear()
    one = screen(LARGE, found[:6], teacher, batch_size=3)
    assert max(SIZES) == 3
    SIZES.clear()
    assert [b for _, b in screen(LARGE, found[:6], teacher, batch_size=32)] == [b for _, b in one] and 8 < max(SIZES) <= 32


def test_few_samples_are_screened_on_fewer() -> None:
    small = Model("small", network, Flow(), "sample", (1, 8, 8))
    assert [screening(n) for n in (1024, 256, 200, 64, 32, 16, 8, 4)] == [64, 64, 50, 16, 8, 8, 8, 4]
    assert [rounds(small, n) for n in (64, 8)] == [(64,), (8,)] and [rounds(LARGE, n) for n in (16, 8, 4)] == [(4, 16), (4, 8), (4,)]
