"""Where commands write: told before the work begins, and never over what is not theirs."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from solversearch.errors import UserError

OWN_FILES = (
    "run.json", "plan.json", "comparison.json", "journal.log", "evaluations.log", "evaluations.json", "earlier.json",
    "samples.png", "comparison.png", "plan.png", "search.png", "report.html",
)  # fmt: skip
"""What a run writes, and so what --overwrite replaces."""
KEPT = "kept"
"""The folder of what a run keeps until it is finished, and what another process needs to go on with it."""
LOCK = ".lock"
"""Held by the driver that works in a run folder; it means nothing where none does."""


def slug(model: str) -> str:
    return re.sub(r"[^\w.-]+", "-", model).strip("-.") or "model"


def check_free(folder: Path, overwrite: bool | None, own: Callable[[str], bool] = LOCK.__eq__) -> None:
    """A run never mixes with another, nor with files of the person. own tells names that do not matter.

    overwrite is None where the command has no such option.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: a file is in the way of the run folder; choose another folder with --out")
        taken = sorted(each.name for each in folder.iterdir() if not own(each.name)) if folder.exists() else []
        _probe(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot write there: {error.strerror}; choose another folder with --out") from None
    if taken and not overwrite:
        told = "choose another with --out" + ", or --overwrite" * (overwrite is False)
        raise UserError(f"{folder}: the run folder exists and holds {', '.join(taken[:3])}; {told}")


def claim(folder: Path) -> None:
    """Makes the folder, proves that it can be written, and clears away the files of the run before."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _probe(folder)
        for own in (*(folder / name for name in OWN_FILES), *folder.glob("pareto/plan-*.json")):
            own.unlink(missing_ok=True)
        clear_kept(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot write there: {error.strerror}; choose another folder with --out") from None


def clear_kept(folder: Path) -> None:
    """Removes what a run has kept in its folder, and nothing of the person's. Raises OSError."""
    kept = folder / KEPT
    for own in (*kept.glob(f"{'?' * 32}.safetensors"), *kept.glob(".solversearch-*")):
        own.unlink(missing_ok=True)
    if kept.is_dir() and not any(kept.iterdir()):
        kept.rmdir()


MARKS = {
    "imported plan": b'"command": "solversearch import ',
    "predicted plan": b'"command": "solversearch cpr predict ',
    "regression": b'"format": "solversearch-cpr"',
    "statistics": b"extractor.npy",
    "picture": b"Software\0solversearch",
    "page": b'<meta name="generator" content="solversearch">',
    "module": b"# From solversearch ",
    "sigmas": b"# ComfyUI, node ManualSigmas:",
    "stock": b'"from diffusers import ',
}
"""What stands in every file of a command, by the kind of its content: such a file it may replace. A plan that was searched has none."""
_LOOKED = 64 * 2**20


def check_place(file: Path, kind: str, overwrite: bool = False) -> None:
    """Whether a file can be written, before the work for it begins. What is there already must be of the kind, and ours, or --overwrite."""
    try:
        if file.is_dir():
            raise UserError(f"{file}: it is a folder; name a file with --out")
        if file.exists() and not overwrite and not is_ours(file, kind):
            raise UserError(f"{file}: exists, and is not what this command writes; choose another with --out, or --overwrite")
        _probe(file.parent)
    except OSError as error:
        raise UserError(f"{file}: cannot write there: {error.strerror}; choose another place with --out") from None


def is_ours(file: Path, kind: str) -> bool:
    """Whether a command has written the file. Raises OSError."""
    with file.open("rb") as stream:
        return MARKS[kind] in stream.read(_LOOKED)


def _probe(folder: Path) -> None:
    """Raises OSError where the folder, or the next one above that exists, cannot be written."""
    place = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    probe = place / f".solversearch-{os.urandom(8).hex()}"
    probe.touch()
    probe.unlink()


def check_name(word: str) -> None:
    """Names are written into plans and records, which are UTF-8. Raises `UserError` for one with other bytes."""
    try:
        word.encode()
    except UnicodeEncodeError:
        shown = word.encode(errors="replace").decode()
        raise UserError(f"{shown[:200]}: the name has bytes that are no UTF-8; rename it, or choose another with --out") from None
