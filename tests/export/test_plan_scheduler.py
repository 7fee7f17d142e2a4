"""PlanScheduler in the pipelines of diffusers samples as the runtime does on the same network, loaded as a model."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from solversearch.errors import UserError
from solversearch.models import Model
from solversearch.models.skipping import _outermost, found, reusing
from solversearch.models.variants import with_others, with_skips
from solversearch.plan import Plan, Threshold
from solversearch.runtime import Row, Tableau
from solversearch.schedules import CLEAN, DiscreteVP
from solversearch.search.pricing import declared
from solversearch.solvers import get
from solversearch.tableau import trace
from tests import tiny

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
from diffusers import DDIMScheduler, DiffusionPipeline, DPMSolverMultistepScheduler

from solversearch.export.diffusers import PlanScheduler
from tests.export.families import STRENGTH, Families, call, error, noise_of, plan_of, reference, unpack
from tests.zoo import Recording

pytestmark = pytest.mark.filterwarnings("ignore")

NFE = 4
GUIDED = [family for family in tiny.FAMILIES if family != "ddpm"]
SCALING = ("sd", "sd_v", "sdxl", "pixart")
"""The pipelines that ask the scheduler for the scale of their noise."""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Families:
    return Families(tmp_path_factory.mktemp("families"))


def hand_made(model: Model, kind: str = "constant", nfe: int = NFE) -> Plan:
    """A plan of no published solver: DPM-Solver++'s table with every coefficient moved. kind is how it guides."""
    rng = np.random.default_rng(0)
    high, low = model.schedule.t_start, model.schedule.t_end
    nodes = [model.schedule.node(high + (low - high) * u) for u in np.linspace(0.02, 0.9, nfe)]
    reuses = [kind == "reuse" and i % 2 == 1 for i in range(4)]
    table = trace(get("dpmpp_2m").rule, model.schedule, [*nodes, CLEAN])

    def moved(i: int, row: Row) -> Row:
        d = np.array([*row.d, *[0.0] * (i - len(row.d))]) + 0.03 * rng.standard_normal(i)
        delta = 0.1 * rng.standard_normal(i) if kind in ("split", "reuse") else np.zeros(0)
        delta = delta * [not reuses[j % 4] for j in range(len(delta))]
        fresh = 0.2 * rng.standard_normal(min(i, 2)) if kind == "stochastic" else ()
        return Row(1.1 * row.x + 0.01, *(tuple(map(float, weights)) for weights in (d, delta, fresh)))

    scales = {"none": [1.0], "per node": [3.0, 1.0, 0.5, 2.0], "split": [3.0, 1.0, 2.0, 2.5], "reuse": [3.0, 1.0, 2.0, 1.0]}.get(
        kind, [3.0]
    )
    return plan_of(
        model,
        Tableau(
            tuple(
                replace(node, guidance=scales[i % len(scales)], guidance_difference="reuse" if reuses[i % 4] else "compute")
                for i, node in enumerate(table.nodes)
            ),
            tuple(moved(i, row) for i, row in enumerate(table.rows)),
        ),
    )


def changed(plan: Plan, **fields: Any) -> Plan:
    return Plan(**{name: getattr(plan, name) for name in Plan.model_fields if name != "digest"} | fields)


def starting_from(plan: Plan, first: Row) -> Plan:
    return changed(plan, rows=(first, *plan.rows[1:]))


