"""Runs that several tests look at, and an empty folder for every test."""

from pathlib import Path

import pytest

import solversearch.judging.baselines as peers
from tests.cli.calling import COINS, QUICK, good


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def few_baselines(monkeypatch: pytest.MonkeyPatch) -> None:
    """For commands that are not about baselines."""
    for name, kept in (("SOLVERS", ("ddim", "unipc_2", "ipndm_3")), ("GRIDS", ("logsnr", "quadratic"))):
        monkeypatch.setattr(peers, name, {key: getattr(peers, name)[key] for key in kept})


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A small search on the digits: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    return folder, good("optimize", "--model", "digits", "--nfe", 2, *QUICK, "--out", folder)


@pytest.fixture(scope="session")
def coins_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A small search with guidance on a person's own model, as JSON."""
    folder = tmp_path_factory.mktemp("runs") / "coins"
    arguments = ("--nfe", 3, "--guidance", 2, *QUICK, "--out", folder, "--json", "--seed", 5)
    return folder, good("optimize", "--model", f"{COINS}:factory", *arguments)
