"""The cells of a sweep as trials of Ray Tune."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune

from solversearch import models
from solversearch.errors import Halted, UserError
from solversearch.judging.compare import Comparison
from solversearch.judging.race import MEAN
from solversearch.models.variants import with_skips
from solversearch.report.draw import draw_run
from solversearch.search.evaluating.fleet import Fleet, Head, cluster
from solversearch.search.evaluating.run_folder import NAME as RUN
from solversearch.search.optimize import optimize
from solversearch.search.stages.task import Progress
from solversearch.studies.sweep import Cell

STARTS = 3
"""Times that a cell whose process has died is started again."""
EVERY = 5.0
"""Seconds between two points of a cell's curve."""
LOGS = "tune"
"""Folder of Tune's own files, TensorBoard's among them."""


def search_cells(
    cells: Mapping[str, Cell], folder: Path, command: str, fleet: Fleet, progress: Progress, options: models.Options, storage: str | None
) -> dict[str, str]:
    """Searches cells in their run folders; returns why some failed, by name. storage is the address of a database for their trials.

    Raises `UserError` where the head of the cluster goes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # names of files are relative to where the person is
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    os.environ["TUNE_STATE_REFRESH_PERIOD"] = "inf"  # else Tune asks the head every 10 s, and hangs where that has just died
    with cluster(fleet.count, fleet.address) as head:
        trainable = tune.with_parameters(
            _searched, cells=dict(cells), folder=folder.resolve(), here=Path.cwd(), command=command, options=options, storage=storage
        )
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1, "gpu": fleet.gpus}),
            param_space={"cell": tune.grid_search(list(cells))},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=fleet.count, trial_name_creator=_name, trial_dirname_creator=_name, reuse_actors=False
            ),
            run_config=tune.RunConfig(
                name=LOGS, storage_path=str(folder.resolve()), verbose=0, failure_config=tune.FailureConfig(max_failures=STARTS),
                callbacks=[_Told(progress, len(cells), head)],
            ),
        )  # fmt: skip
        try:
            results = tuner.fit()
        except _Gone as gone:
            raise UserError(f"{gone}, and go on with the same command") from None
    failures = {}
    for result in results:
        name = (result.config or {}).get("cell", "")
        if result.error is not None:
            failures[name] = f"its process died {STARTS + 1} times: {' '.join(str(result.error).split())[-200:]}"
        elif result.metrics and result.metrics.get("failure"):
            failures[name] = result.metrics["failure"]
    return failures


def _name(trial: Any) -> str:
    return str(trial.config["cell"])


class _Gone(BaseException):
    """The head of the cluster is. After an `Exception` Tune asks it to clean up, and waits until Ray ends the process."""


class _Told(tune.Callback):  # type: ignore[misc]
    """Tells the progress of the sweep, while the head of the cluster is there."""

    def __init__(self, progress: Progress, total: int, head: Head) -> None:
        self.progress, self.total, self.head, self.done = progress, total, head, 0

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles what it is given, into a file that nobody here reads; a display cannot be."""
        return {}

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        try:
            self.head.wait()
        except Halted as error:
            raise _Gone(error) from None

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.progress("sweep", self.done, self.total, _name(trial))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.done += 1
        self.progress("sweep", self.done, self.total, _name(trial))


def _searched(
    config: dict[str, Any], cells: Mapping[str, Cell], folder: Path, here: Path, command: str, options: models.Options, storage: str | None
) -> None:
    """One cell, in a process of its own, as `solversearch optimize` does it; goes on where the folder has its run."""
    if here.is_dir():
        os.chdir(here)
    place, (name, settings) = folder / config["cell"], cells[config["cell"]]
    last = 0.0

    def told(stage: str, done: int, total: int, note: str) -> None:
        nonlocal last
        if stage == "search" and time.monotonic() >= last + EVERY:
            last = time.monotonic()
            tune.report({"trials": done, "best": float(note.rpartition(" ")[2])})

    try:
        model = models.load(name, options, known=True)
        if settings.budget is not None:
            model = with_skips(model)
        plan, comparison = optimize(
            model, settings, place, command, told, name=name, options=options, storage=storage, resume=(place / RUN).exists()
        )
        draw_run(model, plan, comparison, place, settings.batch_size)
    except UserError as error:
        tune.report({"failure": str(error)})
    else:
        tune.report(_numbers(comparison))


def _numbers(comparison: Comparison) -> dict[str, float]:
    own = comparison.exported_row
    return {
        "endpoint_mse": own.endpoint_mse.mean, "ratio": comparison.exported_ratio(MEAN), "network_calls": comparison.calls(own),
        "seconds": comparison.timing.wall_s, "trials": len(comparison.progress),
    }  # fmt: skip