@pytest.mark.parametrize("kind", ["constant", "per node", "split"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_samples_as_the_runtime_does(loaded: Families, family: str, kind: str) -> None:
    pipe, model = loaded(family)
    plan, noise = hand_made(model, "none" if family == "ddpm" else kind), noise_of(model)
    scheduler = Recording.from_plan(plan)
    sample = call(pipe, family, noise, **scheduler.attach(pipe))
    assert error(sample, reference(model, plan, noise)) <= 1e-5
    assert torch.equal(call(pipe, family, noise, **scheduler.attach(pipe)), sample)


@pytest.mark.parametrize("family", [family for family in tiny.FAMILIES if family != "ddpm"])
def test_evaluations_that_reuse_cost_half(loaded: Families, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, model = loaded(family)
    plan, noise, rows = hand_made(model, "reuse"), noise_of(model), list[int]()
    expected, network = (
        reference(model, plan, noise),
        next(part for name, part in pipe.components.items() if name in ("unet", "transformer")),
    )
    kind, forward = type(network), type(network).forward

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        rows.append(len(args[0] if args else kwargs["hidden_states"]))
        return forward(self, *args, **kwargs)

    scheduler = Recording.from_plan(plan)
    arguments = scheduler.attach(pipe)
    with monkeypatch.context() as patched:
        patched.setattr(kind, "forward", counted)
        sample = call(pipe, family, noise, **arguments)
    assert error(sample, expected) <= 1e-5
    assert sum(rows) == plan.network_calls * len(noise) < 2 * plan.nfe * len(noise)
    assert "forward" not in vars(network)


def calling(model: Model, plan: Plan, **at: str) -> Plan:
    """The plan with variants of the network at some evaluations, at = {"node0": name}."""
    nodes = tuple(replace(node, variant=at.get(f"node{i}", "")) for i, node in enumerate(plan.nodes))
    table = replace(plan.tableau, nodes=nodes)
    return changed(plan, nodes=nodes, version=3, variants=declared(model, table))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_blocks_that_a_plan_leaves_out_are(loaded: Families, family: str) -> None:
    pipe, model = loaded(family)
    model = with_skips(model)
    *_, least = (name for name, variant in model.variants.items() if not variant.reuses)
    whole, noise = hand_made(model, "none" if family == "ddpm" else "reuse"), noise_of(model)
    plan = calling(model, whole, node0=least, node2=least)
    expected = reference(model, plan, noise)
    scheduler = Recording.from_plan(plan)
    sample = call(pipe, family, noise, **scheduler.attach(pipe))
    assert error(sample, expected) <= 1e-5
    assert error(reference(model, whole, noise), expected) > 1e-3
    assert not any("forward" in vars(each) for part in pipe.components.values() if isinstance(part, nn.Module) for each in part.modules())


@pytest.mark.parametrize("kind", ["reuse", "split"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_features_that_a_plan_reuses_are(loaded: Families, family: str, kind: str) -> None:
    """Also where an evaluation between has left those with the condition alone."""
    pipe, model = loaded(family)
    blocks = [block.cached for block in _outermost(found(model))]
    model = replace(model, variants={"one": reusing(model, blocks[-1:]), "all": reusing(model, blocks)})
    whole, noise = hand_made(model, "none" if family == "ddpm" else kind), noise_of(model)
    plan = calling(model, whole, node1="one", node2="all", node3="all")
    expected = reference(model, plan, noise)
    sample = call(pipe, family, noise, **Recording.from_plan(plan).attach(pipe))
    assert error(sample, expected) <= 1e-5
    assert error(reference(model, whole, noise), expected) > 1e-4
    assert not any("forward" in vars(each) for part in pipe.components.values() if isinstance(part, nn.Module) for each in part.modules())


def test_another_network_is_given(loaded: Families) -> None:
    pipe, model = loaded("sd")
    other = copy.deepcopy(model.network)
    with torch.no_grad():
        for parameter in other.core["unet"].parameters():  # type: ignore[attr-defined]
            parameter.mul_(0.95)
    model = with_others(model, [("small", replace(model, network=other))])
    plan, noise = calling(model, hand_made(model, "split"), node1="small"), noise_of(model)
    scheduler = Recording.from_plan(plan)
    with pytest.raises(ValueError, match=r"calls another network .*attach\(pipe, variants=\{'small': it\}\)"):
        scheduler.attach(pipe)
    arguments = scheduler.attach(pipe, variants={"small": other.core["unet"]})  # type: ignore[attr-defined]
    assert error(call(pipe, "sd", noise, **arguments), reference(model, plan, noise)) <= 1e-5


def test_variants_need_an_attachment(loaded: Families) -> None:
    pipe, model = loaded("dit")
    model = with_skips(model)
    plan = calling(model, starting_from(hand_made(model), Row(1.0)), node1="skip1")
    pipe.scheduler = Recording.from_plan(plan)
    with pytest.raises(ValueError, match=r"calls variants of its network, which pipelines cannot do: .*attach"):
        call(pipe, "dit", noise_of(model), num_inference_steps=NFE, guidance_scale=3.0)
    wrong = changed(plan, variants={"skip1": plan.variants["skip1"].model_copy(update={"skips": ("transformer.transformer_blocks.7",)})})
    with pytest.raises(ValueError, match=r"leaves out transformer\.transformer_blocks\.7 of its network, which DiTPipeline does not have"):
        Recording.from_plan(wrong).attach(pipe)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_half_precision_is_that_of_the_result(loaded: Families, family: str) -> None:
    """Rounded to bfloat16 a number is off by 2^-9 at most: the sampling itself adds nothing."""
    pipe, model = loaded(family, "bfloat16")
    plan, noise = hand_made(model, "none" if family == "ddpm" else "split"), noise_of(model)
    scheduler = Recording.from_plan(plan)
    sample = call(pipe, family, noise, **scheduler.attach(pipe))
    assert scheduler.last.dtype == torch.bfloat16
    assert error(sample, reference(model, plan, noise)) <= 4e-3


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_one_guidance_scale_needs_no_attachment(loaded: Families, family: str) -> None:
    pipe, model = loaded(family)
    plan, noise = hand_made(model, "none" if family == "ddpm" else "constant"), noise_of(model)
    plan = plan if family in SCALING else starting_from(plan, Row(1.0))
    pipe.scheduler = Recording.from_plan(plan)
    scale = {"ddpm": {}, "flux": {"true_cfg_scale": 3.0}}.get(family, {"guidance_scale": 3.0})
    sample = call(pipe, family, noise, num_inference_steps=NFE, **scale)
    assert error(sample, reference(model, plan, noise)) <= 1e-5


@pytest.mark.parametrize("family", [family for family in tiny.FAMILIES if family not in SCALING])
def test_pipelines_that_do_not_scale_their_noise_are_noticed(loaded: Families, family: str) -> None:
    pipe, model = loaded(family)
    pipe.scheduler = Recording.from_plan(hand_made(model, "none" if family == "ddpm" else "constant"))
    with pytest.raises(ValueError, match=r"starts from noise times 1\.11.*attach"):
        call(pipe, family, noise_of(model), num_inference_steps=NFE)


def test_several_pictures_of_a_prompt(loaded: Families) -> None:
    pipe, model = loaded("sd")
    plan, noise = hand_made(model, "split"), noise_of(model, 4)
    sample = call(pipe, "sd", noise, num_images_per_prompt=2, **Recording.from_plan(plan).attach(pipe))
    assert error(sample, reference(model, plan, noise, torch.tensor([0, 0, 1, 1]))) <= 1e-5


@pytest.mark.parametrize("family", ["sd", "dit"])
def test_fresh_noise_comes_from_the_generator(loaded: Families, family: str) -> None:
    """DiT hands none to its scheduler, which then draws from torch's own, the same for both of its copies of a latent."""
    pipe, model = loaded(family)
    plan, noise = hand_made(model, "stochastic"), noise_of(model)
    torch.manual_seed(7)
    sample = call(pipe, family, noise, **Recording.from_plan(plan).attach(pipe))
    generator = torch.Generator().manual_seed(5 if family == "sd" else 7)
    expected = reference(model, plan, noise, draw=lambda k: torch.randn(noise.shape, generator=generator))
    assert error(sample, expected) <= 1e-5


def test_the_threshold_of_a_plan(loaded: Families) -> None:
    pipe, model = loaded("sd")
    plan, noise = hand_made(model), noise_of(model)
    clipped = changed(plan, threshold=Threshold(kind="dynamic"))
    sample = call(pipe, "sd", noise, **Recording.from_plan(clipped).attach(pipe))
    assert error(sample, reference(model, clipped, noise)) <= 1e-5
    assert error(sample, reference(model, plan, noise)) > 0.1


def test_one_step_of_pixart(loaded: Families) -> None:
    """With one step it takes the data prediction for the result."""
    pipe, model = loaded("pixart")
    plan, noise = hand_made(model, nfe=1), noise_of(model)
    assert plan.rows[1].d[0] != 1
    sample = call(pipe, "pixart", noise, **Recording.from_plan(plan).attach(pipe))
    assert error(sample, reference(model, plan, noise)) <= 1e-5


def test_a_controlnet_sees_the_same_latents(loaded: Families) -> None:
    from diffusers import ControlNetModel, StableDiffusionControlNetPipeline

    pipe, model = loaded("sd")
    control = ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(4, 8))
    for parameter in control.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(0))
    controlled = StableDiffusionControlNetPipeline(**pipe.components, controlnet=control, requires_safety_checker=False)
    controlled.set_progress_bar_config(disable=True)
    plan, picture = hand_made(model), torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    controlled.scheduler = Recording.from_plan(plan)
    scaled = call(controlled, "sd", noise_of(model), image=picture, num_inference_steps=NFE, guidance_scale=3.0)
    attached = call(controlled, "sd", noise_of(model), image=picture, **controlled.scheduler.attach(controlled))
    assert error(attached, scaled) <= 1e-5
    assert error(attached, reference(model, plan, noise_of(model))) > 1e-2


# Its own interface -----------------------------------------------------------------------------------------------


@pytest.fixture
def plan() -> Plan:
    """For Stable Diffusion's noise schedule."""
    model = Model("identity", lambda x, t: x, DiscreteVP.named(), "epsilon", (1, 2, 2))
    return hand_made(model, "none")


def test_times_and_scale_are_the_plans(plan: Plan) -> None:
    scheduler = PlanScheduler.from_plan(plan)
    scheduler.set_timesteps(NFE, device="cpu")
    assert scheduler.timesteps.dtype == torch.float32
    assert scheduler.timesteps.tolist() == [np.float32(node.t) for node in plan.nodes]
    assert scheduler.init_noise_sigma == plan.rows[0].x
    whole = changed(plan, nodes=tuple(replace(node, t=float(round(node.t))) for node in plan.nodes))
    assert PlanScheduler.from_plan(whole).timesteps.dtype == torch.int64


def test_both_forms_of_a_step(plan: Plan) -> None:
    x, output = torch.randn(2, 1, 2, 2), torch.randn(2, 1, 2, 2)
    results = []
    for return_dict in (True, False):
        scheduler = PlanScheduler.from_plan(plan)
        scheduler.set_timesteps(NFE)
        given = x * scheduler.init_noise_sigma
        results.append(scheduler.step(output, scheduler.timesteps[0], given, return_dict=return_dict))
    node = plan.nodes[0]
    assert torch.allclose(results[1][1], (given - node.sigma * output) / node.alpha, rtol=1e-5)
    assert torch.equal(results[0].prev_sample, results[1][0])
    assert torch.equal(results[0].pred_original_sample, results[1][1])


def test_it_is_saved_with_its_plan(plan: Plan, tmp_path: Path) -> None:
    plan.write(tmp_path / "plan.json")
    scheduler = PlanScheduler.from_plan(tmp_path / "plan.json")
    scheduler.save_pretrained(tmp_path)
    for other in (PlanScheduler.from_pretrained(tmp_path), PlanScheduler.from_config(scheduler.config), copy.deepcopy(scheduler)):
        assert other.plan == plan
        assert other.plan.digest == plan.digest
    content = json.loads((tmp_path / "scheduler_config.json").read_text())
    content["plan"]["rows"][1]["x"] += 0.01
    (tmp_path / "scheduler_config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="digest"):
        PlanScheduler.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="from_plan"):
        PlanScheduler.from_config(DDIMScheduler().config)


def test_a_pipeline_is_saved_and_loaded_with_it(loaded: Families, tmp_path: Path) -> None:
    pipe, model = loaded("sd")
    plan, noise = starting_from(hand_made(model), Row(1.0)), noise_of(model)
    pipe.scheduler = PlanScheduler.from_plan(plan)
    pipe.save_pretrained(tmp_path)
    pipe.scheduler.save_pretrained(tmp_path / "scheduler")
    again = DiffusionPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    given = {"num_inference_steps": NFE, "guidance_scale": 3.0}
    assert torch.equal(call(again, "sd", noise, **given), call(pipe, "sd", noise, **given))
    passed = DiffusionPipeline.from_pretrained(tmp_path, scheduler=PlanScheduler.from_plan(plan))
    assert passed.scheduler.plan == plan


def test_a_copy_starts_anew(loaded: Families) -> None:
    pipe, model = loaded("sd")
    plan, noise = hand_made(model), noise_of(model)
    scheduler = Recording.from_plan(plan)
    first = call(pipe, "sd", noise, **scheduler.attach(pipe))
    other = copy.deepcopy(scheduler)
    assert torch.equal(call(pipe, "sd", noise, **other.attach(pipe)), first)


def test_attaching_and_detaching(loaded: Families) -> None:
    pipe, model = loaded("sd")
    kind, stock, scheduler = type(pipe), pipe.scheduler, PlanScheduler.from_plan(hand_made(model, "split"))
    assert scheduler.attach(pipe) == scheduler.attach(pipe) == {"num_inference_steps": NFE, "guidance_scale": 3.0}
    assert not pipe.unet._forward_hooks
    other = PlanScheduler.from_plan(hand_made(model))
    other.attach(pipe)
    assert pipe.scheduler is other
    assert type(pipe).__mro__[1] is kind
    other.detach()
    other.detach()
    assert pipe.scheduler is stock
    assert type(pipe) is kind


def test_other_schedulers_are_made_from_its_config(loaded: Families) -> None:
    """As people change schedulers; they get what they would from the pipeline's own."""
    pipe, model = loaded("sd")
    expected = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    scheduler = PlanScheduler.from_plan(hand_made(model))
    scheduler.attach(pipe)
    made = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    assert {key: made.config[key] for key in expected.config if key[0] != "_"} == {
        key: value for key, value in expected.config.items() if key[0] != "_"
    }
    assert torch.equal(made.alphas_cumprod, expected.alphas_cumprod)
    assert copy.deepcopy(scheduler).plan == scheduler.plan


def test_a_pipeline_with_another_scheduler_is_left_alone(loaded: Families) -> None:
    pipe, model = loaded("sd")
    expected = call(pipe, "sd", noise_of(model), num_inference_steps=3)
    scheduler = PlanScheduler.from_plan(hand_made(model, "split"))
    scheduler.attach(pipe)
    pipe.scheduler = scheduler._stock
    assert torch.equal(call(pipe, "sd", noise_of(model), num_inference_steps=3), expected)
    assert not pipe.unet._forward_hooks


# What it refuses -------------------------------------------------------------------------------------------------


def test_another_number_of_steps(loaded: Families) -> None:
    for family in ("sd", "flux", "sd3"):
        pipe, model = loaded(family)
        scheduler = PlanScheduler.from_plan(hand_made(model))
        scheduler.attach(pipe)
        with pytest.raises(ValueError, match="the plan has 4 steps, not 28: pass num_inference_steps=4"):
            call(pipe, family, noise_of(model), num_inference_steps=28)


def test_other_times_and_noise_levels(plan: Plan) -> None:
    scheduler = PlanScheduler.from_plan(plan)
    scheduler.set_timesteps(timesteps=[node.t for node in plan.nodes])
    scheduler.set_timesteps(sigmas=[node.sigma for node in plan.nodes])
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / NFE, NFE), mu=1.15)  # what pipelines of flow models always pass
    with pytest.raises(ValueError, match="own timesteps"):
        scheduler.set_timesteps(timesteps=[999, 700, 400, 100])
    with pytest.raises(ValueError, match="own noise levels"):
        scheduler.set_timesteps(sigmas=[1.0, 0.9, 0.5, 0.2])
    with pytest.raises(ValueError, match="num_inference_steps=4"):
        scheduler.set_timesteps(sigmas=np.linspace(1, 0.1, 10))


@pytest.mark.parametrize("kind", ["per node", "split"])
def test_guidance_that_pipelines_cannot_do_needs_attachment(loaded: Families, kind: str) -> None:
    pipe, model = loaded("sd")
    pipe.scheduler = PlanScheduler.from_plan(hand_made(model, kind))
    with pytest.raises(ValueError, match=r"scheduler\.attach\(pipe\)"):
        call(pipe, "sd", noise_of(model), num_inference_steps=NFE, guidance_scale=3.0)


@pytest.mark.parametrize("family", GUIDED)
def test_another_guidance_scale(loaded: Families, family: str) -> None:
    pipe, model = loaded(family)
    scheduler = PlanScheduler.from_plan(hand_made(model))
    arguments = scheduler.attach(pipe)
    name = "true_cfg_scale" if family == "flux" else "guidance_scale"
    with pytest.raises(ValueError, match="guides with 5, but the plan was made for 3"):
        call(pipe, family, noise_of(model), **arguments | {name: 5.0})
    with pytest.raises(ValueError, match=f"call it with .*'{name}': 3.0"):
        call(pipe, family, noise_of(model), **arguments | {name: 1.0})


def test_other_ways_to_guide(loaded: Families) -> None:
    pipe, model = loaded("sd")
    arguments = PlanScheduler.from_plan(hand_made(model)).attach(pipe)
    with pytest.raises(ValueError, match="guidance_rescale"):
        call(pipe, "sd", noise_of(model), guidance_rescale=0.7, **arguments)
    pipe, model = loaded("sd3")
    arguments = PlanScheduler.from_plan(hand_made(model)).attach(pipe)
    with pytest.raises(ValueError, match="skipped layers"):
        call(
            pipe, "sd3", noise_of(model), skip_guidance_layers=[0], skip_layer_guidance_start=0.0, skip_layer_guidance_stop=1.0, **arguments
        )


def test_a_pipeline_without_guidance(loaded: Families) -> None:
    pipe, model = loaded("ddpm")
    with pytest.raises(ValueError, match="DDPMPipeline has no guidance"):
        PlanScheduler.from_plan(hand_made(model)).attach(pipe)


def test_another_model(loaded: Families) -> None:
    plans = {family: PlanScheduler.from_plan(hand_made(loaded(family)[1])) for family in ("sd", "sd_v", "dit", "sd3")}
    for family, other, complaint in (
        ("sd", "sd_v", "predicts 'v_prediction', but this pipeline's predicts 'epsilon'"),
        ("sd", "sd3", "predicts 'flow'"),
        ("dit", "sd", "another noise schedule"),
        ("sd", "dit", "another noise schedule"),
    ):
        pipe, _ = loaded(family)
        with pytest.raises(ValueError, match=complaint):
            plans[other].attach(pipe)
        assert not isinstance(pipe.scheduler, PlanScheduler)


def test_pictures_to_start_from(loaded: Families) -> None:
    pipe, model = loaded("sd")
    pipe.scheduler = PlanScheduler.from_plan(hand_made(model))
    made = from_picture(pipe, "sd")
    for strength in (0.5, 1.0):
        with pytest.raises(ValueError, match="cannot be entered in the middle"):
            made(tiny.PROMPTS, image=torch.rand(2, 3, 16, 16), strength=strength, num_inference_steps=NFE, guidance_scale=3.0)


IMAGE_TO_IMAGE = {
    "sd": "StableDiffusionImg2ImgPipeline", "sd_v": "StableDiffusionImg2ImgPipeline", "sdxl": "StableDiffusionXLImg2ImgPipeline",
    "sd3": "StableDiffusion3Img2ImgPipeline", "flux": "FluxImg2ImgPipeline",
}  # fmt: skip


def from_picture(pipe: Any, family: str) -> Any:
    safety = {"requires_safety_checker": False} if family in ("sd", "sd_v") else {}
    made = getattr(diffusers, IMAGE_TO_IMAGE[family])(**pipe.components, **safety)
    made.set_progress_bar_config(disable=True)
    return made


def picture_of(noise: torch.Tensor) -> torch.Tensor:
    """Latents, which pipelines take for a picture that is encoded already."""
    return torch.randn(noise.shape, generator=torch.Generator().manual_seed(6)).tanh().to(noise.dtype)


@pytest.mark.parametrize("kind", ["constant", "split"])
@pytest.mark.parametrize("family", IMAGE_TO_IMAGE)
def test_from_a_picture_as_the_runtime_does(loaded: Families, family: str, kind: str) -> None:
    pipe, whole = loaded(family)
    model = whole.started(whole.schedule.start_of(STRENGTH))
    plan, noise = hand_made(model, kind), noise_of(whole)
    picture, made = picture_of(noise), from_picture(pipe, family)
    given = {key: value for key, value in tiny.arguments(family).items() if family in ("sd3", "flux") or key not in ("height", "width")}
    if family == "flux":
        given["negative_prompt"] = [""] * len(tiny.PROMPTS)
    scheduler = PlanScheduler.from_plan(plan)
    arguments = scheduler.attach(made)
    assert arguments["strength"] == STRENGTH and arguments["num_inference_steps"] == NFE
    for _ in range(2):
        generator = torch.Generator().manual_seed(5)
        got = made(**given, image=picture, generator=generator, output_type="latent", **arguments).images
        got = unpack(got, *noise.shape[2:]) if family == "flux" else got
        assert error(got, reference(model, plan, noise, picture=picture)) < 1e-5
    with pytest.raises(ValueError, match=r"has a strength of 0\.8, but the plan was made for 0\.6"):
        made(**given, image=picture, output_type="latent", **arguments | {"strength": 0.8})
    scheduler.detach()
    made.scheduler = scheduler
    with pytest.raises(ValueError, match=r"starts from noised pictures of its own.*attach"):
        made(**given, image=picture, output_type="latent", **arguments)


def test_a_plan_that_starts_from_pictures_has_its_place(loaded: Families) -> None:
    pipe, whole = loaded("sd3")
    plan, made = hand_made(whole.started(whole.schedule.start_of(STRENGTH))), from_picture(pipe, "sd3")
    with pytest.raises(ValueError, match="StableDiffusion3Pipeline does not, as image-to-image pipelines do"):
        PlanScheduler.from_plan(plan).attach(pipe)
    nameless = PlanScheduler.from_plan(changed(plan, decisions=dict(whole.facts)))
    with pytest.raises(ValueError, match=r"does not say at what strength: scheduler\.attach\(pipe, strength="):
        nameless.attach(made)
    assert nameless.attach(made, strength=0.5)["strength"] == 0.5
    nameless.detach()
    arguments = PlanScheduler.from_plan(plan).attach(made)
    with pytest.raises(ValueError, match="give the pipeline an image, and no latents"):
        made(**tiny.arguments("sd3"), image=torch.rand(2, 3, 16, 16), latents=noise_of(whole), output_type="latent", **arguments)


def test_a_pipeline_that_noises_its_picture_later_cannot_take_a_plan(loaded: Families) -> None:
    class Later(diffusers.StableDiffusionImg2ImgPipeline):  # type: ignore[misc]
        def prepare_latents(self, image: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            return image

        def prepare_extra_step_kwargs(self, generator: Any, eta: float) -> Any:
            self.scheduler.add_noise(torch.zeros(1), torch.zeros(1), None)
            return super().prepare_extra_step_kwargs(generator, eta)

    pipe, whole = loaded("sd")
    made = Later(**pipe.components, requires_safety_checker=False)
    arguments = PlanScheduler.from_plan(hand_made(whole.started(whole.schedule.start_of(STRENGTH)))).attach(made)
    with pytest.raises(ValueError, match="adds the noise in another way cannot take the plan"):
        made(tiny.PROMPTS, image=picture_of(noise_of(whole)), output_type="latent", **arguments)


def test_latents_that_were_changed_on_the_way(loaded: Families) -> None:
    pipe, model = loaded("sd")
    scheduler = PlanScheduler.from_plan(hand_made(model))
    given = {"callback_on_step_end": lambda pipe, i, t, tensors: {"latents": 2 * tensors["latents"]}}
    with pytest.raises(ValueError, match="latents were changed"):
        call(pipe, "sd", noise_of(model), **scheduler.attach(pipe), **given)


def test_a_step_too_many(plan: Plan) -> None:
    scheduler = PlanScheduler.from_plan(plan)
    scheduler.set_timesteps(NFE)
    x = torch.randn(1, 1, 2, 2) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x = scheduler.step(x, t, x)[0]
    with pytest.raises(ValueError, match="all 4 steps"):
        scheduler.step(x, t, x)
    scheduler.set_timesteps(NFE)
    with pytest.raises(ValueError, match="in the middle"):
        scheduler.step(x, scheduler.timesteps[2], x)


def test_plans_that_do_not_start_from_the_noise(plan: Plan) -> None:
    for first in (Row(0.0), Row(1.0, z=(0.5,))):
        with pytest.raises(ValueError, match="row 0"):
            PlanScheduler.from_plan(starting_from(plan, first))
