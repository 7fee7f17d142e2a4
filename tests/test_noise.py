"""Draws: one seed a sample, so that nothing depends on how many are drawn, or on how they are batched."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from solversearch import models
from solversearch.models.base import Model
from solversearch.noise import SPLITS, draw, fresh_noise
from tests.cli.calling import COINS


@pytest.fixture(scope="module")
def coins() -> Model:
    return models.load(f"{COINS}:factory")


@pytest.mark.parametrize("split", SPLITS)
def test_the_first_of_a_larger_draw_are_the_same(coins: Model, split: str) -> None:
    few, many = draw(coins, split, 5), draw(coins, split, 40)
    assert few.noise.shape == (5, 1, 2, 2) and few.noise.dtype == torch.float32
    assert few.conditions is not None and many.conditions is not None
    torch.testing.assert_close(many.noise[:5], few.noise, atol=0, rtol=0)
    torch.testing.assert_close(many.conditions[:5], few.conditions, atol=0, rtol=0)
    torch.testing.assert_close(fresh_noise(coins, split, range(40), 3)[:5], fresh_noise(coins, split, range(5), 3), atol=0, rtol=0)


def test_splits_seeds_and_fresh_noises_differ(coins: Model) -> None:
    draws = [draw(coins, split, 20, seed).noise for split in SPLITS for seed in (0, 1)]
    draws += [fresh_noise(coins, split, range(20), k, seed) for split in SPLITS for seed in (0, 1) for k in (0, 1)]
    values = torch.stack(draws).flatten()
    assert len(set(values.tolist())) == len(values)


def test_noise_is_standard_normal_and_conditions_are_uniform(coins: Model) -> None:
    noise, conditions = draw(coins, "fit", 2000)
    assert conditions is not None
    assert abs(float(noise.mean())) < 4 / len(noise.flatten()) ** 0.5
    assert float(noise.var()) == pytest.approx(1, abs=0.06)
    assert float((conditions == 0).double().mean()) == pytest.approx(0.5, abs=0.05)
    assert set(conditions.tolist()) == {0, 1}


def test_disjoint_conditions_are_drawn_in_one_split_each(coins: Model) -> None:
    """Every third, uniformly; with the noise that all conditions would have."""
    many = replace(coins, conditions=torch.arange(100, 111), disjoint=True)
    parts = []
    for split in SPLITS:
        noise, conditions = draw(many, split, 400)
        assert conditions is not None and min(Counter(conditions.tolist()).values()) > 400 / 4 / 2
        assert noise.shape == (400, 1, 2, 2)
        parts.append(set(conditions.tolist()))
    assert parts == [{100, 103, 106, 109}, {101, 104, 107, 110}, {102, 105, 108}]


def test_an_unconditional_model_has_no_conditions() -> None:
    assert draw(models.load(f"{COINS}:unconditional"), "fit", 3).conditions is None
