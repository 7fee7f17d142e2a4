"""What a scheduler's configuration says about the network: noise schedule, prediction type, clipping. Not how it steps."""

import inspect
from collections.abc import Mapping
from math import exp
from typing import Any

import numpy as np

from solversearch.errors import UserError, nearest
from solversearch.models.pipelines.library import library
from solversearch.schedules import LEAST_ALPHA, VE, ContinuousVP, DiscreteVP, Flow, NoiseSchedule

_KINDS = ("epsilon", "v_prediction", "sample")
_EDM = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")


def schedule_of(config: Mapping[str, Any], mu: float | None = None) -> tuple[NoiseSchedule, str, float | None]:
    """Noise schedule, prediction type, and the bound of clipped data predictions or None, from the content of scheduler_config.json.

    What the file leaves out has the default of its class. mu is what the pipeline gives the scheduler for a picture's size, where its shift
    depends on that; without it, the shift is that of the largest picture. Raises `UserError` for a scheduler that is none of a diffusion or
    flow model's.
    """
    name = class_of_scheduler(config)
    defaults = _defaults(name)
    given = defaults | {key: value for key, value in config.items() if not key.startswith("_")}
    if given.get("thresholding"):
        raise UserError(f"{name}: dynamic thresholding is not linear in the network's output; set thresholding to false in its config")
    if name in _EDM:
        return VE(given["sigma_min"], given["sigma_max"]), "edm", None
    if name.startswith("FlowMatch") or given.get("prediction_type") == "flow_prediction":
        return _flow(given, mu), "flow", None
    if "beta_schedule" not in defaults:
        raise UserError(
            f"{name}: no noise schedule of a diffusion or flow model is known for this scheduler; put DDIMScheduler's in its place"
        )
    kind = given.get("prediction_type", "epsilon")
    if given.get("use_flow_sigmas"):
        raise UserError(
            f"{name}: use_flow_sigmas goes with the prediction_type 'flow_prediction', not {kind!r}; change one of them in its config"
        )
    if kind not in _KINDS:
        raise UserError(f"{name}: {nearest(str(kind), [*_KINDS, 'flow_prediction'], 'prediction type')}")
    if kind == "v_prediction" and given.get("timestep_type") == "continuous":
        return _continuous(given), kind, None
    clips = given.get("clip_sample") and not name.startswith("CogVideoX")  # whose schedulers have the setting, and do not read it
    return _betas(given, kind), kind, float(given.get("clip_sample_range", 1.0)) if clips else None


def sigma_data_of(config: Mapping[str, Any]) -> tuple[float, bool]:
    """sigma_data of an EDM scheduler, and whether its network predicts v, whose sign is the opposite."""
    given = _defaults(str(config["_class_name"])) | dict(config)
    return float(given["sigma_data"]), given["prediction_type"] == "v_prediction"


def _defaults(name: str) -> dict[str, Any]:
    known = getattr(library(), name, None) if name.endswith("Scheduler") else None
    if not inspect.isclass(known):
        raise UserError(f"scheduler_config.json names the scheduler {name!r}, which diffusers {library().__version__} does not have")
    parameters = inspect.signature(known.__init__).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}


def class_of_scheduler(config: Mapping[str, Any]) -> str:
    """The scheduler's class; of a pipeline saved with a `PlanScheduler`, one that reads the settings which that took over from its own."""
    name = str(config.get("_class_name", ""))
    if name != "PlanScheduler":
        return name
    if "stock" in config:
        return str(config["stock"])
    kind = (config.get("plan") or {}).get("prediction_type")
    if kind == "flow" and "shift" in config:
        return "FlowMatchEulerDiscreteScheduler"
    if kind == "edm" and "sigma_data" in config:
        return "EDMEulerScheduler"
    if "beta_schedule" not in config:
        raise UserError(
            "PlanScheduler: the pipeline was saved with a plan, and the model's own settings are gone: put back the "
            "scheduler_config.json that it had, or save it after scheduler.attach(pipe), which keeps them"
        )
    return "DDIMScheduler" if "clip_sample" in config else "EulerDiscreteScheduler"


def _continuous(given: Mapping[str, Any]) -> ContinuousVP:
    """From the noise that sampling starts at: Karras sigmas have a range of their own, others that of the betas."""
    betas = _betas(given, "v_prediction")
    own = given if given.get("use_karras_sigmas") else {}
    high, low = own.get("sigma_max"), own.get("sigma_min")
    ratios = [float(np.exp(-betas.lam(t))) for t in (betas.t_start, betas.t_end)]
    return ContinuousVP(ratios[1] if low is None else low, ratios[0] if high is None else high)


def _betas(given: Mapping[str, Any], kind: str) -> DiscreteVP:
    zero, least = bool(given.get("rescale_betas_zero_snr")), LEAST_ALPHA if kind == "epsilon" else 0.0
    start, end, count = given["beta_start"], given["beta_end"], given["num_train_timesteps"]
    if (scale := given.get("snr_shift_scale", 1.0)) != 1:  # CogVideoX divides the signal-to-noise ratio by it
        bars = DiscreteVP.named(given["beta_schedule"], start, end, count).alphas_cumprod
        bars = bars / (scale + (1 - scale) * bars)
        return DiscreteVP(1 - bars / np.concatenate([[1.0], bars[:-1]]), zero, least)
    if given.get("trained_betas") is not None:
        return DiscreteVP(given["trained_betas"], zero, least)
    if given["beta_schedule"] == "sigmoid":
        return DiscreteVP((end - start) / (1 + np.exp(-np.linspace(-6, 6, count))) + start, zero, least)
    return DiscreteVP.named(given["beta_schedule"], start, end, count, zero, least)


def _flow(given: Mapping[str, Any], mu: float | None) -> Flow:
    """A dynamic shift grows with the resolution: mu is linear in the tokens (Esser et al. 2024, arXiv:2403.03206, section 5.3.2)."""
    shift = float(given.get("shift") or given.get("flow_shift") or 1.0)
    if given.get("use_dynamic_shifting"):
        mu = float(given.get("max_shift") or 1.15) if mu is None else mu
        shift = exp(mu) if given.get("time_shift_type", "exponential") == "exponential" else mu
    count = given["num_train_timesteps"]
    return Flow(shift, float(count), 1 / count if count > 1 else 1e-3)  # of 1, the network is told the noise level itself
