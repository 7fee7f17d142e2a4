"""What somebody sees who does not know the commands yet."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

import solversearch
from solversearch.cli import app
from tests.cli.calling import bad, good

WIDTH = 80


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    yield " ".join(path), group
    for name, each in getattr(group, "commands", {}).items():
        yield from commands(each, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_whole_at_80_columns(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No name of an option or argument is cut, and every word of its help is there."""
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    shown = good(*command.split(), "--help")
    assert max(map(len, shown.splitlines())) <= WIDTH and "\N{HORIZONTAL ELLIPSIS}" not in shown
    for parameter in COMMANDS[command].params:
        for name in (*parameter.opts, *parameter.secondary_opts):
            assert not name.startswith("--") or re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", shown), name
        for word in re.findall(r"\w{4,}", parameter.help or ""):
            assert word in shown, word


@pytest.mark.parametrize("command", COMMANDS)
def test_whatever_is_shown_can_be_had_as_json(command: str) -> None:
    groups, else_where = ("", "plan", "space", "cpr"), ("dashboard", "plan schema")  # a web page; JSON anyway
    if command not in (*groups, *else_where):
        assert "--json" in [name for parameter in COMMANDS[command].params for name in parameter.opts]


def test_options_of_a_search_stand_in_panels(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is required comes first."""
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    lines = good("optimize", "--help").splitlines()
    panels = [match[1] for line in lines if (match := re.match(r"\W+ ([A-Z][a-z ]+) \W+$", line))]
    assert panels == ["Options", "How long", "Where", "Advanced", "Stages", "Loading the model"]
    names = [match[0] for line in lines if (match := re.search(r"--[a-z-]+", line))]
    assert names[:2] == ["--model", "--nfe"]


def test_the_version_is_told() -> None:
    assert good("--version") == f"solversearch {solversearch.__version__}\n"


def test_a_search_of_nothing_says_what_to_type() -> None:
    line = bad("optimize")
    assert "--model and --nfe are missing" in line and "solversearch optimize --model digits --nfe 5" in line
    assert "solversearch list models" in line


def test_shells_complete_commands_and_options() -> None:
    """As their script asks for it."""
    code = "import sys; from solversearch.cli import main; sys.argv = ['solversearch']; main()"
    for words, wanted in (("solversearch op", ["optimize"]), ("solversearch optimize --fit-s", ["--fit-samples"])):
        asked = {"_SOLVERSEARCH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        told = subprocess.run([sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True, check=True)
        assert told.stdout.split() == wanted
