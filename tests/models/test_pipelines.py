"""Adapters against the pipelines they stand for: the same network calls, the same noise levels, the same pictures."""

import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from solversearch.errors import UserError
from solversearch.grids import grid
from solversearch.judging.objectives.endpoint import endpoint_mse
from solversearch.models import pipelines
from solversearch.models.base import Denoiser, Model
from solversearch.models.digest import same
from solversearch.models.options import Options
from solversearch.models.pipelines import weights
from solversearch.models.pipelines.packing import Packing
from solversearch.models.pipelines.source import local, read_json
from solversearch.sampling import sample
from solversearch.schedules import Flow
from solversearch.search.fitting.fit import fit
from solversearch.solvers import get
from solversearch.teacher import teach
from tests import tiny

Folder = Callable[[str], Path]
Call = tuple[dict[str, Any], Tensor]
NEGATIVE = "blurry"
ROUNDED: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}
"""What is the same but for the order of sums: pipelines have prompts and negative prompts in one batch, models one after the other."""


def network_of(pipe: Any) -> Any:
    return pipe.unet if hasattr(pipe, "unet") else pipe.transformer


def opened(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    absent = [name for name, kind in read_json(folder / "model_index.json").items() if kind == [None, None]]
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, torch_dtype=dtype, **dict.fromkeys(absent))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def record(network: Any) -> list[Call]:
    """What every later call of a network is given, by the names of its parameters, and what it returns."""
    calls: list[Call] = []
    names = list(inspect.signature(type(network).forward).parameters)[1:]

    def hook(module: Any, positional: Any, named: Any, output: Any) -> None:
        given = dict(zip(names, positional, strict=False)) | named
        calls.append((given, output[0] if isinstance(output, tuple) else output.sample))

    network.register_forward_hook(hook, with_kwargs=True)
    return calls


