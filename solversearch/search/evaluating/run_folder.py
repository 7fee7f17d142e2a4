"""A run folder: who works in it, and what its search was asked, so that another process can go on with it."""

import platform
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import filelock
import numpy
import optuna
import torch
from pydantic import BaseModel, ConfigDict, field_serializer

from solversearch.errors import UserError
from solversearch.models.base import Model
from solversearch.models.digest import same
from solversearch.models.options import Options
from solversearch.outputs import LOCK
from solversearch.plan import read_json, write_text
from solversearch.search.settings import Settings
from solversearch.version import __version__

NAME = "run.json"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Makes the folder where there is none, and keeps other drivers out of it; ends with this process, however that ends."""
    lock = filelock.FileLock(folder / LOCK, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise UserError(f"{folder}: another driver is at work in this run folder; wait for it, or choose another folder") from None
    except OSError as error:
        raise UserError(f"{folder}: cannot write there: {error.strerror}; choose another folder with --out") from None
    try:
        yield
    finally:
        lock.release()


class Run(BaseModel):
    """What a search was asked. model and options are how it is loaded; storage is where Optuna keeps the study, None for the journal;
    granted are the network evaluations that the hours had room for when it began, None where that were all."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal["solversearch-run"] = "solversearch-run"
    version: Literal[1] = 1
    model: str
    options: Options
    model_digest: str
    settings: Settings
    granted: int | None = None
    storage: str | None = None
    study: str = "search"
    command: str
    versions: dict[str, str]

    @field_serializer("settings")
    def _spelled(self, settings: Settings) -> dict[str, Any]:
        """A space as its file has it: what is left out there may not be said with what is."""
        return {**settings.model_dump(mode="json"), "space": settings.space.model_dump(mode="json", exclude_unset=True)}

    @classmethod
    def read(cls, folder: Path) -> "Run":
        """Raises `UserError` where the folder has none, or one of another version."""
        return read_json(cls, folder / NAME, "record of what the run was asked")

    @classmethod
    def unfinished(cls, folder: Path) -> "Run":
        """Like `read`; a finished run is refused, too."""
        run = cls.read(folder)
        if (folder / "comparison.json").exists():
            raise UserError(f"{folder}: this run is finished; look at it with 'solversearch plan show {folder / 'plan.json'}'")
        return run

    def write(self, folder: Path) -> None:
        write_text(folder / NAME, self.model_dump_json(indent=1) + "\n")

    def check(self, model: Model, settings: Settings, folder: Path) -> None:
        """Raises `UserError` naming all in which a search differs from the one that was begun here; batch_size changes nothing."""
        different = ["model"] * (not same(self.model_digest, model.fingerprint))
        different += [name for name in Settings.model_fields if getattr(settings, name) != getattr(self.settings, name)]
        different = [name.replace("_", "-") for name in different if name != "batch_size"]
        if different:
            raise UserError(f"{folder}: was begun with another {', '.join(different)}; begin another run with --out")
        now = versions()
        if moved := [name for name in now if self.versions.get(name) != now[name]]:
            told = ", ".join(f"{name} {self.versions.get(name)}, now {now[name]}" for name in moved)
            warnings.warn(f"{folder}: was begun with {told}: the plan may differ from that of an uninterrupted run", stacklevel=3)


def versions() -> dict[str, str]:
    return {
        "solversearch": __version__, "torch": torch.__version__, "numpy": numpy.__version__,
        "optuna": optuna.__version__, "python": platform.python_version(),
    }  # fmt: skip


def without_password(text: str) -> str:
    """Addresses of databases as they may be written into files."""
    return re.sub(r"(\w://[^:/@\s]+):[^@\s]*@", r"\1@", text)
