"""Features of a model's samples through pictures, where the options ask for them.

Pictures are rounded to 8 bits, as saving them does, so that samples and a folder of the same samples have the same features.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from solversearch.errors import UserError
from solversearch.models.base import Model
from solversearch.models.extractor import BATCH, Extractor, Picture, extractor_of
from solversearch.models.options import Options
from solversearch.models.reference import reference_at


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """`Model.features` through pictures: samples (n, *shape) to features (n, F). Samples that are not finite have none: NaN."""

    images: Callable[[Tensor], Tensor]
    extractor: Extractor

    @torch.no_grad()
    def __call__(self, samples: Tensor) -> Tensor:
        return torch.cat([self._of(samples[first : first + BATCH]) for first in range(0, len(samples), BATCH)])

    def _of(self, samples: Tensor) -> Tensor:
        images = self.images(samples.clone()).float().cpu()
        finite = torch.isfinite(images).flatten(1).all(1)
        colour = images if images.ndim == 4 else images[..., None].expand(*images.shape, 3)
        pictures: list[Picture] = list((colour.nan_to_num(0).clamp(0, 1) * 255).round().to(torch.uint8).numpy())
        features = self.extractor(pictures, lambda picture: picture)
        features[~finite] = torch.nan
        return features


def with_features(model: Model, options: Options) -> Model:
    """The model with the features and the reference that the options ask for. Raises `UserError`."""
    if options.features is None:
        for name, given in (("--reference", options.reference), ("--inception-weights", options.inception_weights)):
            if given is not None:
                raise UserError(f"{name} needs --features inception; --reference goes with --features FILE as well")
        return model
    if model.images is None:
        raise UserError(f"--features looks at pictures, and model {model.name!r} makes none: add `images` to its factory, or leave it out")
    extractor = extractor_of(options, model.device)
    if extractor.width is None:  # tried on one picture, so that a mistake is found here and not after the teacher's solve
        tried = ImageFeatures(model.images, extractor)(torch.zeros(1, *model.shape, device=model.device))
        extractor = replace(extractor, width=tried.shape[1])
    reference = None if options.reference is None else cache(reference_at(options.reference, extractor))
    return replace(model, features=ImageFeatures(model.images, extractor), reference=reference, looks=extractor.name)
