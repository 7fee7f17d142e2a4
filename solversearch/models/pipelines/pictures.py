"""From latents, or pixels in [-1, 1], to pictures (B, H, W, 3) in [0, 1]."""

from typing import Any

import torch
from torch import Tensor

from solversearch.models.pipelines.source import Folder

CLASSES = ("AutoencoderKL", "AutoencoderTiny")
BATCH = 4


def from_pixels(x: Tensor) -> Tensor:
    return (x / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


class Decoder:
    """The VAE's decoder, loaded when the first picture is asked for. offload keeps it on the device for the time of a call only."""

    def __init__(self, folder: Folder, dtype: torch.dtype, device: str, offload: bool) -> None:
        self.folder, self.device, self.offload = folder, device, offload
        overflows = folder.config("vae").get("force_upcast", False)
        self.dtype = torch.float32 if overflows and dtype == torch.float16 else dtype
        self._vae: Any = None

    @torch.no_grad()
    def __call__(self, latents: Tensor) -> Tensor:
        if self._vae is None:
            self._vae = self.folder.load("vae", CLASSES, self.dtype)
        self._vae.to(self.device)
        raw = self._unscaled(latents.to(self.device, self.dtype))
        pictures = torch.cat([from_pixels(self._vae.decode(part, return_dict=False)[0].float()) for part in torch.split(raw, BATCH)])
        if self.offload:
            self._vae.to("cpu")
        return pictures.to(latents.device)

    def _unscaled(self, latents: Tensor) -> Tensor:
        """Latents as the encoder made them: pipelines scale them to unit variance, some by channel, some after a shift."""
        config = self._vae.config
        scaled = latents / config.scaling_factor
        if config.get("latents_mean") is not None and config.get("latents_std") is not None:
            mean, deviation = (torch.tensor(config[name]).view(1, -1, 1, 1).to(latents) for name in ("latents_mean", "latents_std"))
            return latents * deviation / config.scaling_factor + mean
        return scaled + (config.get("shift_factor") or 0)
