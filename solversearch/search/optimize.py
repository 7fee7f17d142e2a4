"""The main job: from a model and a budget to a proven plan.

    prepare the run folder -> run the stages (`pipeline`) -> compare -> write

The stages see fitting and validation noise; the comparison alone sees the held-out noise, and decides whether the plan or
the best baseline is exported: the plan where it is better (`verdict`), or undecided and the person takes it so.
"""

import os
import platform
import warnings
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import isfinite
from pathlib import Path

import torch

from solversearch.errors import Halted, Interrupted, UserError
from solversearch.judging.baselines import baselines
from solversearch.judging.compare import Comparison, ParetoPoint, StageResult, Trial, compare
from solversearch.judging.objectives import parse_many
from solversearch.models import DEFAULT
from solversearch.models.base import Model
from solversearch.models.denoising import check_samples
from solversearch.models.options import Options
from solversearch.outputs import claim
from solversearch.plan import Plan, Provenance, Threshold, version_of, write_text
from solversearch.runtime import Tableau
from solversearch.search.estimate import room, within
from solversearch.search.evaluating.evaluations import NAME as LOG
from solversearch.search.evaluating.evaluations import Log
from solversearch.search.evaluating.evaluator import Origin
from solversearch.search.evaluating.fleet import HERE, Fleet
from solversearch.search.evaluating.pareto import front
from solversearch.search.evaluating.resuming import OBJECT, go_on
from solversearch.search.evaluating.run_folder import Run, held, versions, without_password
from solversearch.search.evaluating.storage import Trials, check_reachable
from solversearch.search.evaluating.warm_start import EARLIER, read_records, write_records
from solversearch.search.evaluating.workers import Workers
from solversearch.search.pipeline import Found, run_stages
from solversearch.search.pricing import declared
from solversearch.search.settings import Settings, check
from solversearch.search.stages.search import Setup
from solversearch.search.stages.task import Progress, Task
from solversearch.search.surrogates.predictor import Record
from solversearch.threads import few_threads
from solversearch.version import __version__


def optimize(
    model: Model, settings: Settings, folder: Path, command: str, progress: Progress, records: tuple[Record, ...] = (), *,
    name: str | None = None, options: Options = DEFAULT, storage: str | None = None, resume: bool = False, fleet: Fleet = HERE,
) -> tuple[Plan, Comparison]:  # fmt: skip
    """Runs the stages and the comparison; writes plan.json, comparison.json and the Optuna journal into the folder.

    records are evaluations of earlier runs on the same model, which teach the predictor. name and options are how the model was loaded;
    storage is the address of a database for Optuna in place of the journal; fleet are the workers that evaluate candidates. resume goes
    on with the run that was begun in the folder, which must have been asked the same; otherwise the files of an earlier run are cleared
    away. Raises `UserError` for what cannot be, and `Interrupted` on Ctrl-C, after the best plan so far has been written.
    """
    settings, model = settings.sized(model), settings.started(model)
    check(model, settings)
    check_reachable(fleet, storage)
    if fleet.remote and (settings.only_instant or not settings.searches):
        warnings.warn("--workers: they share the candidates of a search, and here is none; say --trials N, or --space full", stacklevel=2)
    with held(folder), few_threads(model):
        if resume:
            run = Run.unfinished(folder)
            run.check(model, settings, folder)
            records = read_records(folder, model, EARLIER) if (folder / EARLIER).exists() else ()
        else:
            claim(folder)
            if records:
                write_records(records, folder, model, EARLIER)
            run = _begun(model, settings, folder, without_password(command), name, options, storage)
        settings = within(model, settings, run.granted)
        if run.granted:
            warnings.warn(
                f"--hours {settings.hours:g} has room for {run.granted:,} network evaluations here: {settings.samples} samples held out, "
                f"{settings.fit_samples} to fit, {settings.validation_samples} to validate, {settings.evaluations:,} evaluations for fit, "
                "search and polish",
                stacklevel=2,
            )
        trials = Trials(folder, storage or run.storage, run.study, len(parse_many(settings.objective)), resume)
        setup = Setup(records, [trial.params for trial in trials.earlier], trials.notes, trials.add)
        if fleet.remote:
            setup = replace(setup, source=partial(Workers, fleet, run.model, run.options, settings.objective))
        task, found = Task(model, settings, progress, Log(folder / LOG)), Found()
        try:
            check_samples(model, task.learning[1], settings.guidance)
            run_stages(task, setup, found)
            plan, pareto = _searched(task, found, folder, run.command)
            comparison = _compared(task, found, plan).model_copy(update={"pareto": pareto})
            return _exported(task, found, plan, comparison, folder, run.command)
        except Halted as error:
            raise UserError(f"{error}; {go_on(run, folder)}") from error
        except KeyboardInterrupt:
            raise Interrupted(_kept(task, found, folder, run)) from None


def _begun(model: Model, settings: Settings, folder: Path, command: str, name: str | None, options: Options, storage: str | None) -> Run:
    """Writes what was asked. A database holds the studies of many runs, so theirs have names of their own."""
    study = "search" if storage is None else f"{folder.name}-{os.urandom(4).hex()}"
    run = Run(
        model=name or model.name, options=options, model_digest=model.fingerprint, settings=settings, command=command, versions=versions(),
        granted=room(model, settings), storage=storage and without_password(storage), study=study,
    )  # fmt: skip
    run.write(folder)
    return run


