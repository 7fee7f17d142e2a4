"""What a strategy is, and what it is told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from solversearch.schedules import Floats
    from solversearch.spaces import Domain, Params


@dataclass(frozen=True)
class Context:
    """What a strategy may know; a class of your own is called with it and returns an Optuna sampler.

    domain: the distributions, and which candidate parameters stand for. seed: of all randomness, together with the number of the trial.
    starts: known good candidates, best first. `evolution` and `s3` propose them first themselves; for all others the driver puts them
    into the study, with `enqueue_starts`. A sampler that proposes them itself says so by an attribute `tries_starts = True`.
    predict: mean and standard deviation of ln(loss) of each candidate, before it is paid for; None where there is no predictor.
    objectives: how many losses a trial has, all minimised. children: how many candidates `s3` has predicted at
    first.
    """

    domain: "Domain"
    seed: int
    starts: "tuple[Params, ...]" = ()
    predict: "Callable[[Sequence[Params]], tuple[Floats, Floats]] | None" = None
    objectives: int = 1
    children: int = 2000


@dataclass(frozen=True)
class Strategy:
    """An entry of the registry, called with the context for the sampler.

    maker: FILE:NAME of what makes it, in this folder. about: one sentence. several: whether it can minimise several losses. predicts:
    whether it uses `Context.predict`. studied: whether it looks at the parameters and losses of trials, and notes of the study, alone,
    and notes down nothing else as it proposes.
    """

    name: str
    maker: str
    about: str
    several: bool = False
    predicts: bool = False
    studied: bool = False

    def __call__(self, context: Context) -> "BaseSampler":
        file, _, name = self.maker.partition(":")
        return getattr(import_module(f"{__package__}.{file}"), name)(context)
