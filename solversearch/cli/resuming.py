"""What `optimize --resume` takes from the run folder, and what may be said beside it."""

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from solversearch.errors import UserError

if TYPE_CHECKING:
    from solversearch.search.evaluating.run_folder import Run

FREE = ("resume", "batch_size", "workers", "gpus_per_worker", "ray_address", "time_limit", "storage", "as_json")
"""Options that change nothing in the result."""


def begun(folder: Path, context: typer.Context) -> "Run":
    """The run of a folder. Raises `UserError` where an option on the command line asks for another."""
    from solversearch.search.evaluating.run_folder import Run
    from solversearch.search.strategies import STRATEGIES

    run = Run.unfinished(folder)
    given = {name: value for name, value in context.params.items() if _source(context, name) == "COMMANDLINE"}
    for name, value in given.items():
        if name not in FREE and not _same(run, name, value):
            option = "--" + name.replace("_", "-")
            raise UserError(f"{folder}: was begun with another {option}, or without; leave it out, or begin another run with --out")
    # A file in the run folder does not say which code is run: the person does.
    own = {
        "model": run.model if run.model.startswith("python:") else None,
        "strategy": run.settings.strategy if run.settings.strategy not in STRATEGIES else None,
        "features": run.options.features if run.options.features != "inception" else None,
    }
    for name, code in own.items():
        if code is not None and name not in given:
            raise UserError(f"{folder}: runs code of your own; say so again with --{name} {code}")
    batch_size = given.get("batch_size", run.settings.batch_size)
    return run.model_copy(update={"settings": run.settings.model_copy(update={"batch_size": batch_size})})


def _source(context: typer.Context, name: str) -> str:
    source = context.get_parameter_source(name)
    return "" if source is None else source.name


def _same(run: "Run", name: str, value: Any) -> bool:
    from solversearch.spaces import SearchSpace

    settings = run.settings
    if name == "model":
        return bool(value == run.model)
    if name == "space":
        return SearchSpace.named(value) == settings.space
    if name == "instant":
        return settings.only_instant if value else not settings.instant
    if name == "polish":
        return bool(settings.polish) == value
    if name in type(settings).model_fields:
        return bool(getattr(settings, name) == value)
    return name in [each.name for each in fields(run.options)] and getattr(run.options, name) == value
