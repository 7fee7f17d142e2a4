"""The runtime needs the standard library alone; a plan needs pydantic besides. Whoever ships a plan need not ship a search."""

import subprocess
import sys

import pytest

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
