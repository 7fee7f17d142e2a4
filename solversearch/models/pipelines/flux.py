"""FLUX.1 (Black Forest Labs 2024): rectified flow on patches of 2x2 latents, with a guidance scale that the network is told."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from solversearch.models.pipelines.adapter import CLIP_TOKENIZERS, T5_TOKENIZERS, Adapter, Config, EncodePrompt, Pairs, Told

SIDE = 128
"""Of the latents, which the pipeline fixes and its files do not tell."""


def pack(x: Tensor) -> Tensor:
    """Latents (B, C, 2h, 2w) to a sequence of patches (B, h w, 4 C)."""
    b, c, h, w = x.shape
    return x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)


def unpack(patches: Tensor, height: int, width: int) -> Tensor:
    """Inverse of `pack`, to latents of the given height and width."""
    b, _, c = patches.shape
    return patches.view(b, height // 2, width // 2, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c // 4, height, width)


class Flux(Adapter):
    """Guidance with a negative prompt, which costs a second network call, comes on top of what the network is told."""

    PIPELINES: ClassVar[tuple[str, ...]] = ("FluxPipeline",)
    CLASSES: ClassVar[tuple[str, ...]] = ("FluxTransformer2DModel",)
    TEXT: ClassVar[dict[str, tuple[str, ...]]] = {
        "tokenizer": CLIP_TOKENIZERS,
        "text_encoder": ("CLIPTextModel",),
        "tokenizer_2": T5_TOKENIZERS,
        "text_encoder_2": ("T5EncoderModel",),
    }
    GUIDANCE: ClassVar[float] = 1.0

    prompt: Tensor
    pooled: Tensor
    text_ids: Tensor

    def __init__(self, core: Any, embeddings: Mapping[str, Tensor], told: Told) -> None:
        super().__init__(core, embeddings, told)
        self.register_buffer("text_ids", self.prompt.new_zeros(self.prompt.shape[1], 3), persistent=False)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        scale = None if self.told.guidance is None else torch.full((len(x),), self.told.guidance, device=x.device)
        rows, columns = torch.meshgrid(*(torch.arange(side // 2, device=x.device) for side in (height, width)), indexing="ij")
        output = self.core(
            hidden_states=pack(x),
            timestep=t.to(x.dtype) / 1000,
            guidance=scale,
            pooled_projections=self.pooled[condition],
            encoder_hidden_states=self.prompt[condition],
            txt_ids=self.text_ids,
            img_ids=torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).view(-1, 3).to(x),
            return_dict=False,
        )[0]
        return unpack(output, height, width)

    @classmethod
    def side(cls, config: Config) -> int:
        return SIDE

    @classmethod
    def channels(cls, config: Config) -> int:
        return int(config["in_channels"] // 4)

    @classmethod
    def multiple(cls, config: Config) -> int:
        return 2

    @classmethod
    def distilled_guidance(cls, config: Config) -> float | None:
        return 3.5 if config.get("guidance_embeds") else None

    @classmethod
    def prompt_length(cls, config: Config, default: int | None) -> int | None:
        """Schnell, which is told no guidance, was made for prompts of half the length."""
        return default if config.get("guidance_embeds") else 256

    @classmethod
    def encode(cls, encode_prompt: EncodePrompt, prompts: list[str], negative: str | None) -> Pairs:
        text, pooled, _ = encode_prompt(prompts, prompt_2=None)
        negated, negated_pooled, _ = encode_prompt([negative or ""] * len(prompts), prompt_2=None)
        return {"prompt": (text, negated), "pooled": (pooled, negated_pooled)}
