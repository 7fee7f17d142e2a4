"""Stable Diffusion XL (Podell et al. 2023, arXiv:2307.01952): two text encoders, and sizes and crops that the network is told."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from solversearch.models.pipelines.adapter import CLIP_TOKENIZERS, EncodePrompt, Pairs, Told, against
from solversearch.models.pipelines.stable_diffusion import StableDiffusion


class StableDiffusionXL(StableDiffusion):
    """Told is a picture of its full size, not cropped, under the negative prompt as well."""

    PIPELINES: ClassVar[tuple[str, ...]] = ("StableDiffusionXLPipeline",)
    TEXT: ClassVar[dict[str, tuple[str, ...]]] = {
        "tokenizer": CLIP_TOKENIZERS,
        "text_encoder": ("CLIPTextModel",),
        "tokenizer_2": CLIP_TOKENIZERS,
        "text_encoder_2": ("CLIPTextModelWithProjection",),
    }
    GUIDANCE: ClassVar[float] = 5.0

    pooled: Tensor
    times: Tensor

    def __init__(self, core: Any, embeddings: Mapping[str, Tensor], told: Told) -> None:
        super().__init__(core, embeddings, told)
        size = told.resolution
        times = torch.tensor([[size, size, 0, 0, size, size]]).to(self.prompt)
        self.register_buffer("times", times, persistent=False)

    def added(self, condition: Tensor) -> dict[str, Tensor]:
        return {"text_embeds": self.pooled[condition], "time_ids": self.times.expand(len(condition), -1)}

    @classmethod
    def encode(cls, encode_prompt: EncodePrompt, prompts: list[str], negative: str | None) -> Pairs:
        text, negated, pooled, negated_pooled = encode_prompt(prompts, **against(negative, prompts))
        return {"prompt": (text, negated), "pooled": (pooled, negated_pooled)}
