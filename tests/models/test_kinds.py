"""Pipelines that no plan can sample, and sizes that they cannot make: one line each, before any weights are read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from solversearch.errors import UserError
from solversearch.models import pipelines
from solversearch.models.aliases import ALIASES
from solversearch.models.options import Options
from solversearch.models.pipelines.asking import Asking, pixels
from solversearch.models.pipelines.guest import Guest
from solversearch.models.pipelines.library import library, quiet
from tests import zoo
from tests.cli.calling import bad, good

EULER, FLOW = ["diffusers", "EulerDiscreteScheduler"], ["diffusers", "FlowMatchEulerDiscreteScheduler"]


def folder(place: Path, kind: str, **parts: list[str]) -> Path:
    (place / "model_index.json").write_text(json.dumps({"_class_name": kind, **parts}))
    return place


OTHERS: list[tuple[str, dict[str, list[str]], str]] = [
    (
        "IFSuperResolutionPipeline",
        {"unet": ["diffusers", "UNet2DConditionModel"], "scheduler": EULER, "image_noising_scheduler": ["diffusers", "DDPMScheduler"]},
        "it has 2 schedulers (scheduler, image_noising_scheduler)",
    ),
    (
        "KandinskyV22PriorPipeline",
        {"prior": ["diffusers", "PriorTransformer"], "scheduler": ["diffusers", "UnCLIPScheduler"]},
        "it is a prior",
    ),
    ("StableCascadePriorPipeline", {"prior": ["diffusers", "StableCascadeUNet"], "scheduler": EULER}, "it is a prior"),
    (
        "SkyReelsV2DiffusionForcingPipeline",
        {"transformer": ["diffusers", "SkyReelsV2Transformer3DModel"], "scheduler": FLOW},
        "it samples a video in chunks",
    ),
    ("HeliosPipeline", {"transformer": ["diffusers", "HeliosTransformer3DModel"], "scheduler": FLOW}, "it samples a video in chunks"),
    ("MarigoldDepthPipeline", {"scheduler": EULER}, "it has no network of its own"),
]


@pytest.mark.parametrize(("kind", "parts", "reason"), OTHERS)
def test_pipelines_of_other_kinds(kind: str, parts: dict[str, list[str]], reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        pipelines.load(str(folder(tmp_path, kind, **parts)), Options(device="cpu"))
    line = str(caught.value)
    assert f"{kind} cannot be sampled by a plan: {reason}" in line and "\n" not in line


# Sizes -----------------------------------------------------------------------------------------------------------


def guest(kind: str) -> Guest:
    """Without any parts: it has the factors of the real one's VAE."""
    made = getattr(library(), kind)
    with quiet():
        scheduler = library().FlowMatchEulerDiscreteScheduler()
        return Guest(made(**dict.fromkeys(made._get_signature_keys(made)[0]) | {"scheduler": scheduler}), "cpu")


def asked(kind: str, **options: Any) -> Asking:
    return Asking.of(guest(kind), Options(device="cpu", **options))


def test_sizes() -> None:
    assert asked("WanPipeline", resolution="832x480", frames=81).fixed.items() >= {"width": 832, "height": 480, "num_frames": 81}.items()
    assert asked("LTXPipeline", resolution=512).fixed.items() >= {"width": 512, "height": 512}.items()


