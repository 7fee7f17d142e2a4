"""The registry of models: `MODELS` by name, `load(name)`, which also takes a person's own as `python:FILE_OR_MODULE:FACTORY`."""

from collections.abc import Callable

from solversearch.errors import UserError, nearest
from solversearch.models.base import Model

__all__ = ["MODELS", "Model", "load"]


def _digits() -> Model:
    from solversearch.models import digits

    return digits.load()


def _mixture() -> Model:
    from solversearch.models import mixture

    return mixture.load()


MODELS: dict[str, Callable[[], Model]] = {"digits": _digits, "mixture": _mixture}
"""Adapters are imported when their model is asked for: some need packages that others do not."""


def load(name: str) -> Model:
    """The model of a registered name, or of the factory that `python:FILE_OR_MODULE:FACTORY` names. Raises `UserError`."""
    if name.startswith("python:"):
        from solversearch.models.custom import load_custom

        return load_custom(name)
    if name not in MODELS:
        raise UserError(f"{nearest(name, list(MODELS), 'model')}, or your own as python:FILE_OR_MODULE:FACTORY")
    return MODELS[name]()
