"""A plan for digits that starts from noised pictures, on others than it was made with: real digits, under their labels and others.

    python -m tests.benchmarks.real_pictures RUNS...

The search noises the model's own samples. Here every baseline races on the 898 held-out digits with noise of another seed.
"""

import sys

import torch

from solversearch import models
from solversearch.judging.compare import compare
from solversearch.models.base import Clock, Denoiser, Model
from solversearch.models.digits import CLASSES, real_digits
from solversearch.noise import draw
from solversearch.plan import Plan
from solversearch.teacher import STEPS, Teacher, solve

SEED = 1000


def taught(model: Model, plan: Plan, shift: int) -> Teacher:
    """The teacher's samples from all digits, with labels moved on by so many."""
    digits, labels = real_digits()
    assert plan.start is not None
    x = plan.start.noised(digits, draw(model, "held_out", len(digits), SEED).noise)
    labels = (labels + shift) % CLASSES
    end = solve(model, Denoiser(model, labels), x, plan.guidance, STEPS)
    none = x.new_empty(0, *x.shape)
    return Teacher("held_out", SEED, x, labels, end, torch.empty(0), none, none, 0.0, range(len(x)))


def main(runs: list[str]) -> None:
    for run in runs:
        plan = Plan.read(run)
        model = models.load("digits").started(plan.start)
        for shift, whose in ((0, "their own labels"), (3, "labels of others")):
            found = compare(model, plan, taught(model, plan, shift), Clock())
            told = ", ".join(f"{each.measure} {each.value:.3f} [{each.low:.3f}, {each.high:.3f}]" for each in found.ratios)
            print(f"{run}, {whose}: {found.samples} samples, {100 * found.share.mean:.1f} % won, {told}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
