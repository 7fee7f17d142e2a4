"""OSS, optimal step sizes (Pei et al. 2025, arXiv:2503.21774): times of Euler's method by a dynamic programme on the teacher's states.

z_k(j) is the state after k steps at the teacher's time j that is nearest to the teacher's x_j, of those that one step leads to from
z_{k-1}(i), i before j; Euler's method in the frame where trajectories are straight is DDIM. Every sample has times of its own, whose
medians are taken. 256 samples as in the paper's code, here those for fitting; its teachers have 100 or 200 steps of Euler, this one 64
that are more exact.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from solversearch.memo import memoized
from solversearch.models.base import Denoiser
from solversearch.runtime import Node, Tableau
from solversearch.schedules import CLEAN
from solversearch.search.settings import Settings
from solversearch.search.stages.recipe import Given
from solversearch.teacher import STEPS

SAMPLES = 256


def places(nodes: Sequence[Node], states: Sequence[Tensor], steps: int, denoise: Callable[[Tensor, Node], Tensor]) -> Tensor:
    """Of each sample the places of the evaluated nodes, (n, steps), from the first node on, on the way to the clean sample.

    nodes are the teacher's M and CLEAN, states (n, *shape) the teacher's there.
    """
    last, count = len(nodes) - 1, len(states[0])
    reached = {0: states[0]}
    froms = torch.zeros(steps, last + 1, count, dtype=torch.long)
    for k in range(steps):
        least, after = torch.full((last + 1, count), torch.inf, dtype=torch.float64), dict[int, Tensor]()
        for i, x in reached.items():
            prediction = denoise(x, nodes[i])
            # No state is of use from which too few nodes are left.
            for j in range(i + 1, last + 1) if k < steps - 1 else [last]:
                if last - j < steps - 1 - k or (j == last and k < steps - 1):
                    continue
                ratio = nodes[j].sigma / nodes[i].sigma
                z = ratio * x + (nodes[j].alpha - nodes[i].alpha * ratio) * prediction
                error = (z - states[j]).double().square().flatten(1).mean(1).cpu()
                better = error < least[j]
                least[j], froms[k, j] = error.where(better, least[j]), torch.where(better, i, froms[k, j])
                mask = better.to(z.device).view(-1, *[1] * (z.ndim - 1))
                after[j] = z.where(mask, after.get(j, z))
        reached = after
    chosen = [torch.full((count,), last)]
    for k in reversed(range(steps)):
        chosen.insert(0, froms[k].gather(0, chosen[0][None])[0])
    return torch.stack(chosen[:-1], 1)


class _Distilled:
    def cost(self, settings: Settings, calls: int) -> int:
        own = calls // settings.nfe * min(SAMPLES, settings.fit_samples) * _each(settings.nfe)
        return own + settings.space.size(1) * calls * settings.validation_samples

    def learn(self, given: Given) -> Iterator[Tableau]:
        """Of fewer samples where the budget has no room for all."""
        task, settings = given.task, given.task.settings
        guided, judged = task.calls // settings.nfe, task.calls * settings.validation_samples
        count = int(min(SAMPLES, len(given.evaluator.fitting), (given.budget.left() - judged) / (guided * _each(settings.nfe))))
        if count < 1:
            return
        model, teacher = task.model, given.evaluator.fitting.first(count)
        denoise = memoized(Denoiser(model, teacher.conditions, settings.batch_size, clock=task.clock), task.parts(settings.strategy))

        def predicted(x: Tensor, node: Node) -> Tensor:
            prediction = denoise(x, replace(node, guidance=settings.guidance))
            assert isinstance(prediction, Tensor)
            return prediction

        nodes = [model.schedule.node(float(t)) for t in model.schedule.time_of_angle(teacher.angles.numpy())]
        states = [teacher.noise * model.schedule.initial_scale(nodes[0].t), *map(teacher.state, nodes[1:]), teacher.endpoint]
        with torch.no_grad():
            own = places([*nodes, CLEAN], states, settings.nfe, predicted)
        chosen = np.ceil(np.median(own.numpy(), axis=0)).astype(int)
        yield from given.at([nodes[k].t for k in chosen])


def _each(nfe: int) -> int:
    """Evaluations of a sample: every state that the first steps reach, besides those that leave too few nodes."""
    return 1 + (nfe - 1) * (STEPS - nfe + 1)


OSS = _Distilled()
