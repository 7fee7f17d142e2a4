"""Where commands write: told before the work begins, and never over what is not theirs."""

import re
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


def check_free(folder: Path, overwrite: bool) -> None:
    """A run never mixes with another, nor with files of the person."""
    try:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: a file is in the way of the run folder; choose another folder with --out")
        taken = sorted(each.name for each in folder.iterdir() if each.name != LOCK) if folder.exists() else []
    except OSError as error:
        raise UserError(f"{folder}: cannot look there: {error.strerror}; choose another folder with --out") from None
    if taken and not overwrite:
        raise UserError(f"{folder}: the run folder exists and holds {', '.join(taken[:3])}; choose another with --out, or --overwrite")


def claim(folder: Path) -> None:
    """Makes the folder, proves that it can be written, and clears away the files of the run before."""
    probe = folder / ".solversearch-probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
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


def check_place(file: Path) -> None:
    """Whether a file can be written, before the work for it begins."""
    try:
        if file.is_dir():
            raise UserError(f"{file}: it is a folder; name a file with --out")
        file.parent.mkdir(parents=True, exist_ok=True)
        probe = file.parent / ".solversearch-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{file}: cannot write there: {error.strerror}; choose another place with --out") from None
