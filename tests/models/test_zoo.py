"""Pipelines of the families that people use now, saved and loaded as the real ones are: a plan in the pipeline against the runtime."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import diffusers
import pytest
import torch

from solversearch.errors import UserError
from solversearch.models import pipelines
from solversearch.models.base import Model
from solversearch.models.options import Options
from solversearch.models.pipelines.guest import Misfit
from solversearch.models.pipelines.network import Called, Inverted, Replayed
from solversearch.models.pipelines.packing import Unpacked
from solversearch.models.skipping import _outermost, found, reusing, skip_sets
from solversearch.pipeline_facts import facts_of
from solversearch.search.pricing import declared
from tests import tiny, zoo
from tests.export.families import error

pytestmark = pytest.mark.filterwarnings("ignore")
NAMES = [name for name, family in zoo.ZOO.items() if family.text]
PASSED = ("lumina",)
"""Of them, those that guide in a way of their own: only some of the channels."""
SENSITIVE = {
    "wan21": 0.04, "wan22": 0.06, "z_image": 0.11, "flux2": 0.045, "mochi": 0.016, "chroma": 0.03, "cogview4": 0.055, "aura_flow": 0.16
}  # fmt: skip
"""Bounds of a plan in bfloat16, for networks that are: Aura Flow's own output is off by half of it in that precision."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Where a family is, by its name."""

    @cache
    def saved(name: str) -> Path:
        place = tmp_path_factory.mktemp("zoo") / name
        if name in zoo.ZOO:
            zoo.build(name, reads=True).save_pretrained(place)
        else:
            tiny.build("sd", place)
        return place

    return saved


def opened(place: Path, dtype: torch.dtype = torch.float32) -> Any:
    absent = [part for part, kind in json.loads((place / "model_index.json").read_text()).items() if kind == [None, None]]
    pipe = diffusers.DiffusionPipeline.from_pretrained(place, torch_dtype=dtype, **dict.fromkeys(absent))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def network_of(model: Model) -> Any:
    return model.network.network if isinstance(model.network, Unpacked | Inverted) else model.network


@pytest.mark.parametrize("name", ["wan21", "wan22", "z_image", "cogview4"])
def test_blocks_to_leave_out_are_found(name: str, folder: Any, prompts: Path) -> None:
    """Of the others the one block has random weights with which it returns little of what it is given."""
    sets = skip_sets(pipelines.load(str(folder(name)), zoo.options(name, prompts)))
    assert sets and all(0 < each.cost < 0.98 for each in sets.values())


@pytest.mark.parametrize("name", ["wan21", "wan22", "qwen_image"])
def test_features_are_reused_in_the_pipeline_as_in_the_model(name: str, folder: Any, prompts: Path) -> None:
    """Of two networks by time, of that which is called; of a video, with an entry a frame."""
    told, pipe = zoo.options(name, prompts), opened(folder(name))
    model = pipelines.load(str(folder(name)), told)
    blocks = [block.cached for block in _outermost(found(model))]
    model = replace(model, variants={"stale": reusing(model, blocks)})
    plan = zoo.plan_for(model, "" if model.lacks else "split", 4)
    nodes = tuple(replace(node, variant="stale" if i in (1, 3) else "") for i, node in enumerate(plan.nodes))
    fields = {key: getattr(plan, key) for key in type(plan).model_fields if key != "digest"}
    plan = type(plan)(**fields | {"version": 3, "nodes": nodes, "variants": declared(model, replace(plan.tableau, nodes=nodes))})
    assert zoo.differs(pipe, model, plan, zoo.asked(pipe, told)) <= 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_a_plan_in_the_pipeline_is_the_runtime_on_the_model(name: str, folder: Any, prompts: Path) -> None:
    told, pipe = zoo.options(name, prompts), opened(folder(name))
    model, arguments = pipelines.load(str(folder(name)), told), zoo.asked(pipe, told)
    assert isinstance(network_of(model), Called if name in PASSED else Replayed)
    assert bool(model.lacks) is not zoo.ZOO[name].plain and ("joint batches" in model.lacks) is (name in PASSED)
    assert zoo.differs(pipe, model, zoo.plan_for(model), arguments) <= 1e-5
    if model.null_condition is not None:
        assert zoo.differs(pipe, model, zoo.plan_for(model, "split"), arguments) <= 1e-5