@pytest.mark.parametrize(
    ("kind", "options", "line"),
    [
        ("WanPipeline", {"frames": 16}, "--frames 16 is not one more than a multiple of 4, as WanPipeline needs; the nearest is 17"),
        ("WanPipeline", {"frames": 0}, "--frames 0 is not one more than a multiple of 4"),
        ("LTXPipeline", {"frames": 18}, "--frames 18 is not one more than a multiple of 8"),
        ("WanPipeline", {"resolution": "832x485"}, "--resolution 832x485 is no multiple of"),
        (
            "FluxPipeline",
            {"resolution": 1000},
            "--resolution 1000 is no multiple of 16 pixels, as FluxPipeline needs; the nearest is 992",
        ),
        ("FluxPipeline", {"resolution": "wide"}, "--resolution wide: pixels of a side, such as 1024, or WIDTHxHEIGHT"),
        ("FluxPipeline", {"resolution": "1024x"}, "--resolution 1024x: pixels of a side"),
        ("FluxPipeline", {"frames": 17}, "FluxPipeline makes no videos; leave out --frames"),
    ],
)
def test_sizes_that_cannot_be_made(kind: str, options: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        asked(kind, **options)
    assert str(caught.value).startswith(line)


# Short names -----------------------------------------------------------------------------------------------------

KINDS = {
    "flux2-dev": "Flux2Pipeline", "flux2-klein": "Flux2KleinPipeline", "qwen-image": "QwenImagePipeline", "z-image": "ZImagePipeline",
    "z-image-turbo": "ZImagePipeline", "wan21-1.3b": "WanPipeline", "wan21-14b": "WanPipeline", "wan22-a14b": "WanPipeline",
    "wan22-5b": "WanPipeline", "ltx": "LTXPipeline", "chroma": "ChromaPipeline", "sana": "SanaPipeline", "cogview4": "CogView4Pipeline",
    "auraflow": "AuraFlowPipeline", "lumina2": "Lumina2Pipeline", "hunyuan-video": "HunyuanVideoPipeline",
    "kandinsky5": "Kandinsky5T2VPipeline",
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_short_names_fit_their_pipelines(name: str) -> None:
    """The size can be made by the class that diffusers has for the repository; a video has frames, and nothing else has."""
    alias, kind = ALIASES[name], KINDS[name]
    assert ("num_frames" in guest(kind).parameters) == (alias.frames is not None)
    fixed = asked(kind, resolution=alias.resolution, frames=alias.frames).fixed
    assert (fixed["width"], fixed["height"]) == pixels(alias.resolution)
    assert alias.dtype == "bfloat16" and alias.repository.count("/") == 1


def test_the_list_is_one_table_on_a_narrow_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solversearch.cli.listing.stdout", lambda: Console(width=80))
    lines = good("list", "models").splitlines()
    assert max(map(len, lines)) <= 80 and sum("name" in line and "guidance" in line for line in lines) == 1
    assert [sum(f" {name} " in line for line in lines) for name in ALIASES] == [1] * len(ALIASES)
    assert any("1280x720x129" in line and "hunyuan-video" in line for line in lines)


# The command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "parts", "reason"), OTHERS)
def test_the_command_line_says_what_cannot_be_sampled(kind: str, parts: dict[str, list[str]], reason: str, tmp_path: Path) -> None:
    assert reason in bad("optimize", "--model", folder(tmp_path, kind, **parts), "--nfe", 3, "--dry-run")


def test_the_command_line_says_what_a_pipeline_cannot_be_told(
    pipeline: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    lora, checkpoint = tmp_path / "lora.safetensors", tmp_path / "checkpoint.safetensors"
    layer = "transformer.transformer_blocks.0.attn.to_q.lora_"
    save_file({f"{layer}A.weight": torch.ones(2, 16), f"{layer}B.weight": torch.ones(16, 2)}, lora)
    save_file({"model.diffusion_model.input_blocks.0.0.weight": torch.ones(8, 9, 3, 3)}, checkpoint)
    video = zoo.build("wan21", reads=True)
    video.save_pretrained(tmp_path / "wan")
    cases: list[tuple[Any, ...]] = [
        ("there is no such file", pipeline("sd"), "--lora", "nowhere.safetensors"),
        ("of another architecture than StableDiffusionPipeline", pipeline("sd"), "--lora", lora),
        ("name a folder that has it with --config FOLDER", checkpoint),
        ("--frames 16 is not one more than a multiple of 4", tmp_path / "wan", "--frames", 16),
        ("makes no videos; leave out --frames", pipeline("sd"), "--frames", 17),
        ("--resolution 832x485 is no multiple of 16 pixels", tmp_path / "wan", "--resolution", "832x485"),
        ("--quantize 4bit needs", pipeline("sd"), "--quantize", "4bit"),
        ("does not apply to model 'digits'", "digits", "--lora", lora),
        ("does not apply to model 'digits'", "digits", "--frames", 5),
    ]
    for line, *arguments in cases:
        assert line in bad("optimize", "--nfe", 3, "--dry-run", "--model", *arguments)
