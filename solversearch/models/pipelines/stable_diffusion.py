"""Stable Diffusion 1.x and 2.x (Rombach et al. 2022, arXiv:2112.10752): a UNet of latents that attends to the prompt."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from solversearch.models.pipelines.adapter import (
    CLIP_TOKENIZERS,
    Adapter,
    Config,
    EncodePrompt,
    Pairs,
    Told,
    against,
    distilled_embedding,
    first,
)


class StableDiffusion(Adapter):
    PIPELINES: ClassVar[tuple[str, ...]] = ("StableDiffusionPipeline",)
    PART: ClassVar[str] = "unet"
    CLASSES: ClassVar[tuple[str, ...]] = ("UNet2DConditionModel",)
    TEXT: ClassVar[dict[str, tuple[str, ...]]] = {"tokenizer": CLIP_TOKENIZERS, "text_encoder": ("CLIPTextModel",)}
    GUIDANCE: ClassVar[float] = 7.5

    prompt: Tensor

    def __init__(self, core: Any, embeddings: Mapping[str, Tensor], told: Told) -> None:
        super().__init__(core, embeddings, told)
        scale = None if told.guidance is None else distilled_embedding(told.guidance, core.config.time_cond_proj_dim).to(self.prompt)
        self.register_buffer("scale", scale, persistent=False)
        self.scale: Tensor | None

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        scale = None if self.scale is None else self.scale.expand(len(x), -1)
        added = self.added(condition)
        text = self.prompt[condition]
        output = self.core(x, t, encoder_hidden_states=text, timestep_cond=scale, added_cond_kwargs=added, return_dict=False)[0]
        return first(output, x.shape[1])

    def added(self, condition: Tensor) -> dict[str, Tensor] | None:
        """What the network is told of the picture besides its prompt."""
        return None

    @classmethod
    def distilled_guidance(cls, config: Config) -> float | None:
        return None if config.get("time_cond_proj_dim") is None else cls.GUIDANCE

    @classmethod
    def encode(cls, encode_prompt: EncodePrompt, prompts: list[str], negative: str | None) -> Pairs:
        return {"prompt": encode_prompt(prompts, num_images_per_prompt=1, do_classifier_free_guidance=True, **against(negative, prompts))}
