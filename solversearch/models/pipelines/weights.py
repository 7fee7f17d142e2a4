"""Which files hold the weights of a part, and a digest of them."""

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from solversearch.cache import cache_folder
from solversearch.errors import UserError, short
from solversearch.plan import replacing

_NAME = re.compile(r"(?:diffusion_pytorch_)?model(\.fp16)?(?:-\d+-of-(\d+))?(\.fp16)?\.safetensors(?:\.index(\.fp16)?\.json)?")
_DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64}


def choose(names: Iterable[str], half: bool) -> tuple[str | None, list[str]]:
    """The variant ("fp16" or none) and its files among the names in one folder: tensors and, of several shards, their index.

    half prefers the half-precision variant where there are two. No files where the folder has no weights in safetensors.
    """
    found: dict[str | None, list[str]] = {None: [], "fp16": []}
    for name in sorted(names):
        if match := _NAME.fullmatch(name):
            found["fp16" if any(match.group(1, 3, 4)) else None].append(name)
    variant = "fp16" if found["fp16"] and (half or not found[None]) else None
    whole = [name for name in found[variant] if "-of-" not in name and name.endswith(".safetensors")]
    return variant, whole or found[variant]


def missing(names: Sequence[str]) -> int:
    """How many shards the chosen files lack."""
    totals = [int(match.group(2)) for name in names if (match := _NAME.fullmatch(name)) and match.group(2)]
    return totals[0] - len(totals) if totals else int(not any(name.endswith(".safetensors") for name in names))


def stored_dtype(file: Path) -> torch.dtype:
    with opened(file) as tensors:
        kinds = [tensors.get_slice(key).get_dtype() for key in tensors.keys()]  # noqa: SIM118 - not a dict
    return next((_DTYPES[kind] for kind in kinds if kind in _DTYPES), torch.float32)


def opened(file: Path) -> "safe_open":
    try:
        return safe_open(file, framework="pt")
    except (OSError, SafetensorError) as error:
        reason = short(error, 120)
        raise UserError(f"{file}: the weights are damaged or cut short ({reason}); download them again") from None


def digest(files: Sequence[Path]) -> str:
    """SHA-256 of the tensors in half precision, so that a model is the same one in whatever precision it is stored or run.

    Reading gigabytes takes seconds: the result is kept, see `remembered`.
    """
    return remembered(files, lambda: _digest(files))


def remembered(files: Sequence[Path], make: Callable[[], str], *settings: str) -> str:
    """A digest that is kept under the files' names, sizes and times of change, and what else it depends on."""
    marks = [f"{file.resolve()} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in sorted(files)] + [*settings]
    memo = cache_folder() / f"weights-{hashlib.sha256(' '.join(marks).encode()).hexdigest()[:32]}.txt"
    if memo.is_file():
        return memo.read_text().strip()
    result = make()
    try:
        with replacing(memo) as temporary:
            temporary.write_text(result)
    except OSError:
        pass  # it is read again the next time
    return result


def _digest(files: Sequence[Path]) -> str:
    with ExitStack() as stack:
        shards = [stack.enter_context(opened(file)) for file in files]
        place = {name: shard for shard in shards for name in shard.keys()}  # noqa: SIM118
        return digest_of(place, lambda name: place[name].get_tensor(name))


def digest_of(names: Iterable[str], tensor_of: Callable[[str], Tensor]) -> str:
    sha = hashlib.sha256()
    for name in sorted(names):
        tensor = tensor_of(name).cpu()
        rounded = tensor.to(torch.float16) if tensor.is_floating_point() else tensor
        sha.update(f"{name} {tuple(tensor.shape)}".encode())
        sha.update(rounded.reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
