"""What the network of a pipeline has in common with the others: `forward(x, t, condition)`, where a condition is the number of a prompt."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

Config = Mapping[str, Any]
"""The content of a part's config.json."""

EncodePrompt = Callable[..., Any]
"""`encode_prompt` of a pipeline, with device and prompt length filled in."""
Pairs = dict[str, tuple[Tensor, Tensor]]

CLIP_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")
T5_TOKENIZERS = ("T5Tokenizer", "T5TokenizerFast")


@dataclass(frozen=True)
class Told:
    """What a network is told besides the prompt: the pixels of a side, and the guidance scale where one was distilled into it."""

    resolution: int
    guidance: float | None = None


class Adapter(nn.Module):
    """Calls the network of a pipeline as that pipeline does; a subclass for every family of them.

    core is the network of diffusers. embeddings holds a row a prompt, the last one for the negative prompt, in buffers that are no part
    of the weights. x has the network's dtype, t is in float32, as schedulers give it.
    """

    PIPELINES: ClassVar[tuple[str, ...]]
    PART: ClassVar[str] = "transformer"
    CLASSES: ClassVar[tuple[str, ...]]
    TEXT: ClassVar[dict[str, tuple[str, ...]]] = {}
    """The parts that encode prompts, and the classes that they may have."""
    OPTIONAL: ClassVar[tuple[str, ...]] = ()
    """Those of them that a folder may leave out."""
    LATENT: ClassVar[bool] = True
    """Whether pictures are what a VAE makes of its samples."""
    RESIZABLE: ClassVar[bool] = True
    """Whether it makes pictures of other sizes than its own."""
    GUIDANCE: ClassVar[float]
    """The default of the pipeline."""

    def __init__(self, core: Any, embeddings: Mapping[str, Tensor], told: Told) -> None:
        super().__init__()
        self.core, self.told = core, told
        for name, tensor in embeddings.items():
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        raise NotImplementedError

    @classmethod
    def side(cls, config: Config) -> int:
        """Of the latents that the network was made for."""
        size = config["sample_size"]
        return int(size if isinstance(size, int) else size[0])

    @classmethod
    def channels(cls, config: Config) -> int:
        return int(config["in_channels"])

    @classmethod
    def multiple(cls, config: Config) -> int:
        """What the side of latents must be divisible by."""
        return int(config.get("patch_size") or 1)

    @classmethod
    def tokens(cls, config: Config, side: int) -> int:
        """The length of the sequence that the network sees."""
        return int((side // cls.multiple(config)) ** 2)

    @classmethod
    def classes(cls, config: Config) -> int:
        """How many class labels it knows, the null label not counted; 0 where it knows none."""
        return 0

    @classmethod
    def distilled_guidance(cls, config: Config) -> float | None:
        """The default of what a guidance-distilled network is told; None for others."""
        return None

    @classmethod
    def encode(cls, encode_prompt: EncodePrompt, prompts: list[str], negative: str | None) -> Pairs:
        """By the name of a buffer, the embeddings of prompts, a row each, and of the negative prompt as often."""
        raise NotImplementedError

    @classmethod
    def prompt_length(cls, config: Config, default: int | None) -> int | None:
        """The tokens of a prompt where the pipeline lets its caller choose; default is the pipeline's."""
        return default


def against(negative: str | None, prompts: list[str]) -> dict[str, list[str]]:
    """The argument for a negative prompt; without one, the pipeline takes its own, which is not the same as an empty one for all."""
    return {} if negative is None else {"negative_prompt": [negative] * len(prompts)}


def first(output: Tensor, channels: int) -> Tensor:
    """The mean, where the network predicts a variance in further channels (Nichol and Dhariwal 2021, arXiv:2102.09672)."""
    return output[:, :channels]


def distilled_embedding(scale: float, width: int) -> Tensor:
    """(1, width): sines and cosines of 1000 (w - 1), as consistency models are told their scale (Luo et al. 2023, arXiv:2310.04378)."""
    half = width // 2
    angles = 1000 * (scale - 1) * torch.exp(-torch.log(torch.tensor(10000.0)) / (half - 1) * torch.arange(half, dtype=torch.float32))
    return nn.functional.pad(torch.cat([angles.sin(), angles.cos()]), (0, width % 2))[None]
