"""What makes features of pictures, for Frechet and kernel distances: Inception through clean-fid, or any TorchScript network.

    --features inception    clean-fid's network after clean-fid's resizing (Parmar et al. 2022, arXiv:2104.11222): bicubic with
                            antialiasing to 299 x 299, not rounded, values 0 .. 255; pictures (B, 3, 299, 299) to features (B, 2048)
    --features FILE         a TorchScript network, pictures (B, 3, H, W) in [0, 1] of the model's own size to features (B, F)

Nothing is downloaded. A TorchScript file is a program of tensor operations; no Python in it is unpickled or run.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from solversearch.cache import cache_folder
from solversearch.errors import UserError
from solversearch.models.options import Options

INCEPTION = "inception-2015-12-05.pt"
CLEANFID = Path("/tmp")
"""Where clean-fid itself keeps them."""
BATCH = 32
"""Pictures in one call of the network."""

Item = TypeVar("Item")
Picture = NDArray[np.uint8]
"""(H, W, 3)."""


@dataclass(frozen=True, eq=False)
class Extractor:
    """A feature network with the preparation of a picture that belongs to it, (H, W, 3) of bytes to (h, w, 3) float32.

    key is the same where features are the same: the network's digest and the preparation. width is F, where it is known beforehand.
    """

    name: str
    network: nn.Module
    prepare: Callable[[Picture], NDArray[np.float32]]
    key: str
    device: str
    width: int | None = None

    def __call__(self, items: Sequence[Item], picture: Callable[[Item], Picture]) -> Tensor:
        """Features (n, F), float32 on the CPU, of the pictures that the items are or stand for."""
        parts = []
        with ThreadPoolExecutor() as pool:
            for first in range(0, len(items), BATCH):
                prepared = list(pool.map(lambda item: self.prepare(picture(item)), items[first : first + BATCH]))
                parts += [self._run(np.stack(list(same))) for _, same in groupby(prepared, key=np.shape)]
        return torch.cat(parts)

    @torch.no_grad()
    def _run(self, prepared: NDArray[np.float32]) -> Tensor:
        x = torch.from_numpy(prepared).permute(0, 3, 1, 2).contiguous().to(self.device)
        try:
            # The same numbers each time: no reduced precision, no choice of algorithms by speed, no recompilation after the first calls.
            with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False), torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
                features = self.network(x)
        except RuntimeError as error:
            raise UserError(f"the feature network {self.name} fails on pictures {tuple(x.shape)}: {_last_line(error)}") from None
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != len(x):
            got = f"the shape {tuple(features.shape)}" if isinstance(features, Tensor) else f"a {type(features).__name__}"
            raise UserError(f"the feature network {self.name} must return features (B, F), got {got} for pictures {tuple(x.shape)}")
        return features.float().cpu()


def extractor_of(options: Options, device: str | None = None) -> Extractor:
    """The extractor that the options ask for, read from its file, on a device or the options' own. Raises `UserError`."""
    device = device or options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if options.features is None:
        raise UserError("say what the distances look at: --features inception, or a TorchScript file")
    if options.features == "inception":
        return _inception(_inception_file(options.inception_weights), device)
    if options.inception_weights is not None:
        raise UserError("--inception-weights goes with --features inception")
    return _torchscript(Path(options.features).expanduser(), device)


def _inception(file: Path, device: str) -> Extractor:
    from cleanfid.inception_torchscript import InceptionV3W
    from cleanfid.resize import build_resizer

    with _reading(file):
        network = InceptionV3W(str(file.parent), download=False)
    key = f"{_digest(file)} clean-fid"
    return Extractor("Inception", network.eval().to(device), build_resizer("clean"), key, device, 2048)


def _torchscript(file: Path, device: str) -> Extractor:
    if not file.is_file():
        raise UserError(f"--features {file}: no such file; write inception, or the path of a TorchScript network")
    with _reading(file):
        network: nn.Module = torch.jit.load(str(file), map_location=device)  # type: ignore[no-untyped-call]
    return Extractor(file.name, network.eval(), _unit, _digest(file), device)


def _unit(picture: Picture) -> NDArray[np.float32]:
    return picture.astype(np.float32) / np.float32(255)


def _inception_file(given: Path | None) -> Path:
    """Where the weights lie: where the person says, else in the cache, else where clean-fid keeps them."""
    from cleanfid.downloads_helper import inception_url

    places = [cache_folder(), CLEANFID] if given is None else [given.expanduser()]
    files = [place / INCEPTION if place.is_dir() else place for place in places]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise UserError(
            f"{files[0]}: Inception's weights are missing; download {INCEPTION} (91 MB) from {inception_url} "
            "and put it there, or point to it with --inception-weights PATH"
        )
    if found.name != INCEPTION:
        raise UserError(f"{found}: clean-fid wants its weights under their own name; rename the file to {INCEPTION}")
    return found


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is of the past
            yield
    except (RuntimeError, ValueError, AttributeError, OSError) as error:
        raise UserError(f"{file}: damaged, or not the TorchScript network that it should be ({_last_line(error)}); get it anew") from None


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _last_line(error: Exception) -> str:
    """TorchScript's errors end with what went wrong."""
    return " ".join((str(error).strip().splitlines() or [type(error).__name__])[-1].split())[:200]
