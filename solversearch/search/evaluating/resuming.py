"""What going on with a run takes from its folder, and what may be said beside it."""

import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from solversearch.errors import UserError
from solversearch.search.evaluating.run_folder import Run
from solversearch.search.strategies import STRATEGIES
from solversearch.spaces import SearchSpace

FREE = ("resume", "batch_size", "workers", "gpus_per_worker", "ray_address", "time_limit", "storage")
"""Options that change nothing in the result."""
OBJECT = "object:"
"""Before the name of a model that was an object in Python: no name that another process could load."""


def begun(folder: Path, source: Any, given: Mapping[str, Any]) -> Run:
    """The run of a folder, for the source of a model, or None, and the options given beside it. Raises `UserError` where these ask for
    another run."""
    run = Run.unfinished(folder)
    if source is None and run.model.startswith(OBJECT):
        raise UserError(f"{folder}: its model was an object, not a name; go on in Python, with {_in_python(folder)}")
    if isinstance(source, str):
        given = {"model": source, **given}
    for name, value in given.items():
        if name not in FREE and not _same(run, name, value):
            option = "--" + name.replace("_", "-")
            raise UserError(f"{folder}: was begun with another {option}, or without; leave it out, or begin another run with --out")
    for name, code in _own_code(run).items():
        if name not in given and (name != "model" or source is None):
            raise UserError(f"{folder}: runs code of your own; say so again with --{name} {code}")
    batch_size = given.get("batch_size", run.settings.batch_size)
    return run.model_copy(update={"settings": run.settings.model_copy(update={"batch_size": batch_size})})


def go_on(run: Run, folder: Path) -> str:
    """How the person goes on with a run that was interrupted."""
    if run.model.startswith(OBJECT):
        return f"go on with {_in_python(folder)}"
    own = "".join(f" --{name} {code}" for name, code in _own_code(run).items())
    return f"go on with 'solversearch optimize --resume {shlex.quote(str(folder))}{own}'"


def _in_python(folder: Path) -> str:
    return f"solversearch.optimize(model, resume={str(folder)!r})"


def _own_code(run: Run) -> dict[str, str]:
    """By option: a file in the run folder does not say which code is run, the person does."""
    own = {
        "model": run.model if run.model.startswith("python:") else None,
        "strategy": run.settings.strategy if run.settings.strategy not in STRATEGIES else None,
        "features": run.options.features if run.options.features != "inception" else None,
    }
    return {name: code for name, code in own.items() if code is not None}


def _same(run: Run, name: str, value: Any) -> bool:
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
