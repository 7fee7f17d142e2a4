"""The registry of models: `MODELS` by name, and `load`, which also takes pipelines of diffusers and a person's own network."""

from collections.abc import Callable
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solversearch.errors import UserError, nearest
from solversearch.models.options import Options

if TYPE_CHECKING:
    from solversearch.models.base import Model
    from solversearch.schedules import NoiseSchedule

__all__ = ["MODELS", "Model", "Options", "load", "noise_schedule"]


def __getattr__(name: str) -> Any:
    """`Model` is imported when it is asked for: names and options need no torch."""
    if name != "Model":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from solversearch.models.base import Model

    return Model


def _digits(options: Options) -> "Model":
    """The embedded diffusion model: class-conditional 8x8 digits with classifier-free guidance, small enough for any CPU."""
    from solversearch.models import digits

    options.only("digits")
    return digits.load()


def _mixture(options: Options) -> "Model":
    """The exact model: a Gaussian mixture fitted to digits, whose denoiser is known in closed form."""
    from solversearch.models import mixture

    options.only("mixture")
    return mixture.load()


MODELS: "dict[str, Callable[[Options], Model]]" = {"digits": _digits, "mixture": _mixture}
"""Adapters are imported when their model is asked for: some need packages that others do not. Their docstrings are what people are told."""
DEFAULT = Options()


def load(source: Any, options: Options = DEFAULT) -> "Model":
    """The model of a registered name or alias, of a pipeline (`hf:REPOSITORY` or a folder), or of the factory that
    `python:FILE_OR_MODULE:FACTORY` names; or of an object: a `Model`, a pipeline of diffusers, a factory. Raises `UserError`."""
    from solversearch.models.features import with_features

    named = isinstance(source, str | PathLike)
    return with_features(_own(fspath(source), options) if named else _of_object(source, options), options)


def _of_object(source: Any, options: Options) -> "Model":
    from solversearch.models.base import Model

    if hasattr(source, "components") and hasattr(source, "scheduler"):
        from solversearch.models.pipelines import of_object

        return of_object(source, options)
    if not isinstance(source, Model) and not callable(source):
        raise UserError(f"a model is a name, a Model, a pipeline of diffusers or a factory, got an object of type {type(source).__name__}")
    name = str(getattr(source, "name", None) or getattr(source, "__name__", type(source).__name__))
    options.only(name)
    if isinstance(source, Model):
        return source
    from inspect import getsourcefile, isfunction

    from solversearch.models.custom import made_by

    file = (getsourcefile(source) if isfunction(source) else None) or ""
    return made_by(source, f"{name}()", f"{Path(file).stem}.{name}" if file else name, file)


def noise_schedule(name: str) -> "NoiseSchedule":
    """A model's, by its name; those of the package share Stable Diffusion's, and are not loaded for it."""
    from solversearch.schedules import DiscreteVP

    return DiscreteVP.named() if name in MODELS else load(name).schedule


def _own(name: str, options: Options) -> "Model":
    """With the features that the model brings."""
    if name.startswith("python:"):
        from solversearch.models.custom import load_custom

        options.only(name)
        return load_custom(name)
    if name in MODELS:
        return MODELS[name](options)

    from solversearch.models.aliases import ALIASES

    hub, folder = name.startswith("hf:"), Path(name).expanduser().is_dir()
    if not hub and not folder and name not in ALIASES:
        raise UserError(
            f"{nearest(name, [*MODELS, *ALIASES], 'model')}; or a pipeline of diffusers as hf:REPOSITORY or its folder, or your own "
            "network as python:FILE_OR_MODULE:FACTORY"
        )
    from solversearch.models import pipelines

    if name in ALIASES and not folder:
        return pipelines.load_alias(name, options)
    return pipelines.load(name.removeprefix("hf:"), options, name)
