"""What is kept between runs, to save time: a cache that cannot be written costs that time again, not the run."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from solversearch.plan import replacing


def cache_folder() -> Path:
    """$SOLVERSEARCH_CACHE, else solversearch in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("SOLVERSEARCH_CACHE") or Path(base) / "solversearch").expanduser()


def keep(path: Path, tensors: Mapping[str, Tensor], what: str) -> None:
    """Keeps tensors for the next time."""
    try:
        with replacing(path) as temporary:
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)
    except (OSError, SafetensorError) as error:
        warnings.warn(f"{what} could not be cached in {path.parent}: {error}", stacklevel=3)
