"""Pipelines of diffusers as models: a folder or a repository of the Hub in, a `Model` out.

`load` reads model_index.json, finds the adapter of the pipeline's class, and asks the pipeline's own files for everything else: noise
schedule, prediction type and shift from the scheduler's configuration, resolution and channels from the network's, prompts from its text
encoders. Latents are what is searched in; the VAE is loaded when somebody wants pictures.
"""

import hashlib
import json
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solversearch.errors import UserError, nearest
from solversearch.models.aliases import ALIASES, Alias
from solversearch.models.base import Model, Network
from solversearch.models.edm import Preconditioned
from solversearch.models.options import Options
from solversearch.models.pipelines.adapter import Adapter, Told
from solversearch.models.pipelines.library import library
from solversearch.models.pipelines.pictures import Decoder, from_pixels
from solversearch.models.pipelines.prompts import captions, embeddings, prompt_length
from solversearch.models.pipelines.schedule import schedule_of, sigma_data_of
from solversearch.models.pipelines.source import Folder, InMemory, from_hub, local
from solversearch.noise import SPLITS
from solversearch.pipeline_facts import facts

__all__ = ["ALIASES", "FAMILIES", "load", "load_alias", "schedule_of"]

ADAPTERS = {
    "unconditional": "Unconditional", "dit": "DiT", "stable_diffusion": "StableDiffusion", "sdxl": "StableDiffusionXL", "pixart": "PixArt",
    "sd3": "StableDiffusion3", "flux": "Flux",
}  # fmt: skip
"""Files, and the class of each; see ADDING.md."""
_FOUND: list[type[Adapter]] = [getattr(import_module(f"{__name__}.{file}"), name) for file, name in ADAPTERS.items()]
FAMILIES = {name: adapter for adapter in _FOUND for name in adapter.PIPELINES}
"""Adapters by the class of the pipeline."""

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_ANY = ("device", "dtype", "resolution", "compiled", "offload")
"""Options that every pipeline takes."""
_PROMPTED = ("prompts", "negative_prompt")


def load_alias(name: str, options: Options) -> Model:
    """The model of a name of `ALIASES`."""
    return load(ALIASES[name].repository, options, name, ALIASES[name])


def load(where: str, options: Options, name: str | None = None, alias: Alias | None = None) -> Model:
    """The model of a pipeline's folder or, where there is no such folder, of a repository of the Hub.

    name is what messages call it; one that begins with hf: is not looked for among the folders. Raises `UserError` with one line for
    whatever is missing, damaged or not supported.
    """
    library()
    name, asked = name or where, _dtype(options.dtype or (alias.dtype if alias else None))
    folder = _folder(where, alias is not None or name.startswith("hf:"), asked == torch.float16)
    return _model(folder, options, name, _device(options.device), asked, alias)


def of_object(pipe: Any, options: Options) -> Model:
    """The model of a pipeline object, with its own device and precision unless the options say otherwise; named by its class.

    The object's modules are taken, not copied: they are put into evaluation mode, and frozen. Raises `UserError`.
    """
    folder = InMemory.of(pipe)
    return _model(folder, options, folder.pipeline, _device(options.device or str(pipe.device)), _dtype(options.dtype))


def _model(folder: Folder, options: Options, name: str, device: str, asked: torch.dtype | None, alias: Alias | None = None) -> Model:
    family = _family(folder)
    config, scheduler = folder.config(family.PART), folder.config("scheduler")
    distilled = family.distilled_guidance(config)
    options.only(name, *_ANY, *(_PROMPTED if family.TEXT else ()), *(() if distilled is None else ("distilled_guidance",)))
    pixels, side = _sides(folder, family, options.resolution or (alias.resolution if alias else None))
    shape = (family.channels(config), side, side)
    schedule, kind, clip = schedule_of(scheduler, family.tokens(config, side))
    dtype = asked or folder.dtype(family.PART)
    if device == "cpu" and dtype == torch.float16 and options.dtype is None:
        dtype = torch.float32  # processors are slow in float16
    told = Told(pixels, distilled if options.distilled_guidance is None else options.distilled_guidance)
    embedded, count, conditioning = _conditions(folder, family, options, told, dtype, device)
    network: Network = family(_placed(folder.load(family.PART, family.CLASSES, dtype), device, options), embedded, told).eval()
    if kind == "edm":
        network = Preconditioned(network, *sigma_data_of(scheduler)).eval()
    return Model(
        name, network, schedule, kind, shape,
        conditions=torch.arange(count, device=device) if count else None,
        null_condition=torch.tensor(count, device=device) if count else None,
        images=Decoder(folder, dtype, device, options.offload) if family.LATENT else from_pixels,
        dtype=dtype, device=device, guidance=alias.guidance if alias else family.GUIDANCE, clip=clip, conditioning=conditioning,
        weights=folder.digest(family.PART), disjoint=bool(family.TEXT),
        facts=facts(folder.pipeline, scheduler, {} if told.guidance is None else {"guidance_scale": told.guidance}),
    )  # fmt: skip


