"""What a person asks of a search, and what cannot be asked."""

import warnings
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from solversearch.errors import UserError
from solversearch.judging.baselines import SMALL
from solversearch.judging.objectives import Objective, parse_many
from solversearch.memory import batch_size
from solversearch.models.base import Model
from solversearch.plan import MAX_NFE
from solversearch.search.pricing import EvaluationKind, kinds, too_many
from solversearch.search.strategies import known, recipe
from solversearch.spaces import Polish, SearchSpace
from solversearch.teacher import STEPS

TRIALS = 60
"""Of a search that is wanted, where nobody says how many."""
RARE = 4
"""As many times the validation samples where rare samples decide: with 256 the mean error depends on a single one."""
LEAST = 8
"""Samples of which a search makes something."""
SAMPLES = {SMALL: (1024, 256, 256), 2**13: (256, 64, 64), 2**17: (64, 32, 32), inf: (64, 16, 16)}
"""Held-out, fitting and validation samples of models of at most so many numbers a sample: each tells the more, the larger it is."""


class Settings(BaseModel):
    """One search. `of` takes what is not asked for from the space's own section `search`.

    samples (held out), fit_samples, validation_samples and batch_size are the model's where they are 0, as `sized` fills them in.
    evaluations bounds the network evaluations of fit, search and polish together; where nobody does, hours is what all may take at the
    network's measured speed (`estimate.within`). trials bounds the candidates, and none leave the search out, and the fit with it where
    the polish goes on from the instant plan: on digits its median error is then no larger than after a search, but at 8 evaluations
    without guidance the mean is 1.2 to 1.5 times as large.
    budget is the network time of a sample, in calls of the model's own network, where evaluations may also be of other kinds (`pricing`);
    nfe is then how many of its own it has room for.
    start is the share of the times that sampling goes through, 1 for all: with less it starts from noised pictures, as img2img does.
    undecided is what is exported where the comparison leaves open which is better.
    instant, fit, search and polish are the stages that run; only_instant stops after the first of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    nfe: int = Field(ge=1, le=MAX_NFE)
    guidance: float = 1.0
    seed: int = Field(0, ge=0)
    space: SearchSpace = SearchSpace()
    trials: int = Field(0, ge=0)
    evaluations: int | None = Field(None, ge=1)
    hours: float = Field(1.0, gt=0)
    strategy: str = SearchSpace().search.strategy
    objective: str = "endpoint"
    samples: int = Field(0, ge=2 * LEAST)
    fit_samples: int = Field(0, ge=LEAST)
    validation_samples: int = Field(0, ge=LEAST)
    instant: bool = True
    fit: bool = True
    search: bool = True
    polish: Polish = "all"
    only_instant: bool = False
    split: bool | None = None
    budget: float | None = Field(None, gt=0)
    integer: bool = False
    start: float = Field(1.0, gt=0, le=1)
    batch_size: int = Field(0, ge=1)
    undecided: Literal["baseline", "plan"] = "baseline"

    @classmethod
    def of(cls, space: SearchSpace, **asked: Any) -> "Settings":
        """Settings for a space: what is asked for, None standing for what the space says. Who names a strategy, or several objectives,
        wants a search. A strategy that learns by a recipe of its own takes the place of all stages."""
        own = space.search
        given = {name: value for name, value in asked.items() if value is not None}
        searches = "strategy" in given or "," in str(given.get("objective", own.objective))
        says = {"strategy": own.strategy, "objective": own.objective, **own.stages.model_dump(), "integer": space.integer,
                "trials": own.trials or TRIALS * searches}  # fmt: skip
        if recipe(str(given.get("strategy", own.strategy))):
            says |= {"instant": False, "fit": False, "polish": False, "trials": 0}
        if given.get("polish") is True:
            given["polish"] = own.stages.polish or "all"
        return cls(space=space, **{**says, **given})

    @classmethod
    def asked(cls, space: SearchSpace, options: Mapping[str, Any]) -> "Settings":
        """By the options of `solversearch optimize`, where instant says to stop there. Raises pydantic's ValidationError."""
        given = {name.replace("-", "_"): value for name, value in options.items()}
        instant = given.get("instant")
        return cls.of(space, **{"only_instant": instant is True, **given, "instant": False if instant is False else None})

    def sized(self, model: Model) -> "Settings":
        """The same with the counts of samples and the batch size that suit the model, where none are given."""
        missing = {name: count for name, count in self.counts(model).items() if not getattr(self, name)}
        return self.model_copy(update=missing if self.batch_size else {**missing, "batch_size": batch_size(model)})

    def started(self, model: Model) -> Model:
        """The model as it samples from this start."""
        return model.started((model.whole or model).schedule.start_of(self.start))

    def counts(self, model: Model, share: float = 1.0) -> dict[str, int]:
        """Samples that suit the model, or a share of them, by the names of the fields."""
        suit = next(counts for most, counts in SAMPLES.items() if model.numbers <= most)
        least = [min(each) for each in zip(*SAMPLES.values(), strict=True)]
        held_out, fitting, validation = (max(round(share * count), few) for count, few in zip(suit, least, strict=True))
        rare = parse_many(self.objective)[0].bound > Objective.bound
        return {"samples": held_out, "fit_samples": fitting, "validation_samples": validation * (RARE if rare else 1)}

    @property
    def searches(self) -> bool:
        return self.search and self.trials > 0

    @property
    def straight(self) -> bool:
        """Whether the polish goes on from the instant plan at once."""
        return self.instant and not self.searches and self.polish in ("all", "coefficients")

    @property
    def fits(self) -> bool:
        """Whether anything is fitted to the trajectories of the samples for fitting; where not, their ends are enough."""
        fits = self.searches or self.budget is not None or (self.fit and not self.straight)
        fits = fits or self.polish == "decisions" or self.space.components.several or self.along
        return not self.only_instant and fits

    @property
    def along(self) -> bool:
        """Whether a recipe reads the teacher's trajectories."""
        learner = recipe(self.strategy)
        return learner is not None and learner.along

    @property
    def splits(self) -> bool:
        """Whether the guidance difference has columns of its own: by default where coefficients are fitted under guidance."""
        return (self.guidance != 1 and self.fit) if self.split is None else self.split


