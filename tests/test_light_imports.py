"""The runtime needs the standard library alone; a plan needs pydantic besides; who looks at plans and lists does not wait for torch.

Whoever ships a plan need not ship a search.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import solversearch
from solversearch import models
from solversearch.importing import plan_of_sigmas

HEAVY = {"torch", "numpy", "scipy", "optuna", "ray", "yaml", "diffusers", "sklearn", "jax", "matplotlib"}


def loaded_by(module: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after importing one, and had not before."""
    code = f"import sys; before = set(sys.modules); import {module}; print(*(set(sys.modules) - before))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return {name.partition(".")[0] for name in output.split()}


def test_runtime_needs_the_standard_library_alone() -> None:
    assert loaded_by("solversearch.runtime") - sys.stdlib_module_names == {"solversearch"}


@pytest.mark.parametrize("module", ["solversearch.plan", "solversearch.errors"])
def test_plan_is_light(module: str) -> None:
    loaded = loaded_by(module)
    assert "solversearch" in loaded and not loaded & HEAVY
    assert "pydantic" not in loaded_by("solversearch.runtime")


def test_the_package_is_light_and_has_its_api_when_it_is_asked_for() -> None:
    assert loaded_by("solversearch") - sys.stdlib_module_names == {"solversearch"}
    assert not loaded_by("solversearch.api") & HEAVY
    assert all(callable(getattr(solversearch, name)) for name in solversearch.__all__)
    assert set(solversearch.__all__) <= set(dir(solversearch)) and not hasattr(solversearch, "optimise")
    assert (Path(solversearch.__file__).parent / "py.typed").is_file()


COMMANDS: dict[str, str] = {
    **dict.fromkeys(("--version", "--help", "optimize --help", "plan show PLAN", "plan show PLAN --json", "plan validate PLAN",
                     "plan schema", "cache", "list strategies"), ""),
    **dict.fromkeys(("list models", "list solvers", "list grids", "list exports", "export PLAN --to sigmas",
                     "export PLAN --to comfyui --out OUT", "export PLAN --to k-diffusion --out OUT", "export PLAN --to numpy --out OUT.py",
                     "import --sigmas 14.6,6.5,2.7,0 --solver ddim --out OUT.json", "list objectives",
                     "import --ays sd15 --solver dpmpp_2m --nfe 5 --out OUT.json"), "numpy"),
    **dict.fromkeys(("list spaces", "space show s3 --nfe 7", "space show full --json"), "numpy yaml"),
}  # fmt: skip
"""What they load of what is heavy."""


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_that_run_no_network_load_no_torch(command: str, tmp_path: Path) -> None:
    plan = plan_of_sigmas([14.6, 6.5, 2.7, 0], "ddim")
    plan.write(tmp_path / "in.json")
    arguments = command.replace("PLAN", str(tmp_path / "in.json")).replace("OUT", str(tmp_path / "out")).split()
    code = f"import sys; from solversearch import cli\ntry: cli.main({arguments!r})\nfinally: print(*sys.modules, file=sys.stderr)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and ended.stdout, ended.stderr
    assert {name.partition(".")[0] for name in ended.stderr.split()} & HEAVY <= set(COMMANDS[command].split())


@pytest.mark.parametrize("name", models.MODELS)
def test_the_packages_models_have_the_schedule_that_is_shown_without_them(name: str) -> None:
    known, own = models.frame(name)[0], models.load(name).schedule
    times = np.linspace(own.t_start, own.t_end, 50)
    assert (known.t_start, known.t_end, known.discrete) == (own.t_start, own.t_end, own.discrete)
    np.testing.assert_array_equal(known.angle(times), own.angle(times))
