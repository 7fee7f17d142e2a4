"""The owners' side: their own loops and an exact denoiser, and the plans on the same network and noises."""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from solversearch.plan import Plan
from solversearch.runtime import Node
from solversearch.schedules import data_prediction

Array = NDArray[np.float64]
LIST = [14.6, 6.5, 2.7, 0.7, 0.0]
FLOW = [1.0, 0.9, 0.6, 0.25, 0.1, 0.0]
NOISE = np.random.default_rng(0).standard_normal((64, 2))
FRESH = np.random.default_rng(1).standard_normal((32, 64, 2))
MEAN, VARIANCE = 0.3, 0.25  # of the data of an exact denoiser


def gaussian(x: Array, alpha: float, sigma: float) -> Array:
    """The exact data prediction of Gaussian data."""
    return MEAN + alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2) * (x - alpha * MEAN)


def denoise(x: Array, node: Node) -> Array:
    return gaussian(x, node.alpha, node.sigma)


def sampled(plan: Plan) -> Array:
    return np.asarray(plan.sample(denoise, NOISE, draw=lambda k: FRESH[k]))


def close(a: Any, b: Any, bound: float = 1e-9) -> bool:
    return bool(np.linalg.norm(np.asarray(a) - b) <= bound * np.linalg.norm(b))


def network(x: Any, t: float) -> Any:
    """Some smooth nonlinear network of the input and the time."""
    return torch.tanh(1.3 * x) + 0.2 * torch.cos(2 * x + t / 1000)


def own_run(scheduler: Any, steps: int | None, model: Callable[[Any, float], Any] = network, **arguments: Any) -> Array:
    """The result of the scheduler's own loop, in float32 as a pipeline runs it."""
    scheduler.set_timesteps(**({} if steps is None else {"num_inference_steps": steps}), **arguments)
    x = torch.as_tensor(NOISE, dtype=torch.float32).reshape(1, 1, *NOISE.shape) * getattr(scheduler, "init_noise_sigma", 1.0)
    more = {"generator": torch.Generator().manual_seed(5)} if "generator" in inspect.signature(scheduler.step).parameters else {}
    for t in scheduler.timesteps:
        given = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(model(given, float(t)), t, x, return_dict=False, **more)[0]
    return x.double().numpy().reshape(NOISE.shape)


def replayed(plan: Plan, model: Callable[[Any, float], Any] = network, unused: int = 0) -> Array:
    """The plan on the same network, and the same draws of the generator, one after the other; unused are the first that come to nothing."""
    generator = torch.Generator().manual_seed(5)
    draws = [torch.randn(1, 1, *NOISE.shape, generator=generator).double().numpy().reshape(NOISE.shape) for _ in range(24)]

    def reading(x: Array, node: Node) -> Array:
        a, b = data_prediction(plan.prediction_type, node.alpha, node.sigma)
        return a * x + b * model(torch.as_tensor(x), node.t).numpy()

    return np.asarray(plan.sample(reading, NOISE, draw=lambda k: draws[unused + k]))
