"""Statistics of real images: made from a folder or from samples, kept as .npz.

A file holds, as clean-fid's and pytorch-fid's do, the mean `mu` (F,) and the covariance `sigma` (F, F) of the features. Ours adds
`feats`, the features of up to 1,024 of the images, for kernel distances; `count`, how many images there were; and `extractor`, which
network and resizing made them: statistics of other features are refused.
"""

import hashlib
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from solversearch.cache import cache_folder
from solversearch.errors import UserError
from solversearch.judging.distances import Moments, Reference
from solversearch.models.extractor import Extractor, Picture
from solversearch.plan import replacing

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
KEPT = 1024
"""Images whose features are kept, spread evenly over all."""


def reference_at(place: Path, extractor: Extractor) -> Callable[[], Reference]:
    """What reads the reference at a path: a folder of images, or statistics. Raises `UserError` at once for what is not there."""
    place = place.expanduser()
    if place.is_dir():
        files = images_in(place)
        return lambda: of_folder(place, files, extractor)
    if place.suffix != ".npz":
        raise UserError(f"{place}: a reference is a folder of images or statistics of one, an .npz file")
    found = read(place, extractor)
    return lambda: found


def images_in(folder: Path) -> list[Path]:
    """The images of a folder and the folders in it, sorted; what is hidden, as a Mac's ._0.png, is none."""
    found = (file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
    files = sorted(file for file in found if not any(part.startswith(".") for part in file.relative_to(folder).parts))
    if len(files) < 2:
        raise UserError(f"{folder}: holds {len(files)} images; statistics need at least 2, as {', '.join(sorted(SUFFIXES))}")
    return files


def of_folder(folder: Path, files: list[Path], extractor: Extractor) -> Reference:
    """Of images, from the cache where they have been looked at before."""
    stats = [(str(file.relative_to(folder)), file.stat()) for file in files]
    content = f"{extractor.key} {[(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]}"
    kept = cache_folder() / f"statistics-{hashlib.sha256(os.fsencode(content)).hexdigest()[:32]}.npz"
    try:
        return read(kept, extractor)
    except UserError:  # absent, or damaged: it is made again
        pass
    features = extractor(files, picture)
    try:
        write(kept, features, extractor)
    except OSError as error:
        warnings.warn(f"the statistics of {folder} could not be cached in {kept.parent}: {error}", stacklevel=2)
    return of_features(features)


def of_features(features: Tensor) -> Reference:
    chosen = np.linspace(0, len(features) - 1, min(KEPT, len(features))).round().astype(int)
    return Reference(Moments.of(features), features[torch.from_numpy(chosen)])


def write(path: Path, features: Tensor, extractor: Extractor) -> None:
    """Statistics of features (n, F). Raises OSError."""
    made = of_features(features)
    assert made.features is not None
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez(stream, mu=made.gaussian.mean.numpy(), sigma=made.gaussian.covariance.numpy(), feats=made.features.numpy(),
                 count=len(features), extractor=extractor.key)  # fmt: skip


def read(path: Path, extractor: Extractor) -> Reference:
    """Raises `UserError` for what is not there, damaged, or of other features."""
    try:
        with np.load(path, allow_pickle=False) as file:
            stored = {name: file[name] for name in ("mu", "sigma", "feats", "extractor") if name in file}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot read these statistics ({str(error)[:120] or type(error).__name__}); make them anew") from None
    if str(stored.get("extractor", extractor.key)) != extractor.key:
        raise UserError(f"{path}: these statistics are of other features than {extractor.name}; make them with 'solversearch statistics'")
    try:
        mean, covariance = (torch.as_tensor(stored[name], dtype=torch.float64) for name in ("mu", "sigma"))
        features = torch.as_tensor(stored["feats"], dtype=torch.float32) if "feats" in stored else None
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: holds no statistics ({error}); they are arrays 'mu' and 'sigma'") from None
    width = extractor.width or mean.numel()
    shapes = [mean.shape == (width,), covariance.shape == (width, width), features is None or features.shape[1:] == (width,)]
    if not all(shapes):
        got = f"mu {tuple(mean.shape)} and sigma {tuple(covariance.shape)}"
        raise UserError(f"{path}: the statistics are {got}, and {extractor.name} has {width} features; use statistics of the same features")
    if not (torch.isfinite(mean).all() and torch.isfinite(covariance).all() and torch.allclose(covariance, covariance.T)):
        raise UserError(f"{path}: the covariance must be finite and symmetric; make the statistics anew")
    return Reference(Moments(mean, covariance), features)


def picture(file: Path) -> Picture:
    """The image of a file, as clean-fid reads it, and grey of 16 bits as what it means: v / 257."""
    try:
        with Image.open(file) as image:
            if image.mode.startswith("I"):  # 16 bits of grey, which PIL would cut off at 255
                grey = np.rint(np.asarray(image, dtype=np.float64) / 257).clip(0, 255).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=-1)
            return np.array(image.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{file}: cannot read this image ({error}); remove it or mend it") from None
