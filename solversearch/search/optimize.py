"""The main job: from a model and a budget to a proven plan.

    best baseline -> instant (on the surrogate) -> fit (closed form) -> search (each candidate fitted) -> polish (gradient)

The stages (`Search`) see fitting and validation noise; the comparison alone sees the held-out noise, and decides whether the plan or
the best baseline is exported: the plan where it is better (`verdict`), or undecided and the person takes it so.
"""

import platform
import secrets
from functools import partial
from math import isfinite
from pathlib import Path

import torch

import solversearch
from solversearch.errors import Interrupted
from solversearch.judging.baselines import baselines
from solversearch.judging.compare import Comparison, ParetoPoint, compare
from solversearch.judging.measures import finite
from solversearch.judging.objectives import parse_many
from solversearch.models import DEFAULT
from solversearch.models.base import Model
from solversearch.models.options import Options
from solversearch.outputs import claim
from solversearch.plan import Plan, Provenance, Threshold, write_text
from solversearch.runtime import Tableau
from solversearch.search.evaluating import evaluations
from solversearch.search.evaluating.evaluator import Origin
from solversearch.search.evaluating.pareto import front
from solversearch.search.evaluating.resuming import OBJECT, go_on
from solversearch.search.evaluating.run_folder import Run, held, versions, without_password
from solversearch.search.evaluating.storage import Trials, check_reachable
from solversearch.search.evaluating.warm_start import EARLIER, read_records, write_records
from solversearch.search.evaluating.workers import HERE, Fleet, Workers
from solversearch.search.settings import Settings, check
from solversearch.search.stages import Progress, Search
from solversearch.search.surrogates.predictor import Record


def optimize(
    model: Model,
    settings: Settings,
    folder: Path,
    command: str,
    progress: Progress,
    records: tuple[Record, ...] = (),
    *,
    name: str | None = None,
    options: Options = DEFAULT,
    storage: str | None = None,
    resume: bool = False,
    fleet: Fleet = HERE,
) -> tuple[Plan, Comparison]:
    """Runs the stages and the comparison; writes plan.json, comparison.json and the Optuna journal into the folder.

    records are evaluations of earlier runs on the same model, which teach the predictor. name and options are how the model was loaded;
    storage is the address of a database for Optuna in place of the journal; fleet are the workers that evaluate candidates. resume goes
    on with the run that was begun in the folder, which must have been asked the same; otherwise the files of an earlier run are cleared
    away. Raises `UserError` for what cannot be, and `Interrupted` on Ctrl-C, after the best plan so far has been written.
    """
    settings = settings.sized(model)
    check(model, settings)
    check_reachable(fleet, storage)
    with held(folder):
        if resume:
            run = Run.unfinished(folder)
            run.check(model, settings, folder)
            records = read_records(folder, model.digest, EARLIER) if (folder / EARLIER).exists() else ()
            storage = storage or run.storage
        else:
            claim(folder)
            run = _begun(model, settings, folder, without_password(command), name, options, storage)
            if records:
                write_records(records, folder, model.digest, EARLIER)
            run.write(folder)
        trials = Trials(folder, storage, run.study, len(parse_many(settings.objective)), resume)
        log = evaluations.Log(folder / evaluations.NAME)
        search = Search(model, settings, progress, trials.add, records, log, [trial.params for trial in trials.earlier], trials.notes)
        if fleet.remote:
            search.source = partial(Workers, fleet, run.model, run.options, settings.objective)
        return _completed(search, folder, run)


def _begun(model: Model, settings: Settings, folder: Path, command: str, name: str | None, options: Options, storage: str | None) -> Run:
    """A database holds the studies of many runs, so theirs have names of their own."""
    study = "search" if storage is None else f"{folder.name}-{secrets.token_hex(4)}"
    return Run(
        model=name or model.name, options=options, model_digest=model.fingerprint, settings=settings, command=command, versions=versions(),
        storage=storage and without_password(storage), study=study,
    )  # fmt: skip


