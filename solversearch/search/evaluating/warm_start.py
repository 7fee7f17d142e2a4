"""Evaluations of a run, kept so that the predictor of a later one, at another NFE or guidance, starts with them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from solversearch.errors import UserError
from solversearch.models.base import Model
from solversearch.models.digest import same
from solversearch.plan import Many, read_json, write_text
from solversearch.runtime import Start
from solversearch.search.surrogates.predictor import Record

NAME = "evaluations.json"
EARLIER = "earlier.json"
"""What the run itself was warm-started with, for when it is resumed."""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    format: Literal["solversearch-evaluations"] = "solversearch-evaluations"
    version: Literal[1] = 1
    model_digest: str
    start: Start | None = None
    records: Many[Record]


def write_records(records: Sequence[Record], folder: Path, model: Model, name: str = NAME) -> None:
    write_text(folder / name, _File(model_digest=model.digest, start=model.start, records=tuple(records)).model_dump_json() + "\n")


def read_records(folder: Path, model: Model, name: str = NAME) -> tuple[Record, ...]:
    """Of a run folder; raises `UserError` where there are none, or where they are of another model, or of another start."""
    path = folder / name
    found = read_json(_File, path, "evaluations of an earlier run")
    if not same(found.model_digest, model.digest):
        raise UserError(f"{path}: of a model with other weights; --warm-start takes runs of the same model")
    if found.start != model.start:
        raise UserError(f"{path}: of a search from another start; --warm-start takes runs of the same --start")
    return found.records
