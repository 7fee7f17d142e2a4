"""What a strategy is, and what it is told."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from solversearch.runtime import Tableau
    from solversearch.schedules import Floats
    from solversearch.search.settings import Settings
    from solversearch.search.stages.recipe import Given
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


class Recipe(Protocol):
    """A published method that learns a plan in a way of its own, in the place of all stages."""

    def cost(self, settings: "Settings", calls: int) -> int:
        """Network evaluations at most, at so many calls a sample."""
        ...

    def learn(self, given: "Given") -> "Iterator[Tableau]":
        """Tables to be judged; what of the budget is spent, is given up."""
        ...


@dataclass(frozen=True)
class Strategy:
    """An entry of the registry, called with the context for the sampler.

    maker: FILE:NAME of what makes it, in this folder. about: one sentence. several: whether it can minimise several losses. predicts:
    whether it uses `Context.predict`. studied: whether it looks at the parameters and losses of trials, and notes of the study, alone,
    and notes down nothing else as it proposes. learns: whether it is a `Recipe`, and no sampler; along says that it reads the teacher's
    whole trajectories.
    """

    name: str
    maker: str
    about: str
    several: bool = False
    predicts: bool = False
    studied: bool = False
    learns: bool = False
    along: bool = False

    def made(self) -> Any:
        file, _, name = self.maker.partition(":")
        return getattr(import_module(f"{__package__}.{file}"), name)

    def __call__(self, context: Context) -> "BaseSampler":
        return self.made()(context)
