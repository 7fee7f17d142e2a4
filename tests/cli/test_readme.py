"""The examples of the README are run."""

import json
import re
from pathlib import Path

import torch

import solversearch
from tests.cli.calling import good
from tests.cli.test_help import COMMANDS

README = (Path(__file__).parents[2] / "README.md").read_text()


def _example(beginning: str) -> str:
    """The indented block of the README under the heading."""
    text = README.partition(f"## {beginning}\n")[2].partition("\n## ")[0]
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("    "))
    last = next(i for i, line in enumerate(lines[first:], first) if line and not line.startswith("    "))
    return "\n".join(line[4:] for line in lines[first:last])


def test_the_readme_uses_a_plan(digits_run: tuple[Path, str]) -> None:
    target = Path("runs/digits-nfe5-g1/plan.json")
    target.parent.mkdir(parents=True)
    target.write_bytes((digits_run[0] / "plan.json").read_bytes())
    names: dict[str, object] = {}
    exec(_example("Use a plan"), names)
    assert tuple(getattr(names["digits"], "shape", ())) == (10, 1, 8, 8)


def test_the_readme_has_a_network_of_ones_own() -> None:
    Path("my_flow.py").write_text(_example("I have a network of my own"))
    arguments = ("--model", "python:my_flow.py:factory", "--nfe", 5, "--guidance", 4)
    assert json.loads(good("optimize", *arguments, "--dry-run", "--json"))["model"] == "my_flow.factory"
    model = solversearch.load_model("python:my_flow.py:factory")
    turned = "lambda x, t, *condition: -network(x, 1 - t, *condition)"
    assert f"`{turned}`" in README
    other = eval(turned, {"network": eval(turned, {"network": model.network})})  # twice is the same network
    x, t, condition = torch.randn(3, 1, 8, 8), torch.tensor([0.1, 0.5, 1.0]), torch.tensor([0, 5, 10])
    assert torch.allclose(other(x, t, condition), model.network(x, t, condition), atol=1e-6)


def test_the_readme_has_a_model_that_reverts_to_a_mean() -> None:
    Path("my_restorer.py").write_text(_example("Restoration and enhancement: models that revert to a mean"))
    arguments = ("--model", "python:my_restorer.py:factory", "--nfe", 5)
    assert json.loads(good("optimize", *arguments, "--dry-run", "--json"))["model"] == "my_restorer.factory"
    model = solversearch.load_model("python:my_restorer.py:factory")
    assert model.anchor is not None and model.conditions is not None and torch.equal(model.anchor(model.conditions), model.conditions)


def test_what_the_readme_types_is_there() -> None:
    """Every command of its blocks is one, with options that it has."""
    blocks = [line.partition("#")[0] for line in README.splitlines() if line.startswith("    ")]
    typed = [part.split() for line in blocks for part in re.split(r"&&|;|\bdo\b", line)]
    typed = [words[1:] for words in typed if words[:1] == ["solversearch"]]
    assert len(typed) > 15
    for name, *words in typed:
        command = COMMANDS[" ".join([name, words[0]]) if f"{name} {words[0]}" in COMMANDS else name]
        known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known, (name, words)
