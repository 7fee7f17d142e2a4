"""Long computations in parts: who keeps each part can go on where they were stopped, and nothing is evaluated twice.

    loss, *gradient = memo.numbers(lambda: evaluated(theta))
    denoise = memoized(Denoiser(model, conditions), memo)

Parts are told apart by their order alone, so a computation asks for the same ones in the same order each time.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from solversearch.models.base import Denoiser, NotFinite, TensorOutput
from solversearch.runtime import Node


class Memo(Protocol):
    """Returns what compute returns; or what it once returned, when the same part was computed before."""

    def numbers(self, compute: Callable[[], Sequence[float]]) -> Sequence[float]: ...

    def tensors(self, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]: ...


class _NoMemo:
    def numbers(self, compute: Callable[[], Sequence[float]]) -> Sequence[float]:
        return compute()

    def tensors(self, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        return compute()


NO_MEMO = _NoMemo()
"""Keeps nothing."""


def memoized(denoise: Denoiser, memo: Memo) -> Callable[[Tensor, Node], TensorOutput]:
    """The same denoiser, each of whose outputs is a part; also that it is not finite. Where it remembers features, it makes those of parts
    that were computed before again."""
    missed: list[tuple[Tensor, Node]] = []

    def kept(x: Tensor, node: Node) -> TensorOutput:
        def compute() -> dict[str, Tensor]:
            missed.pop()
            while missed:
                denoise(*missed.pop(0))
            try:
                output = denoise(x, node)
            except NotFinite as failure:
                failures.append(failure)
                return {}
            both = output if isinstance(output, tuple) else (output,)
            return dict(zip(("prediction", "difference"), both, strict=False))

        failures: list[NotFinite] = []
        if not denoise.cached:
            missed.clear()
        missed.append((x, node))
        found = {name: tensor.to(x.device) for name, tensor in memo.tensors(compute).items()}
        if not found:
            raise (
                failures[0]
                if failures
                else NotFinite(f"the network of {denoise.model.name!r} returned NaN or inf before, at t = {node.t:g}")
            )
        return (found["prediction"], found["difference"]) if "difference" in found else found["prediction"]

    return kept
