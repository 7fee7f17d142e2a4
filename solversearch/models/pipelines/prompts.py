"""Captions and their embeddings, which are computed once: the text encoders, often larger than the network, are loaded for that alone."""

import hashlib
import inspect
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from solversearch.cache import cache_folder, keep
from solversearch.errors import UserError
from solversearch.models.pipelines.adapter import Adapter
from solversearch.models.pipelines.library import library, quiet
from solversearch.models.pipelines.source import Folder, InMemory
from solversearch.noise import SPLITS

VERSION = 1
SHIPPED = Path(__file__).parent / "captions.txt"
LONG = 96
"""So many of the shipped captions are taken where T5 reads them: its embeddings are megabytes each, those of CLIP a tenth of that."""
BATCH = 8


def captions(file: Path | None = None, short: bool = True) -> list[str]:
    """The different captions of a file, one a line, else the shipped ones (all where their embeddings are short, else the first `LONG`).

    Blank lines do not count. Fitting, validation and held-out noise get a third of them each. Raises `UserError`.
    """
    path = file or SHIPPED
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text, at byte {error.start}; save the prompts as UTF-8, one a line") from None
    except OSError as error:
        raise UserError(
            f"{path}: the prompts cannot be read: {error.strerror}; --prompts takes a text file with one caption a line"
        ) from None
    found = list(dict.fromkeys(line for line in lines if line))
    if not found:
        raise UserError(f"{path}: there are no prompts in it; --prompts takes a text file with one caption a line")
    if len(found) < len(SPLITS):
        raise UserError(
            f"{path}: fitting, validation and held-out samples need prompts of their own, so at least {len(SPLITS)} different ones, "
            f"got {len(found)}; add some, one a line"
        )
    return found if file or short else found[:LONG]


def prompt_length(folder: Folder, family: type[Adapter]) -> int | None:
    """How many tokens T5 is given: the pipeline's default, unless its tokenizer stops before."""
    call = inspect.signature(getattr(library(), folder.pipeline).__call__).parameters
    if "max_sequence_length" not in call:
        return None
    length = family.prompt_length(folder.config(family.PART), call["max_sequence_length"].default)
    last = [part for part in family.TEXT if part.startswith("tokenizer")][-1]
    stops = folder.longest(last)
    return length if stops is None or length is None else min(length, int(stops))


def embeddings(
    folder: Folder, family: type[Adapter], prompts: list[str], negative: str | None, dtype: torch.dtype, device: str
) -> dict[str, Tensor]:
    """A row a prompt, and a last one for the negative prompt, on the device; from the cache where they have been computed before."""
    parts = [part for part in family.TEXT if part not in family.OPTIONAL or folder.index.get(part, [None])[0] is not None]
    length = prompt_length(folder, family)
    encoded = partial(_encode, folder, family, parts, prompts, negative, dtype, device, length)
    if isinstance(folder, InMemory):  # what its parts are is not known from files
        return {name: tensor.to(device) for name, tensor in encoded().items()}
    path = cache_folder() / f"prompts-{_key(folder, parts, prompts, negative, dtype, length)}.safetensors"
    try:
        found = load_file(path)
    except (OSError, SafetensorError):  # absent, or damaged: they are made again
        found = encoded()
        keep(path, found, "the embeddings")
    return {name: tensor.to(device) for name, tensor in found.items()}


def _key(folder: Folder, parts: list[str], prompts: list[str], negative: str | None, dtype: torch.dtype, length: int | None) -> str:
    settings = [VERSION, folder.pipeline, folder.index.get("force_zeros_for_empty_prompt"), prompts, negative, str(dtype), length]
    sha = hashlib.sha256(json.dumps(settings).encode())
    for part in parts:
        for file in folder.small_files(part):
            sha.update(f"{part} {file.name}".encode() + file.read_bytes())
        if part.startswith("text_encoder"):
            sha.update(folder.digest(part).encode())
    return sha.hexdigest()[:32]


@torch.no_grad()
def _encode(
    folder: Folder, family: type[Adapter], parts: list[str], prompts: list[str], negative: str | None, dtype: torch.dtype, device: str,
    length: int | None,
) -> dict[str, Tensor]:  # fmt: skip
    """By the pipeline's own `encode_prompt`; the encoders are freed on return."""
    loaded = {
        part: folder.load(part, family.TEXT[part], dtype).to(device)
        if part.startswith("text")
        else folder.tokenizer(part, family.TEXT[part])
        for part in parts
    }
    given: dict[str, Any] = {"device": device} | ({} if length is None else {"max_sequence_length": length})
    with quiet():
        encode_prompt = partial(_pipeline(folder, family, loaded).encode_prompt, **given)
        pairs = [family.encode(encode_prompt, prompts[i : i + BATCH], negative) for i in range(0, len(prompts), BATCH)]
    return {name: torch.cat([*(each[name][0] for each in pairs), pairs[0][name][1][:1]]).cpu() for name in pairs[0]}


def _pipeline(folder: Folder, family: type[Adapter], loaded: dict[str, Any]) -> Any:
    """The pipeline with nothing in it but what encodes prompts."""
    kind = getattr(library(), folder.pipeline)
    parameters = inspect.signature(kind.__init__).parameters.values()
    arguments = {each.name: loaded.get(each.name) for each in parameters if each.default is each.empty and each.name != "self"}
    if "force_zeros_for_empty_prompt" in folder.index:
        arguments["force_zeros_for_empty_prompt"] = folder.index["force_zeros_for_empty_prompt"]
    pipe = kind(**arguments)
    setattr(pipe, family.PART, SimpleNamespace(config=SimpleNamespace(**folder.config(family.PART))))  # SD3 looks there without its T5
    return pipe