def check(model: Model, settings: Settings) -> None:
    """Raises `UserError` for what cannot be, before any work is done."""
    model = settings.started(model)
    if not model.schedule.t_start > model.schedule.t_end:
        raise UserError(f"--start {settings.start:g} leaves nothing of the model's times: ask for more, 1 is all")
    objectives = parse_many(settings.objective)
    known(settings.strategy, len(objectives))
    if recipe(settings.strategy):
        _check_recipe(settings)
    for objective in objectives:
        objective.check(model)
    if settings.guidance != 1 and model.null_condition is None:
        how = "; it guides by itself, by --distilled-guidance" if model.lacks else ""
        raise UserError(f"model {model.name!r} has no null condition, so only --guidance 1 is possible, got {settings.guidance:g}{how}")
    if settings.guidance == 0:
        warnings.warn("guidance 0 is the network without its condition, in two calls; where 0 was to mean none, ask for 1", stacklevel=2)
    if settings.splits and model.null_condition is None:
        raise UserError(f"model {model.name!r} has no null condition to split the guidance from; leave out --split")
    if settings.split and settings.guidance == 1:
        raise UserError("--split is for the guidance difference, and guidance 1 has none; leave it out, or ask for a --guidance")
    if settings.budget is not None and settings.only_instant:
        raise UserError("--instant stops before cheaper evaluations are fitted to the network: leave it out, or ask for --nfe")
    if settings.budget is not None:
        _check_budget(settings, kinds(model, settings.guidance, settings.splits, settings.space.cheaper), model)
    if settings.integer and model.schedule.discrete and settings.nfe > model.schedule.t_start - model.schedule.t_end + 1:
        raise UserError(f"nfe {settings.nfe} is more than the model's whole timesteps; ask for fewer")


def _check_recipe(settings: Settings) -> None:
    name, churn = f"strategy {settings.strategy!r}", settings.space.churn
    stages = {
        "instant": settings.instant or settings.only_instant, "fit": settings.fit, "trials": settings.searches,
        "polish": settings.polish, "split": settings.split,
    }  # fmt: skip
    if asked := [f"--{each}" for each, wanted in stages.items() if wanted]:
        raise UserError(f"{name} learns by a recipe of its own and has no other stages; leave out {' and '.join(asked)}")
    if settings.budget is not None:
        raise UserError(f"{name} learns plans of the network's own evaluations; ask for --nfe in place of --budget")
    if settings.integer:
        raise UserError(f"{name} learns times that are not whole; leave out --integer, or take a space of other timesteps")
    if any(map(float, churn.choose)) or churn.high:
        raise UserError(
            f"{name} learns deterministic plans, and space {settings.space.name!r} adds fresh noise (churn); take another space"
        )
    if settings.along and settings.nfe >= STEPS:
        raise UserError(f"{name} picks the times among the teacher's {STEPS}; ask for fewer evaluations than those, got {settings.nfe}")


def _check_budget(settings: Settings, known: Sequence[EvaluationKind], model: Model) -> None:
    if len(known) < 2:
        raise UserError(
            f"--budget: model {model.name!r} has no cheaper evaluations than its own ({', '.join(settings.space.cheaper) or 'none'}): "
            "no such variants, and no guidance differences to reuse; ask for --nfe, or give it a --variant"
        )
    if too_many(known, settings.nfe + 1):
        raise UserError(
            f"--budget {settings.budget:g} has room for {settings.nfe + 1} evaluations of {len(known)} kinds, too many patterns to go "
            "through: ask for fewer calls, or name fewer kinds, cheaper: [...] in a space"
        )
