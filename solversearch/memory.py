"""What a network needs in memory, told from one call with the smallest batch, and what fits: before anything starts."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from solversearch.errors import UserError
from solversearch.models.base import Model

MOST = 512
"""Samples beyond which a batch is no faster."""
SHARE = {"cuda": 0.8, "cpu": 0.25}
"""Of the free memory that network calls may take: the rest is for samples, workspaces and, on a CPU, for others."""
GENEROUS = 4
"""A forward pass never holds so many times what it would keep for a backward pass."""
UNKNOWN = 4 * 2**30
"""Free memory, where the system does not say."""


@dataclass(frozen=True)
class Footprint:
    """Bytes: of the weights; a sample takes in a network call, at its peak; a sample has kept of it for a backward pass."""

    weights: int
    forward: int
    kept: int


_KNOWN: dict[tuple[str, torch.dtype, str], Footprint] = {}


def footprint(model: Model) -> Footprint:
    """Measured with two calls, the first time; small networks with one, and a bound."""
    key = model.digest, model.dtype, model.device
    if key not in _KNOWN:
        count, call, weights = model.filled(1), _call(model), _weights(model)
        kept = _kept(call, weights) // count
        forward = GENEROUS * kept
        if not kept or forward * MOST > room(model):
            on_cuda = torch.device(model.device).type == "cuda"
            forward = (_peak_on_cuda(call, model.device) if on_cuda else _peak(call, weights)) // count
        _KNOWN[key] = Footprint(sum(weights.values()), max(forward, 1), max(kept, 1))
    return _KNOWN[key]


def free(device: str) -> int:
    """Bytes that may still be taken there."""
    where = torch.device(device)
    if where.type == "cuda":
        return torch.cuda.mem_get_info(where)[0] + torch.cuda.memory_reserved(where) - torch.cuda.memory_allocated(where)
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return UNKNOWN


def room(model: Model) -> int:
    """Bytes that network calls may take."""
    return int(free(model.device) * SHARE.get(torch.device(model.device).type, SHARE["cpu"]))


def batch_size(model: Model) -> int:
    """The samples of a network call that fit, a power of two: `MOST`, where memory does not matter."""
    fitting = min(MOST, room(model) // footprint(model).forward)
    return 1 << max(fitting, 1).bit_length() - 1


class Backward(NamedTuple):
    """How samples are differentiated: so many at a time; checkpointing keeps no activations but makes them again on the way back."""

    batch: int
    checkpointing: bool

    def bytes(self, model: Model, calls: int) -> int:
        """Through a sampling loop of so many network calls a sample, each of which keeps its input and output anyhow."""
        each, latent = footprint(model), 8 * model.numbers
        return self.batch * (each.forward + (1 if self.checkpointing else calls) * each.kept + calls * latent)

    def smaller(self, model: Model) -> "Backward":
        """What to try after this one has run out of memory. Raises `UserError` where nothing is left to try."""
        if not self.checkpointing:
            return Backward(self.batch, True)
        if self.batch <= model.pad:
            raise UserError(
                f"the polish of model {model.name!r} runs out of memory on {model.device} even with one sample at a time; "
                "leave it out with --no-polish, or use --dtype bfloat16 or a smaller --resolution"
            )
        return Backward(max(self.batch // 2, model.pad), True)


def backward(model: Model, calls: int, samples: int, batch_size: int) -> Backward:
    """The whole batch with all that it keeps, where that fits; else as many samples with checkpointing as do."""
    given = Backward(model.filled(min(samples, batch_size)), False)
    within = room(model)
    while given.bytes(model, calls) > within and given != (model.pad, True):
        given = given.smaller(model)
    return given


# Measuring -------------------------------------------------------------------------------------------------------


def _call(model: Model) -> Callable[[bool], Tensor]:
    """A call of the network with the smallest batch; the argument says whether a gradient is wanted."""
    count = model.filled(1)
    x = torch.randn(count, *model.shape, generator=torch.Generator().manual_seed(0)).to(model.device, model.dtype)
    t = torch.full((count,), model.schedule.t_start, dtype=model.time_dtype, device=model.device)
    conditions = () if model.conditions is None else (model.conditions[:1].expand(count, *model.conditions.shape[1:]),)

    def call(gradient: bool) -> Tensor:
        with torch.set_grad_enabled(gradient):
            return model.network(*(each.clone() for each in (x.detach().requires_grad_(gradient), t, *conditions)))

    return call


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that are made and not yet freed, views of the weights aside."""

    def __init__(self, weights: dict[int, int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive = dict(weights)
        self.total = self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in tree_leaves(result):
            if isinstance(each, Tensor):
                self._note(each.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.alive:
            self.alive[key] = storage.nbytes()
            self.total += storage.nbytes()
            self.peak = max(self.peak, self.total)
            weakref.finalize(storage, self._freed, key)

    def _freed(self, key: int) -> None:
        self.total -= self.alive.pop(key)


def _peak(call: Callable[[bool], Tensor], weights: dict[int, int]) -> int:
    with _Alive(weights) as counter:
        call(False)
    return counter.peak


def _peak_on_cuda(call: Callable[[bool], Tensor], device: str) -> int:
    call(False)  # libraries take their workspaces with the first call
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call(False)
    return torch.cuda.max_memory_allocated(device) - before


def _kept(call: Callable[[bool], Tensor], weights: dict[int, int]) -> int:
    """What the graph keeps for the backward pass."""
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        found[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        output = call(True)
    del output
    return sum(size for key, size in found.items() if key not in weights)


def _weights(model: Model) -> dict[int, int]:
    """Of every weight, by its storage."""
    if not isinstance(model.network, nn.Module):
        return {}
    stored = (each.untyped_storage() for each in (*model.network.parameters(), *model.network.buffers()))
    return {each._cdata: each.nbytes() for each in stored}
