"""Tiny pipelines beside the models loaded from the same folders, and samples of both from the same noise."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solversearch.models import Model
from solversearch.models.base import Denoiser
from solversearch.models.pipelines import load
from solversearch.plan import Plan, Provenance, Threshold, version_of
from solversearch.runtime import Tableau
from tests import tiny


class Families:
    """A pipeline with its own scheduler, and its model, by family; each is built once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: dict[tuple[str, str], tuple[Any, Model, Any]] = {}

    def __call__(self, family: str, dtype: str = "float32") -> tuple[Any, Model]:
        if (family, dtype) not in self.known:
            self.known[family, dtype] = self._load(family, dtype)
        pipe, model, stock = self.known[family, dtype]
        if hasattr(pipe.scheduler, "detach"):
            pipe.scheduler.detach()
        pipe.scheduler = stock
        return pipe, model

    def _load(self, family: str, dtype: str) -> tuple[Any, Model, Any]:
        from diffusers import DiffusionPipeline

        place, prompts = self.folder / family, self.folder / "prompts"
        if not place.exists():
            tiny.build(family, place)
            prompts.write_text("\n".join(tiny.CAPTIONS))
        texts = {} if family in ("ddpm", "dit") else {"prompts": prompts}
        model = load(str(place), tiny.options(family, dtype=dtype, **texts))
        pipe = DiffusionPipeline.from_pretrained(place, torch_dtype=getattr(torch, dtype))
        pipe.set_progress_bar_config(disable=True)
        return pipe, model, pipe.scheduler


STRENGTH = 0.6


def pack(x: Tensor) -> Tensor:
    """Latents (B, C, 2h, 2w) as Flux has them: (B, h w, 4 C)."""
    b, c, h, w = x.shape
    return x.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).flatten(1, 2).flatten(2)


def unpack(patches: Tensor, height: int, width: int) -> Tensor:
    b, _, c = patches.shape
    return patches.view(b, height // 2, width // 2, c // 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(b, c // 4, height, width)


def plan_of(model: Model, table: Tableau) -> Plan:
    return Plan(
        version=version_of(table.nodes, table.components, model.start),
        start=model.start,
        components=table.components,
        prediction_type=model.prediction_type,
        guidance=table.nodes[0].guidance,
        nfe=table.nfe,
        network_calls=table.network_calls,
        nodes=table.nodes,
        rows=table.rows,
        threshold=Threshold(kind="clamp", limit=model.clip) if model.clip else None,
        decisions=dict(model.facts) | ({"start": STRENGTH} if model.start else {}),
        provenance=Provenance(model=model.name, model_digest=model.digest),
    )


def call(pipe: Any, family: str, noise: Tensor, **arguments: Any) -> Tensor:
    """What the pipeline samples from the noise, which those that only draw it take from a generator of the seed 5."""
    given: dict[str, Any] = {"generator": torch.Generator().manual_seed(5)}
    if family not in ("ddpm", "dit"):
        given["latents"] = pack(noise) if family == "flux" else noise
    if family == "flux" and "true_cfg_scale" in arguments:
        given["negative_prompt"] = [""] * len(tiny.PROMPTS)
    pictures = pipe(
        **{**tiny.arguments(family), **given, "output_type": "pt" if family in ("ddpm", "dit") else "latent", **arguments}
    ).images
    if family in ("ddpm", "dit"):
        return pipe.scheduler.last[: len(noise)].float()
    return (unpack(pictures, *noise.shape[2:]) if family == "flux" else pictures).float()


def noise_of(model: Model, count: int = 2) -> Tensor:
    return torch.randn(count, *model.shape, generator=torch.Generator().manual_seed(5), dtype=model.dtype)


def reference(
    model: Model, plan: Plan, noise: Tensor, conditions: Tensor | None = None, picture: Tensor | None = None, **hooks: Any
) -> Tensor:
    """The runtime's result."""
    conditions = model.conditions[: len(noise)] if model.conditions is not None and conditions is None else conditions
    with torch.no_grad():
        return plan.sample(Denoiser(model, conditions, split=plan.tableau.split), noise.float(), picture, **hooks)


def error(sample: Tensor, expected: Tensor) -> float:
    return float((sample - expected).norm() / expected.norm())
