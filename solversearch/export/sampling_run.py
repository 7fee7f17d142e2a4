"""One sampling of a plan's scheduler in a pipeline: the runtime's loop, driven from its steps."""

import inspect
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor
from numpy.typing import ArrayLike
from torch import Tensor

from solversearch.plan import Plan
from solversearch.runtime import Output, steps

Numbers = Sequence[float] | Tensor
Generators = torch.Generator | list[torch.Generator] | None


class SamplingRun:
    """One sampling: the runtime's loop, and the state and node at which it waits.

    given is the state as the pipeline has it, which holds so many copies of each sample; size is (height, width) of the picture that was
    asked for, where that is known: packed latents do not say it.
    """

    def __init__(
        self, plan: Plan, noise: Tensor, generator: Generators, given: Tensor, copies: int, size: tuple[int, int] | None = None
    ) -> None:
        def draw(k: int) -> Tensor:
            return randn_tensor(noise.shape, generator=generator, device=noise.device, dtype=noise.dtype)

        def see(i: int, x: Tensor, prediction: Tensor) -> None:
            self.prediction, self.i = prediction, i + 1

        threshold = plan.threshold.function() if plan.threshold else None
        grid = _grid(noise.shape[1], *size) if size and plan.components and plan.components.patch else None
        self.loop = steps(plan.nodes, plan.rows, noise, draw, threshold, see, plan.components, grid)
        self.x, self.node = next(self.loop)
        self.i, self.given, self.copies, self.done = 0, given, copies, False

    def one(self, tensor: Tensor) -> Tensor:
        return tensor[: len(tensor) // self.copies]

    def is_at(self, sample: Tensor) -> bool:
        """Whether that is the state which the pipeline was given; some keep it in half precision."""
        precisions = (sample.dtype, torch.float16, torch.bfloat16)
        rounded = (self.given.to(each).to(sample.dtype) for each in precisions)
        return sample.shape == self.given.shape and any(torch.allclose(sample, each, 0, 0, equal_nan=True) for each in rounded)

    def send(self, output: Output) -> None:
        try:
            self.x, self.node = self.loop.send(output)
        except StopIteration as end:
            self.x = self.prediction = end.value
            self.done = True


def _grid(tokens: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of so many tokens of a picture."""
    rows = max(1, round(math.sqrt(tokens * height / width)))
    return rows, tokens // rows


def needs_attachment(plan: Plan) -> str | None:
    """Why a plan must see the network's outputs: pipelines guide by one scale, and not at all up to 1."""
    scales = {node.guidance for node in plan.nodes}
    if plan.start is not None:
        return "starts from noised pictures of its own"
    if plan.variants:
        return "calls variants of its network"
    if plan.tableau.split:
        return "has coefficients for the guidance difference"
    if len(scales) > 1:
        return "has a guidance scale for each node"
    scale = scales.pop()
    return f"guides by {scale:g}" if scale < 1 else None


def caller(scheduler: Any) -> dict[str, Any]:
    """The arguments with which the pipeline that samples with the scheduler was called, as far as they are found."""
    frame = inspect.currentframe()
    while frame is not None:
        pipe, code = frame.f_locals.get("self"), frame.f_code
        if code.co_name == "__call__" and getattr(pipe, "scheduler", None) is scheduler:
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            return {name: frame.f_locals[name] for name in names if name in frame.f_locals}
        frame = frame.f_back
    return {}


def _array(given: Numbers) -> Any:
    return given.cpu().numpy() if isinstance(given, Tensor) else np.asarray(given, dtype=np.float64)


def close(given: Numbers, known: ArrayLike) -> bool:
    return len(given) == np.size(known) and bool(np.allclose(_array(given), known, rtol=1e-4, atol=1e-4))


def even(given: Numbers) -> bool:
    """Evenly spaced, but for roundings to whole timesteps."""
    values = _array(given)
    return bool(np.allclose(values, np.linspace(values[0], values[-1], len(values)), atol=0.002))
