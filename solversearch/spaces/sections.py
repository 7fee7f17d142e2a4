"""The sections of a search-space file beside the decisions: timesteps, the guidance interval and how the space is searched."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, ValidationInfo, field_validator, model_validator

from solversearch.components import MOST_BANDS
from solversearch.errors import nearest
from solversearch.grids import GRIDS
from solversearch.schedules import Floats
from solversearch.spaces.grammar import Choice, Kind, Section, typed, wrong

Polish = Literal["coefficients", "decisions", "all", False]
"""What goes down a gradient: a table's coefficients, those and its times, or the numbers that hand-made coefficients come from."""

END = Kind(0.0, bounds=(0, 1), plan_only=True)
"""Of a guidance interval."""
RHO = Kind(7.0, bounds=(0.5, 100), plan_only=True)
"""Of Karras' grid."""


class GridFamily(Section):
    """A published family of timestep grids, with its parameters."""

    grid: str
    rho: Choice = Choice(choose=(RHO.default,))
    tmin: Choice = Choice(choose=(False,))

    @model_validator(mode="before")
    @classmethod
    def _short(cls, content: Any) -> Any:
        return {"grid": content} if isinstance(content, str) else content

    @field_validator("grid")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in GRIDS:
            wrong(nearest(name, ["free", "integer", *GRIDS], "timesteps"))
        return name

    @model_validator(mode="after")
    def _parameters(self) -> Self:
        if "rho" in self.model_fields_set and not self.grid.startswith("karras"):
            wrong(f"{self.grid} has no rho, only karras has", "rho")
        if "tmin" in self.model_fields_set and f"{self.grid}_tmin" not in GRIDS:
            wrong(f"{self.grid} has no form that ends at the least noisy time", "tmin")
        return self

    @field_validator("rho", "tmin")
    @classmethod
    def _typed(cls, choice: Choice, info: ValidationInfo) -> Choice:
        if choice.when:
            wrong("belongs to its grid and has no other condition", "when")
        return typed(choice, RHO if info.field_name == "rho" else Kind(False, plan_only=True))

    @property
    def names(self) -> list[str]:
        """Its names in `GRIDS`."""
        return [self.grid + "_tmin" * bool(tmin) for tmin in self.tmin.choose]


class Timesteps(Section):
    """Free times, any or whole ones, or grids of published families."""

    free: bool = True
    integer: bool = False
    grids: tuple[GridFamily, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _short(cls, content: Any) -> Any:
        if isinstance(content, Timesteps):
            return content
        if content in ("free", "integer"):
            return {"integer": content == "integer"}
        if isinstance(content, dict) and "grid" not in content and set(content) <= {"free", "integer", "grids"}:
            return content  # as a space is written by `model_dump`
        grids = list(content) if isinstance(content, list | tuple) else [content]
        if not grids:
            wrong("an empty list: nothing to choose from")
        if "free" in grids or "integer" in grids:
            wrong("free and integer stand alone, not in a list of grids")
        if not all(isinstance(each, str | dict | GridFamily) for each in grids):
            wrong("expected free, integer, a grid, or a list of grids")
        return {"free": False, "grids": grids}

    @field_validator("grids")
    @classmethod
    def _different(cls, grids: tuple[GridFamily, ...]) -> tuple[GridFamily, ...]:
        names = [name for family in grids for name in family.names]
        for i, name in enumerate(names):
            if name in names[:i]:
                wrong(f"{name} stands twice in the list")
        return grids

    def named(self) -> Choice:
        """The grids, by their names in `GRIDS`."""
        return Choice(choose=tuple(name for family in self.grids for name in family.names))

    def rho(self) -> Choice:
        """Of Karras' grids."""
        return next((family.rho for family in self.grids if family.grid.startswith("karras")), Choice(choose=(RHO.default,)))


SHAPES: dict[str, Callable[[Floats], Floats]] = {
    "flat": np.ones_like,
    "linear": lambda u: 2 * (1 - u),
    "cosine": lambda u: 1 + np.cos(np.pi * u),
}
"""Shares of guidance at places u, from 0 at the data to 1 at the noise, whose mean is 1 (Wang et al. 2024, arXiv:2404.13040)."""
SHAPE = Kind("flat", names=tuple(SHAPES), plan_only=True)


class GuidanceInterval(Section):
    """Where guidance acts, as fractions of the range of `NoiseSchedule.position`: 0 at the data, 1 at the noise; and how it grows there."""

    above: Choice = Choice(choose=(0.0,))
    below: Choice = Choice(choose=(1.0,))
    shape: Choice = Choice(choose=(SHAPE.default,))

    @field_validator("above", "below", "shape")
    @classmethod
    def _typed(cls, choice: Choice, info: ValidationInfo) -> Choice:
        if choice.when:
            wrong("an interval has no conditions", "when")
        return typed(choice, SHAPE if info.field_name == "shape" else END)

    @model_validator(mode="after")
    def _order(self) -> Self:
        least = min(map(float, self.above.choose)) if self.above.choose else self.above.low or 0.0
        most = max(map(float, self.below.choose)) if self.below.choose else self.below.high or 0.0
        if least > most:
            wrong(f"an empty interval: above {least:g} and below {most:g}", "above")
        return self


class ComponentChoice(Section):
    """Numbers of frequency bands, and whether channel directions count, of which the best table may have coefficients each."""

    bands: tuple[Annotated[int, Field(ge=1, le=MOST_BANDS)], ...] = Field((1,), min_length=1)
    channels: tuple[bool, ...] = Field((False,), min_length=1)

    @property
    def several(self) -> bool:
        """Whether there is anything to choose."""
        return len({*self.bands}) > 1 or True in self.channels


Cheaper = Literal["blocks", "features", "networks", "reuse"]
"""Evaluations that cost less than the network's own, under a budget: of the network without some blocks, or with features of some that an
earlier evaluation computed, of other networks, and those that reuse guidance differences."""


class Stages(Section):
    """The stages of a search: a plan found on the surrogate alone, closed-form fits, and the gradient polish of what is named."""

    instant: bool = True
    fit: bool = True
    polish: Polish = "all"


class SearchDefaults(Section):
    """How a space is searched where the command line does not say otherwise."""

    strategy: str = Field("tpe", min_length=1)
    objective: str = Field("endpoint", min_length=1)
    trials: int = Field(60, ge=0)
    stages: Stages = Stages()

    @field_validator("strategy")
    @classmethod
    def _named(cls, name: str) -> str:
        """A file runs no code: a class of one's own is imported only where the command line names it."""
        if not name.isidentifier():
            wrong(f"{name[:60]!r} is no strategy's name; a class of your own is named on the command line, with --strategy MODULE:CLASS")
        return name
