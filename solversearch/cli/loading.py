"""The options that say how a model is loaded, the same for every command that loads one."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from solversearch.api import load_model, loading_options
from solversearch.errors import UserError

if TYPE_CHECKING:
    from solversearch.models import Model, Options


def _option(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="Loading the model", show_default=False)


OPTIONS: dict[str, Any] = {
    "device": Annotated[str | None, _option("Where the network runs, such as cuda:1; the GPU where there is one.")],
    "dtype": Annotated[str | None, _option("float32, float16 or bfloat16; the model's own.")],
    "prompts": Annotated[Path | None, _option("Captions to search with, one a line; a list of varied ones comes with the package.")],
    "negative_prompt": Annotated[str | None, _option("What guidance leads away from; nothing.")],
    "resolution": Annotated[str | None, _option("Pixels of a side, such as 1024, or WIDTHxHEIGHT; the model's own.")],
    "frames": Annotated[int | None, _option("Pictures of a video; the model's own.")],
    "config": Annotated[Path | None, _option("How a checkpoint is built and sampled: a pipeline's folder; what the Hub's cache has.")],
    "lora": Annotated[list[str] | None, _option("A LoRA to add, as FILE or FILE:SCALE; repeatable.")],
    "variant": Annotated[list[str] | None, _option("A cheaper model that evaluations may call, as NAME=MODEL; repeatable.")],
    "quantize": Annotated[str | None, _option("Keep the network in 8bit or 4bit, or say that FILE is gguf.")],
    "distilled_guidance": Annotated[float | None, _option("What distilled networks are told (Flux), or pipelines that guide alone.")],
    "compiled": Annotated[bool, _option("Compile the network: faster after a first minute.", "--compile")],
    "offload": Annotated[bool, _option("Keep on the GPU only the part that is at work.", "--offload")],
    "features": Annotated[str | None, _option("What Frechet and kernel distances look at: inception, or a TorchScript file.")],
    "inception_weights": Annotated[Path | None, _option("Where Inception's weights lie.")],
    "reference": Annotated[Path | None, _option("Real images (a folder), or statistics of them (.npz), for Frechet distances.")],
}  # fmt: skip


@dataclass(frozen=True)
class Load:
    """Loads a model as the person asked for it. The import of torch waits until then."""

    chosen: dict[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> "Options":
        return loading_options(self.chosen)

    def __call__(self, name: str) -> "Model":
        return load_model(name, **self.chosen)

    def from_file(self, name: str) -> "Model":
        """A model that a file names, which may be one of the package's or the Hub's: no code and no folder of whoever wrote the file."""
        from solversearch.models import MODELS
        from solversearch.models.aliases import ALIASES

        if name not in MODELS and name not in ALIASES and not name.startswith("hf:"):
            raise UserError(f"the file is of model {name[:80]!r}, which is none of the package's; name it with --model")
        return self(name)


def loads_model(command: Callable[..., None]) -> Callable[..., None]:
    """Adds `OPTIONS` to a command, which gets them as one argument, load, where it has that."""

    @wraps(command)
    def wrapped(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in OPTIONS}
        command(**given, **({"load": Load(chosen)} if "load" in own.parameters else {}))

    own = inspect.signature(command)
    kept = [parameter for parameter in own.parameters.values() if parameter.name != "load"]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False if name in ("compiled", "offload") else None, annotation=kind)
        for name, kind in OPTIONS.items()
    ]
    wrapped.__signature__ = own.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in (*kept, *added)}
    return wrapped
