"""The file for NumPy: it samples what the runtime samples, and needs nothing but NumPy."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from solversearch.export import EXPORTERS
from tests.export.consumers import CONDITION, NOISE, NULL, PICTURE, PLANS, by_runtime, difference, imported, network


@pytest.mark.parametrize("name", PLANS)
def test_the_file_samples_what_the_runtime_samples(name: str, tmp_path: Path) -> None:
    plan = PLANS[name]("v")
    assert EXPORTERS["numpy"].write(plan, tmp_path / "a_plan.py") == [tmp_path / "a_plan.py"]
    module = imported(tmp_path / "a_plan.py")
    generator = torch.Generator().manual_seed(5)

    calls: list[float] = []

    def denoise(x, node):  # type: ignore[no-untyped-def]
        t = torch.full((len(x),), node.t)

        def asked(c: float):  # type: ignore[no-untyped-def]
            calls.append(c)
            return module.data_prediction(output=network(torch.from_numpy(x), t, torch.full((len(x),), c)).numpy(), x=x, node=node)

        cond = asked(CONDITION)
        if node.reuses:
            return cond
        uncond = asked(NULL)
        guided = uncond + node.guidance * (cond - uncond)
        return (guided, cond - uncond) if module.PLAN.split else guided

    def draw(_: int):  # type: ignore[no-untyped-def]
        return torch.randn(NOISE.shape, dtype=torch.float64, generator=generator).numpy()

    result = module.sample(denoise, NOISE.numpy(), draw, picture=PICTURE.numpy() if plan.start else None)
    assert isinstance(result, np.ndarray) and difference(torch.from_numpy(result), by_runtime(plan, seed=5)) < 1e-12
    assert module.check() == 0
    if module.PLAN.split:
        assert len(calls) == plan.network_calls
    with pytest.raises(TypeError, match="positional"):  # two arrays of one shape: nobody would notice them swapped
        module.data_prediction(NOISE.numpy(), NOISE.numpy(), module.PLAN.nodes[0])


@pytest.mark.parametrize("name", ["split guidance", "fresh noise", "dynamic", "reused differences", "pictures"])
def test_run_as_a_program_it_checks_itself(name: str, tmp_path: Path) -> None:
    file, plan = tmp_path / "a_plan.py", PLANS[name]("flow")
    EXPORTERS["numpy"].write(plan, file)
    # -I and an import hook: no file of solversearch, and no library but NumPy.
    code = (
        "import sys, runpy\n"
        "class Nothing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        assert name.partition('.')[0] not in ('torch', 'pydantic', 'solversearch', 'scipy'), name\n"
        "sys.meta_path.insert(0, Nothing())\n"
        f"runpy.run_path({str(file)!r}, run_name='__main__')"
    )
    ran = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == f"5 evaluations, {plan.digest}: differs from solversearch by 0.0e+00\n"
    number = f"{plan.rows[-1].d[-1]!r}"
    file.write_text(file.read_text().replace(number, f"{plan.rows[-1].d[-1] * 1.01!r}"))
    changed = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, check=False)
    assert changed.returncode == 1 and "the plan was changed after it was written" in changed.stderr


def test_texts_of_every_kind_survive(tmp_path: Path) -> None:
    plan = PLANS["a solver"]("flow")
    command = 'say \'it\' """ \\n {x} \N{SNOWMAN} \u2028'
    fields = {name: getattr(plan, name) for name in type(plan).model_fields if name not in ("digest", "provenance")}
    quoted = type(plan)(**fields, provenance=plan.provenance.model_copy(update={"command": command}))
    EXPORTERS["numpy"].write(quoted, tmp_path / "quoted.py")
    assert imported(tmp_path / "quoted.py").PLAN.digest == quoted.digest