def _searched(task: Task, found: Found, folder: Path, command: str) -> tuple[Plan, tuple[ParetoPoint, ...]]:
    """Writes what the stages found: the plan, the plans of the Pareto set, and the evaluations from which later runs may learn."""
    assert found.best is not None
    if found.predictor is not None:
        write_records(found.predictor.records(), folder, task.model)
    pareto = _pareto(task, found, folder, command)
    plan = plan_of(task, found.stages, found.best.table, found.best.origin, command)
    plan.write(folder / "plan.json")
    return plan, pareto


def _exported(task: Task, found: Found, plan: Plan, comparison: Comparison, folder: Path, command: str) -> tuple[Plan, Comparison]:
    """Writes the comparison, and the plan that it allows: the best baseline in the place of the searched one where that is not better."""
    settings = task.settings
    if comparison.verdict == "worse" or (comparison.verdict == "undecided" and settings.undecided == "baseline"):
        comparison = comparison.model_copy(update={"exported": "baseline"})
        row = comparison.exported_row
        pairs = baselines(task.model, comparison.nfe, settings.guidance, settings.integer, own=lambda: task.parametrization)
        origin: Origin = {"solver": row.solver, "grid": row.grid, "baseline": f"the verdict on the searched plan: {comparison.verdict}"}
        plan = plan_of(task, found.stages, next(pair.table for pair in pairs if pair.name == row.name), origin, command)
    best = next(row for row in comparison.rows if row.name == comparison.best_baseline)
    own = comparison.exported_row.score().model_copy(update={"name": "plan", "kind": "plan"})
    plan = plan.with_scores((own, best.score()))
    plan.write(folder / "plan.json")
    write_text(folder / "comparison.json", comparison.model_dump_json(indent=1) + "\n")
    task.log.forget()
    return plan, comparison


def plan_of(task: Task, stages: Sequence[StageResult], table: Tableau, origin: Origin, command: str) -> Plan:
    """A table that a search found by these stages as a plan, with what it takes to make it again."""
    settings, model = task.settings, task.model
    versions = {"solversearch": __version__, "torch": torch.__version__, "python": platform.python_version()}
    passed: list[Origin | str] = [stage.name for stage in stages]
    nodes = model.schedule.anchored(table.nodes)
    return Plan(
        version=version_of(nodes, table.components, model.start), components=table.components, variants=declared(model, table),
        start=model.start,
        prediction_type=model.prediction_type, guidance=settings.guidance, nfe=table.nfe, network_calls=table.network_calls,
        nodes=nodes, rows=table.rows, threshold=None if model.clip is None else Threshold(kind="clamp", limit=model.clip),
        decisions={**origin, "space": settings.space.name, "timesteps": "whole" if settings.integer else "any", "stages": passed}
        | ({"start": settings.start} if model.start else {})
        | dict(model.facts),
        provenance=Provenance(model=model.name, model_digest=model.digest, seed=settings.seed, versions=versions, command=command),
    )  # fmt: skip


def _pareto(task: Task, found: Found, folder: Path, command: str) -> tuple[ParetoPoint, ...]:
    """Writes the plans of the Pareto set, where there are several objectives; the first is that of the best plan."""
    names = [objective.name for objective in task.objectives]
    if found.loop is None or found.best is None or len(names) == 1:
        return ()
    points = []
    for number, result in enumerate(front([found.best, *(result for _, result in found.loop.tried)])):
        file = f"pareto/plan-{number}.json"
        plan_of(task, found.stages, result.table, result.origin, command).write(folder / file)
        points.append(ParetoPoint(file=file, network_calls=result.table.network_calls, values=dict(zip(names, result.values, strict=True))))
    return tuple(points)


def _compared(task: Task, found: Found, plan: Plan) -> Comparison:
    """The comparison on held-out noise, with the search's stages and time."""
    assert found.best is not None
    settings, count, held_out = task.settings, 0, task.held_out(found.best)

    def told(note: str) -> None:
        nonlocal count
        count += 1
        task.progress("comparison", count, 0, note)

    comparison = compare(
        task.model, plan, held_out, task.clock, settings.batch_size, settings.integer, task.timing, tuple(found.stages), told,
        settings.objective, task.parts("comparison"),
    )  # fmt: skip
    course = tuple(best if isfinite(best) else None for best in found.course)
    notes = [found.predictor.note if found.predictor else None, found.befell and f"workers: {found.befell}"]
    tried = found.loop.trials if found.loop else ()
    update: dict[str, object] = {
        "progress": course, "note": "; ".join(filter(None, notes)),
        "trials": tuple(Trial(value=value, samples=samples) for value, samples in tried),
    }  # fmt: skip
    if found.predictor:
        update |= {"predictor": tuple(found.predictor.tau_history()), "predictions": tuple(found.predictor.predictions())}
    return comparison.model_copy(update=update)


def _kept(task: Task, found: Found, folder: Path, run: Run) -> str:
    if found.best is None:
        return f"interrupted before any candidate was evaluated; {go_on(run, folder)}"
    path, origin = folder / "plan.json", {**found.best.origin, "interrupted": "not compared on held-out noise"}
    plan_of(task, found.stages, found.best.table, origin, run.command).write(path)
    how = "" if run.model.startswith(OBJECT) else f": 'solversearch compare --plan {path} --model {run.model}'"
    return (
        f"interrupted after {len(found.course)} trials; {go_on(run, folder)}; kept: {path} (the best so far, {task.unit} "
        f"{found.best.value:.3g}, not compared yet{how})"
    )
