"""Schedulers of diffusers as tables: any linear scheduler, fed with one-hot "images" and fresh noises, shows its coefficients.

The network of the scheduler is taken in its own frame: the rows give what `scale_model_input` hands to the network, and a node's
alpha and sigma are those by which the scheduler reads the network's output as a data prediction.
"""

import inspect
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from copy import deepcopy
from itertools import count
from math import atan2, sqrt
from typing import Any
from unittest.mock import patch

import numpy as np

from solversearch.errors import UserError, nearest
from solversearch.runtime import Node, Row
from solversearch.schedules import Floats, NoiseSchedule, data_prediction
from solversearch.tableau import Tableau

_DEFAULTS: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "skip_prk_steps": True,
    "lower_order_final": True,
}

SCHEDULERS = (
    "DDIM", "DEISMultistep", "DPMSolverMultistep", "DPMSolverSinglestep", "EDMDPMSolverMultistep", "EDMEuler", "EulerDiscrete",
    "FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete", "HeunDiscrete", "IPNDM", "KDPM2Discrete", "LMSDiscrete", "PNDM", "UniPCMultistep",
)  # fmt: skip
"""Classes of diffusers known to be linear, without the suffix "Scheduler"."""

STOCHASTIC = ("DDPM", "EulerAncestralDiscrete", "FlowMatchLCM", "KDPM2AncestralDiscrete", "LCM", "SASolver", "TCD")
"""Those that draw fresh noise at every step. Others do by some of their settings."""

_BROWNIAN = {"DPMSolverSDE": "take DPMSolverMultistep with algorithm_type=sde-dpmsolver++, the stochastic one of this family"}
"""Those whose noises of one step are parts of one path, with what to do."""

_TOLERANCE = 1e-4  # of the replay; several schedulers compute in float32 whatever they are given


def library() -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise UserError("importing a scheduler needs diffusers: pip install 'solversearch[diffusers]'") from error
    return diffusers


def scheduler_by_name(name: str, **config: Any) -> Any:
    """A scheduler of diffusers by class name, with or without "Scheduler", with Stable Diffusion's betas where it has betas.

    config overrides any setting of its constructor. Raises `UserError` with the nearest name for an unknown one, and naming the setting
    for an unknown setting.
    """
    kind = scheduler_class(name)
    known = check_settings(kind, config)
    return kind(**{key: value for key, value in _DEFAULTS.items() if key in known} | config)


def scheduler_class(name: str) -> Any:
    """The class of that name, if it is known to be linear."""
    diffusers, short = library(), name.removesuffix("Scheduler")
    if short in _BROWNIAN:
        raise UserError(f"{short} draws noises that are not independent, which no plan can: {_BROWNIAN[short]}")
    if short not in (known := SCHEDULERS + STOCHASTIC):
        there = hasattr(diffusers, f"{short}Scheduler")
        told = f"{short} is not known to be linear; known: {', '.join(known)}" if there else nearest(short, list(known), "scheduler")
        raise UserError(told)
    return getattr(diffusers, f"{short}Scheduler")


def check_settings(kind: Any, config: Iterable[str]) -> set[str]:
    """The settings that a scheduler class knows, which the given ones must be among."""
    known = set(inspect.signature(kind.__init__).parameters) - {"self"}
    for setting in config:
        if setting not in known:
            raise UserError(nearest(setting, sorted(known), f"setting of {kind.__name__.removesuffix('Scheduler')}"))
    return known


