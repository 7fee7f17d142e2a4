"""PixArt-alpha and -sigma (Chen et al. 2023, arXiv:2310.00426; 2024, arXiv:2403.04692): a transformer that attends to T5's text."""

from typing import ClassVar

import torch
from torch import Tensor

from solversearch.models.pipelines.adapter import T5_TOKENIZERS, Adapter, EncodePrompt, Pairs, first


class PixArt(Adapter):
    PIPELINES: ClassVar[tuple[str, ...]] = ("PixArtAlphaPipeline", "PixArtSigmaPipeline")
    CLASSES: ClassVar[tuple[str, ...]] = ("PixArtTransformer2DModel", "Transformer2DModel")
    TEXT: ClassVar[dict[str, tuple[str, ...]]] = {"tokenizer": T5_TOKENIZERS, "text_encoder": ("T5EncoderModel",)}
    GUIDANCE: ClassVar[float] = 4.5

    prompt: Tensor
    mask: Tensor

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        text, mask = self.prompt[condition], self.mask[condition]
        output = self.core(
            x, encoder_hidden_states=text, encoder_attention_mask=mask, timestep=t, added_cond_kwargs=self._sizes(x), return_dict=False
        )[0]
        return first(output, x.shape[1])

    def _sizes(self, x: Tensor) -> dict[str, Tensor | None]:
        """Size and aspect ratio of the picture, which the large alpha network is told."""
        if not self.core.use_additional_conditions:
            return {"resolution": None, "aspect_ratio": None}
        size = torch.full((len(x), 2), self.told.resolution, dtype=x.dtype, device=x.device)
        return {"resolution": size, "aspect_ratio": torch.ones_like(size[:, :1])}

    @classmethod
    def encode(cls, encode_prompt: EncodePrompt, prompts: list[str], negative: str | None) -> Pairs:
        text, mask, negated, negated_mask = encode_prompt(prompts, negative_prompt=negative or "")
        return {"prompt": (text, negated), "mask": (mask, negated_mask)}
