"""Random draws, one seed a sample: sample i of a split is the same whatever the batch size, the order or the number of workers."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from solversearch.models.base import Model

SPLITS = ("fit", "validate", "held_out")
"""The search sees the first two; the comparison alone sees the third."""


class Draw(NamedTuple):
    """Unit noise (n, *shape) and the condition of each sample, (n, ...) or None."""

    noise: Tensor
    conditions: Tensor | None


def draw(model: Model, split: str, count: int, seed: int = 0) -> Draw:
    """The first `count` samples of a split: float32 unit noise and conditions drawn uniformly from the model's, or from the split's own
    part of them (`Model.disjoint`)."""
    noises, chosen = [], []
    own = range(0 if model.conditions is None else len(model.conditions))
    own = own[SPLITS.index(split) :: len(SPLITS)] if model.disjoint else own
    for i in range(count):
        rng = np.random.default_rng([seed, SPLITS.index(split), i])
        if own:
            chosen.append(own[rng.integers(len(own))])
        noises.append(torch.from_numpy(rng.standard_normal(model.shape)).float())
    noise = torch.stack(noises).to(model.device)
    return Draw(noise, None if model.conditions is None else model.conditions[torch.tensor(chosen, device=model.device)])


PICTURES = 2**17
"""Number of the fresh noise that is added to the pictures from which samples start: far beyond those of any plan. -1 would be a sample's
first noise again, since NumPy takes zeros at the end of a seed for none."""


def fresh_noise(model: Model, split: str, numbers: Iterable[int], k: int, seed: int = 0) -> Tensor:
    """The k-th fresh noise of a stochastic plan, for samples by their numbers in the split: (n, *shape)."""
    noises = [np.random.default_rng([seed, SPLITS.index(split), i, k + 1]).standard_normal(model.shape) for i in numbers]
    return torch.stack([torch.from_numpy(noise).float() for noise in noises]).to(model.device)
