"""Pipelines of diffusers as models: a folder or a repository of the Hub in, a `Model` out.

The pipeline's own `__call__` tells everything: it is run with a probe for its scheduler (`guest`), how it calls its network is learned
(`replay`), and then the network is called without it (`network`). Noise schedule and prediction type are read from the scheduler's
configuration. What is searched in is the state as the scheduler has it: latents, patches in a row, pixels.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from solversearch.errors import UserError, nearest, short
from solversearch.models.aliases import ALIASES, Alias
from solversearch.models.base import Model
from solversearch.models.edm import Preconditioned
from solversearch.models.options import Options
from solversearch.models.pipelines.adapter import Adapted, Adapter
from solversearch.models.pipelines.asking import Asking
from solversearch.models.pipelines.disk import changed, single
from solversearch.models.pipelines.guest import Guest, Misfit
from solversearch.models.pipelines.kinds import check_kind
from solversearch.models.pipelines.library import library
from solversearch.models.pipelines.network import Called, Inverted
from solversearch.models.pipelines.packing import Packing, Unpacked
from solversearch.models.pipelines.pictures import Decoder
from solversearch.models.pipelines.prompts import Encoded, captions, encoded
from solversearch.models.pipelines.schedule import schedule_of, sigma_data_of
from solversearch.models.pipelines.source import Folder, InMemory, from_hub, local
from solversearch.noise import SPLITS
from solversearch.pipeline_facts import facts

__all__ = ["ALIASES", "load", "load_alias", "schedule_of"]

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_ANY = ("device", "dtype", "resolution", "frames", "compiled", "offload")
"""Options that every pipeline takes."""
_STORED = ("config", "lora", "quantize")
"""Those that every stored one does."""
_PROMPTED = ("prompts", "negative_prompt")


def load_alias(name: str, options: Options) -> Model:
    """The model of a name of `ALIASES`."""
    return load(ALIASES[name].repository, options, name, ALIASES[name])


def load(where: str, options: Options, name: str | None = None, alias: Alias | None = None) -> Model:
    """The model of a pipeline's folder, of a checkpoint in a single file or, where there is neither, of a repository of the Hub.

    name is what messages call it; one that begins with hf: is not looked for among the folders. Raises `UserError` with one line for
    whatever is missing, damaged or not supported.
    """
    for package in ("diffusers", "transformers"):
        library(package)
    name, asked = name or where, _dtype(options.dtype or (alias.dtype if alias else None))
    folder, device = _folder(where, alias is not None or name.startswith("hf:"), asked == torch.float16, options), _device(options.device)
    return _model(changed(folder, options, device), options, name, device, asked, alias)


def of_object(pipe: Any, options: Options) -> Model:
    """The model of a pipeline object, with its own device and precision unless the options say otherwise; named by its class.

    The object's modules are taken, not copied: they are put into evaluation mode, and frozen. Raises `UserError`.
    """
    folder = InMemory.of(pipe)
    return _model(folder, options, folder.pipeline, _device(options.device or str(pipe.device)), _dtype(options.dtype))


def _model(folder: Folder, options: Options, name: str, device: str, asked: torch.dtype | None, alias: Alias | None = None) -> Model:
    try:
        return _adapted(folder, options, name, device, asked, alias)
    except Misfit as why:
        raise UserError(f"{folder.path}: {folder.pipeline} cannot be sampled by a plan: {why}") from None


def _adapted(folder: Folder, options: Options, name: str, device: str, asked: torch.dtype | None, alias: Alias | None) -> Model:
    check_kind(folder)
    own = () if isinstance(folder, InMemory) else _STORED
    dtype = asked or folder.dtype(folder.networks[0])
    if device == "cpu" and dtype == torch.float16 and options.dtype is None:
        dtype = torch.float32  # processors are slow in float16
    scheduler = folder.config("scheduler")
    try:
        schedule, kind, clip = schedule_of(scheduler)
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder.path}: scheduler_config.json gives no noise schedule ({error}); download it again") from error
    guest = Guest(folder.pipe({}, dtype, device), device)
    asking = Asking.of(guest, options, alias)
    options.only(name, *_ANY, *own, *(_PROMPTED if asking.kind == "prompt" else ()), "distilled_guidance")
    prompts, known = _prompts(folder, guest, asking, options, dtype, device)
    networks = {part: _placed(folder.load(part, dtype), device, options) for part in folder.networks}
    inverted = bool(scheduler.get("invert_sigmas"))
    adapted = Adapter(guest, networks, asking, prompts, known, schedule, kind, inverted).adapt(
        alias.guidance if alias else None, options.distilled_guidance
    )
    tells = {asking.tells, asking.guides if adapted.why else ""} - {""}
    if options.distilled_guidance is not None and not tells:
        options.only(name, *_ANY, *own, *_PROMPTED)
    schedule, _, _ = schedule_of(scheduler, guest.mu)
    packing, network = Packing.of(guest.pipe, adapted.shape, asking.fixed), adapted.network
    if packing:
        network = Unpacked(network, packing).eval()
    if inverted:
        network = Inverted(network, schedule.t_start).eval()
    if kind == "edm":
        network = Preconditioned(network, *sigma_data_of(scheduler)).eval()

    def seeing() -> Guest:
        return Guest(folder.pipe({part: folder.load(part, dtype).to(device) for part in folder.decoders}, dtype, device), device)

    time = Adapter.time_of(schedule, kind, float(schedule.t_end))
    count, settings = len(prompts), [SPLITS, prompts, asking.negative, sorted(asking.fixed.items()), asking.tells]
    text = asking.kind == "prompt"
    told = {name: asking.fixed[name] for name in sorted(tells) if name in asking.fixed}
    decoder = Decoder(seeing, lambda: asking.call(prompts[0] if prompts else None, known[0] if known else None), adapted.made_up, time)
    return Model(
        name, network, schedule, kind, packing.shape(adapted.shape) if packing else adapted.shape,
        conditions=torch.arange(count, device=device) if count else None,
        null_condition=torch.tensor(count, device=device) if count and adapted.guided else None,
        images=packing.images(decoder) if packing else decoder,
        dtype=dtype, device=device, guidance=adapted.guidance, clip=clip,
        conditioning=hashlib.sha256(json.dumps(settings).encode()).hexdigest() if text else "",
        weights=folder.digests(folder.networks), disjoint=text and count >= len(SPLITS),
        facts=facts(folder.pipeline, scheduler, told), lacks=_lacks(adapted, told),
    )  # fmt: skip


# What was asked for ----------------------------------------------------------------------------------------------


def _device(asked: str | None) -> str:
    if asked is None:
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=asked)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {asked} cannot be used here ({short(error, 80)}); try 'cpu'") from None
    return asked


def _dtype(name: str | None) -> torch.dtype | None:
    """None stands for the stored one."""
    if name is not None and name not in _DTYPES:
        raise UserError(nearest(name, list(_DTYPES), "dtype"))
    return None if name is None else _DTYPES[name]


def _folder(where: str, hub: bool, half: bool, options: Options) -> Folder:
    path = Path(where).expanduser()
    if not hub and path.is_file():
        return single(where, options.config, half)
    return from_hub(where, half) if hub or (where.count("/") == 1 and where[0] not in "./~" and not path.exists()) else local(where, half)


def _lacks(adapted: Adapted, told: dict[str, Any]) -> str:
    if not adapted.why:
        return ""
    scale = ", ".join(f"{name} {value:g}" for name, value in told.items() if isinstance(value, int | float))
    how = "joint batches: the pipeline runs for each evaluation" if isinstance(adapted.network, Called) else "for the pipeline's is kept"
    return f"guidance of the plan's own, split columns, {how} ({scale}), for {adapted.why}"


# The parts of the model ------------------------------------------------------------------------------------------


def _prompts(
    folder: Folder, guest: Guest, asking: Asking, options: Options, dtype: torch.dtype, device: str
) -> tuple[list[Any], Encoded | None]:
    """Prompts or labels, and the embeddings of prompts; text encoders are freed where the pipeline asks for their results alone."""
    if asking.kind == "label":
        return list(range(int(guest.networks[folder.networks[0]].config.num_embeds_ada_norm))), None
    if not asking.kind:
        return [], None

    def encoders() -> dict[str, Any]:
        return {part: folder.load(part, dtype).to(device) for part in folder.encoders}

    if hasattr(guest.pipe, "encode_prompt"):
        known = encoded(options.prompts, asking, folder.key(dtype), lambda: Guest(folder.pipe(encoders(), dtype, device), device), device)
        return list(known.prompts), known
    for part, encoder in encoders().items():
        setattr(guest.pipe, part, encoder)
    return captions(options.prompts), None


def _placed(core: Any, device: str, options: Options) -> Any:
    """The network on its device; under offload its layers go there one after the other, when they are at work."""
    if options.offload:
        library("accelerate").cpu_offload(core, execution_device=torch.device(device))
    elif not str(core.device).startswith(device):  # quantised networks are there already, and must not be moved
        core.to(device)
    if options.compiled:
        core.compile()
    return core