def from_diffusers(scheduler: Any, num_inference_steps: int | None, schedule: NoiseSchedule | None = None, **set_timesteps: Any) -> Tableau:
    """The table of a linear scheduler of diffusers at the given number of steps, from unit noise to its result.

    set_timesteps holds further arguments of its `set_timesteps` (sigmas, timesteps, mu; num_inference_steps is None where it asks
    for that). The scheduler itself is left as it is. schedule is the model's, to check that the scheduler was made for such a model.
    A node's t is what the network is told, but for EDM schedulers, where it is sigma: there the preconditioning belongs to the denoiser.

    Raises `UserError` naming the scheduler if it is not linear (thresholding, clipping), cannot be run, or has noise levels that differ
    from the schedule's.
    """
    library()
    import torch

    name = type(scheduler).__name__
    if str(scheduler.config.get("variance_type") if hasattr(scheduler, "config") else "").startswith("learned"):
        raise UserError(f"{name} scales its fresh noise by what the network says (variance_type); try --set variance_type=fixed_small")
    try:
        try:
            nodes, states = _run_one_hot(scheduler, num_inference_steps, set_timesteps, torch.float64)
        except RuntimeError:  # some insist on float32
            nodes, states = _run_one_hot(scheduler, num_inference_steps, set_timesteps, torch.float32)
        error = _replay_error(scheduler, num_inference_steps, set_timesteps, states)
    except (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError) as cause:
        raise UserError(f"{name} cannot be imported: {_reason(scheduler, num_inference_steps, set_timesteps, cause)}") from cause
    for i, state in enumerate(states):
        if not np.all(np.isfinite(state)):
            raise UserError(
                f"{name} divides by zero before evaluation {i}: end at final_sigmas_type='sigma_min', or take other steps"
                + (", or leave out rescale_betas_zero_snr" if scheduler.config.get("rescale_betas_zero_snr") else "")
            )
    if error > _TOLERANCE:
        causes = [key for key in ("clip_sample", "thresholding") if scheduler.config.get(key)]
        raise UserError(
            f"{name} is not linear in the noise and the network's outputs" + (f": turn off {' and '.join(causes)}" if causes else "")
        )
    if schedule is not None:
        _check_levels(name, nodes, schedule)
    fresh = [k for k in range(1 + len(nodes), len(states[0])) if any(state[k] for state in states)]
    rows = [
        Row(float(state[0]), tuple(map(float, state[1 : i + 1])), (), _trimmed([float(state[k]) for k in fresh]))
        for i, state in enumerate(states)
    ]
    return Tableau(tuple(nodes), tuple(rows))


def _trimmed(weights: list[float]) -> tuple[float, ...]:
    """Without the zeros at the end, of noises that are drawn later."""
    return tuple(weights[: max((k + 1 for k, weight in enumerate(weights) if weight), default=0)])


def _reason(scheduler: Any, steps: int | None, arguments: dict[str, Any], cause: Exception) -> str:
    """Why a scheduler cannot be run, in one line."""
    if isinstance(cause, LookupError | AssertionError):
        times = [float(t) for t in ready(scheduler, steps, arguments).timesteps]
        if len(set(times)) < len(times):
            spacing = next((key for key in _SPACINGS if scheduler.config.get(key)), "its spacing")
            return (
                f"diffusers itself fails: {spacing} on {scheduler.config.get('beta_schedule')} betas puts several of its {len(times)} "
                f"steps on one timestep; leave {spacing} out, or ask for fewer steps"
            )
    return f"{type(cause).__name__}: {cause}"


_SPACINGS = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")


def _run_one_hot(scheduler: Any, steps: int | None, arguments: dict[str, Any], dtype: Any) -> tuple[list[Node], list[Floats]]:
    """Pixel 0 carries the noise, pixel 1 + i the data prediction of evaluation i, those after them the fresh noises."""
    evaluations = len(ready(scheduler, steps, arguments).timesteps)
    drawn: list[int] = []

    def count_only(k: int) -> Floats:
        drawn.append(k)
        return np.zeros(1)

    _run(scheduler, steps, arguments, dtype, np.ones(1), lambda i: np.zeros(1), count_only)
    basis = np.eye(1 + evaluations + len(drawn))
    return _run(scheduler, steps, arguments, dtype, basis[0], lambda i: basis[i + 1], lambda k: basis[1 + evaluations + k])


def _replay_error(scheduler: Any, steps: int | None, arguments: dict[str, Any], states: list[Floats]) -> float:
    """Largest relative error of the table on random noises and random data predictions, well outside [-1, 1]."""
    rng, evaluations = np.random.default_rng(0), len(states) - 1
    basis = 3 * rng.standard_normal((len(states[0]), 16))
    _, expected = _run(
        scheduler, steps, arguments, _dtype_of(states), basis[0], lambda i: basis[i + 1], lambda k: basis[1 + evaluations + k]
    )
    return max(
        float(np.max(np.abs(state @ basis - value)) / np.max(np.abs(state[:, None] * basis).sum(axis=0) + 1e-30))
        for state, value in zip(states, expected, strict=True)
    )


def _dtype_of(states: list[Floats]) -> Any:
    import torch

    return torch.float32 if states[0].dtype == np.float32 else torch.float64


