"""How a network without a model is said to read its input: the noise schedule and the prediction type, by diffusers' settings."""

from collections.abc import Mapping
from typing import Any

from solversearch.errors import UserError, nearest
from solversearch.schedules import LEAST_ALPHA, PREDICTION_TYPES, VE, ContinuousVP, DiscreteVP, Flow, NoiseSchedule

_BETAS = ("beta_schedule", "beta_start", "beta_end", "num_train_timesteps", "rescale_betas_zero_snr")
_RANGE = ("sigma_min", "sigma_max")
_QUESTION = (
    "{what} up to 1 may be a flow's (data (1 - sigma) + noise sigma) or of another model (sigma / alpha): say --set prediction_type=flow, "
    "or epsilon, v_prediction, sample or edm, or --model"
)


def frame_of(settings: Mapping[str, Any], what: str, highest: float) -> tuple[NoiseSchedule, str]:
    """The schedule and the prediction type of these settings; without any, Stable Diffusion's betas and epsilon.

    Variance preserving: prediction_type epsilon, v_prediction or sample, with the settings of betas, or timestep_type=continuous.
    Variance exploding, as in EDM: prediction_type edm. Flow: prediction_type flow. what and highest are the list's name and largest
    number: where settings say nothing and it may be of either of two frames, `UserError` asks. It is raised for wrong settings too.
    """
    if not settings and highest <= 1:
        raise UserError(_QUESTION.format(what=what))
    rest = dict(settings)
    kind = str(rest.pop("prediction_type", "epsilon"))
    kind = {"flow_prediction": "flow"}.get(kind, kind)
    if kind not in PREDICTION_TYPES:
        raise UserError(nearest(kind, list(PREDICTION_TYPES), "prediction type"))
    continuous = rest.pop("timestep_type", "discrete") == "continuous"
    known = ("num_train_timesteps",) if kind == "flow" else _RANGE if kind == "edm" or continuous else _BETAS
    for name in rest:
        if name not in known:
            raise UserError(nearest(name, [*known, "prediction_type", "timestep_type"], "setting of a noise schedule"))
    try:
        if kind == "flow":
            count = float(rest.get("num_train_timesteps", 1000))
            return Flow(1.0, count, 1 / count), kind
        if kind == "edm":
            return VE(**({"sigma_max": max(80.0, highest)} | rest)), kind
        if continuous:
            return ContinuousVP(**({"sigma_max": max(700.0, highest)} | rest)), kind
        zero = bool(rest.pop("rescale_betas_zero_snr", False))
        return DiscreteVP.named(**rest, zero_terminal_snr=zero, least_alpha=LEAST_ALPHA if kind == "epsilon" else 0.0), kind
    except (TypeError, ValueError) as error:
        raise UserError(f"--set: these settings make no noise schedule: {error}") from None
