"""A sweep: searches of many configurations, each in a run folder of its own, as trials of Ray Tune.

The run folders are all that is kept between two calls: a finished cell is not searched again, and one that was begun goes on. Tune runs
as many cells at once as there are workers, starts a cell again whose process has died, and writes logs for TensorBoard.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator

from solversearch import models
from solversearch.cpr import Cpr, fit_runs
from solversearch.errors import UserError, nearest
from solversearch.judging.compare import Comparison
from solversearch.judging.race import GEOMETRIC, MEAN
from solversearch.models.base import Model
from solversearch.outputs import check_free, slug
from solversearch.plan import Count, Many, Plan, first_error, read_json, write_text
from solversearch.search.evaluating.pareto import undominated
from solversearch.search.evaluating.run_folder import NAME as RUN
from solversearch.search.evaluating.run_folder import Run
from solversearch.search.evaluating.workers import Fleet
from solversearch.search.settings import Settings, check
from solversearch.search.strategies import STRATEGIES
from solversearch.spaces import SearchSpace
from solversearch.spaces.source import load, place

NAME = "sweep.json"
MOST = 10_000
"""Cells of a sweep."""

Progress = Callable[[str, int, int, str], None]
"""progress(stage, done, total, note)."""


class SweepSpec(BaseModel):
    """A sweep as its file has it: what is varied, and settings that all searches share, by their names in `Settings`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    models: Many[str] = Field(min_length=1)
    nfe: Many[int] = Field(min_length=1)
    guidance: Many[float] = (1.0,)
    seeds: Many[int] = (0,)
    spaces: Many[str] = ("default",)
    settings: dict[str, JsonValue] = {}

    @field_validator("models", "nfe", "guidance", "seeds", "spaces", mode="before")
    @classmethod
    def _listed(cls, values: Any) -> Any:
        values = values if isinstance(values, list | tuple) else [values]
        if len({str(value) for value in values}) != len(values):
            raise ValueError("a value stands twice in the list")
        return values

    @field_validator("settings")
    @classmethod
    def _plain(cls, settings: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if "space" in settings:
            raise ValueError("space: spaces are named in the list spaces")
        strategy = str(settings.get("strategy", "s3"))
        if strategy not in STRATEGIES:
            raise ValueError(nearest(strategy, list(STRATEGIES), "strategy") + "; a file names no code of your own")
        return settings

    @classmethod
    def read(cls, path: Path, own: Sequence[str] = ()) -> "SweepSpec":
        """own are models in the place of the file's. Raises `UserError` with file, line and key."""
        content, nodes = load(path, "sweep")
        if isinstance(content, dict) and own:
            content = {**content, "models": list(own)}
        try:
            asked = cls.model_validate(content)
        except ValidationError as error:
            raise UserError(f"{path}{place(error, nodes)}") from None
        code = next((model for model in asked.models if model.startswith("python:") and model not in own), None)
        if code is not None:  # a file does not say which code is run: the person does
            raise UserError(f"{path}: models: {code} is code of your own; name it on the command line, with --model")
        return asked

    def cells(self) -> dict[str, "Cell"]:
        """The searches, by their run folders."""
        count = prod(map(len, (self.models, self.spaces, self.nfe, self.guidance, self.seeds)))
        if count > MOST:
            raise UserError(f"the sweep has {count:,} cells; split it into sweeps of at most {MOST:,}")
        found = {}
        for model, name, nfe, guidance, seed in product(self.models, self.spaces, self.nfe, self.guidance, self.seeds):
            space = SearchSpace.named(name)
            try:
                settings = Settings.of(space, **{"nfe": nfe, "guidance": guidance, "seed": seed, **self.settings})
            except ValidationError as error:
                raise UserError(f"settings: {first_error(error)}") from None
            found[f"{slug(model)}-{slug(space.name)}-nfe{nfe}-g{guidance:g}-s{seed}"] = Cell(model, settings)
        return found


class Cell(NamedTuple):
    """One search of a sweep."""

    model: str
    settings: Settings


class SweepRow(BaseModel):
    """What came of a cell, whose run folder is path, in the folder of the sweep; numbers are of the plan, on held-out noise.

    ratio is its mean error over the least of all baselines, ratio_geometric the same of geometric means; verdict is on the searched plan,
    which is the one exported where it is better. pareto: no other plan of this model at this guidance has both a smaller error and fewer
    network calls. failure says why there is no plan.
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
    network_calls: Count | None = None
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


def sweep(
    asked: SweepSpec, folder: Path, command: str, fleet: Fleet, progress: Progress, options: models.Options = models.DEFAULT
) -> Sweep:
    """Searches what the folder does not hold yet, and writes sweep.json; all models are loaded as the options say.

    Raises `UserError` where the folder holds other searches.
    """
    from solversearch.studies.sweep_trials import search_cells

    loaded = {name: models.load(name, options) for name in asked.models}
    cells = {name: Cell(cell.model, cell.settings.sized(loaded[cell.model])) for name, cell in asked.cells().items()}
    for name, cell in cells.items():
        _check(name, cell, loaded[cell.model], folder)
    open_cells = {name: cell for name, cell in cells.items() if not (folder / name / "comparison.json").exists()}
    failures = search_cells(open_cells, folder, command, fleet, progress, options) if open_cells else {}
    rows = _front([_row(name, cell, folder, failures) for name, cell in cells.items()])
    regressions, notes = _regressions(rows, loaded, folder, progress)
    found = Sweep(asked=asked, rows=tuple(rows), regressions=tuple(regressions), notes=tuple(notes))
    write_text(folder / NAME, found.model_dump_json(indent=1) + "\n")
    return found


def _check(name: str, cell: Cell, model: Model, folder: Path) -> None:
    """Whether the cell can be searched, or its folder has the search that was asked for."""
    check(model, cell.settings)
    if (folder / name / RUN).exists():
        Run.read(folder / name).check(model, cell.settings, folder / name)
    else:
        check_free(folder / name, overwrite=False)


def _row(name: str, cell: Cell, folder: Path, failures: Mapping[str, str]) -> SweepRow:
    settings = cell.settings
    row = SweepRow(
        path=name, model=cell.model, space=settings.space.name, nfe=settings.nfe, guidance=settings.guidance, seed=settings.seed,
        failure=failures.get(name, ""),
    )  # fmt: skip
    file = folder / name / "comparison.json"
    if not file.exists():
        return row if row.failure else row.model_copy(update={"failure": "interrupted"})
    comparison = read_json(Comparison, file, "comparison")
    own, mean, geometric = comparison.exported_row, comparison.exported_ratio(MEAN), comparison.exported_ratio(GEOMETRIC)
    return row.model_copy(
        update={
            "plan": f"{name}/plan.json", "endpoint_mse": own.endpoint_mse.mean, "endpoint_median": own.endpoint_mse.median,
            "frechet_teacher": own.frechet_teacher and own.frechet_teacher.mean, "ratio": mean, "ratio_geometric": geometric,
            "verdict": comparison.verdict,
            "network_calls": own.network_calls, "seconds": comparison.timing.wall_s, "failure": "",
        }
    )  # fmt: skip


def _front(rows: Sequence[SweepRow]) -> list[SweepRow]:
    """Teachers, and so errors, are of one model at one guidance."""
    points: dict[tuple[str, float], dict[int, tuple[float, float]]] = {}
    for k, row in enumerate(rows):
        if row.network_calls is not None and row.endpoint_mse is not None:
            points.setdefault((row.model, row.guidance), {})[k] = row.network_calls, row.endpoint_mse
    kept = {list(group)[each] for group in points.values() for each in undominated(list(group.values()))}
    return [row.model_copy(update={"pareto": k in kept}) for k, row in enumerate(rows)]


def _regressions(rows: Sequence[SweepRow], loaded: Mapping[str, Model], folder: Path, progress: Progress) -> tuple[list[str], list[str]]:
    """A regression of every model, space and seed over NFE and guidance; a note where there can be none. Made anew for new plans."""
    files, notes = [], []
    groups = dict.fromkeys((row.model, row.space, row.seed) for row in rows)
    for model, space, seed in groups if len(rows) > len(groups) else ():
        plans = [Plan.read(folder / row.plan) for row in rows if row.plan and (row.model, row.space, row.seed) == (model, space, seed)]
        plans = [plan for plan in plans if "baseline" not in plan.decisions]
        file = f"cpr-{slug(model)}-{slug(space)}-s{seed}.json"

        def told(done: int, total: int, note: str, file: str = file) -> None:
            progress(file, done, total, note)

        try:
            if not ((folder / file).exists() and {cell.plan for cell in Cpr.read(folder / file).cells} == {plan.digest for plan in plans}):
                fit_runs(plans, loaded[model], progress=told).write(folder / file)
            files.append(file)
        except UserError as error:
            notes.append(f"no {file}: {error}")
    return files, notes
