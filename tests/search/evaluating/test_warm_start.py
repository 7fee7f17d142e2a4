"""Evaluations of a run, for later ones."""

import json
from pathlib import Path

import pytest

from solversearch.errors import UserError
from solversearch.search.evaluating.warm_start import NAME, read_records, write_records
from solversearch.search.surrogates.predictor import Record
from tests.assets import coins

RECORDS = (
    Record(nfe=4, guidance=1.0, features=(0.1, -2.5e-17, 3.0), loss=-4.25),
    Record(nfe=5, guidance=7.5, features=(1.0, 2.0, 3.0), loss=0.0),
)
MODEL = coins.factory()
RECORD = {"nfe": 4, "guidance": 1.0, "features": [0.5], "loss": 1.0}
GOOD = {"model_digest": MODEL.digest, "records": [RECORD]}


def test_records_are_found_again_to_the_last_bit(tmp_path: Path) -> None:
    write_records(RECORDS, tmp_path / "new", MODEL)
    assert read_records(tmp_path / "new", MODEL) == RECORDS
    assert json.loads((tmp_path / "new" / NAME).read_text())["format"] == "solversearch-evaluations"
    write_records((), tmp_path, started := MODEL.started(MODEL.schedule.start_of(0.5)))
    assert read_records(tmp_path, started) == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "JSON"),
        (b"\xff\xfe", "cannot read|JSON"),
        (b"[]", "valid dictionary|object"),
        (json.dumps({**GOOD, "model_digest": "other"}).encode(), "of a model with other weights; --warm-start takes .* the same model"),
        (json.dumps({**GOOD, "start": {"t": 1.0, "alpha": 0.5, "sigma": 0.5}}).encode(), "of a search from another start; .* same --start"),
        (json.dumps({**GOOD, "version": 2}).encode(), "version: .*a newer solversearch"),
        (json.dumps({**GOOD, "format": "solversearch-plan"}).encode(), "format: "),
        (json.dumps({**GOOD, "mine": 1}).encode(), "mine: unknown key"),
        (json.dumps({**GOOD, "records": [{"nfe": 4}]}).encode(), r"records\.0\."),
        (json.dumps({**GOOD, "records": [{**RECORD, "loss": float("nan")}]}).encode(), r"records\.0\.loss: .*finite"),
        (json.dumps({**GOOD, "records": [{**RECORD, "features": [0.5, float("inf")]}]}).encode(), r"features\.1: .*finite"),
    ],
)  # fmt: skip
def test_what_is_no_such_file_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_records(tmp_path, MODEL)
    assert "\n" not in str(caught.value) and str(tmp_path / NAME) in str(caught.value)


def test_a_folder_without_evaluations_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read the evaluations of an earlier run: No such file or directory"):
        read_records(tmp_path / "nowhere", MODEL)
    (tmp_path / NAME).mkdir()
    with pytest.raises(UserError, match="cannot read the evaluations of an earlier run"):
        read_records(tmp_path, MODEL)