def test_two_networks_by_time(folder: Any, prompts: Path) -> None:
    """Wan 2.2: the one or the other, also among the samples of one batch."""
    model = pipelines.load(str(folder("wan22")), zoo.options("wan22", prompts))
    network, x = network_of(model), torch.randn(2, *model.shape)
    assert [each.least for each in network.ranges] == [600.0, pytest.approx(model.schedule.t_end)]
    times, numbers = torch.tensor([700.0, 500.0]), torch.tensor([0, 1])
    called: list[str] = []
    for name, part in network.core.items():
        part.register_forward_hook(lambda *_, name=name: called.append(name))
    together = network(x, times, numbers)
    assert sorted(called) == ["transformer", "transformer_2"]
    for i in range(2):
        torch.testing.assert_close(network(x[i : i + 1], times[i : i + 1], numbers[i : i + 1]), together[i : i + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision(name: str, folder: Any, prompts: Path) -> None:
    """Three times what was measured: the result is rounded once, and random networks make more of a number that is rounded otherwise."""
    told, pipe = zoo.options(name, prompts, dtype="bfloat16"), opened(folder(name), torch.bfloat16)
    model = pipelines.load(str(folder(name)), told)
    assert model.dtype == torch.bfloat16 and isinstance(network_of(model), Called if name in PASSED else Replayed)
    assert zoo.differs(pipe, model, zoo.plan_for(model), zoo.asked(pipe, told)) <= SENSITIVE.get(name, 3 * 2**-9)


@pytest.mark.parametrize("name", ["wan22", "cogview4", "aura_flow"])
def test_outputs_in_half_precision_are_the_pipeline_s(name: str, folder: Any, prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guided as the pipeline does, at its scale, to the last bit: whatever a plan's results differ by is the network's sensitivity."""
    told = zoo.options(name, prompts, dtype="bfloat16")
    replayed = pipelines.load(str(folder(name)), told)
    network_of(replayed).guidance = (replayed.guidance, False)
    monkeypatch.setattr("solversearch.models.pipelines.adapter.learn", Mock(side_effect=Misfit("on purpose")))
    called = pipelines.load(str(folder(name)), told)
    assert isinstance(network_of(called), Called)
    for t in (950.0, 800.0, 500.0, 60.0):
        x, times, first = torch.randn(1, *called.shape).bfloat16(), torch.tensor([t]), torch.tensor([0])
        assert error(replayed.network(x, times, first).float(), called.network(x, times, first).float()) == 0


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_preconditioned_networks(prediction_type: str, folder: Any, prompts: Path, tmp_path: Path) -> None:
    """Playground v2.5: Stable Diffusion's network in EDM's frame."""
    pipe = opened(folder("sd"))
    pipe.scheduler = diffusers.EDMEulerScheduler(sigma_data=0.5, prediction_type=prediction_type)
    pipe.save_pretrained(tmp_path / "edm")
    told = Options(device="cpu", prompts=prompts, resolution=tiny.RESOLUTION)
    model = pipelines.load(str(tmp_path / "edm"), told)
    assert model.prediction_type == "edm" and (model.schedule.t_start, model.schedule.t_end) == (80.0, 0.002)
    for kind in ("", "split"):
        assert zoo.differs(pipe, model, zoo.plan_for(model, kind), zoo.asked(pipe, told)) <= 1e-5


def test_gradients_go_through_the_pipeline(folder: Any, prompts: Path) -> None:
    """Where it is called for each evaluation, too: of the state and of the time, for the polish."""
    model = pipelines.load(str(folder("lumina")), zoo.options("lumina", prompts))
    assert model.conditions is not None
    x, direction, ways = torch.randn(3, 1, *model.shape)
    x, t = x.requires_grad_(), torch.tensor([600.0], requires_grad=True)

    def value(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return (model.network(x, t, model.conditions[:1]) * ways).sum()  # type: ignore[index]

    by_x, by_t = torch.autograd.grad(value(x, t), (x, t))
    with torch.no_grad():
        along = (value(x + 0.01 * direction, t) - value(x - 0.01 * direction, t)) / 0.02
        later = value(x, t + 0.1) - value(x, t - 0.1)
    torch.testing.assert_close((by_x * direction).sum(), along, rtol=0.05, atol=0.01)
    torch.testing.assert_close(by_t[0], later / 0.2, rtol=0.05, atol=0.01)


def test_a_pipeline_that_guides_by_itself_is_called_with_the_scale_that_is_asked_for(folder: Any, prompts: Path) -> None:
    told = zoo.options("qwen_image", prompts, distilled_guidance=2.5)
    pipe, model = opened(folder("qwen_image")), pipelines.load(str(folder("qwen_image")), told)
    assert "true_cfg_scale 2.5" in model.lacks and model.guidance == 1
    plan = zoo.plan_for(model)
    assert facts_of(plan.decisions)[2] == {"true_cfg_scale": 2.5}
    assert zoo.differs(pipe, model, plan, zoo.asked(pipe, told)) <= 1e-5


def test_a_pipeline_that_cannot_do_without_a_negative_prompt_gets_an_empty_one(prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As EasyAnimate's, which goes through all of them."""
    own = diffusers.WanPipeline.encode_prompt

    def encode_prompt(self: Any, prompt: Any, negative_prompt: Any, *more: Any, **others: Any) -> Any:
        return own(self, prompt, "".join(negative_prompt), *more, **others)

    monkeypatch.setattr(diffusers.WanPipeline, "encode_prompt", encode_prompt)
    pipe, told = zoo.build("wan21", reads=True), zoo.options("wan21", prompts)
    model = pipelines.of_object(pipe, told)
    assert model.null_condition is not None
    assert zoo.differs(pipe, model, zoo.plan_for(model), zoo.asked(pipe, told) | {"negative_prompt": ""}) <= 1e-5


def test_guidance_that_depends_on_the_steps_before_is_refused_and_may_be_left_out(
    folder: Any, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ACE-Step's, which has a momentum."""
    growing = property(lambda self: self._guidance_scale * (1 + self.scheduler.step_index))
    monkeypatch.setattr(diffusers.StableDiffusionPipeline, "guidance_scale", growing)
    pipe, told = opened(folder("sd")), Options(device="cpu", prompts=prompts, resolution=tiny.RESOLUTION)
    line = "what it guides by depends on the steps before; without guidance it may be, --distilled-guidance 1"
    with pytest.raises(UserError, match=line):
        pipelines.of_object(pipe, told)
    model = pipelines.of_object(pipe, replace(told, distilled_guidance=1.0))
    assert zoo.differs(pipe, model, zoo.plan_for(model), zoo.asked(pipe, told)) <= 1e-5


@pytest.mark.parametrize("name", ["qwen_image", "lumina2"])
def test_guidance_that_renormalises_is_applied_to_joint_batches(name: str, folder: Any, prompts: Path) -> None:
    """Of samples under several prompts, as one by one, with one call for all conditional outputs of prompts of a length."""
    model = pipelines.load(str(folder(name)), zoo.options(name, prompts, distilled_guidance=3.0))
    x, t, numbers = torch.randn(4, *model.shape), torch.tensor([700.0, 500.0, 300.0, 100.0]), torch.tensor([0, 1, 1, 0])
    alone = [model.network(x[i : i + 1], t[i : i + 1], numbers[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(model.network(x, t, numbers), torch.cat(alone), rtol=1e-4, atol=1e-4)
    assert network_of(model).guidance == (3.0, True)


def test_what_guidance_leads_away_from_may_depend_on_the_prompt(prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Bria FIBO and Kandinsky 3, which make both as long as the longer one."""
    own = diffusers.WanPipeline.encode_prompt

    def encode_prompt(self: Any, *given: Any, **named: Any) -> Any:
        positive, negative = own(self, *given, **named)
        return positive, negative if negative is None else negative + 0.1 * positive

    monkeypatch.setattr(diffusers.WanPipeline, "encode_prompt", encode_prompt)
    pipe, told = zoo.build("wan21", reads=True), zoo.options("wan21", prompts)
    model = pipelines.of_object(pipe, told)
    assert network_of(model).guidance == (5.0, False) and "depends on the prompt" in model.lacks
    plan = zoo.plan_for(model)
    for number in range(2):
        asked = zoo.asked(pipe, told, tiny.CAPTIONS[number])
        assert zoo.differs(pipe, replace(model, conditions=torch.tensor([number])), plan, asked) <= 1e-5


# Others, made of Stable Diffusion's parts --------------------------------------------------------------------------------


def test_a_video_has_an_entry_a_frame_in_each_row_of_its_network(folder: Any, prompts: Path) -> None:
    """AnimateDiff repeats the prompt's embeddings for every frame."""
    parts = opened(folder("sd")).components
    torch.manual_seed(0)
    motion = diffusers.MotionAdapter(
        block_out_channels=(8, 16), motion_layers_per_block=1, motion_norm_num_groups=4, motion_num_attention_heads=2
    )
    parts = {name: part for name, part in parts.items() if name not in ("safety_checker", "feature_extractor", "image_encoder")}
    pipe = diffusers.AnimateDiffPipeline(**parts, motion_adapter=motion)
    pipe.set_progress_bar_config(disable=True)
    told = Options(device="cpu", prompts=prompts, resolution=tiny.RESOLUTION, frames=3)
    model = pipelines.of_object(pipe, told)
    assert isinstance(model.network, Replayed) and model.network.joint and model.shape[1] == 3
    assert zoo.differs(pipe, model, zoo.plan_for(model, "split"), zoo.asked(pipe, told)) <= 1e-5


def test_a_pipeline_that_reads_its_prompts_as_it_samples(folder: Any, prompts: Path) -> None:
    """Latent diffusion has no encode_prompt."""
    own, text = opened(folder("sd")), tiny._clip_text(length=77).eval()
    pipe = diffusers.LDMTextToImagePipeline(vqvae=own.vae, bert=text, tokenizer=own.tokenizer, unet=own.unet, scheduler=own.scheduler)
    pipe.set_progress_bar_config(disable=True)
    told = Options(device="cpu", prompts=prompts, resolution=tiny.RESOLUTION)
    model = pipelines.of_object(pipe, told)
    assert isinstance(model.network, Replayed) and model.null_condition is not None
    assert zoo.differs(pipe, model, zoo.plan_for(model, "split"), zoo.asked(pipe, told)) <= 1e-5