# What was asked for ----------------------------------------------------------------------------------------------


def _device(asked: str | None) -> str:
    if asked is None:
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=asked)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {asked} cannot be used here ({' '.join(str(error).split())[:80]}); try 'cpu'") from None
    return asked


def _dtype(name: str | None) -> torch.dtype | None:
    """None stands for the stored one."""
    if name is not None and name not in _DTYPES:
        raise UserError(nearest(name, list(_DTYPES), "dtype"))
    return None if name is None else _DTYPES[name]


def _folder(where: str, hub: bool, half: bool) -> Folder:
    path = Path(where).expanduser()
    return from_hub(where, half) if hub or (where.count("/") == 1 and where[0] not in "./~" and not path.exists()) else local(where, half)


def _family(folder: Folder) -> type[Adapter]:
    if folder.pipeline not in FAMILIES:
        raise UserError(f"{folder.path}: {nearest(folder.pipeline, list(FAMILIES), 'pipeline class')}")
    family = FAMILIES[folder.pipeline]
    config = folder.config(family.PART)
    seen, predicted = config["in_channels"], config.get("out_channels") or config["in_channels"]
    if predicted not in (seen, 2 * seen):
        raise UserError(f"{folder.path}: the network sees {seen} channels and predicts {predicted}, as inpainting does; not supported")
    return family


def _sides(folder: Folder, family: type[Adapter], asked: int | None) -> tuple[int, int]:
    """Pixels of a picture's side and of the side of what the network sees."""
    config = folder.config(family.PART)
    scale = 2 ** (len(folder.config("vae")["block_out_channels"]) - 1) if family.LATENT else 1
    own, multiple = family.side(config) * scale, family.multiple(config) * scale
    pixels = asked or own
    if not family.RESIZABLE and pixels != own:
        raise UserError(f"{folder.path}: the network makes pictures of {own} pixels only; leave out --resolution")
    if pixels <= 0 or pixels % multiple:
        near = max(round(pixels / multiple), 1) * multiple
        raise UserError(f"--resolution {pixels} is no multiple of {multiple} pixels, as {folder.pipeline} needs; the nearest is {near}")
    return pixels, pixels // scale


# The parts of the model ------------------------------------------------------------------------------------------


def _conditions(
    folder: Folder, family: type[Adapter], options: Options, told: Told, dtype: torch.dtype, device: str
) -> tuple[dict[str, Tensor], int, str]:
    """Embeddings, the number of conditions without the null one, and the digest of what the numbers stand for."""
    if not family.TEXT:
        return {}, family.classes(folder.config(family.PART)), ""
    length = prompt_length(folder, family)
    prompts = captions(options.prompts, short=length is None)
    settings = [SPLITS, prompts, options.negative_prompt, told.resolution, told.guidance, length]
    embedded = embeddings(folder, family, prompts, options.negative_prompt, dtype, device)
    return embedded, len(prompts), hashlib.sha256(json.dumps(settings).encode()).hexdigest()


def _placed(core: Any, device: str, options: Options) -> Any:
    """The network on its device; under offload its layers go there one after the other, when they are at work."""
    if options.offload:
        library("accelerate").cpu_offload(core, execution_device=torch.device(device))
    else:
        core.to(device)
    if options.compiled:
        core.compile()
    return core
