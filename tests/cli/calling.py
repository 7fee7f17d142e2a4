"""The entry point, called in this process."""

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pytest

from solversearch import cli

ASSETS = Path(__file__).parents[1] / "assets"
COINS = f"python:{ASSETS / 'coins.py'}"
QUICK = ("--trials", "2", "--samples", "128", "--no-polish")


class Result(NamedTuple):
    code: int
    out: str
    err: str


def call(*arguments: object) -> Result:
    """As the console script runs it."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        cli.main(list(map(str, arguments)))
    assert isinstance(ended.value.code, int)
    return Result(ended.value.code, out.getvalue(), err.getvalue())


def good(*arguments: object) -> str:
    result = call(*arguments)
    assert result.code == 0, result.err
    return result.out


def bad(*arguments: object) -> str:
    """The one line that a mistake gets."""
    result = call(*arguments)
    assert result.code == 2 and result.out == "", result
    assert result.err.startswith("error: ") and result.err.count("\n") == 1 and "Traceback" not in result.err, result.err
    return result.err.removeprefix("error: ").strip()


def file_in_the_way() -> Path:
    Path("taken").write_text("mine")
    return Path("taken")
