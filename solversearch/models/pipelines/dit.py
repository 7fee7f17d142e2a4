"""Class-conditional diffusion transformers in latent space: DiT (Peebles and Xie 2022, arXiv:2212.09748)."""

from typing import ClassVar

from torch import Tensor

from solversearch.models.pipelines.adapter import Adapter, Config, first


class DiT(Adapter):
    """A condition is a label of ImageNet; the one after the last stands for any."""

    PIPELINES: ClassVar[tuple[str, ...]] = ("DiTPipeline",)
    CLASSES: ClassVar[tuple[str, ...]] = ("DiTTransformer2DModel", "Transformer2DModel")
    RESIZABLE: ClassVar[bool] = False
    GUIDANCE: ClassVar[float] = 4.0

    def forward(self, x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        return first(self.core(x, timestep=t, class_labels=condition, return_dict=False)[0], x.shape[1])

    @classmethod
    def classes(cls, config: Config) -> int:
        return int(config["num_embeds_ada_norm"])
