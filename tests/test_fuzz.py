"""Damaged and hostile files: every reader gives a valid object or one line that says what is wrong. `tests.benchmarks.fuzz` goes on."""

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from solversearch.errors import UserError
from tests.fuzzing import Target, targets

NAMES = ("plan", "space", "regression", "comparison", "study", "evaluations", "run", "log", "sweep", "sweep file", "teacher", "journal",
         "picture")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def refused(target: Target, folder: Path, content: bytes) -> bool:
    try:
        target.run(folder, content)
    except UserError as error:
        assert str(error).isprintable() and len(str(error)) < len(str(folder)) + 1500
        return True
    return False


def test_every_reader_is_here(folder: Path) -> None:
    found = targets(folder)
    assert tuple(found) == NAMES
    for name, target in found.items():
        for seed in target.seeds:
            assert not refused(target, folder / name, seed), f"{name}: the files that all begins from are good"


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(rng=st.randoms(use_true_random=False))
def test_damaged_files(folder: Path, name: str, rng: random.Random) -> None:
    target = targets(folder)[name]
    refused(target, folder / name, target.input(rng))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_files_of_anything(folder: Path, name: str, content: bytes) -> None:
    refused(targets(folder)[name], folder / name, content)
