"""What was meant: names that are nearly right, folders where a file of them is meant, the same defaults in every command."""

import json
from pathlib import Path

import pytest

from solversearch.plan import Plan
from tests.cli.calling import ASSETS, COINS, bad, good

PLAN_V1 = ASSETS / "plan_v1.json"
COMMANDS: list[tuple[object, ...]] = [
    ("optimize", "--nfe", 3), ("optimize", "--nfe", 3, "--dry-run"), ("compare", "--plan", PLAN_V1),
    ("sample", "--plan", PLAN_V1), ("study",),
]  # fmt: skip


# Names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_flow.py:build", "a network of your own is named python:my_flow.py:build"),
        ("models/my_flow.py:build", "a network of your own is named python:models/my_flow.py:build"),
        ("package.module:build", "a network of your own is named python:package.module:build"),
        ("my_flow.py", "a network of your own is named python:my_flow.py:FACTORY, where FACTORY is the function in it"),
        ("my_flow.build", "a network of your own is named python:my_flow.py:build"),
        ("sd15.safetensors", "there is no such file"),
        ("/data/model.CKPT", "only safetensors and gguf are opened"),
        ("weights.pt", "write a factory that loads it into a network of your own, --model python:FILE.py:FACTORY"),
        ("owner/name", "there is no such folder; a repository of the Hub is named hf:owner/name"),
        ("https://huggingface.co/owner/name/tree/main", "a repository of the Hub is named hf:owner/name"),
    ],
)
def test_a_model_that_is_named_otherwise(name: str, message: str) -> None:
    Path("my_flow.py").touch()
    for command in COMMANDS:
        told = bad(*command, "--model", name)
        assert told.startswith(f"--model {name}: ") and message in told and "Known" not in told


def test_a_file_of_weights_that_is_there() -> None:
    for name in ("mine.safetensors", "mine.pt"):
        Path(name).write_bytes(b"0000")
    assert "the weights are damaged or cut short" in bad("optimize", "--nfe", 3, "--model", "mine.safetensors")
    assert "only safetensors and gguf are opened" in bad("optimize", "--nfe", 3, "--model", "mine.pt")


def test_diffusers_is_no_export() -> None:
    for name in ("diffusers", "Diffusers"):
        told = bad("export", PLAN_V1, "--to", name)
        assert "PlanScheduler.from_plan(PLAN) of solversearch.export.diffusers" in told and "README" in told and "did you mean" not in told
    assert "did you mean 'comfyui'" in bad("export", PLAN_V1, "--to", "comfy")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("velocity", "here it is 'flow', the velocity noise - data of a rectified flow, as in diffusers, with noise at t = 1"),
        ("Velocity", "where the network learned data - noise, return minus its output"),
        ("flow-matching", "where noise is at its t = 0, give it 1 - t"),
        ("v", "'v_prediction', alpha eps - sigma x0; the velocity of a flow, noise - data, is 'flow'"),
        ("eps", "here it is 'epsilon', the noise"),
        ("x0", "here it is 'sample', the clean data"),
        ("score", "-sigma times the score"),
        ("epsilom", "did you mean 'epsilon'?"),
    ],
)
def test_prediction_types_by_other_names(name: str, message: str) -> None:
    Path("mine.py").write_text(
        "from solversearch.schedules import Flow\n"
        f"def build(): return {{'network': lambda x, t: x, 'schedule': Flow(), 'prediction_type': {name!r}, 'shape': (2,)}}\n"
    )
    assert message in bad("optimize", "--nfe", 3, "--model", "python:mine.py:build")


def test_a_model_that_is_read_wrongly_ends_before_any_work() -> None:
    """The exact coins as a velocity field of the other sign; nothing is written."""
    Path("mine.py").write_text(
        f"import sys; sys.path.insert(0, {str(ASSETS.parents[1])!r})\n"
        "from dataclasses import replace\nfrom tests.assets import coins\n"
        "def velocity(x, t, c):\n    return (coins.Coins()(x, t, c) - x) / t.view(-1, 1, 1, 1)\n"
        "def build(): return replace(coins.factory(), network=velocity, prediction_type='flow', pad=1)\n"
    )
    told = bad("optimize", "--nfe", 3, "--model", "python:mine.py:build", "--out", "run")
    assert told.startswith("mine.py: build(): the network does not denoise: its error is ")
    assert "flow is noise - data here, as in diffusers; return minus the output" in told and not Path("run").exists()


# Folders ---------------------------------------------------------------------------------------------------------


def test_a_run_folder_stands_for_its_plan(coins_run: tuple[Path, str], few_baselines: None) -> None:
    folder = coins_run[0]
    model = ("--model", f"{COINS}:factory")
    assert good("plan", "show", folder, "--json") == good("plan", "show", folder / "plan.json", "--json")
    assert json.loads(good("plan", "validate", folder, "--json"))["digest"] == Plan.read(folder / "plan.json").digest
    for command in ("compare", "sample"):
        arguments = ("--samples", 64) if command == "compare" else ("--count", 2, "--out", "samples.png")
        one, other = (json.loads(good(command, "--plan", place, *model, *arguments, "--json")) for place in (folder, folder / "plan.json"))
        assert {**one, "timing": 0} == {**other, "timing": 0}
    good("export", folder, "--to", "k-diffusion", "--out", "mine")
    assert any(
        Plan.read(folder).digest[:15] in file.read_text() for file in Path("mine").rglob("*") if file.is_file() and file.suffix != ".pyc"
    )


def test_a_folder_without_a_plan_is_one_line() -> None:
    Path("empty").mkdir()
    assert bad("plan", "show", "empty") == "empty: there is no plan.json in this folder"
    for name in ("a", "b"):
        Plan.read(PLAN_V1).write(Path("many") / name / "plan.json")
    assert bad("plan", "show", "many") == "many: there is no plan.json in this folder; name one of many/a, many/b"
    assert "more than one regression" not in bad("cpr", "predict", "many", "--nfe", 4)
    assert "there is no regression in this folder" in bad("cpr", "predict", "many", "--nfe", 4)


# Defaults --------------------------------------------------------------------------------------------------------


def test_guidance_is_the_models_own_in_every_command(few_baselines: None) -> None:
    Path("mine.py").write_text(
        f"import sys; sys.path.insert(0, {str(ASSETS.parents[1])!r})\n"
        "from dataclasses import replace\nfrom tests.assets import coins\n"
        "def build(): return replace(coins.factory(), guidance=3.0)\n"
    )
    own = "python:mine.py:build"
    Path("sweep.yaml").write_text(f"models: {own}\nnfe: 3\nsettings: {{trials: 2}}\n")
    (cell,) = json.loads(good("sweep", "sweep.yaml", "--dry-run", "--json"))["cells"]
    assert cell.endswith("-nfe3-g3-s0")
    facts = json.loads(good("optimize", "--model", own, "--nfe", 3, "--trials", 2, "--dry-run", "--json"))
    swept = json.loads(good("sweep", "sweep.yaml", "--dry-run", "--json"))["cells"][cell]
    kept = [name for name in facts if "second" not in name and "free" not in name]
    assert len(kept) > 8 and [swept[name] for name in kept] == [facts[name] for name in kept]
    assert not Path("runs").exists()
    printed = good("sweep", "sweep.yaml", "--dry-run")
    assert printed.startswith(f"{cell}: ") and "1,024 held out" not in printed and "of 1 searches" in printed
    shown = [good("space", "show", "full", "--model", own, *more, "--json") for more in ((), ("--guidance", 3), ("--guidance", 1))]
    assert shown[0] == shown[1] != shown[2]
