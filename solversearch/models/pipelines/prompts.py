"""Captions and their embeddings, which are computed once: the text encoders, often larger than the network, are loaded for that alone."""

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from solversearch.cache import cache_folder, keep
from solversearch.errors import UserError
from solversearch.models.pipelines.asking import Asking
from solversearch.models.pipelines.guest import Guest, Misfit, mapped
from solversearch.models.pipelines.library import library
from solversearch.noise import SPLITS

VERSION = 3
SHIPPED = Path(__file__).parent / "captions.txt"
LONG, SHORT = 96, 3 * 2**19
"""So many of the shipped captions are taken where the embeddings of one and its opposite have more bytes.

SDXL's in float32 have 1.3 MB, PixArt's from T5 in float16 2 MB; of all 384 captions at most 0.6 GB are kept.
"""


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
        warnings.warn(
            f"{path}: fitting, validation and held-out samples share the {len(found)} different prompts there; with {len(SPLITS)} or more "
            "each has prompts of its own", stacklevel=2,
        )  # fmt: skip
    return found if file or short else found[:LONG]


class Encoded:
    """What `encode_prompt` returned: by prompt, and for the first prompt twice in one batch (None where the pipeline takes no two)."""

    def __init__(self, prompts: list[str], found: list[list[Any]], pair: list[Any] | None, device: str) -> None:
        self.prompts, self.found, self.pair, self.device = prompts, found, pair, device

    def __getitem__(self, number: int) -> list[Any]:
        return list(_moved(self.found[number], self.device))

    def two(self) -> list[Any] | None:
        return _moved(self.pair, self.device)


def encoded(file: Path | None, asking: Asking, key: str, guest: Callable[[], Guest], device: str) -> Encoded:
    """Of the captions of a file, or of the shipped ones, by a guest that is made where they are not in the cache.

    key says what its encoders are; an empty one keeps nothing.
    """
    prompts = captions(file)
    versions = VERSION, library().__version__, library("transformers").__version__
    settings = [*versions, key, prompts, asking.negative, sorted(asking.arguments("").items())]
    path = cache_folder() / f"prompts-{hashlib.sha256(json.dumps(settings, default=str).encode()).hexdigest()[:32]}.safetensors"
    known = _read(path) if key else None
    if known is None:
        visitor = guest()
        try:
            found = [visitor.encode(asking.call(prompts[0], None))]
        except Misfit:
            if asking.negative is not None or "negative_prompt" not in visitor.parameters:
                raise
            asking.negative = ""  # some cannot do without one
            return encoded(file, asking, key, lambda: visitor, device)
        if file is None and _bytes(found) > SHORT:
            prompts = captions(short=False)
        found += [visitor.encode(asking.call(prompt, None)) for prompt in prompts[1:]]
        known = _moved(found, "cpu"), _moved(_pair(visitor, asking, prompts[0]), "cpu")
        if key:
            _keep(path, known)
    return Encoded(prompts[: len(known[0])], known[0], known[1], device)


def _pair(guest: Guest, asking: Asking, prompt: str) -> list[Any] | None:
    try:
        return guest.encode(asking.call(prompt, None, 2))
    except Exception:  # whatever a pipeline has against two prompts
        return None


def _moved(value: Any, device: str) -> Any:
    return mapped(value, lambda tensor: tensor.to(device))


def _bytes(value: Any) -> int:
    sizes: list[int] = []
    mapped(value, lambda tensor: sizes.append(tensor.numel() * tensor.element_size()))
    return sum(sizes)


# The cache: a file of tensors, and how they hang together in JSON, where tuples are lists -------------------------------------------


def _keep(path: Path, known: Any) -> None:
    tensors: list[Tensor] = []

    def named(tensor: Tensor) -> dict[str, int]:
        tensors.append(tensor)
        return {"tensor": len(tensors) - 1}

    try:
        layout = json.dumps(mapped(known, named)).encode()
    except TypeError:
        return  # what has a part that is no data
    tensors.append(torch.frombuffer(bytearray(layout), dtype=torch.uint8))
    keep(path, {str(i): tensor.clone() for i, tensor in enumerate(tensors)}, "the embeddings")


def _read(path: Path) -> Any:
    """None where there is none, or it is damaged: then they are made again."""
    try:
        tensors = load_file(path)
        layout = bytes(tensors[str(len(tensors) - 1)].tolist())
        return json.loads(layout, object_hook=lambda each: tensors[str(each["tensor"])] if "tensor" in each else each)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None
