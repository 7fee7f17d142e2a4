"""The examples of the README are run."""

import json
from pathlib import Path

from tests.cli.calling import good


def _example(beginning: str) -> str:
    """The indented block of the README under the heading."""
    text = (Path(__file__).parents[2] / "README.md").read_text().partition(f"## {beginning}\n")[2].partition("\n## ")[0]
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
    Path("my_model.py").write_text(_example("Your own network"))
    arguments = ("--model", "python:my_model.py:factory", "--nfe", 5, "--guidance", 4)
    assert json.loads(good("optimize", *arguments, "--dry-run", "--json"))["model"] == "my_model.factory"
