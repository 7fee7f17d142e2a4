"""Noise schedules read from scheduler_config.json, against the schedulers of diffusers themselves."""

import json
from collections.abc import Callable
from math import exp
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from solversearch.errors import UserError
from solversearch.models import pipelines
from solversearch.models.pipelines import schedule_of
from solversearch.schedules import VE, DiscreteVP, Flow
from tests import tiny

Folder = Callable[[str], Path]
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def config_of(scheduler: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(scheduler.to_json_string())
    return content


@pytest.mark.parametrize("family", [name for name in tiny.FAMILIES if name not in ("sd3", "flux")])
def test_levels_of_a_pipeline_are_those_of_its_scheduler(family: str, pipeline: Folder) -> None:
    scheduler = getattr(diffusers, {"sdxl": "EulerDiscreteScheduler", "pixart": "DPMSolverMultistepScheduler"}.get(family, "DDPMScheduler"))
    bars = scheduler.from_pretrained(pipeline(family), subfolder="scheduler").alphas_cumprod.double().numpy()
    schedule = pipelines.load(str(pipeline(family)), tiny.options(family)).schedule
    t = np.arange(1000)
    np.testing.assert_allclose(schedule.alpha(t), bars**0.5, rtol=3e-5)
    np.testing.assert_allclose(schedule.sigma(t), (1 - bars) ** 0.5, rtol=1e-4)  # 1 - bar cancels in their float32
    assert schedule.discrete


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("DDIMScheduler", {}),
        ("DDPMScheduler", {"beta_schedule": "squaredcos_cap_v2"}),
        ("DDPMScheduler", {"beta_schedule": "sigmoid"}),
        ("DPMSolverMultistepScheduler", STABLE),
        ("UniPCMultistepScheduler", {"trained_betas": [0.1, 0.2, 0.3, 0.35]}),
        ("DDIMScheduler", STABLE | {"rescale_betas_zero_snr": True}),
        ("LCMScheduler", {}),
        ("EulerDiscreteScheduler", STABLE),
    ],
)
def test_every_kind_of_beta_table(name: str, settings: dict[str, Any]) -> None:
    """Also where the file leaves out what the class would set."""
    scheduler = getattr(diffusers, name)(**settings)
    for config in (config_of(scheduler), {"_class_name": name, **settings}):
        schedule, _, _ = schedule_of(config)
        assert isinstance(schedule, DiscreteVP)
        np.testing.assert_allclose(schedule.alphas_cumprod, scheduler.alphas_cumprod, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize(("kind", "alpha"), [("v_prediction", 0.0), ("sample", 0.0), ("epsilon", 2.0**-12)])
def test_zero_terminal_snr_has_no_signal_at_the_start(kind: str, alpha: float) -> None:
    """But for networks that predict noise, which diffusers keeps from dividing by it."""
    config = {"_class_name": "DDIMScheduler", **STABLE, "rescale_betas_zero_snr": True, "prediction_type": kind}
    schedule, _, _ = schedule_of(config)
    assert float(schedule.alpha(schedule.t_start)) == pytest.approx(alpha, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_prediction_type(kind: str) -> None:
    assert schedule_of(config_of(diffusers.DDIMScheduler(prediction_type=kind)))[1] == kind


@pytest.mark.parametrize(
    ("settings", "expected"),
    [({"clip_sample": False}, None), ({"clip_sample": True}, 1.0), ({"clip_sample": True, "clip_sample_range": 2.5}, 2.5), ({}, 1.0)],
)
def test_clipping(settings: dict[str, Any], expected: float | None) -> None:
    """DDIM clips unless it is told not to."""
    assert schedule_of({"_class_name": "DDIMScheduler", **settings})[2] == expected
    assert schedule_of({"_class_name": "EulerDiscreteScheduler"})[2] is None


def test_the_shift_of_stable_diffusion_3(pipeline: Folder) -> None:
    schedule = pipelines.load(str(pipeline("sd3")), tiny.options("sd3")).schedule
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(pipeline("sd3"), subfolder="scheduler")
    assert isinstance(schedule, Flow)
    assert schedule.shift == 3
    t = scheduler.timesteps.double().numpy()
    np.testing.assert_allclose(schedule.sigma(t), scheduler.sigmas, rtol=1e-6)
    plain = np.linspace(1, 1 / 1000, 1000)
    np.testing.assert_allclose(1000 * schedule.shift * plain / (1 + (schedule.shift - 1) * plain), t, rtol=1e-5)


@pytest.mark.parametrize("resolution", [16, 64])
def test_the_shift_of_flux_grows_with_the_picture(resolution: int, pipeline: Folder) -> None:
    """A pipeline call at that resolution takes just these times."""
    pipe = diffusers.FluxPipeline.from_pretrained(pipeline("flux"))
    pipe.set_progress_bar_config(disable=True)
    told = tiny.arguments("flux") | {"height": resolution, "width": resolution}
    pipe(**told, num_inference_steps=4, output_type="latent")
    schedule = pipelines.load(str(pipeline("flux")), tiny.options("flux", resolution=resolution)).schedule
    assert isinstance(schedule, Flow)
    plain = np.linspace(1, 1 / 4, 4)
    np.testing.assert_allclose(1000 * schedule.shift * plain / (1 + (schedule.shift - 1) * plain), pipe.scheduler.timesteps, rtol=1e-5)


def test_shifts_by_configuration() -> None:
    dynamic = {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True}
    full, _, _ = schedule_of(dynamic, 1.15)
    linear, _, _ = schedule_of(dynamic | {"time_shift_type": "linear"}, 0.5)
    unipc, kind, _ = schedule_of({"_class_name": "UniPCMultistepScheduler", "flow_shift": 2.0} | FLOW)
    assert isinstance(full, Flow) and isinstance(linear, Flow) and isinstance(unipc, Flow)
    assert full.shift == pytest.approx(exp(1.15))
    assert linear.shift == pytest.approx(0.5)
    assert (unipc.shift, kind) == (2.0, "flow")


def test_times_that_are_noise_levels() -> None:
    """Of networks for sound, whose schedulers have a single training step."""
    levels, _, _ = schedule_of({"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1})
    assert (levels.t_start, levels.t_end, float(levels.sigma(0.25))) == (1.0, 1e-3, 0.25)


def test_edm_schedulers_precondition_the_network(pipeline: Folder, prompts: Path, tmp_path: Path) -> None:
    """As Playground v2.5: SDXL's network under EDM's scheduler. The denoiser is the scheduler's."""
    for kind, sign in [("epsilon", 1), ("v_prediction", -1)]:
        scheduler = diffusers.EDMEulerScheduler(prediction_type=kind, sigma_max=40.0)
        pipe = diffusers.StableDiffusionXLPipeline.from_pretrained(pipeline("sdxl"), scheduler=scheduler)
        pipe.save_pretrained(tmp_path / kind)
        model = pipelines.load(str(tmp_path / kind), tiny.options("sdxl", prompts=prompts))
        assert model.prediction_type == "edm"
        assert isinstance(model.schedule, VE)
        assert model.schedule.t_end == pytest.approx(0.002)
        assert model.schedule.t_start == 40
        x, sigma, condition = 3 * torch.randn(2, *model.shape), torch.tensor(3.0), torch.arange(2)
        bare = model.network.network  # type: ignore[attr-defined]
        inner = bare(scheduler.precondition_inputs(x, sigma), scheduler.precondition_noise(sigma).expand(2), condition)
        expected = scheduler.precondition_outputs(x, inner, sigma)
        torch.testing.assert_close(model.network(x, sigma.expand(2), condition), expected, rtol=1e-5, atol=1e-5)
        assert model.network.sign == sign  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "PlanScheduler"}, "PlanScheduler"),
        ({"_class_name": "UNet2DModel"}, "UNet2DModel"),
        ({}, "scheduler ''"),
        ({"_class_name": "ScoreSdeVeScheduler"}, "no noise schedule"),
        ({"_class_name": "IPNDMScheduler"}, "no noise schedule"),
        ({"_class_name": "DDIMScheduler", "prediction_type": "eps"}, "unknown prediction type 'eps'; did you mean 'epsilon'"),
        ({"_class_name": "DDIMScheduler", "beta_schedule": "scaledlinear"}, "did you mean 'scaled_linear'"),
        ({"_class_name": "DDIMScheduler", "thresholding": True}, "thresholding"),
        (
            {"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True},
            "with the prediction_type 'flow_prediction', not 'epsilon'",
        ),
    ],
)
def test_what_is_not_understood_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        schedule_of(config)
    assert "\n" not in str(caught.value)
