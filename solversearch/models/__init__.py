"""The registry of models: `MODELS` by name, and `load`, which also takes pipelines of diffusers and a person's own network."""

import re
from dataclasses import replace
from importlib import import_module
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from solversearch.errors import UserError, nearest
from solversearch.models.options import FOUND, Options

if TYPE_CHECKING:
    from solversearch.models.base import Model
    from solversearch.schedules import NoiseSchedule

__all__ = ["MODELS", "Model", "Options", "frame", "load"]


def __getattr__(name: str) -> Any:
    """`Model` is imported when it is asked for: names and options need no torch."""
    if name != "Model":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from solversearch.models.base import Model

    return Model


MODELS = {
    "digits": "The embedded diffusion model: class-conditional 8x8 digits with classifier-free guidance, small enough for any CPU.",
    "mixture": "The exact model: a Gaussian mixture fitted to digits, whose denoiser is known in closed form.",
}
"""Files that have `load()`, which gives a model that comes with the package; imported when it is asked for. See ADDING.md."""
DEFAULT = Options()


def load(source: Any, options: Options = DEFAULT, known: bool = False) -> "Model":
    """The model of a registered name or alias, of a pipeline (`hf:REPOSITORY`, a folder, or a checkpoint), or of the factory that
    `python:FILE_OR_MODULE:FACTORY` names; or of an object: a `Model`, a pipeline of diffusers, a factory.

    known: another process has loaded it, and checked that it denoises. Raises `UserError`."""
    from solversearch.models.features import with_features

    named = isinstance(source, str | PathLike)
    model = with_features(_own(fspath(source), options, known) if named else _of_object(source, options), options)
    if not options.variant:
        return model
    from solversearch.models.variants import with_others

    alike = replace(options, variant=None, lora=None, config=None, quantize=None, reference=None)
    return with_others(model, [(name, load(other, alike)) for name, other in map(_named, options.variant)])


def _named(variant: str) -> tuple[str, str]:
    name, equals, source = variant.partition("=")
    if not equals or not source or not name.isidentifier() or name.startswith(FOUND):
        raise UserError(
            f"--variant {variant}: a variant is NAME=MODEL, such as small=hf:REPOSITORY, with a name of letters, not skip... or features..."
        )
    return name, source


def check_repeats(model: "Model", name: str) -> None:
    """Whether other processes would load the same by this name; code of a person's own may not do so. Raises `UserError`."""
    if name.startswith("python:"):
        from solversearch.models.custom import check_repeats as check

        check(model, name)


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
        from solversearch.models.custom import checked, with_anchor

        return checked(with_anchor(source))
    from inspect import getsourcefile, isfunction

    from solversearch.models.custom import made_by

    file = (getsourcefile(source) if isfunction(source) else None) or ""
    return made_by(source, f"{name}()", f"{Path(file).stem}.{name}" if file else name, file)


def frame(name: str) -> tuple["NoiseSchedule", float]:
    """A model's noise schedule and guidance, by its name; those of the package share Stable Diffusion's, and are not loaded for it."""
    from solversearch.schedules import DiscreteVP

    if name in MODELS:
        return DiscreteVP.named(), 1.0
    model = load(name)
    return model.schedule, model.guidance


_CHECKPOINTS = (".safetensors", ".gguf")
_WEIGHTS = (".ckpt", ".pt", ".pth", ".bin", ".onnx", ".pkl")
_OWN = re.compile(r"(?P<target>.+\.py|[A-Za-z_][\w.]*)(?::(?P<factory>[A-Za-z_]\w*)?)?")


def _meant(name: str) -> str:
    """What a name that is no model's may have been meant for; nothing where that is not clear."""
    if name.lower().endswith((*_CHECKPOINTS, *_WEIGHTS)):
        other = (
            "only safetensors and gguf are opened, other files of weights can run code; save it in that format, make a pipeline's folder "
            "of it with diffusers, or write a factory that loads it into a network of your own, --model python:FILE.py:FACTORY (see 'Your "
            "own network' in the README)"
        )
        return "there is no such file" if name.lower().endswith(_CHECKPOINTS) else other
    dotted = re.fullmatch(r"([A-Za-z_][\w.]*)\.(?!py$)([A-Za-z_]\w*)", name)
    if dotted and Path(dotted[1].replace(".", "/") + ".py").is_file():
        return f"a network of your own is named python:{dotted[1].replace('.', '/')}.py:{dotted[2]}"
    if name.startswith(("https://huggingface.co/", "huggingface.co/", "hf.co/")):
        return f"a repository of the Hub is named hf:{'/'.join(name.partition('.co/')[2].split('/')[:2])}"
    own = _OWN.fullmatch(name)
    if own is None or not (own["target"].endswith(".py") or own["factory"]):
        if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name):
            return f"there is no such folder; a repository of the Hub is named hf:{name}"
        return ""
    named = "" if own["factory"] else ", where FACTORY is the function in it that returns the model"
    return f"a network of your own is named python:{own['target']}:{own['factory'] or 'FACTORY'}{named}"


def _own(name: str, options: Options, known: bool) -> "Model":
    """With the features that the model brings."""
    if name.startswith("python:"):
        from solversearch.models.custom import load_custom

        options.only(name)
        return load_custom(name, known)
    if name in MODELS:
        options.only(name)
        embedded: Model = import_module(f"{__name__}.{name}").load()
        return embedded

    from solversearch.models.aliases import ALIASES

    place = Path(name).expanduser()
    hub, folder = name.startswith("hf:"), place.is_dir() or (name.lower().endswith(_CHECKPOINTS) and place.is_file())
    if not hub and not folder and name not in ALIASES:
        if meant := _meant(name):
            raise UserError(f"--model {name}: {meant}")
        raise UserError(
            f"{nearest(name, [*MODELS, *ALIASES], 'model')}; or a pipeline of diffusers as hf:REPOSITORY or its folder, or your own "
            "network as python:FILE_OR_MODULE:FACTORY"
        )
    from solversearch.models import pipelines

    if name in ALIASES and not folder:
        return pipelines.load_alias(name, options)
    return pipelines.load(name.removeprefix("hf:"), options, name)
