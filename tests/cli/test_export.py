"""`solversearch export`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from solversearch.export import EXPORTERS
from tests.cli.calling import ASSETS, bad, file_in_the_way, good
from tests.export.consumers import PLANS, plan_of, table_of


@pytest.fixture
def plan() -> Path:
    path = Path("plan.json")
    plan_of(table_of("dpmpp_2m", "epsilon").guided(7.5), "epsilon", 7.5).write(path)
    return path


def test_sigmas_are_printed_and_nothing_is_written(plan: Path) -> None:
    printed = good("export", plan, "--to", "sigmas")
    assert '\n--sigmas "14.6146412,' in printed and "sampler dpmpp_2m in ComfyUI" in printed and "guidance 7.5" in printed
    assert [path.name for path in Path().iterdir()] == ["plan.json"]
    assert good("export", plan, "--to", "sigmas", "--out", "new/sigmas.txt").startswith("Wrote new/sigmas.txt\n")
    assert Path("new/sigmas.txt").read_text() == printed


@pytest.mark.parametrize("to", ["comfyui", "k-diffusion", "numpy"])
def test_what_is_written_is_told(plan: Path, to: str) -> None:
    printed = good("export", plan, "--to", to)
    place = Path(EXPORTERS[to].place)
    assert place.exists() and printed.startswith(f"Wrote {place}") and "\nUse it: " in printed
    told = json.loads(good("export", plan, "--to", to, "--json"))
    assert all(Path(path).is_file() for path in told["written"])
    assert (f"Note: {told['notes'][0]}\n" in printed and "guidance, 7.5" in told["notes"][0]) if to != "numpy" else told["notes"] == []


def test_the_numpy_file_runs(plan: Path) -> None:
    good("export", plan, "--to", "numpy", "--out", "alone.py")
    ran = subprocess.run([sys.executable, "alone.py"], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("5 evaluations, sha256:")


def test_what_a_consumer_will_do_otherwise_is_told() -> None:
    plan_of(table_of("ddim", "epsilon", integer=False, on="karras"), "epsilon").write("broken.json")
    assert "4 of 5 times are not whole, and ComfyUI's discrete models round them" in good("export", "broken.json", "--to", "comfyui")
    PLANS["split guidance"]("flow").write("split.json")
    assert "must return the pair" in good("export", "split.json", "--to", "k-diffusion")
    assert "needs a negative prompt" in good("export", "split.json", "--to", "comfyui")


def test_bad_exports_are_one_line(plan: Path) -> None:
    assert "unknown export 'comfy'; did you mean 'comfyui'" in bad("export", plan, "--to", "comfy")
    assert "cannot read the plan" in bad("export", "nowhere.json", "--to", "numpy")
    assert "the digest does not match" in bad("export", ASSETS / "attacks" / "digest_mismatch.json", "--to", "numpy")
    plan_of(table_of("heun", "flow"), "flow").write("heun.json")
    assert "noise levels do not fall" in bad("export", "heun.json", "--to", "sigmas")
    assert "no module named 'k-diffusion'" in bad("export", plan, "--to", "k-diffusion", "--out", "k-diffusion")
    assert "write --out mine.py" in bad("export", plan, "--to", "numpy", "--out", "mine")
    assert "no module named 'my-plan'" in bad("export", plan, "--to", "numpy", "--out", "my-plan.py")
    taken = file_in_the_way()
    for to in ("comfyui", "k-diffusion", "numpy", "sigmas"):
        assert "cannot write there" in bad("export", plan, "--to", to, "--out", taken / "x.py")
        if to in ("numpy", "sigmas"):
            assert "it is a folder" in bad("export", plan, "--to", to, "--out", ".")
        else:
            assert "cannot write there" in bad("export", plan, "--to", to, "--out", taken)
    Path("mine").mkdir()
    Path("mine/notes.txt").touch()
    assert "is no earlier export" in bad("export", plan, "--to", "comfyui", "--out", "mine")
