"""The surrogates of one search: what stands for the network while a search looks around, fitted to the teacher's samples.

A Gaussian in closed form (`gaussian`), tens of thousands of tables a second; and a guided mixture that runs from the teacher's own noises
(`guided_mixture`, `anchored`), thousands a second.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from solversearch.judging.intervals import TINY
from solversearch.memo import NO_MEMO, Memo, memoized
from solversearch.models.base import Clock, Denoiser, Model
from solversearch.runtime import Tableau
from solversearch.schedules import Floats
from solversearch.search.surrogates.anchored import Anchored, Err, Errors
from solversearch.search.surrogates.gaussian import HUGE, Gaussian
from solversearch.search.surrogates.guided_mixture import Mixture
from solversearch.teacher import Teacher

LEVELS = 8
"""Noise levels at which the errors of variants are looked at; linear between."""


@dataclass
class Surrogates:
    """The surrogates of one model at one guidance, and the teachers they were fitted to."""

    model: Model
    fitting: Teacher
    validation: Teacher
    guidance: float
    gaussian: Gaussian
    mixture: Mixture
    anchored: Anchored
    samples: tuple[Teacher, ...]
    """Unguided; what the Gaussian and the mixture were fitted to."""
    version: int = 0
    """Counts what changes their answers."""

    @classmethod
    def of(
        cls, model: Model, fitting: Teacher, validation: Teacher, unguided: Sequence[Teacher] = (), guidance: float = 1.0, seed: int = 0
    ) -> Self:  # fmt: skip
        """Teachers at `guidance`, validation with trajectories; unguided ones give samples where that is not 1."""
        samples = tuple(unguided) or (fitting, validation)
        mixture = Mixture.fit(samples, seed)
        anchored = Anchored(mixture, model, validation, guidance)
        return cls(model, fitting, validation, guidance, Gaussian.fit(model, samples), mixture, anchored, samples)

    def features(self, tables: Sequence[Tableau], ridge: float | None = None, split: bool = False) -> Floats:
        """What they say of tables, ln of the best guess of the loss first; fitted first, where a ridge is given. (C, F)"""
        return np.concatenate([self.anchored.features(tables, ridge, split), self.gaussian.features(tables)], axis=1)

    def ranked(self, tables: Sequence[Tableau]) -> list[int]:
        """Places of tables, those first that come first in the mean, the median or the geometric mean of their errors on the mixture."""
        errors = self.anchored.errors(tables).double().nan_to_num(nan=HUGE, posinf=HUGE).clamp(TINY, HUGE)
        measures = errors.mean(1), errors.median(1).values, errors.log().mean(1)
        places = np.min([np.argsort(np.argsort(each.numpy(), kind="stable")) for each in measures], axis=0)
        return np.argsort(places, kind="stable").tolist()

    def learn_variants(
        self, kinds: Collection[tuple[str, float]], batch_size: int = 512, clock: Clock | None = None, memo: Memo = NO_MEMO
    ) -> Errors:
        """How variants of the network err on the teacher's trajectories at the given guidance scales: `LEVELS * NOISES` evaluations of
        each, and as many of the network; again as many of it for each whose features come from the next noisier level."""
        teacher, schedule, variants = self.anchored.teacher, self.model.schedule, self.model.variants
        angles = teacher.angles.cpu().flip(0)[:: max(1, len(teacher.angles) // LEVELS)]
        levels = [schedule.node(t) for t in schedule.time_of_angle(angles.numpy()).tolist()]

        def outputs(variant: str, guidance: float) -> Tensor:
            nodes, found = [replace(level, guidance=guidance, variant=variant) for level in levels], []
            denoise = memoized(Denoiser(self.model, teacher.conditions, batch_size, clock=clock).anew(nodes), memo)
            stale = bool(variant and variants[variant].reuses)
            for k, node in enumerate(nodes[:-1] if stale else nodes):
                if stale:
                    denoise(teacher.state(nodes[k + 1]), replace(nodes[k + 1], variant=""))
                found.append(denoise(teacher.state(node), node))
            return torch.stack([each[0] if isinstance(each, tuple) else each for each in found]).cpu()

        with torch.no_grad():
            right = {guidance: outputs("", guidance) for guidance in sorted({scale for _, scale in kinds})}
            found = {(name, scale): outputs(name, scale) for name, scale in sorted(kinds)}
        further = (angles / 2).tan().log().diff().float()
        return {
            (name, scale != 1): Err(angles[: len(each)], each - right[scale][: len(each)], further if variants[name].reuses else None)
            for (name, scale), each in found.items()
        }

    def observe(self, tables: Sequence[Tableau], batch_size: int = 512, clock: Clock | None = None, memo: Memo = NO_MEMO) -> None:
        """Learns how the network behaves off the trajectories, from good tables: `NFE * NOISES` evaluations each."""
        for split in (False, True):
            some = [table for table in tables if table.split == split]
            if some:
                teacher = self.anchored.teacher
                self.anchored.observe(memoized(Denoiser(self.model, teacher.conditions, batch_size, split, clock), memo), some)
                self.version += 1
