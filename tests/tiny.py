"""Tiny pipelines of diffusers with random weights, one of each family: built without any download, and saved as the real ones are.

Latents are 4x8x8 (pictures 16x16, the VAE halves them) and prompts sixteen tokens; DDPM makes 3x8x8 pictures. `options` and `arguments` are
what a tiny pipeline needs to be told when it is loaded and when it is called: the same prompt length and the same resolution.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from solversearch.models.options import Options
from solversearch.models.pipelines.library import quiet

FAMILIES = ("ddpm", "dit", "sd", "sd_v", "sdxl", "pixart", "sd3", "flux")
LATENT = (4, 8, 8)
RESOLUTION = 16
TOKENS = 16
WIDTH = 16
"""Of every text encoder."""
PROMPTS = ["a red fox in the snow", "two boats"]
CAPTIONS = [*PROMPTS, "a lamp"]
"""Of a file of prompts, which needs three."""


def build(family: str, folder: Path, dtype: torch.dtype = torch.float32, **changed: Any) -> Path:
    """A pipeline of the family, saved in the folder, with weights that are the same every time; changed are settings of its builder."""
    with quiet():
        torch.manual_seed(FAMILIES.index(family))
        pipe = _BUILDERS[family](**changed)
        network = pipe.unet if hasattr(pipe, "unet") else pipe.transformer
        _smooth_in_time(network)
        _scale_output(network, family)
        pipe.to(dtype)
        pipe.save_pretrained(folder)
    return folder


def options(family: str, **changed: Any) -> Options:
    """How the family is loaded: Flux does not say in its files what resolution it was made for."""
    return Options(**({"device": "cpu"} | ({"resolution": RESOLUTION} if family == "flux" else {}) | changed))


def arguments(family: str, prompts: list[str] | None = None) -> dict[str, Any]:
    """What a pipeline of the family is called with, besides steps, guidance and output."""
    prompts = prompts or PROMPTS
    if family == "ddpm":
        return {"batch_size": len(prompts)}
    if family == "dit":
        return {"class_labels": list(range(len(prompts)))}
    told: dict[str, Any] = {"prompt": prompts, "height": RESOLUTION, "width": RESOLUTION}
    if family in ("pixart", "sd3", "flux"):
        told["max_sequence_length"] = TOKENS
    return told | ({"use_resolution_binning": False} if family == "pixart" else {})


# The families ----------------------------------------------------------------------------------------------------


def _ddpm() -> Any:
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    unet = UNet2DModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return DDPMPipeline(unet, DDPMScheduler())


def _dit() -> Any:
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    transformer = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=2, norm_num_groups=4, sample_size=8
    )
    scheduler = DDIMScheduler(clip_sample=False)
    return DiTPipeline(transformer, _vae(), scheduler, id2label={0: "tench, Tinca tinca", 1: "goldfish"})


def _sd(prediction_type: str = "epsilon", **unet: Any) -> Any:
    from diffusers import DDIMScheduler, PNDMScheduler, StableDiffusionPipeline

    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1, "set_alpha_to_one": False}
    scheduler = (
        PNDMScheduler(**betas, skip_prk_steps=True)
        if prediction_type == "epsilon"
        else DDIMScheduler(**betas, clip_sample=False, prediction_type=prediction_type)
    )
    return StableDiffusionPipeline(
        _vae(),
        _clip_text(),
        _clip_tokenizer(),
        _unet(**unet),
        scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl() -> Any:
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline

    unet = _unet(
        cross_attention_dim=2 * WIDTH, addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=WIDTH + 6 * 8,
    )  # fmt: skip
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
    )
    return StableDiffusionXLPipeline(
        _vae(force_upcast=True),
        _clip_text(),
        _clip_text(True),
        _clip_tokenizer(),
        _clip_tokenizer(),
        unet,
        scheduler,
        add_watermarker=False,
    )


def _pixart(sample_size: int = 8, version: str = "Alpha") -> Any:
    import diffusers
    from diffusers import DPMSolverMultistepScheduler, PixArtTransformer2DModel

    transformer = PixArtTransformer2DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=8, num_layers=2, norm_num_groups=4,
        cross_attention_dim=24, sample_size=sample_size, caption_channels=WIDTH,
    )  # fmt: skip
    kind = getattr(diffusers, f"PixArt{version}Pipeline")
    return kind(_t5_tokenizer(), _t5(), _vae(), transformer, DPMSolverMultistepScheduler())


def _sd3(t5: bool = True) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=2 * WIDTH, caption_projection_dim=16, pooled_projection_dim=2 * WIDTH, out_channels=4, pos_embed_max_size=16,
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer, FlowMatchEulerDiscreteScheduler(shift=3.0), _vae(shift_factor=0.06, scaling_factor=1.5),
        _clip_text(True), _clip_tokenizer(), _clip_text(True), _clip_tokenizer(),
        _t5(2 * WIDTH) if t5 else None, _t5_tokenizer() if t5 else None,
    )  # fmt: skip


def _flux() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, guidance_embeds=True, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    return FluxPipeline(
        scheduler, _vae(shift_factor=0.1, scaling_factor=0.36), _clip_text(), _clip_tokenizer(), _t5(), _t5_tokenizer(), transformer
    )


_BUILDERS: dict[str, Callable[..., Any]] = {
    "ddpm": _ddpm, "dit": _dit, "sd": _sd, "sd_v": partial(_sd, "v_prediction"), "sdxl": _sdxl, "pixart": _pixart,
    "sd3": _sd3, "flux": _flux,
}  # fmt: skip


# Their parts -----------------------------------------------------------------------------------------------------


def _unet(**changed: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        **{
            "sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 2,
            "cross_attention_dim": WIDTH, "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        } | changed
    )  # fmt: skip


def _vae(**changed: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        **{
            "block_out_channels": (4, 8), "norm_num_groups": 2, "latent_channels": 4, "sample_size": RESOLUTION, "force_upcast": False,
            "down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2,
        } | changed
    )  # fmt: skip


def _clip_tokenizer() -> Any:
    """Single letters, inside a word and at its end."""
    from transformers import CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz0123456789,.!'-"
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer({token: i for i, token in enumerate(tokens)}, [], model_max_length=TOKENS)


def _clip_text(projected: bool = False, length: int = TOKENS) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = _clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=WIDTH, projection_dim=WIDTH, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=length, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, initializer_range=0.3,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def _t5_tokenizer() -> Any:
    """Single letters."""
    from transformers import T5TokenizerFast

    tokens = ["<pad>", "</s>", "<unk>", "\N{LOWER ONE EIGHTH BLOCK}", *"abcdefghijklmnopqrstuvwxyz0123456789,.!'-"]
    return T5TokenizerFast([(token, -float(i)) for i, token in enumerate(tokens)], extra_ids=0, model_max_length=TOKENS)


def _t5(width: int = WIDTH) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=64, d_model=width, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return T5EncoderModel(config).eval()


@torch.no_grad()
def _smooth_in_time(network: nn.Module) -> None:
    """The upper half of the frequencies that times are embedded with is unseen: random weights would make neighbouring times strangers."""
    for name, module in network.named_modules():
        if name.endswith(("time_embedding", "timestep_embedder")):
            weight = module.linear_1.weight.view(module.linear_1.out_features, 2, -1)  # sines, cosines
            weight *= 2
            weight[..., : weight.shape[-1] // 2] = 0


@torch.no_grad()
def _scale_output(network: nn.Module, family: str) -> None:
    """Outputs of unit variance: the last layer is scaled by what it gives to noise."""
    last = next(getattr(network, name) for name in ("conv_out", "proj_out_2", "proj_out") if hasattr(network, name))
    outputs: list[Tensor] = []
    hook = last.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    network(**_sample(network, family))
    hook.remove()
    last.weight /= outputs[0].std()
    last.bias /= outputs[0].std()


def _sample(network: Any, family: str) -> dict[str, Any]:
    """Arguments of a forward pass."""
    x, t = torch.randn(2, *LATENT), torch.tensor([300.0, 700.0])
    if family == "ddpm":
        return {"sample": torch.randn(2, 3, 8, 8), "timestep": t}
    if family == "dit":
        return {"hidden_states": x, "timestep": t.long(), "class_labels": torch.tensor([0, 1])}
    if family == "sd3":
        text = {"encoder_hidden_states": torch.randn(2, TOKENS, 2 * WIDTH), "pooled_projections": torch.randn(2, 2 * WIDTH)}
        return {"hidden_states": x, "timestep": t, **text}
    if family == "flux":
        text = {"encoder_hidden_states": torch.randn(2, TOKENS, WIDTH), "pooled_projections": torch.randn(2, WIDTH)}
        ids = {"txt_ids": torch.zeros(TOKENS, 3), "img_ids": torch.zeros(16, 3)}
        return {"hidden_states": torch.randn(2, 16, 16), "timestep": t / 1000, "guidance": torch.ones(2), **text, **ids}
    if family == "pixart":
        more = {"resolution": torch.full((2, 2), 16.0), "aspect_ratio": torch.ones(2, 1)} if network.config.sample_size == 128 else {}
        added = {"resolution": None, "aspect_ratio": None} | more
        return {"hidden_states": x, "timestep": t, "encoder_hidden_states": torch.randn(2, TOKENS, WIDTH), "added_cond_kwargs": added}
    width = network.config.cross_attention_dim
    times = {"added_cond_kwargs": {"text_embeds": torch.randn(2, WIDTH), "time_ids": torch.full((2, 6), 16.0)}} if family == "sdxl" else {}
    return {"sample": x, "timestep": t, "encoder_hidden_states": torch.randn(2, TOKENS, width), **times}
