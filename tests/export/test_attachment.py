"""What a plan's scheduler does to the pipelines around it, and what it takes from the one that it is in."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from solversearch.importing import as_plan
from solversearch.pipeline_facts import facts
from solversearch.plan import Plan, Provenance
from solversearch.runtime import Node, Row
from tests import tiny

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
from diffusers import DPMSolverMultistepScheduler

from solversearch.export.diffusers import PlanScheduler
from tests.export.families import Families, call, error, noise_of, pack, reference
from tests.export.test_plan_scheduler import NFE, changed, hand_made, starting_from

pytestmark = pytest.mark.filterwarnings("ignore")

STOCK = {"num_inference_steps": NFE, "guidance_scale": 3.0}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Families:
    return Families(tmp_path_factory.mktemp("families"))


def with_scheduler(loaded: Families, family: str, scheduler: Any, folder: Path) -> tuple[Any, Path]:
    pipe, _ = loaded(family)
    pipe.scheduler = scheduler
    pipe.save_pretrained(folder)
    return pipe, folder


# Other pipelines -------------------------------------------------------------------------------------------------


def test_pipelines_that_share_the_network_are_left_alone(loaded: Families) -> None:
    pipe, model = loaded("sd")
    plan, noise = hand_made(model), noise_of(model)
    other = type(pipe)(**pipe.components, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    right = call(other, "sd", noise, **STOCK)
    scheduler = PlanScheduler.from_plan(plan)
    arguments = scheduler.attach(pipe)
    assert torch.equal(call(other, "sd", noise, **STOCK), right)

    def fails(*_: Any) -> dict[str, Any]:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        call(pipe, "sd", noise, **arguments, callback_on_step_end=fails)
    assert torch.equal(call(other, "sd", noise, **STOCK), right)
    seen: list[Tensor] = []

    def preview(pipe: Any, i: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(call(other, "sd", noise, **STOCK))
        return tensors

    sample = call(pipe, "sd", noise, **arguments, callback_on_step_end=preview)
    assert all(torch.equal(each, right) for each in seen)
    assert error(sample, reference(model, plan, noise)) <= 1e-5
    later = type(pipe)(**pipe.components, requires_safety_checker=False)  # of the class that is attached, with its scheduler
    later.scheduler = other.scheduler
    later.set_progress_bar_config(disable=True)
    assert torch.equal(call(later, "sd", noise, **STOCK), right)


@pytest.mark.parametrize("kind", ["constant", "per node"])
def test_threads_do_not_mix(loaded: Families, kind: str) -> None:
    pipe, model = loaded("sd")
    arguments: dict[str, Any] = PlanScheduler.from_plan(hand_made(model, kind)).attach(pipe)
    noises = [noise_of(model, 4)[i : i + 2] for i in range(3)]
    right, got = [call(pipe, "sd", noise, **arguments) for noise in noises], {}

    def work(i: int) -> None:
        got[i] = [call(pipe, "sd", noises[i], **arguments) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(each, right[i]) for i in range(3) for each in got[i])


def test_one_sampling_inside_another_is_refused(loaded: Families) -> None:
    pipe, model = loaded("sd")
    arguments = PlanScheduler.from_plan(hand_made(model)).attach(pipe)
    given = {"callback_on_step_end": lambda pipe, *_: call(pipe, "sd", noise_of(model), **arguments)}
    with pytest.raises(ValueError, match="in this thread"):
        call(pipe, "sd", noise_of(model), **arguments, **given)


def test_a_network_that_is_replaced_is_seen(loaded: Families) -> None:
    """Such as one that was compiled, or quantised, after the plan was attached."""
    from copy import deepcopy

    pipe, model = loaded("sd")
    plan, noise, before = hand_made(model, "per node"), noise_of(model), pipe.unet
    arguments = PlanScheduler.from_plan(plan).attach(pipe)
    pipe.unet = deepcopy(before)
    try:
        assert error(call(pipe, "sd", noise, **arguments), reference(model, plan, noise)) <= 1e-5
    finally:
        pipe.unet = before


# The model's own scheduler ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["attached", "given", "remembered", "loaded"])
def test_other_schedulers_get_the_models_settings(loaded: Families, way: str, tmp_path: Path) -> None:
    pipe, model = loaded("sd")
    plan, stock = changed(hand_made(model), decisions={}), pipe.scheduler
    expected = DPMSolverMultistepScheduler.from_config(stock.config)
    if way == "attached":
        PlanScheduler.from_plan(plan).attach(pipe)
    elif way == "given":
        pipe.scheduler = PlanScheduler.from_plan(plan, stock)
    else:
        pipe.scheduler = PlanScheduler.from_plan(changed(plan, decisions=dict(model.facts)))
    if way == "loaded":
        pipe.scheduler.save_pretrained(tmp_path)
        pipe.scheduler = PlanScheduler.from_pretrained(tmp_path)
    made = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    assert torch.equal(made.alphas_cumprod, expected.alphas_cumprod)
    assert {key: made.config[key] for key in expected.config if key[0] != "_"} == {
        key: value for key, value in expected.config.items() if key[0] != "_"
    }
    assert torch.equal(pipe.scheduler.alphas_cumprod, stock.alphas_cumprod)
    assert pipe.scheduler.config.num_train_timesteps == 1000


def test_a_config_without_the_models_settings_makes_no_other_scheduler(loaded: Families) -> None:
    _, model = loaded("sd")
    scheduler = PlanScheduler.from_plan(changed(hand_made(model), decisions={}))
    with pytest.raises(ValueError, match=r"from_plan\(plan, pipe.scheduler\)"):
        DPMSolverMultistepScheduler.from_config(scheduler.config)
    assert scheduler.config.variance_type == "fixed_small"
    assert PlanScheduler.from_config(scheduler.config).plan == scheduler.plan
    assert not hasattr(scheduler, "alphas_cumprod")


def test_what_pipelines_read_of_it(loaded: Families) -> None:
    _, model = loaded("sd3")
    scheduler = PlanScheduler.from_plan(hand_made(model))
    scheduler.set_timesteps(NFE)
    assert (scheduler.order, scheduler.begin_index, scheduler.step_index, scheduler.num_inference_steps) == (1, 0, 0, NFE)
    assert torch.allclose(scheduler.sigmas, torch.tensor([*(node.sigma for node in scheduler.plan.nodes), 0.0]))
    assert scheduler.config.base_image_seq_len == 256
    assert scheduler.config.shift == 3.0
    x = torch.randn(1, 4, 8, 8)
    for name, value in (("eta", 0.5), ("per_token_timesteps", torch.ones(4)), ("variance_noise", x), ("use_clipped_model_output", True)):
        with pytest.raises(ValueError, match=f"without {name}"):
            scheduler.step(x, scheduler.timesteps[0], x, **{name: value})


@pytest.mark.slow
def test_it_loads_in_a_fresh_process(loaded: Families, tmp_path: Path) -> None:
    pipe, model = loaded("sdxl")
    PlanScheduler.from_plan(hand_made(model, "per node")).attach(pipe)
    pipe.save_pretrained(tmp_path)
    code = (
        "import sys, solversearch.export.diffusers\nfrom diffusers import DiffusionPipeline\n"
        "pipe = DiffusionPipeline.from_pretrained(sys.argv[1])\nprint(pipe.scheduler.plan.digest, pipe.scheduler.attach(pipe))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{pipe.scheduler.plan.digest} {STOCK}"


# Frames of pipelines -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attached", [True, False])
@pytest.mark.parametrize("name", ["EulerDiscrete", "HeunDiscrete", "DPMSolverMultistep"])
def test_states_leave_the_loop_in_the_frame_of_the_stock_scheduler(loaded: Families, name: str, attached: bool, tmp_path: Path) -> None:
    """What callbacks and previews get, and the next pipeline (denoising_end)."""
    pipe, model = loaded("sdxl")
    stock = getattr(diffusers, f"{name}Scheduler").from_config(pipe.scheduler.config)
    pipe, folder = with_scheduler(loaded, "sdxl", stock, tmp_path)
    states: list[Tensor] = []

    def keep(pipe: Any, i: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        states.append(tensors["latents"])
        return tensors

    noise, given = noise_of(model), {"callback_on_step_end": keep, "guidance_scale": 3.0}
    half = call(pipe, "sdxl", noise, **given, num_inference_steps=4, denoising_end=0.5)
    whole = call(pipe, "sdxl", noise, **given, num_inference_steps=4)
    right, states = states, []
    plan = as_plan(str(folder), len(pipe.scheduler.timesteps), None, 3.0)
    scheduler = PlanScheduler.from_plan(plan)
    steps = {"num_inference_steps": plan.nfe}
    if attached:
        scheduler.attach(pipe)
    else:
        pipe.scheduler = scheduler
    assert error(call(pipe, "sdxl", noise, **given, **steps, denoising_end=0.5), half) <= 1e-5
    assert error(call(pipe, "sdxl", noise, **given, **steps), whole) <= 1e-5
    assert [each.shape for each in states] == [each.shape for each in right]
    if name != "HeunDiscrete":  # whose own states are between two evaluations, where a plan's are before one
        assert max(map(error, states, right)) <= 1e-5


def test_an_unknown_frame_is_told(loaded: Families) -> None:
    pipe, model = loaded("sdxl")
    pipe.scheduler = PlanScheduler.from_plan(changed(hand_made(model), decisions={}))
    with pytest.raises(ValueError, match=r"denoising_end.*attach"):
        call(pipe, "sdxl", noise_of(model), **STOCK, denoising_end=0.5)


@pytest.mark.parametrize("attached", [True, False])
@pytest.mark.parametrize("settings", [{}, {"prediction_type": "v_prediction", "sigma_data": 0.7}])
@pytest.mark.parametrize("name", ["EDMEuler", "EDMDPMSolverMultistep"])
def test_preconditioned_pipelines(loaded: Families, name: str, settings: dict[str, Any], attached: bool, tmp_path: Path) -> None:
    pipe, folder = with_scheduler(loaded, "sdxl", getattr(diffusers, f"{name}Scheduler")(**settings), tmp_path)
    noise = noise_of(loaded("sd")[1])
    pipe.scheduler = getattr(diffusers, f"{name}Scheduler")(**settings)
    right = call(pipe, "sdxl", noise, **STOCK)
    scheduler = PlanScheduler.from_plan(as_plan(str(folder), NFE, None, 3.0))
    if attached:
        assert scheduler.attach(pipe) == STOCK
    else:
        pipe.scheduler = scheduler
    assert error(call(pipe, "sdxl", noise, **STOCK), right) <= 1e-5
    assert scheduler.timesteps[0] == pytest.approx(0.25 * torch.log(torch.tensor(80.0)).item())


def test_a_preconditioning_that_is_not_known_is_told(loaded: Families, tmp_path: Path) -> None:
    pipe, folder = with_scheduler(loaded, "sdxl", diffusers.EDMEulerScheduler(), tmp_path)
    pipe.scheduler = PlanScheduler.from_plan(changed(as_plan(str(folder), NFE, None, 3.0), decisions={}))
    with pytest.raises(ValueError, match=r"preconditioned.*attach"):
        call(pipe, "sdxl", noise_of(loaded("sd")[1]), **STOCK)


# What is beside the noise ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [9, 8])
def test_channels_that_are_conditions_are_not_scaled(loaded: Families, channels: int) -> None:
    """Of inpainting, a mask and a picture; of InstructPix2Pix, a picture, and two scales of guidance."""
    pipe, model = loaded("sd")
    torch.manual_seed(0)
    parts = {**pipe.components, "unet": tiny._unet(in_channels=channels)}
    kind = diffusers.StableDiffusionInpaintPipeline if channels == 9 else diffusers.StableDiffusionInstructPix2PixPipeline
    painting = kind(**parts, requires_safety_checker=False)
    painting.set_progress_bar_config(disable=True)
    picture = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    given: dict[str, Any] = {"prompt": tiny.PROMPTS, "image": picture, "latents": noise_of(model), "output_type": "latent"}
    if channels == 9:
        given |= {"mask_image": (picture[:, :1] > 0.5).float(), "height": 16, "width": 16, "strength": 1.0}
    plan, seen = changed(hand_made(model), decisions={}), []
    painting.unet.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0][:, 4:]))

    def sample(**more: Any) -> Tensor:
        seen.clear()
        return painting(**given, generator=torch.Generator().manual_seed(3), **more).images

    painting.scheduler = PlanScheduler.from_plan(plan, parts["scheduler"])
    right = sample(**STOCK)
    painting.scheduler = parts["scheduler"]
    scheduler = PlanScheduler.from_plan(plan)
    got = sample(**scheduler.attach(painting))
    scheduler.detach()
    assert error(got, right) <= 1e-5
    assert all(torch.equal(each, seen[-1]) for each in seen)


@pytest.mark.parametrize("width", [16, 32])
def test_tokens_of_a_reference_picture_are_not_scaled(loaded: Families, width: int) -> None:
    pipe, model = loaded("flux")
    editing = diffusers.FluxKontextPipeline(**pipe.components)
    editing.set_progress_bar_config(disable=True)
    picture = torch.rand(1, 3, 16, width, generator=torch.Generator().manual_seed(0))
    given = tiny.arguments("flux", tiny.PROMPTS[:1]) | {"image": picture, "max_area": 256, "_auto_resize": False, "output_type": "latent"}
    plan, tokens = hand_made(model, "none"), []
    hook = pipe.transformer.register_forward_pre_hook(lambda m, a, kw: tokens.append(kw["hidden_states"]), with_kwargs=True)
    scheduler = PlanScheduler.from_plan(plan)
    noise = pack(noise_of(model, 1))
    editing(**given, latents=noise, **scheduler.attach(editing), generator=torch.Generator().manual_seed(3))
    hook.remove()
    scheduler.detach()
    assert torch.allclose(tokens[0][:, :16], plan.rows[0].x * noise, rtol=1e-6)
    assert all(torch.equal(each[:, 16:], tokens[0][:, 16:]) and each.shape[1] == 16 + width for each in tokens)


def test_latents_that_are_written_into_are_noticed(loaded: Families) -> None:
    pipe, model = loaded("sd")
    arguments = PlanScheduler.from_plan(hand_made(model)).attach(pipe)

    def write(pipe: Any, i: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        tensors["latents"].mul_(2)
        return {}

    with pytest.raises(ValueError, match="latents were changed"):
        call(pipe, "sd", noise_of(model), **arguments, callback_on_step_end=write)


# Guidance --------------------------------------------------------------------------------------------------------


def test_what_a_distilled_network_is_told(loaded: Families) -> None:
    pipe, model = loaded("flux")
    plan, noise = hand_made(model, "none"), noise_of(model)
    kept = model.facts["pipeline"]
    told = changed(plan, decisions=facts(kept["class"], kept["scheduler"], {"guidance_scale": 8.0}))
    arguments = PlanScheduler.from_plan(told).attach(pipe)
    assert arguments == {"num_inference_steps": NFE, "true_cfg_scale": 1.0, "guidance_scale": 8.0}
    assert error(call(pipe, "flux", noise, **arguments), reference(model, plan, noise)) > 1e-3
    with pytest.raises(ValueError, match=r"tells its network a guidance of 3.5, but the plan was made for 8"):
        call(pipe, "flux", noise, **arguments | {"guidance_scale": 3.5})
    unsaid = PlanScheduler.from_plan(changed(plan, decisions={}))
    with pytest.raises(ValueError, match=r"attach\(pipe, guidance_scale=...\)"):
        unsaid.attach(pipe)
    assert error(call(pipe, "flux", noise, **unsaid.attach(pipe, guidance_scale=3.5)), reference(model, plan, noise)) <= 1e-5
    with pytest.raises(ValueError, match="takes no frame_rate"):
        unsaid.attach(pipe, frame_rate=25.0)


def test_a_callback_that_ends_guidance_is_told(loaded: Families) -> None:
    from diffusers.callbacks import SDCFGCutoffCallback

    pipe, model = loaded("sd")
    arguments = PlanScheduler.from_plan(hand_made(model)).attach(pipe)
    with pytest.raises(ValueError, match=r"at evaluation 3 .*without a callback that ends guidance"):
        call(pipe, "sd", noise_of(model, 1), prompt=["a fox"], **arguments, callback_on_step_end=SDCFGCutoffCallback(cutoff_step_ratio=0.5))


def test_a_pipeline_that_guides_by_itself(loaded: Families) -> None:
    """A plan without guidance, of a model that is its pipeline with its own guidance in it."""
    pipe, model = loaded("sd")
    base, noise = hand_made(model, "none"), noise_of(model)
    kept = model.facts["pipeline"]
    plan = changed(base, decisions=facts(kept["class"], kept["scheduler"], {"guidance_scale": 3.0}))
    arguments = PlanScheduler.from_plan(plan).attach(pipe)
    assert arguments == STOCK
    guided = changed(base, nodes=base.tableau.guided(3.0).nodes, guidance=3.0, network_calls=2 * NFE)
    assert error(call(pipe, "sd", noise, **arguments), reference(model, guided, noise)) <= 1e-5


def test_plans_of_another_kind_of_pipeline(loaded: Families) -> None:
    pipe, model = loaded("sd")
    unknown = type("Unknown", (diffusers.ConsistencyModelPipeline,), {})(pipe.unet, diffusers.CMStochasticIterativeScheduler())
    with pytest.raises(ValueError, match="CMStochasticIterativeScheduler"):
        PlanScheduler.from_plan(hand_made(model)).attach(unknown)


def test_two_states_are_sampled_alike_or_not_at_all(loaded: Families) -> None:
    """LTX2 copies its scheduler for the sound."""
    from copy import deepcopy

    pipe, model = loaded("sd")
    arguments = PlanScheduler.from_plan(hand_made(model)).attach(pipe)
    with pytest.raises(ValueError, match="a second state"):
        call(pipe, "sd", noise_of(model), **arguments, callback_on_step_end=lambda pipe, *_: deepcopy(pipe.scheduler) and {})
    plain = starting_from(hand_made(model), Row(1.0))
    arguments = PlanScheduler.from_plan(plain).attach(pipe)
    call(pipe, "sd", noise_of(model), **arguments, callback_on_step_end=lambda pipe, *_: (deepcopy(pipe.scheduler), {})[1])


def test_facts_are_no_more_than_they_say() -> None:
    from solversearch.pipeline_facts import facts_of, shown

    plan = facts(
        "FluxPipeline", {"_class_name": "A", "_diffusers_version": "0", "shift": 3.0, "low": float("-inf")}, {"guidance_scale": 3.5}
    )
    assert facts_of(plan) == ("FluxPipeline", {"_class_name": "A", "shift": 3.0}, {"guidance_scale": 3.5})
    assert shown(plan | {"solver": "ddim"}) == {"pipeline": "FluxPipeline", "solver": "ddim"}
    for other in ({}, {"pipeline": "sd"}, {"pipeline": {"class": 3, "scheduler": [], "arguments": None}}):
        assert facts_of(other) == ("", {}, {})
    kept = Plan(
        prediction_type="epsilon", guidance=1.0, nfe=1, network_calls=1, nodes=(Node(1.0, 0.5, 0.5),),
        rows=(Row(1.0), Row(0.0, (1.0,))), decisions=plan, provenance=Provenance(model="", model_digest=""),
    )  # fmt: skip
    assert Plan.parse(kept.text()) == kept
