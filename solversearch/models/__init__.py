"""The registry of models: `MODELS` by name, and `load`, which also takes pipelines of diffusers and a person's own network."""

from collections.abc import Callable

from solversearch.errors import UserError, nearest
from solversearch.models.base import Model
from solversearch.models.options import Options

__all__ = ["MODELS", "Model", "Options", "load"]


def _digits(options: Options) -> Model:
    from solversearch.models import digits

    options.only("digits")
    return digits.load()


def _mixture(options: Options) -> Model:
    from solversearch.models import mixture

    options.only("mixture")
    return mixture.load()


MODELS: dict[str, Callable[[Options], Model]] = {"digits": _digits, "mixture": _mixture}
"""Adapters are imported when their model is asked for: some need packages that others do not."""
DEFAULT = Options()


def load(name: str, options: Options = DEFAULT) -> Model:
    """The model of a registered name, or of the factory that `python:FILE_OR_MODULE:FACTORY` names. Raises `UserError`."""
    if name.startswith("python:"):
        from solversearch.models.custom import load_custom

        options.only(name)
        return load_custom(name)
    if name not in MODELS:
        raise UserError(f"{nearest(name, list(MODELS), 'model')}, or your own as python:FILE_OR_MODULE:FACTORY")
    return MODELS[name](options)