def _completed(search: Search, folder: Path, run: Run) -> tuple[Plan, Comparison]:
    model, settings, command = search.model, search.settings, run.command
    try:
        finite(model, search.held_out)  # a network that fails there is found out before the search
        search.learn()
        assert search.best is not None
        if search.predictor is not None:
            write_records(search.predictor.records(), folder, model.digest)
        points = _pareto(search, folder, command)
        plan = plan_of(search, search.best.table, search.best.origin, command)
        plan.write(folder / "plan.json")
        comparison = _compared(search, plan).model_copy(update={"pareto": points})
        if comparison.verdict == "worse" or (comparison.verdict == "undecided" and settings.undecided == "baseline"):
            comparison = comparison.model_copy(update={"exported": "baseline"})
            row = comparison.exported_row
            table = next(b.table for b in baselines(model, settings.nfe, settings.guidance, settings.integer) if b.name == row.name)
            origin: Origin = {"solver": row.solver, "grid": row.grid, "baseline": f"the verdict on the searched plan: {comparison.verdict}"}
            plan = plan_of(search, table, origin, command)
        best = next(row for row in comparison.rows if row.name == comparison.best_baseline)
        own = comparison.exported_row.score().model_copy(update={"name": "plan", "kind": "plan"})
        plan = plan.with_scores((own, best.score()))
        plan.write(folder / "plan.json")
        write_text(folder / "comparison.json", comparison.model_dump_json(indent=1) + "\n")
        search.log.forget()
    except KeyboardInterrupt:
        raise Interrupted(_kept(search, folder, run)) from None
    return plan, comparison


def plan_of(search: Search, table: Tableau, origin: Origin, command: str) -> Plan:
    """A table of the search as a plan, with what it takes to make it again."""
    settings, model = search.settings, search.model
    versions = {"solversearch": solversearch.__version__, "torch": torch.__version__, "python": platform.python_version()}
    stages: list[Origin | str] = [stage.name for stage in search.stages]
    return Plan(
        prediction_type=model.prediction_type,
        guidance=settings.guidance,
        nfe=table.nfe,
        network_calls=table.network_calls,
        nodes=table.nodes,
        rows=table.rows,
        threshold=None if model.clip is None else Threshold(kind="clamp", limit=model.clip),
        decisions={**origin, "space": settings.space.name, "timesteps": "whole" if settings.integer else "any", "stages": stages},
        provenance=Provenance(model=model.name, model_digest=model.digest, seed=settings.seed, versions=versions, command=command),
    )


def _pareto(search: Search, folder: Path, command: str) -> tuple[ParetoPoint, ...]:
    """Writes the plans of the Pareto set, where there are several objectives; the first is that of the best plan."""
    names = [objective.name for objective in search.objectives]
    if search.loop is None or search.best is None or len(names) == 1:
        return ()
    points = []
    for number, result in enumerate(front([search.best, *(result for _, result in search.loop.tried)])):
        file = f"pareto/plan-{number}.json"
        plan_of(search, result.table, result.origin, command).write(folder / file)
        points.append(ParetoPoint(file=file, network_calls=result.table.network_calls, values=dict(zip(names, result.values, strict=True))))
    return tuple(points)


def _compared(search: Search, plan: Plan) -> Comparison:
    """The comparison on held-out noise, with the search's stages and time."""
    settings, count = search.settings, 0

    def told(note: str) -> None:
        nonlocal count
        count += 1
        search.progress("comparison", count, 0, note)

    comparison = compare(
        search.model, plan, search.held_out, search.clock, settings.batch_size, settings.integer, search.timing, tuple(search.stages), told,
        settings.objective, search.parts("comparison"),
    )  # fmt: skip
    course = () if search.loop is None else tuple(best if isfinite(best) else None for best in search.loop.progress)
    notes = [search.predictor.note if search.predictor else None, search.befell and f"workers: {search.befell}"]
    return comparison.model_copy(update={"progress": course, "predictor": search.taus(), "note": "; ".join(filter(None, notes))})


def _kept(search: Search, folder: Path, run: Run) -> str:
    if search.best is None:
        return f"interrupted before any candidate was evaluated; {go_on(run, folder)}"
    path, trials = folder / "plan.json", len(search.loop.progress) if search.loop else 0
    plan_of(search, search.best.table, {**search.best.origin, "interrupted": "not compared on held-out noise"}, run.command).write(path)
    error = float(search.best.error.mean())
    how = "" if run.model.startswith(OBJECT) else f": 'solversearch compare --plan {path} --model {run.model}'"
    return (
        f"interrupted after {trials} trials; {go_on(run, folder)}; kept: {path} (the best so far, validation error {error:.3g}, "
        f"not compared yet{how})"
    )