def ready(scheduler: Any, steps: int | None, arguments: dict[str, Any]) -> Any:
    scheduler = deepcopy(scheduler)
    if steps is None:
        scheduler.set_timesteps(**arguments)
    else:
        scheduler.set_timesteps(steps, **arguments)
    return scheduler


def _run(
    scheduler: Any, steps: int | None, arguments: dict[str, Any], dtype: Any, noise: Floats, prediction: Callable[[int], Floats],
    fresh: Callable[[int], Floats],
) -> tuple[list[Node], list[Floats]]:  # fmt: skip
    """The scheduler's own loop, as a pipeline runs it: the nodes, and what the network is given at each, then the result.

    fresh(k) is what its k-th fresh noise is: diffusers draws all of them by one function, which stands aside for the while.
    """
    import torch

    def image(values: Floats) -> Any:
        return torch.as_tensor(values, dtype=dtype).reshape(1, 1, 1, -1)

    scheduler = ready(scheduler, steps, arguments)
    x = image(noise) * getattr(scheduler, "init_noise_sigma", 1.0)
    nodes, states, draws = [], [], count()
    module = sys.modules[type(scheduler).__module__]
    drawing = patch.object(module, "randn_tensor", lambda *_, **__: image(fresh(next(draws))))
    with drawing if hasattr(module, "randn_tensor") else nullcontext():
        for i, t in enumerate(scheduler.timesteps):
            scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            node, a, b = _node(scheduler, i, t)
            given = x if is_edm(scheduler) else scaled
            output = (image(prediction(i)) - a * given) / b
            nodes.append(node)
            states.append(given.numpy().ravel())
            x = scheduler.step(output.to(dtype), t, x, return_dict=False)[0]
    return nodes, [*states, x.numpy().ravel()]


def is_edm(scheduler: Any) -> bool:
    return hasattr(scheduler, "precondition_outputs")


def _node(scheduler: Any, i: int, t: Any) -> tuple[Node, float, float]:
    """The node of evaluation i, and (a, b) of D = a x + b output as the scheduler reads its network."""
    import torch

    config = scheduler.config
    kind = config.get("prediction_type", "flow_prediction")
    if hasattr(scheduler, "sigmas"):
        index = scheduler.step_index if scheduler.step_index is not None else i
        halfway = hasattr(scheduler, "sigmas_interpol") and not scheduler.state_in_first_order
        before = int(hasattr(scheduler, "sigmas_down"))  # the ancestral one counts its middles from the step before
        sigma = float(scheduler.sigmas_interpol[index - before] if halfway else scheduler.sigmas[index])
        if is_edm(scheduler):
            one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
            skip, out = (float(scheduler.precondition_outputs(*pair, sigma)) for pair in ((one, zero), (zero, one)))
            return Node(sigma, 1.0, sigma), skip, out
        if kind == "flow_prediction" or config.get("use_flow_sigmas"):
            alpha = 1 - sigma
        else:
            alpha = 1 / sqrt(1 + sigma**2)
            sigma *= alpha
    elif type(scheduler).__name__ == "IPNDMScheduler":
        kind, alpha, sigma = "v_prediction", float(scheduler.alphas[i]), float(scheduler.betas[i])
    else:
        bar = float(scheduler.alphas_cumprod[int(t)])
        alpha, sigma = sqrt(bar), sqrt(1 - bar)
        if alpha == 0 and kind == "epsilon":
            raise UserError(
                f"{type(scheduler).__name__} divides by alpha = 0 at timestep {int(t)}, in diffusers too: take EulerDiscrete or "
                "DPMSolverMultistep, which keep alpha_bar at 2^-24 there, or --set timestep_spacing=leading"
            )
    a, b = data_prediction("flow" if kind == "flow_prediction" else kind, alpha, sigma)
    return Node(float(t), alpha, sigma), a, b


def _check_levels(name: str, nodes: list[Node], schedule: NoiseSchedule) -> None:
    for i, node in enumerate(nodes):
        angle, expected = atan2(node.sigma, node.alpha), float(schedule.angle(node.t))
        if abs(angle - expected) > 0.05:
            raise UserError(
                f"{name} was made for another model: at its evaluation {i}, t={node.t:g}, it has sigma/alpha={np.tan(angle):.4g}, "
                f"the model's schedule {np.tan(expected):.4g}"
            )
