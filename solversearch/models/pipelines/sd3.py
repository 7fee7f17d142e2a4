"""Stable Diffusion 3 and 3.5 (Esser et al. 2024, arXiv:2403.03206): rectified flow, three text encoders."""

from typing import ClassVar

from torch import Tensor

from solversearch.models.pipelines.adapter import CLIP_TOKENIZERS, T5_TOKENIZERS, Adapter, EncodePrompt, Pairs, against


class StableDiffusion3(Adapter):
    """The third text encoder, T5, is large and may be left out of the folder."""

    PIPELINES: ClassVar[tuple[str, ...]] = ("StableDiffusion3Pipeline",)
    CLASSES: ClassVar[tuple[str, ...]] = ("SD3Transformer2DModel",)
    TEXT: ClassVar[dict[str, tuple[str, ...]]] = {
        "tokenizer": CLIP_TOKENIZERS,
        "text_encoder": ("CLIPTextModelWithProjection",),
        "tokenizer_2": CLIP_TOKENIZERS,
        "text_encoder_2": ("CLIPTextModelWithProjection",),
        "tokenizer_3": T5_TOKENIZERS,
        "text_encoder_3": ("T5EncoderModel",),
    }
    OPTIONAL: ClassVar[tuple[str, ...]] = ("tokenizer_3", "text_encoder_3")
    GUIDANCE: ClassVar[float] = 7.0

    prompt: Tensor
    pooled: Tensor

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        text, pooled = self.prompt[condition], self.pooled[condition]
        return self.core(hidden_states=x, timestep=t, encoder_hidden_states=text, pooled_projections=pooled, return_dict=False)[0]

    @classmethod
    def encode(cls, encode_prompt: EncodePrompt, prompts: list[str], negative: str | None) -> Pairs:
        text, negated, pooled, negated_pooled = encode_prompt(prompts, prompt_2=None, prompt_3=None, **against(negative, prompts))
        return {"prompt": (text, negated), "pooled": (pooled, negated_pooled)}
