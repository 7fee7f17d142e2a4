"""Networks of pixels without a condition: DDPM (Ho et al. 2020, arXiv:2006.11239)."""

from typing import ClassVar

from torch import Tensor

from solversearch.models.pipelines.adapter import Adapter, first


class Unconditional(Adapter):
    PIPELINES: ClassVar[tuple[str, ...]] = ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline")
    PART: ClassVar[str] = "unet"
    CLASSES: ClassVar[tuple[str, ...]] = ("UNet2DModel",)
    LATENT: ClassVar[bool] = False
    RESIZABLE: ClassVar[bool] = False
    GUIDANCE: ClassVar[float] = 1.0

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        return first(self.core(x, t, return_dict=False)[0], x.shape[1])
