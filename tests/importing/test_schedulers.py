"""Schedulers that draw noise or clip, zero terminal SNR, continuous times: the plan on the scheduler's own network and noises."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from solversearch.errors import UserError
from solversearch.export.diffusers import PlanScheduler
from solversearch.export.shipped.levels import ZERO_SNR, sigmas
from solversearch.export.stock import as_stock
from solversearch.importing import STOCHASTIC, as_plan, from_diffusers, named, plan_of_list, scheduler_by_name
from solversearch.models.pipelines.schedule import schedule_of
from solversearch.schedules import CLEAN, DiscreteVP
from tests.importing.owners import LIST, close, own_run, replayed, sampled

pytestmark = pytest.mark.filterwarnings("ignore")

DRAWING: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in STOCHASTIC),
    *(("DDPM", {"variance_type": kind}) for kind in ("fixed_large", "fixed_small_log")),
    ("DDPM", {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
    ("DDPM", {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "sample"}),
    ("EulerAncestralDiscrete", {"prediction_type": "v_prediction"}),
    ("EulerAncestralDiscrete", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
    ("LCM", {"original_inference_steps": 100}),
    *((name, {"algorithm_type": "sde-dpmsolver++"}) for name in ("DPMSolverMultistep", "DPMSolverSinglestep")),
    ("DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}),
    ("DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++", "solver_order": 1}),
    ("FlowMatchEulerDiscrete", {"stochastic_sampling": True, "shift": 3.0}),
]


@pytest.mark.parametrize(("name", "config"), DRAWING, ids=[f"{name}-{i}" for i, (name, _) in enumerate(DRAWING)])
def test_schedulers_that_draw_noise_are_stochastic_plans(name: str, config: dict[str, Any]) -> None:
    steps = 4
    with pytest.warns(UserWarning, match=f"{name}Scheduler draws fresh noise"):
        plan = as_plan(name, 7 if name.startswith("KDPM2") else steps, **config)
    assert plan.tableau.stochastic
    right = own_run(scheduler_by_name(name, **config), steps)
    assert close(replayed(plan, unused=int(name == "SASolver")), right, 2e-4)


def test_the_option_that_draws_is_named() -> None:
    with pytest.warns(UserWarning, match="stochastic_sampling=True"):
        as_plan("FlowMatchEulerDiscrete", 4, stochastic_sampling=True)


@pytest.mark.parametrize(
    ("name", "rule", "config"),
    [
        ("DDPM", "ddim_eta1", {}),
        ("EulerAncestralDiscrete", "ddim_eta1", {"timestep_spacing": "trailing"}),
        ("DPMSolverMultistep", "dpmpp_2m_sde", {"algorithm_type": "sde-dpmsolver++"}),
        ("LCM", "lcm", {}),
    ],
)
def test_their_tables_are_our_rules(name: str, rule: str, config: dict[str, Any]) -> None:
    table = from_diffusers(scheduler_by_name(name, **config), 5)
    ours = named(rule).tableau(DiscreteVP.named(), [*table.nodes, CLEAN])
    for a, b in zip(ours.rows, table.rows, strict=True):
        assert a.x / ours.rows[0].x == pytest.approx(b.x / table.rows[0].x, abs=1e-5)
        assert a.d == pytest.approx(b.d, abs=1e-5)
        assert (*a.z, *[0.0] * (len(b.z) - len(a.z))) == pytest.approx((*b.z, *[0.0] * (len(a.z) - len(b.z))), abs=1e-5)


def wide(x: Any, t: float) -> Any:
    """A network whose data predictions leave [-1, 1]."""
    return torch.tanh(x) * (0.2 + t / 900)


@pytest.mark.parametrize(("name", "config"), [("DDPM", {}), ("DDPM", {"clip_sample_range": 0.6}), ("HeunDiscrete", {}), ("LCM", {})])
def test_clipping_is_the_clamp_of_the_format(name: str, config: dict[str, Any]) -> None:
    config = {**config, "clip_sample": True}
    plan = as_plan(name, 5, **config)
    assert plan.threshold is not None and plan.threshold.kind == "clamp" and plan.threshold.limit == config.get("clip_sample_range", 1.0)
    right = own_run(scheduler_by_name(name, **config), 3 if name == "HeunDiscrete" else 5, wide)
    assert close(replayed(plan, wide), right, 2e-4)
    assert not close(replayed(plan.model_copy(update={"threshold": None}), wide), right, 1e-2)


def test_ddim_clips_as_it_does_with_the_clipped_noise() -> None:
    with pytest.warns(UserWarning, match=r"DDIMScheduler keeps the network's own noise prediction .* leave \[-1, 1\]"):
        plan = as_plan("DDIM", 5, clip_sample=True)
    scheduler = scheduler_by_name("DDIM", clip_sample=True)
    scheduler.step = partial(scheduler.step, use_clipped_model_output=True)
    assert close(replayed(plan, wide), own_run(scheduler, 5, wide), 2e-4)


# Zero terminal SNR, continuous times -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", ["EulerDiscrete", "DPMSolverMultistep", "UniPCMultistep"])
def test_zero_terminal_snr_comes_in_and_goes_out(kind: str, name: str) -> None:
    config: dict[str, Any] = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": kind}
    plan = as_plan(name, 5, **config)
    assert plan.nodes[0].t == 999 and close(replayed(plan), own_run(scheduler_by_name(name, **config), 5), 2e-4)
    levels = sigmas(plan)
    again = plan_of_list(levels, "ddim", prediction_type=kind, rescale_betas_zero_snr=True)
    assert again.nodes[0].t == 999 and again.nodes[0].alpha == pytest.approx(2.0**-12 if kind == "epsilon" else 0.0)
    assert [node.t for node in again.nodes] == pytest.approx([node.t for node in plan.nodes], abs=0.05)
    if name == "DPMSolverMultistep":
        assert as_stock(plan).arguments["timesteps"] == [999, 799, 599, 399, 199]


def test_every_sigma_that_stands_for_infinity_is_the_first_timestep() -> None:
    for first in (np.inf, ZERO_SNR, 4096.0):
        plan = plan_of_list([first, 12.1, 0.5, 0.0], "ddim", prediction_type="v_prediction", rescale_betas_zero_snr=True)
        assert (plan.nodes[0].t, plan.nodes[0].alpha) == (999, 0)
    with pytest.raises(UserError, match="leave the model's range"):
        plan_of_list([ZERO_SNR, 12.1, 0.0], "ddim", prediction_type="v_prediction")


def test_a_model_of_noise_at_zero_snr_is_loaded_as_diffusers_samples_it() -> None:
    config = {"_class_name": "EulerDiscreteScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    schedule = schedule_of({**config, "rescale_betas_zero_snr": True})[0]
    assert float(schedule.alpha(999)) == pytest.approx(2.0**-12, rel=1e-9)
    own = scheduler_by_name("EulerDiscrete", rescale_betas_zero_snr=True).alphas_cumprod.double().numpy()
    assert np.max(np.abs(schedule.alpha(np.arange(1000)) ** 2 - own)) < 1e-6


def test_continuous_times_are_those_of_the_scheduler() -> None:
    config: dict[str, Any] = {"prediction_type": "v_prediction", "timestep_type": "continuous", "use_karras_sigmas": True}
    config |= {"sigma_min": 0.002, "sigma_max": 700.0}
    schedule, kind, _ = schedule_of({"_class_name": "EulerDiscreteScheduler", **config})
    plan = as_plan("EulerDiscrete", 6, **config)
    assert kind == "v_prediction"
    for node in plan.nodes:
        assert (float(schedule.alpha(node.t)), float(schedule.sigma(node.t))) == pytest.approx((node.alpha, node.sigma), rel=1e-5)
    ratios = [node.sigma / node.alpha for node in plan.nodes]
    listed = plan_of_list([*ratios, 0.0], "EulerDiscrete", prediction_type="v_prediction", timestep_type="continuous")
    assert [node.t for node in listed.nodes] == pytest.approx([node.t for node in plan.nodes], abs=1e-5)
    assert close(sampled(listed), sampled(plan), 2e-5)
    angles = schedule.angle([-1.5, 0.0, 1.6])
    assert schedule.time_of_angle(angles) == pytest.approx([-1.5, 0.0, 1.6])


def test_a_scheduler_made_of_a_plan_gives_the_plan_back(tmp_path: Path) -> None:
    plan = plan_of_list(LIST, "dpmpp_2m")
    PlanScheduler.from_plan(plan).save_pretrained(tmp_path / "scheduler")
    assert as_plan(str(tmp_path), 4) == plan == as_plan(str(tmp_path), None)
    with pytest.raises(UserError, match="it holds a plan of 4 evaluations"):
        as_plan(str(tmp_path), 5)
    for name in ("UniPCMultistep", "EulerDiscrete", "DDIM"):
        stock = scheduler_by_name(name, beta_schedule="linear")
        kept = {**stock.config, "_class_name": "PlanScheduler", "plan": plan.model_dump(mode="json")}  # as attach keeps it
        schedule, kind, clip = schedule_of(kept)
        right, right_kind, right_clip = schedule_of({**stock.config, "_class_name": f"{name}Scheduler"})
        assert (kind, clip) == (right_kind, right_clip) and np.array_equal(schedule.angle(range(1000)), right.angle(range(1000)))
    with pytest.raises(UserError, match="saved with a plan, and the model's own settings are gone"):
        schedule_of(json.loads((tmp_path / "scheduler/scheduler_config.json").read_text()))


def test_guidance_zero_is_none_as_pipelines_read_it() -> None:
    """Diffusers runs the prompt without guidance, in one call an evaluation, as pages of distilled models ask for."""
    assert as_plan("DDIM", 4, None, 0.0) == as_plan("DDIM", 4, None, 1.0)
    assert as_plan("DDIM", 4, None, 0.0).network_calls == 4
