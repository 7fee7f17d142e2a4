"""A sweep: searches of many configurations, each in a run folder of its own, as trials of Ray Tune.

The run folders are all that is kept between two calls: a finished cell is not searched again, and one that was begun goes on. Tune runs
as many cells at once as there are workers, starts a cell again whose process has died, and writes logs for TensorBoard.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

from solversearch.errors import UserError, nearest
from solversearch.outputs import slug
from solversearch.plan import Count, Many, first_error
from solversearch.search.pricing import affordable
from solversearch.search.settings import Settings
from solversearch.search.strategies import STRATEGIES
from solversearch.spaces import SearchSpace
from solversearch.spaces.source import load, place

NAME = "sweep.json"
MOST = 10_000
"""Cells of a sweep."""


class SweepSpec(BaseModel):
    """A sweep as its file has it: what is varied, and settings that all searches share, by the names of `solversearch optimize`'s options.

    Either nfe or budget is varied. Without guidance each model has its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    models: Many[str] = Field(min_length=1)
    nfe: Many[int] = ()
    budget: Many[float] = ()
    guidance: Many[float] = ()
    seeds: Many[int] = (0,)
    spaces: Many[str] = ("default",)
    settings: dict[str, JsonValue] = {}

    @field_validator("models", "nfe", "budget", "guidance", "seeds", "spaces", mode="before")
    @classmethod
    def _listed(cls, values: Any) -> Any:
        if values is None:
            raise ValueError("no value; leave the key out for the default")
        values = values if isinstance(values, list | tuple) else [values]
        if len({str(value) for value in values}) != len(values):
            raise ValueError("a value stands twice in the list")
        return values

    @field_validator("settings")
    @classmethod
    def _plain(cls, settings: dict[str, JsonValue]) -> dict[str, JsonValue]:
        lists = {"space": "spaces", "model": "models", "seed": "seeds", "nfe": "nfe", "budget": "budget", "guidance": "guidance"}
        if misplaced := next((name for name in settings if name in lists), None):
            raise ValueError(f"{misplaced}: it is named in the list {lists[misplaced]}, beside settings")
        strategy = str(settings.get("strategy", "s3"))
        if strategy not in STRATEGIES:
            raise ValueError(nearest(strategy, list(STRATEGIES), "strategy") + "; a file names no code of your own")
        return settings

    @model_validator(mode="after")
    def _costs(self) -> Self:
        if bool(self.nfe) == bool(self.budget):
            raise ValueError(
                "nfe is missing, or a budget" if not self.nfe else "nfe and budget: name one of them, the other follows from it"
            )
        return self

    @classmethod
    def read(cls, path: Path, own: Sequence[str] = ()) -> "SweepSpec":
        """own are models in the place of the file's. Raises `UserError` with file, line and key."""
        content, nodes = load(path, "sweep")
        if isinstance(content, dict) and own:
            content = {**content, "models": list(own)}
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise UserError(f"{path}{place(error, nodes)}") from None

    def cells(self, own: Mapping[str, float] | None = None) -> dict[str, "Cell"]:
        """The searches, by their run folders; own are the models' guidance scales, 1 where they are not known yet."""
        scales = {model: self.guidance or ((own or {}).get(model, 1.0),) for model in self.models}
        costs: list[tuple[str, float]] = [*(("nfe", nfe) for nfe in self.nfe), *(("budget", budget) for budget in self.budget)]
        count = prod(map(len, (self.spaces, costs, self.seeds))) * sum(map(len, scales.values()))
        if count > MOST:
            raise UserError(f"the sweep has {count:,} cells; split it into sweeps of at most {MOST:,}")
        found = {}
        for model, name, (kind, cost), seed in product(self.models, self.spaces, costs, self.seeds):
            for guidance in scales[model]:
                space, nfe = SearchSpace.named(name), cost if kind == "nfe" else affordable(cost, guidance)
                try:
                    settings = Settings.asked(space, {**self.settings, kind: cost, "nfe": nfe, "guidance": guidance, "seed": seed})
                except ValidationError as error:
                    raise UserError(f"settings: {first_error(error)}") from None
                found[f"{slug(model)}-{slug(space.name)}-{kind}{cost:g}-g{guidance:g}-s{seed}"] = Cell(model, settings)
        return found


class Cell(NamedTuple):
    """One search of a sweep."""

    model: str
    settings: Settings


class SweepRow(BaseModel):
    """What came of a cell, whose run folder is path, in the folder of the sweep; numbers are of the plan, on held-out noise.

    ratio is its mean error over the least of all baselines, ratio_geometric the same of geometric means; verdict is on the searched plan,
    which is the one exported where it is better. network_calls are its price, where some evaluations are cheaper. pareto: no other plan of
    this model at this guidance has both a smaller error and fewer network calls. failure says why there is no plan.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    path: str
    model: str
    space: str
    nfe: Count
    guidance: float
    seed: Count
    plan: str | None = None
    endpoint_mse: float | None = None
    endpoint_median: float | None = None
    frechet_teacher: float | None = None
    ratio: float | None = None
    ratio_geometric: float | None = None
    verdict: str = ""
    network_calls: float | None = None
    seconds: float | None = None
    pareto: bool = False
    failure: str = ""


class Sweep(BaseModel):
    """All cells; regressions are files of `cpr`, by model, space and seed, where there were enough plans."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal["solversearch-sweep"] = "solversearch-sweep"
    version: Literal[1] = 1
    asked: SweepSpec
    rows: Many[SweepRow]
    regressions: Many[str] = ()
    notes: Many[str] = ()
