"""diffusers and transformers, imported when a pipeline is asked for, and kept quiet while one is loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from safetensors import SafetensorError

from solversearch.errors import UserError

BROKEN = (OSError, ValueError, RuntimeError, TypeError, LookupError, AttributeError, AssertionError, SafetensorError)
"""What libraries raise for files that do not fit."""


def library(name: str = "diffusers") -> Any:
    """The module of that name. Raises `UserError` with the line that installs it."""
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(f"pipelines need {name}, which is not there ({error}): pip install 'solversearch[diffusers]'") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without progress bars and without remarks on what a pipeline leaves out on purpose; errors are raised as ever."""
    logs = [library(f"{name}.utils.logging") for name in ("diffusers", "transformers")]
    before = [(log, log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs]
    for log, verbosity, bars in before:
        if bars:
            log.disable_progress_bar()
        if verbosity != log.ERROR:  # setting it takes a millisecond
            log.set_verbosity_error()
    try:
        yield
    finally:
        for log, verbosity, bars in before:
            if bars:
                log.enable_progress_bar()
            if verbosity != log.ERROR:
                log.set_verbosity(verbosity)