def tensors(given: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors among the arguments, nested ones too; times as one a sample."""
    flat = {key: value for key, value in given.items() if isinstance(value, Tensor)}
    for key, value in (given.get("added_cond_kwargs") or {}).items():
        flat |= {key: value} if isinstance(value, Tensor) else {}
    batch = len(flat.get("sample", flat.get("hidden_states")))  # type: ignore[arg-type]
    flat["timestep"] = flat["timestep"].float().expand(batch)
    return flat


def together(calls: list[Call]) -> dict[str, Tensor]:
    """The tensors of the calls, the rows of one below those of another."""
    parts = [tensors(given) for given, _ in calls]
    return parts[0] if len(parts) == 1 else {key: torch.cat([part[key] for part in parts]) for key in parts[0]}


def core_of(model: Model) -> Any:
    """The network of diffusers within the model's."""
    outer: Any = model.network
    (core,) = getattr(outer, "network", outer).core.values()
    return core


def unpacked(x: Tensor) -> Tensor:
    """Patches of Flux as latents; latents as they are."""
    return diffusers.FluxPipeline._unpack_latents(x, tiny.RESOLUTION, tiny.RESOLUTION, 2) if x.ndim == 3 else x


def latents_and_time(given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """What a network of a pipeline is given, as a `Model` is given it."""
    x = given["sample"] if "sample" in given else given["hidden_states"]
    return unpacked(x), tensors(given)["timestep"] * (1000 if x.ndim == 3 else 1)


def guidance(family: str) -> dict[str, Any]:
    if family == "ddpm":
        return {}
    if family == "flux":
        return {"true_cfg_scale": 3.0, "negative_prompt": [NEGATIVE] * 2}
    if family == "dit":
        return {"guidance_scale": 3.0}
    return {"guidance_scale": 3.0, "negative_prompt": NEGATIVE if family == "pixart" else [NEGATIVE] * 2}


def conditions(family: str, model: Model, call: int) -> Tensor | None:
    """The numbers of the conditions that the pipeline has in its batch."""
    if model.conditions is None or model.null_condition is None:
        return None
    own, null = model.conditions[:2], model.null_condition.expand(2)
    if family == "flux":
        return (own, null)[call % 2]
    return torch.cat([own, null] if family == "dit" else [null, own])


def loaded(family: str, folder: Path, prompts: Path, **changed: Any) -> Model:
    texts = {} if family in ("ddpm", "dit") else {"prompts": prompts, "negative_prompt": NEGATIVE, "resolution": tiny.RESOLUTION}
    return pipelines.load(str(folder), tiny.options(family, **(texts | changed)))


def check_calls(family: str, folder: Path, prompts: Path, dtype: torch.dtype = torch.float32, **told: Any) -> None:
    """A run of the pipeline, repeated call by call through the adapter."""
    pipe = opened(folder, dtype)
    theirs = record(network_of(pipe))
    told = tiny.arguments(family) | guidance(family) | told
    pipe(**told, num_inference_steps=3, output_type="np", generator=torch.manual_seed(0))
    model = loaded(family, folder, prompts, dtype=str(dtype).removeprefix("torch."))
    ours = record(core_of(model))
    assert len(theirs) >= 3
    for i, (given, expected) in enumerate(theirs):
        condition = conditions(family, model, i)
        ours.clear()
        output = model.network(*latents_and_time(given), *(() if condition is None else (condition,)))
        assert output.dtype == dtype
        torch.testing.assert_close(output, unpacked(expected)[:, : model.shape[0]], **ROUNDED)
        mine, own = together(ours), tensors(given)
        assert mine.keys() == own.keys()
        for name, value in own.items():
            torch.testing.assert_close(mine[name], value, rtol=1e-6, atol=1e-6, check_dtype=name not in ("timestep", "mask"))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_calls_the_network_as_the_pipeline_does(family: str, pipeline: Folder, prompts: Path) -> None:
    check_calls(family, pipeline(family), prompts)


@pytest.mark.parametrize("family", ["sd", "sdxl", "pixart", "sd3", "flux"])
def test_bfloat16_too(family: str, pipeline: Folder, prompts: Path) -> None:
    check_calls(family, pipeline(family), prompts, torch.bfloat16)


@pytest.mark.parametrize(
    ("family", "changed", "told"),
    [("pixart", {"sample_size": 128}, {}), ("pixart", {"version": "Sigma"}, {}), ("sd3", {"t5": False}, {"max_sequence_length": 256})],
    ids=["sizes", "sigma", "without T5"],
)
def test_variants_of_a_family(family: str, changed: dict[str, Any], told: dict[str, Any], prompts: Path, tmp_path: Path) -> None:
    check_calls(family, tiny.build(family, tmp_path / family, **changed), prompts, **told)


def test_without_a_negative_prompt_the_pipeline_has_its_own(pipeline: Folder, prompts: Path) -> None:
    """SDXL's is all zeros, which the empty prompt is not."""
    pipe = opened(pipeline("sdxl"))
    calls = record(pipe.unet)
    pipe(**tiny.arguments("sdxl"), guidance_scale=3.0, num_inference_steps=1, output_type="np")
    network = pipelines.load(str(pipeline("sdxl")), Options(device="cpu", prompts=prompts)).network
    given, expected = calls[0]
    assert not given["encoder_hidden_states"][0].any()
    output = network(given["sample"], given["timestep"].expand(4), torch.tensor([3, 3, 0, 1]))
    torch.testing.assert_close(output, expected, **ROUNDED)
    empty = pipelines.load(str(pipeline("sdxl")), Options(device="cpu", prompts=prompts, negative_prompt="")).network
    assert not torch.allclose(empty(given["sample"], given["timestep"].expand(4), torch.tensor([3, 3, 0, 1])), expected, atol=1e-4)


@pytest.mark.parametrize("family", ["flux", "sd"])
def test_a_distilled_network_is_told_its_scale(family: str, prompts: Path, tmp_path: Path) -> None:
    """Flux, and consistency models of Stable Diffusion."""
    folder = tiny.build(family, tmp_path / family, torch.float32, **({} if family == "flux" else {"time_cond_proj_dim": 8}))
    pipe = opened(folder)
    calls = record(network_of(pipe))
    pipe(**tiny.arguments(family), guidance_scale=2.0, num_inference_steps=1, output_type="np")
    given, expected = calls[0][0], unpacked(calls[0][1])
    x, t = latents_and_time(given)
    told = loaded(family, folder, prompts, distilled_guidance=2.0)
    torch.testing.assert_close(told.network(x, t, torch.arange(2)), expected, rtol=1e-6, atol=1e-6)
    default = loaded(family, folder, prompts)
    assert default.digest == told.digest
    assert default.conditioning != told.conditioning
    assert not torch.allclose(default.network(x, t, torch.arange(2)), expected, atol=1e-5)


def test_patches_of_flux_are_those_of_its_pipeline(pipeline: Folder) -> None:
    """Of pictures that are no squares too."""
    x = torch.randn(2, 4, 6, 8)
    tokens = diffusers.FluxPipeline._pack_latents(x, 2, 4, 6, 8)
    packing = Packing.of(opened(pipeline("flux")), tuple(tokens.shape[1:]), {"height": 12, "width": 16})
    assert packing is not None
    assert packing.shape(tuple(tokens.shape[1:])) == x.shape[1:]
    assert torch.equal(packing.packed(x), tokens)
    assert torch.equal(packing.unpacked(tokens), x)


# Pictures, precision, digests ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_pictures_are_those_of_the_pipeline(family: str, pipeline: Folder, prompts: Path) -> None:
    pipe = opened(pipeline(family))
    final: list[Tensor] = []
    target = pipe.vae if hasattr(pipe, "vae") else pipe.scheduler
    name = "decode" if hasattr(pipe, "vae") else "step"
    original = getattr(target, name)

    def spy(*given: Any, **named: Any) -> Any:
        result = original(*given, **named)
        final.append(given[0] if name == "decode" else result.prev_sample)
        return result

    setattr(target, name, spy)
    expected = pipe(**tiny.arguments(family), num_inference_steps=2, output_type="np", generator=torch.manual_seed(0)).images
    model = loaded(family, pipeline(family), prompts)
    latents = final[-1]
    if name == "decode":
        config = pipe.vae.config
        latents = (latents - (config.shift_factor or 0)) * config.scaling_factor
    assert model.images is not None
    pictures = model.images(latents)
    assert pictures.shape == expected.shape
    np.testing.assert_allclose(pictures.numpy(), expected, atol=2e-6)
    assert pictures.std() > 0.01


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What VAEs are given."""
    given: list[Tensor] = []
    original = diffusers.AutoencoderKL.decode

    def decode(self: Any, z: Tensor, *more: Any, **named: Any) -> Any:
        given.append(z)
        return original(self, z, *more, **named)

    monkeypatch.setattr(diffusers.AutoencoderKL, "decode", decode)
    return given


@pytest.mark.parametrize("family", ["sd", "flux"])
def test_pictures_are_decoded_one_by_one(family: str, pipeline: Folder, prompts: Path, decoded: list[Tensor]) -> None:
    model = loaded(family, pipeline(family), prompts)
    assert model.images is not None
    latents = torch.randn(5, *model.shape)
    pictures = model.images(latents)
    assert [len(each) for each in decoded] == [1] * 5
    raw = torch.cat(decoded)
    config = opened(pipeline(family)).vae.config
    torch.testing.assert_close(raw, latents / config.scaling_factor + (config.shift_factor or 0))
    torch.testing.assert_close(pictures, torch.cat([model.images(each[None]) for each in latents]), atol=1e-6, rtol=1e-5)


def test_a_vae_that_overflows_runs_in_single_precision(pipeline: Folder, prompts: Path, decoded: list[Tensor]) -> None:
    """SDXL's says so (force_upcast)."""
    for family, expected in [("sdxl", torch.float32), ("sd", torch.float16)]:
        model = loaded(family, pipeline(family), prompts, dtype="float16")
        assert model.dtype == torch.float16 and model.images is not None
        for _ in range(2):
            assert model.images(torch.randn(1, *model.shape, dtype=torch.float16)).isfinite().all()
            assert decoded.pop().dtype == expected


@pytest.mark.parametrize(("stored", "expected"), [(torch.float32,) * 2, (torch.bfloat16,) * 2, (torch.float16, torch.float32)])
def test_the_stored_precision_is_the_default(stored: torch.dtype, expected: torch.dtype, prompts: Path, tmp_path: Path) -> None:
    """But for float16 on a processor."""
    model = loaded("sd", tiny.build("sd", tmp_path / "sd", stored), prompts)
    assert model.dtype == expected
    assert {each.dtype for each in model.network.parameters()} == {expected}  # type: ignore[attr-defined]


def test_half_precision_weights_are_taken_where_they_are_enough(prompts: Path, pipeline: Folder, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pipeline("sd"), tmp_path / "sd"))
    plain = folder / "unet" / "diffusion_pytorch_model.safetensors"
    halved = {name: tensor.half() for name, tensor in load_file(plain).items()}
    save_file(halved, folder / "unet" / "diffusion_pytorch_model.fp16.safetensors", {"format": "pt"})
    files = [local(str(folder), half).weights("unet") for half in (False, True)]
    assert [(variant, len(chosen)) for variant, chosen in files] == [(None, 1), ("fp16", 1)]
    exact, rounded = loaded("sd", folder, prompts), loaded("sd", folder, prompts, dtype="float16")
    assert exact.digest == rounded.digest
    plain.unlink()
    assert loaded("sd", folder, prompts, dtype="float32").digest == exact.digest


def test_shards_are_put_together(pipeline: Folder, prompts: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pipeline("pixart"), tmp_path / "pixart"))
    (folder / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    opened(pipeline("pixart")).transformer.save_pretrained(folder / "transformer", max_shard_size="30KB")
    shards = local(str(folder), False).weights("transformer")[1]
    assert len(shards) > 1
    assert loaded("pixart", folder, prompts).digest == loaded("pixart", pipeline("pixart"), prompts).digest
    shards[0].unlink()
    with pytest.raises(UserError, match=r"transformer: 1 of the files that its weights are split into are missing"):
        loaded("pixart", folder, prompts)


def test_the_digest_is_that_of_the_weights(pipeline: Folder, prompts: Path, tmp_path: Path) -> None:
    model = loaded("sd", pipeline("sd"), prompts)
    shipped = pipelines.load(str(pipeline("sd")), tiny.options("sd", dtype="bfloat16"))
    assert shipped.digest == model.digest
    assert shipped.conditioning != model.conditioning and not same(shipped.fingerprint, model.fingerprint)
    assert same(loaded("sd", pipeline("sd"), prompts).fingerprint, model.fingerprint)
    assert len(shipped.conditions) == 384  # type: ignore[arg-type]
    folder = Path(shutil.copytree(pipeline("sd"), tmp_path / "sd"))
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_in.bias"][0] += 0.01
    save_file(tensors, file, {"format": "pt"})
    assert loaded("sd", folder, prompts).digest != model.digest
    assert loaded("sd_v", pipeline("sd_v"), prompts, resolution=32).digest != loaded("sd_v", pipeline("sd_v"), prompts).digest


def test_reading_the_weights_for_the_digest_happens_once(pipeline: Folder, prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = loaded("sd", pipeline("sd"), prompts)
    monkeypatch.setattr(weights, "_digest", lambda files: pytest.fail("the weights were read again"))
    assert loaded("sd", pipeline("sd"), prompts).digest == first.digest


def test_the_network_is_frozen_and_its_state_is_the_weights(pipeline: Folder, prompts: Path) -> None:
    network = loaded("sdxl", pipeline("sdxl"), prompts).network
    assert isinstance(network, torch.nn.Module)
    assert not network.training
    assert not any(each.requires_grad for each in network.parameters())
    assert set(network.state_dict()) == {f"core.unet.{name}" for name in opened(pipeline("sdxl")).unet.state_dict()}


# Options ---------------------------------------------------------------------------------------------------------


def test_the_resolution_is_that_of_the_latents(pipeline: Folder, prompts: Path) -> None:
    assert loaded("sdxl", pipeline("sdxl"), prompts, resolution=24).shape == (4, 12, 12)
    larger = loaded("flux", pipeline("flux"), prompts, resolution=32)
    assert larger.shape == (4, 16, 16)
    assert larger.network(torch.randn(1, 4, 16, 16), torch.tensor([500.0]), torch.tensor([0])).shape == (1, 4, 16, 16)
    assert isinstance(larger.schedule, Flow)
    small = loaded("flux", pipeline("flux"), prompts).schedule
    assert isinstance(small, Flow)
    assert larger.schedule.shift > small.shift


def test_offloaded_weights_lie_on_the_processor_between_calls(pipeline: Folder, prompts: Path) -> None:
    x, t, condition = torch.randn(2, 4, 8, 8), torch.full((2,), 400.0), torch.arange(2)
    plain, offloaded = (loaded("sd", pipeline("sd"), prompts, offload=offload) for offload in (False, True))
    expected = plain.network(x, t, condition)
    torch.testing.assert_close(offloaded.network(x, t, condition), expected)
    assert {each.device.type for each in offloaded.network.parameters()} == {"meta"}  # type: ignore[attr-defined]
    assert offloaded.digest == plain.digest


def test_the_network_is_compiled_where_asked(pipeline: Folder, prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: asked.append(type(self).__name__))
    loaded("sd", pipeline("sd"), prompts, compiled=True)
    assert asked == ["UNet2DConditionModel"]


def test_aliases_are_pipelines_that_have_an_adapter() -> None:
    assert {"sd15", "sd21", "sdxl", "sd3", "flux-dev", "dit-xl-2-256", "ddpm-cifar10", "pixart-sigma"} <= set(pipelines.ALIASES)
    for alias in pipelines.ALIASES.values():
        assert alias.dtype in ("float32", "float16", "bfloat16")
        assert alias.repository.count("/") == 1


# The whole way ---------------------------------------------------------------------------------------------------


def test_a_solver_is_fitted_to_a_pipeline(pipeline: Folder, prompts: Path) -> None:
    """Forward passes of the pipeline's network are all that the fit needs; other noise is sampled better for it."""
    model = loaded("sd", pipeline("sd"), prompts)
    fitting, held_out = (teach(model, split, 6, guidance=2.0, steps=24) for split in ("fit", "held_out"))
    prior = get("ddim").tableau(model.schedule, grid("quadratic", model.schedule, 4)).guided(2.0)
    fitted, _ = fit(prior, fitting, Denoiser(model, fitting.conditions), fitting.noise)
    before, after = (float(endpoint_mse(sample(model, table, held_out), held_out.endpoint).mean()) for table in (prior, fitted))
    assert after < 0.5 * before
