"""The registry of models: `MODELS` by name, and `load`, which also takes pipelines of diffusers and a person's own network."""

from importlib import import_module
from pathlib import Path

from solversearch.errors import UserError, nearest
from solversearch.models.base import Model
from solversearch.models.options import Options

__all__ = ["MODELS", "Model", "Options", "load"]


MODELS = ("digits", "mixture")
"""Files that have `load()`, which gives a model that comes with the package; imported when it is asked for. See ADDING.md."""
DEFAULT = Options()


def load(name: str, options: Options = DEFAULT) -> Model:
    """The model of a registered name or alias, of a pipeline (`hf:REPOSITORY` or a folder), or of the factory that
    `python:FILE_OR_MODULE:FACTORY` names. Raises `UserError`."""
    from solversearch.models.features import with_features

    return with_features(_own(name, options), options)


def _own(name: str, options: Options) -> Model:
    """With the features that the model brings."""
    if name.startswith("python:"):
        from solversearch.models.custom import load_custom

        options.only(name)
        return load_custom(name)
    if name in MODELS:
        options.only(name)
        embedded: Model = import_module(f"{__name__}.{name}").load()
        return embedded

    from solversearch.models.pipelines.aliases import ALIASES

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
