"""`solversearch list`, and what the command line says of itself."""

import json
import subprocess
import sys

import pytest

from solversearch.judging.objectives import OBJECTIVES
from solversearch.search.strategies import STRATEGIES
from solversearch.spaces import presets
from tests.cli.calling import bad, call, good


@pytest.mark.parametrize(("what", "some"), [
    ("models", "mixture"), ("solvers", "unipc_2"), ("grids", "karras"), ("spaces", "nonstationary"), ("strategies", "evolution"),
    ("objectives", "klub"), ("exports", "comfyui"),
])  # fmt: skip
def test_lists(what: str, some: str) -> None:
    entries = json.loads(good("list", what, "--json"))
    assert some in [entry["name"] for entry in entries]
    assert all(value not in ("", None) for entry in entries for value in entry.values())
    assert some in good("list", what)


def test_lists_say_what_is_needed_to_choose() -> None:
    spaces = {entry["name"]: entry for entry in json.loads(good("list", "spaces", "--json"))}
    assert set(spaces) == set(presets()) and spaces["ays"]["strategy"] == "cmaes" and spaces["ays"]["objective"] == "klub"
    strategies = {entry["name"]: entry for entry in json.loads(good("list", "strategies", "--json"))}
    assert {*STRATEGIES, "MODULE:CLASS"} == set(strategies)
    assert strategies["nsga2"]["several objectives"] and not strategies["s3"]["several objectives"]
    objectives = {entry["name"]: entry for entry in json.loads(good("list", "objectives", "--json"))}
    assert set(objectives) == set(OBJECTIVES) and objectives["frechet"]["needs"] == "features"
    assert {entry["direction"] for entry in objectives.values()} == {"minimize"} and all(entry["cost"] for entry in objectives.values())


def test_unknown_lists_and_commands_get_the_nearest() -> None:
    assert bad("list", "solver").startswith("unknown list 'solver'; did you mean 'solvers'?")
    assert "optimize" in bad("optimise")
    assert "--plan" in bad("compare", "--model", "digits")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("optimize", "--help"), ("plan", "--help"), ("study", "--help")])
def test_help_is_there(arguments: tuple[str, ...]) -> None:
    assert "Usage" in good(*arguments)


@pytest.mark.parametrize("group", ["plan", "space", "cpr"])
def test_a_group_shows_its_commands(group: str) -> None:
    result = call(group)
    assert "Usage" in result.out and "Commands" in result.out and result.err == ""
    assert "Commands" in good(group, "--help")


def test_help_needs_nothing_heavy() -> None:
    code = "import sys, solversearch.cli; print({'torch', 'optuna', 'scipy', 'matplotlib', 'diffusers', 'numpy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
