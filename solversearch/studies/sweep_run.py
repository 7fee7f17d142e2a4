"""A sweep from its file to its table: what the folder does not hold yet is searched; enough plans are regressed."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

from solversearch import models
from solversearch.cpr import Cpr, fit_runs
from solversearch.errors import UserError
from solversearch.judging.compare import Comparison
from solversearch.judging.race import GEOMETRIC, MEAN
from solversearch.models.base import Model
from solversearch.models.variants import with_skips
from solversearch.outputs import check_free, slug
from solversearch.plan import Plan, read_json, write_text
from solversearch.search.estimate import estimate
from solversearch.search.evaluating.fleet import Fleet
from solversearch.search.evaluating.pareto import undominated
from solversearch.search.evaluating.run_folder import NAME as RUN
from solversearch.search.evaluating.run_folder import Run
from solversearch.search.evaluating.storage import check_reachable
from solversearch.search.settings import check
from solversearch.search.stages.task import Progress
from solversearch.studies.sweep import NAME, Cell, Sweep, SweepRow, SweepSpec
from solversearch.studies.sweep_trials import LOGS, search_cells

OWN = ("*-nfe*-g*-s*", "*-budget*-g*-s*", "cpr-*.json")
"""Cells and regressions in the folder of a sweep."""


def sweep(
    asked: SweepSpec, folder: Path, command: str, fleet: Fleet, progress: Progress, options: models.Options = models.DEFAULT,
    storage: str | None = None,
) -> Sweep:  # fmt: skip
    """Searches what the folder does not hold yet, and writes sweep.json; all models are loaded as the options say.

    storage is the address of a database for the trials of all cells. Raises `UserError` where the folder holds other searches.
    """
    asked.cells()  # what is wrong with them is told before models are loaded
    if (folder / NAME).exists():
        read_json(Sweep, folder / NAME, "sweep")
    else:
        check_free(folder, None, lambda name: name == LOGS or any(fnmatch(name, own) for own in OWN))
    check_reachable(fleet, storage)
    loaded, cells = _loaded(asked, options)
    for name, model in loaded.items():
        models.check_repeats(model, name)
    for name, cell in cells.items():
        _check(name, cell, loaded[cell.model], folder)
    open_cells = {name: cell for name, cell in cells.items() if not (folder / name / "comparison.json").exists()}
    failures = search_cells(open_cells, folder, command, fleet, progress, options, storage) if open_cells else {}
    rows = _front([_row(name, cell, folder, failures) for name, cell in cells.items()])
    regressions, notes = _regressions(rows, loaded, folder, progress)
    found = Sweep(asked=asked, rows=tuple(rows), regressions=tuple(regressions), notes=tuple(notes))
    write_text(folder / NAME, found.model_dump_json(indent=1) + "\n")
    return found


def estimates(asked: SweepSpec, options: models.Options = models.DEFAULT) -> dict[str, dict[str, str | int | float]]:
    """What each cell would cost, by its name; see `search.estimate`. Raises `UserError`."""
    loaded, cells = _loaded(asked, options)
    return {name: estimate(loaded[cell.model], cell.settings) for name, cell in cells.items()}


def _loaded(asked: SweepSpec, options: models.Options) -> tuple[dict[str, Model], dict[str, Cell]]:
    """The models by their names, and the cells, whose settings suit them."""
    loaded = {name: models.load(name, options) for name in asked.models}
    if asked.budget:
        loaded = {name: with_skips(model) for name, model in loaded.items()}
    cells = asked.cells({name: model.guidance for name, model in loaded.items()})
    return loaded, {name: Cell(cell.model, cell.settings.sized(loaded[cell.model])) for name, cell in cells.items()}


def _check(name: str, cell: Cell, model: Model, folder: Path) -> None:
    """Whether the cell can be searched, or its folder has the search that was asked for."""
    check(model, cell.settings)
    if (folder / name / RUN).exists():
        Run.read(folder / name).check(model, cell.settings, folder / name)
    else:
        check_free(folder / name, overwrite=None)


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
            "network_calls": comparison.calls(own), "seconds": comparison.timing.wall_s, "failure": "",
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
            notes.append(f"{file}: {Cpr.read(folder / file).left_out}")
        except UserError as error:
            notes.append(f"no {file}: {error}")
    return files, notes
