"""What is kept between runs, to save time: a cache that cannot be written costs that time again, not the run."""

import os
import re
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, NamedTuple

from safetensors import SafetensorError

from solversearch.errors import UserError
from solversearch.plan import replacing

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("teacher", "prompts", "statistics")
GIB = 2**30
LIMIT = "20"
"""GiB that teachers may take together, where nothing else is said."""
_NAME = re.compile(rf"({'|'.join(KINDS)})-[0-9a-f]{{32}}\.(safetensors|npz)")


class Kept(NamedTuple):
    """A file of the cache: bytes, and when it was used last, in seconds since 1970."""

    path: Path
    kind: str
    size: int
    used: float


def cache_folder() -> Path:
    """$SOLVERSEARCH_CACHE, else solversearch in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("SOLVERSEARCH_CACHE") or Path(base) / "solversearch").expanduser()


def limit() -> float:
    """Bytes that teachers may take together: $SOLVERSEARCH_CACHE_LIMIT, in GiB, or inf. Raises `UserError` where it is no such number."""
    text = os.environ.get("SOLVERSEARCH_CACHE_LIMIT") or LIMIT
    try:
        most = float(text)
    except ValueError:
        most = -1.0
    if not most >= 0:  # also where it is NaN
        raise UserError(f"SOLVERSEARCH_CACHE_LIMIT {text!r} is no number of GiB, such as {LIMIT}; it bounds what teachers take together")
    return most * GIB


def keep(path: Path, tensors: "Mapping[str, Tensor]", what: str) -> None:
    """Keeps tensors for the next time."""
    from safetensors.torch import save_file

    try:
        with replacing(path) as temporary:
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary)
    except (OSError, SafetensorError) as error:
        warnings.warn(f"{what} could not be cached in {path.parent}: {error}", stacklevel=3)


def kept() -> list[Kept]:
    """The files of the cache, those used least lately first; whatever else lies in the folder is not ours."""
    found = []
    for path in cache_folder().glob("*"):
        try:
            about = path.lstat()
        except OSError:  # another process has just removed it
            continue
        if (match := _NAME.fullmatch(path.name)) and S_ISREG(about.st_mode):
            found.append(Kept(path, match[1], about.st_size, about.st_mtime))
    return sorted(found, key=lambda each: each.used)


def used(path: Path) -> None:
    """Notes that a file was of use now."""
    with suppress(OSError):  # then it goes a little earlier than it might
        os.utime(path)


def evict(most: float) -> list[Kept]:
    """Removes teachers used least lately until the others take no more bytes together; returns what is gone."""
    teachers = [each for each in kept() if each.kind == "teacher"]
    excess, chosen = sum(each.size for each in teachers) - most, []
    for each in teachers:
        if excess > 0:
            chosen.append(each)
            excess -= each.size
    return remove(chosen)


def remove(files: list[Kept]) -> list[Kept]:
    """Removes files; returns those that are gone. What a process has open stays with it until it ends."""
    gone = []
    for each in files:
        try:
            each.path.unlink(missing_ok=True)
            gone.append(each)
        except OSError as error:
            warnings.warn(f"{each.path} could not be removed: {error.strerror}", stacklevel=3)
    return gone
