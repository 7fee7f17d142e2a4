"""What a person asks of a search, and what cannot be asked."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from solversearch.baselines import SCREEN
from solversearch.errors import UserError
from solversearch.models.base import Model
from solversearch.objectives import parse_many
from solversearch.plan import MAX_NFE
from solversearch.search.strategies import known
from solversearch.spaces import Polish, SearchSpace


class Settings(BaseModel):
    """One search. `of` takes what is not asked for from the space's own section `search`.

    evaluations bounds the network evaluations of fit, search and polish together; trials bounds the candidates.
    instant, fit, search and polish are the stages that run; only_instant stops after the first of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    nfe: int = Field(ge=1, le=MAX_NFE)
    guidance: float = 1.0
    seed: int = Field(0, ge=0)
    space: SearchSpace = SearchSpace()
    trials: int = Field(60, ge=0)
    evaluations: int | None = Field(None, ge=1)
    strategy: str = SearchSpace().search.strategy
    objective: str = "endpoint"
    samples: int = Field(1024, ge=2 * SCREEN)
    fit_samples: int = Field(256, ge=16)
    validation_samples: int = Field(256, ge=SCREEN)
    instant: bool = True
    fit: bool = True
    search: bool = True
    polish: Polish = "all"
    only_instant: bool = False
    split: bool | None = None
    integer: bool = False
    batch_size: int = Field(512, ge=1)

    @classmethod
    def of(cls, space: SearchSpace, **asked: Any) -> "Settings":
        """Settings for a space: what is asked for, None standing for what the space says."""
        own = space.search
        says = {"strategy": own.strategy, "objective": own.objective, **own.stages.model_dump(), "integer": space.integer}
        given = {name: value for name, value in asked.items() if value is not None}
        if given.get("polish") is True:
            given["polish"] = own.stages.polish or "all"
        return cls(space=space, **{**says, **given})

    @property
    def splits(self) -> bool:
        """Whether the guidance difference has columns of its own: by default where coefficients are fitted under guidance."""
        return (self.guidance != 1 and self.fit) if self.split is None else self.split


def check(model: Model, settings: Settings) -> None:
    """Raises `UserError` for what cannot be, before any work is done."""
    objectives = parse_many(settings.objective)
    known(settings.strategy, len(objectives))
    for objective in objectives:
        objective.check(model)
    if settings.guidance != 1 and model.null_condition is None:
        raise UserError(f"model {model.name!r} has no null condition, so only --guidance 1 is possible, got {settings.guidance:g}")
    if settings.splits and model.null_condition is None:
        raise UserError(f"model {model.name!r} has no null condition to split the guidance from; leave out --split")
    if settings.integer and model.schedule.discrete and settings.nfe > model.schedule.t_start - model.schedule.t_end + 1:
        raise UserError(f"nfe {settings.nfe} is more than the model's whole timesteps; ask for fewer")
