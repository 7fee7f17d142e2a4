"""The command line: every command on real input, and every kind of bad input in one line with exit code 2."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import jsonschema
import pytest

from solversearch import cli
from solversearch.compare import Comparison
from solversearch.places import OWN_FILES
from solversearch.plan import Plan, schema

ASSETS = Path(__file__).parent / "assets"
COINS = f"python:{ASSETS / 'coins.py'}"
QUICK = ("--trials", "2", "--samples", "128", "--no-polish")
PLAN_V1 = str(ASSETS / "plan_v1.json")


class Result(NamedTuple):
    code: int
    out: str
    err: str


def call(*arguments: object) -> Result:
    """The entry point in this process, as the console script runs it."""
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


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A small search on the digits: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    return folder, good("optimize", "--model", "digits", "--nfe", 2, *QUICK, "--out", folder)


@pytest.fixture(scope="module")
def coins_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A small search with guidance on a person's own model, as JSON."""
    folder = tmp_path_factory.mktemp("runs") / "coins"
    arguments = ("--nfe", 3, "--guidance", 2, *QUICK, "--out", folder, "--json", "--seed", 5)
    return folder, good("optimize", "--model", f"{COINS}:factory", *arguments)


# optimize ------------------------------------------------------------------------------------------------------


def test_optimize_writes_a_run_that_others_can_read(digits_run: tuple[Path, str]) -> None:
    folder, _ = digits_run
    assert {each.name for each in folder.iterdir()} == set(OWN_FILES)
    plan = Plan.read(folder / "plan.json")
    assert plan.nfe == 2 and plan.provenance.model == "digits" and plan.provenance.seed == 0
    assert plan.provenance.command.startswith("solversearch optimize --model digits --nfe 2 --trials 2")
    assert {row.kind for row in plan.scores} == {"plan", "baseline"}
    comparison = Comparison.model_validate_json((folder / "comparison.json").read_text())
    assert comparison.samples == 128 and comparison.rows[0].kind == "plan" and comparison.ratio_endpoint_mse < 1
    assert [stage.name for stage in comparison.stages] == ["best baseline", "fit", "search"]
    for picture in ("samples.png", "comparison.png", "plan.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG\r\n")


def test_optimize_says_what_it_found_and_how_to_use_it(digits_run: tuple[Path, str]) -> None:
    folder, printed = digits_run
    for wanted in ("What each stage brought", "128 held-out samples", "The plan's error at 2 evaluations is 0.", "The teacher's own error",
                   f"solversearch plan show {folder / 'plan.json'}", "solversearch sample --plan", "Plan.read("):  # fmt: skip
        assert wanted in printed, wanted


def test_the_files_have_what_was_promised(digits_run: tuple[Path, str]) -> None:
    stored = json.loads((digits_run[0] / "comparison.json").read_text())
    assert {"model", "nfe", "guidance", "samples", "seed", "ratio_endpoint_mse", "best_baseline", "baseline_nfe_for_plan_error",
            "timing", "stages", "rows"} <= set(stored)  # fmt: skip
    assert set(stored["timing"]) >= {"wall_s", "network_s"}
    for row in stored["rows"]:
        assert {"name", "kind", "solver", "grid", "nfe", "network_calls"} <= set(row)
        assert {"mean", "low", "high", "median"} <= set(row["endpoint_mse"])
        assert all({"mean", "low", "high"} <= set(row[name]) for name in ("frechet_teacher", "frechet_data"))


def test_json_is_all_that_stdout_gets(coins_run: tuple[Path, str]) -> None:
    folder, printed = coins_run
    assert json.loads(printed) == json.loads((folder / "comparison.json").read_text())
    assert json.loads(printed)["seed"] == 5 and json.loads(printed)["guidance"] == 2
    assert Plan.read(folder / "plan.json").network_calls == 6


def test_a_plan_that_is_the_baseline_is_called_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the default folder, and with a cache that cannot be written, which is a warning and no more."""
    _file_in_the_way()
    monkeypatch.setenv("SOLVERSEARCH_CACHE", "taken/cache")
    result = call("optimize", "--model", f"{COINS}:factory", "--nfe", 3, "--samples", 128, "--no-fit", "--no-search", "--no-polish")
    assert result.code == 0 and "is the best baseline itself" in result.out
    warned = [line for line in result.err.splitlines() if line.startswith("warning: ")]
    assert warned and "could not be cached" in warned[0] and "Traceback" not in result.err
    (folder,) = Path("runs").iterdir()
    assert re.fullmatch(r"python-.*coins\.py-factory-nfe3-g1", folder.name)
    plan = Plan.read(folder / "plan.json")
    assert plan.decisions["solver"] and plan.scores[0].endpoint_mse == plan.scores[1].endpoint_mse


def test_a_dry_run_costs_nothing_and_leaves_nothing() -> None:
    facts = json.loads(good("optimize", "--model", f"{COINS}:factory", "--nfe", 5, "--dry-run", "--json"))
    assert facts["model"] == "coins" and facts["estimated seconds"] > 0
    assert "estimated seconds: " in good("optimize", "--model", f"{COINS}:factory", "--nfe", 5, "--dry-run")
    assert list(Path.cwd().iterdir()) == []


def test_overwrite_replaces_a_run_and_nothing_else_and_no_mistake_costs_one() -> None:
    arguments = ("--samples", 128, "--no-search", "--no-polish", "--out", "run")
    good("optimize", "--model", f"{COINS}:factory", *arguments, "--nfe", 2)
    Path("run/notes.txt").write_text("mine")
    before = {each.name: each.read_bytes() for each in Path("run").iterdir()}
    assert "run: the run folder exists and holds" in bad("optimize", "--model", f"{COINS}:factory", *arguments, "--nfe", 3)
    bad("optimize", "--model", f"{COINS}:unconditional", *arguments, "--nfe", 3, "--guidance", 3, "--overwrite")
    bad("optimize", "--model", f"{COINS}:fails", *arguments, "--nfe", 3, "--overwrite")
    assert {each.name: each.read_bytes() for each in Path("run").iterdir()} == before
    good("optimize", "--model", f"{COINS}:factory", *arguments, "--nfe", 3, "--overwrite")
    assert Plan.read("run/plan.json").nfe == 3 and Path("run/notes.txt").read_text() == "mine"


BAD_SEARCHES: dict[str, tuple[tuple[object, ...], str]] = {
    "nfe 0": (("--model", "digits", "--nfe", 0), r"^--nfe: .*greater than or equal to 1, got 0$"),
    "nfe negative": (("--model", "digits", "--nfe", -3), "--nfe: .*got -3"),
    "nfe absurd": (("--model", "digits", "--nfe", 10**9), "--nfe: .*less than or equal to 1000"),
    "nfe no number": (("--model", "digits", "--nfe", "five"), "--nfe.*integer"),
    "nfe missing": (("--model", "digits"), "--nfe"),
    "model": (("--model", "digts", "--nfe", 5), "unknown model 'digts'; did you mean 'digits'"),
    "model far off": (("--model", "zzz", "--nfe", 5), r"unknown model 'zzz'\. Known: digits"),
    "strategy": (("--model", "digits", "--nfe", 5, "--strategy", "tpee"), "unknown strategy 'tpee'; did you mean 'tpe'"),
    "guidance not a number": (("--model", "digits", "--nfe", 5, "--guidance", "nan"), "--guidance: .*finite"),
    "guidance without null": (("--model", f"{COINS}:unconditional", "--nfe", 5, "--guidance", 4), "no null condition"),
    "split without null": (("--model", f"{COINS}:unconditional", "--nfe", 5, "--split"), "no null condition"),
    "few samples": (("--model", "digits", "--nfe", 5, "--samples", 3), "--samples"),
    "trials": (("--model", "digits", "--nfe", 5, "--trials", -1), "--trials"),
    "batch size": (("--model", "digits", "--nfe", 5, "--batch-size", 0), "--batch-size"),
    "seed": (("--model", "digits", "--nfe", 5, "--seed", -1), "--seed"),
    "too many whole timesteps": (("--model", "digits", "--nfe", 1001, "--integer"), "--nfe"),
    "factory fails": (("--model", f"{COINS}:fails", "--nfe", 5), "raised RuntimeError: no weights here"),
    "factory of NaN": (("--model", f"{COINS}:returns_nan", "--nfe", 5), "returned NaN or inf"),
    "no factory": (("--model", f"{COINS}:factori", "--nfe", 5), "unknown factory 'factori'; did you mean 'factory'"),
    "no file": (("--model", "python:nowhere.py:factory", "--nfe", 5), "there is no such file"),
    "option": (("--model", "digits", "--nfe", 5, "--guidence", 2), "--guidence"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_SEARCHES)
def test_bad_searches(name: str) -> None:
    arguments, message = BAD_SEARCHES[name]
    assert re.search(message, bad("optimize", *arguments))
    assert list(Path.cwd().iterdir()) == []


def _file_in_the_way() -> Path:
    Path("taken").write_text("mine")
    return Path("taken")


PLACES: dict[str, tuple[Callable[[], Path], str]] = {
    "a file": (_file_in_the_way, "taken: a file is in the way"),
    "under a file": (lambda: _file_in_the_way() / "run", "cannot (look|write) there"),
    "read-only": (lambda: Path("/proc/solversearch-run"), "cannot write there"),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_place_that_cannot_be_written_is_told_before_the_work(name: str) -> None:
    make, message = PLACES[name]
    place = make()
    if name == "read-only" and not Path("/proc/self").exists():
        pytest.skip("no read-only file system at hand")
    start = time.perf_counter()
    assert re.search(message, bad("optimize", "--model", f"{COINS}:factory", "--nfe", 3, "--out", place))
    assert time.perf_counter() - start < 20
    assert not Path("taken").exists() or Path("taken").read_text() == "mine"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_folder_without_permission_is_told() -> None:
    Path("locked").mkdir(mode=0o555)
    assert "cannot write there" in bad("optimize", "--model", f"{COINS}:factory", "--nfe", 3, "--out", "locked")


def test_ctrl_c_keeps_the_best_plan_and_says_so() -> None:
    arguments = ["optimize", "--model", f"{COINS}:factory", "--nfe", "4", "--trials", "100000", "--out", "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "solversearch.cli", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ASSETS.parents[1]), *sys.path]), "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if line.startswith("search"):
            break
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, seen + err
    assert out == "" and "Traceback" not in err
    last = err.splitlines()[-1]
    assert last.startswith("error: interrupted after ") and "plan.json" in last and "journal.log" in last
    plan = Plan.read("run/plan.json")
    assert plan.nfe == 4 and "interrupted" in plan.decisions
    assert Path("run/journal.log").stat().st_size > 0
    assert "4 evaluations" in good("compare", "--plan", "run/plan.json", "--model", f"{COINS}:factory", "--samples", 128)


# compare -------------------------------------------------------------------------------------------------------


def test_compare_finds_what_optimize_found(coins_run: tuple[Path, str]) -> None:
    folder, printed = coins_run
    arguments = ("compare", "--plan", folder / "plan.json", "--model", f"{COINS}:factory", "--samples", 128, "--seed", 5)
    again, before = json.loads(good(*arguments, "--json", "--batch-size", 40)), json.loads(printed)
    assert again["best_baseline"] == before["best_baseline"] and again["stages"] == []
    assert again["ratio_endpoint_mse"] == pytest.approx(before["ratio_endpoint_mse"], rel=1e-5)


def test_compare_prints_a_table(digits_run: tuple[Path, str]) -> None:
    printed = good("compare", "--plan", digits_run[0] / "plan.json", "--model", "digits", "--samples", 128, "--guidance", 1)
    assert "128 held-out samples" in printed and "The plan's error at 2 evaluations is" in printed


BAD_COMPARISONS: dict[str, tuple[tuple[object, ...], str]] = {
    "no file": (("--plan", "nowhere.json", "--model", "digits"), r"nowhere\.json: cannot read the plan"),
    "damaged": (("--plan", ASSETS / "attacks" / "digest_mismatch.json", "--model", "digits"), "the plan was changed after it was written"),
    "not JSON": (("--plan", ASSETS / "coins.py", "--model", "digits"), r"coins\.py: "),
    "unknown model": (("--plan", PLAN_V1, "--model", "mixtures"), "unknown model 'mixtures'; did you mean 'mixture'"),
    "another model": (("--plan", PLAN_V1, "--model", f"{COINS}:factory"), "predicts"),
    "no samples": (("--plan", PLAN_V1, "--model", "digits", "--samples", 0), "--samples"),
}


@pytest.mark.parametrize("name", BAD_COMPARISONS)
def test_bad_comparisons(name: str) -> None:
    arguments, message = BAD_COMPARISONS[name]
    assert re.search(message, bad("compare", *arguments))


def test_a_plan_is_refused_for_other_weights_and_other_guidance(coins_run: tuple[Path, str]) -> None:
    plan = coins_run[0] / "plan.json"
    assert "made for model 'coins' with weights" in bad("compare", "--plan", plan, "--model", f"{COINS}:other_weights")
    assert "made for model 'coins' with weights" in bad("sample", "--plan", plan, "--model", f"{COINS}:other_weights")
    assert "hold for guidance 2 only" in bad("compare", "--plan", plan, "--model", f"{COINS}:factory", "--guidance", 3)


# sample --------------------------------------------------------------------------------------------------------


def test_sample_draws_a_picture(digits_run: tuple[Path, str]) -> None:
    printed = good("sample", "--plan", digits_run[0] / "plan.json", "--model", "digits", "--count", 5, "--out", "new/grid.png")
    assert printed == "wrote new/grid.png\n" and Path("new/grid.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_sample_cannot_write(digits_run: tuple[Path, str]) -> None:
    arguments = ("sample", "--plan", digits_run[0] / "plan.json", "--model", "digits", "--out")
    _file_in_the_way()
    assert "cannot write there" in bad(*arguments, "taken/grid.png")
    assert "it is a folder" in bad(*arguments, ".")


# plan ----------------------------------------------------------------------------------------------------------


def test_a_plan_is_shown_and_validated(digits_run: tuple[Path, str]) -> None:
    path = digits_run[0] / "plan.json"
    plan = Plan.read(path)
    shown = good("plan", "show", path)
    assert plan.digest in shown and "lambda = ln(alpha/sigma)" in shown and "Scores on 128 held-out samples" in shown
    assert good("plan", "validate", path) == f"{path}: valid, version 1, 2 evaluations, {plan.digest}\n"
    assert json.loads(good("plan", "schema")) == schema()
    jsonschema.validate(json.loads(path.read_text()), json.loads(good("plan", "schema")))


@pytest.mark.parametrize("command", ["show", "validate"])
@pytest.mark.parametrize("attack", ["digest_mismatch", "not_json", "nan_literal", "row_reads_the_future", "binary"])
def test_bad_plans_are_one_line(command: str, attack: str) -> None:
    path = ASSETS / "attacks" / f"{attack}.json"
    assert bad("plan", command, path).startswith(f"{path}: ")


# import --------------------------------------------------------------------------------------------------------


def test_a_scheduler_becomes_a_plan_and_is_compared() -> None:
    pytest.importorskip("diffusers")
    good("import", "DPMSolverMultistep", "--nfe", 1, "--model", "digits", "--out", "dpm.json", "--set", "algorithm_type=dpmsolver++")
    plan = Plan.read("dpm.json")
    assert plan.nfe == 1 and plan.prediction_type == "v_prediction" and plan.provenance.model == "digits"
    assert plan.decisions["algorithm_type"] == "dpmsolver++" and "import DPMSolverMultistep" in plan.provenance.command
    result = json.loads(good("compare", "--plan", "dpm.json", "--model", "digits", "--samples", 128, "--json", "--guidance", 3))
    assert result["ratio_endpoint_mse"] >= 1 and result["guidance"] == 3
    assert result["rows"][0]["solver"] == "DPMSolverMultistep" and result["rows"][0]["network_calls"] == 2


def test_a_scheduler_without_a_model_serves_those_it_fits() -> None:
    pytest.importorskip("diffusers")
    good("import", "FlowMatchEulerDiscrete", "--nfe", 4, "--out", "flow.json")
    assert Plan.read("flow.json").provenance.model_digest == ""
    assert "predicts 'flow', but model 'digits'" in bad("compare", "--plan", "flow.json", "--model", "digits")
    good("import", "DDIM", "--nfe", 3, "--out", "v.json", "--set", "prediction_type=v_prediction")
    good("sample", "--plan", "v.json", "--model", "digits", "--count", 2)
    good("import", "DDIM", "--nfe", 3, "--out", "linear.json", "--set", "prediction_type=v_prediction", "--set", "beta_schedule=linear")
    assert "another noise schedule" in bad("compare", "--plan", "linear.json", "--model", "digits")


@pytest.mark.parametrize(("nfe", "name"), [(5, "HeunDiscrete"), (5, "KDPM2Discrete"), (5, "PNDM"), (5, "LMSDiscrete"), (1, "DDIM")])
def test_imports_spend_exactly_what_was_asked(nfe: int, name: str) -> None:
    pytest.importorskip("diffusers")
    good("import", name, "--nfe", nfe, "--out", "plan.json")
    assert Plan.read("plan.json").nfe == nfe


BAD_IMPORTS: dict[str, tuple[tuple[object, ...], str]] = {
    "scheduler": (("DPMSolverMultstep", "--nfe", 5), "unknown scheduler 'DPMSolverMultstep'; did you mean 'DPMSolverMultistep'"),
    "setting": (("DDIM", "--nfe", 5, "--set", "beta_strt=1"), "unknown setting of DDIM 'beta_strt'; did you mean 'beta_start'"),
    "no value": (("DDIM", "--nfe", 5, "--set", "beta_start"), "write KEY=VALUE"),
    "cost": (("HeunDiscrete", "--nfe", 6), "cannot spend exactly 6 evaluations; ask for 5 or 7"),
    "nfe": (("DDIM", "--nfe", 0), "--nfe"),
    "not linear": (("DDIM", "--nfe", 5, "--set", "clip_sample=true"), "is not linear"),
    "other levels": (("DDIM", "--nfe", 5, "--model", "digits", "--set", "beta_schedule=linear"), "was made for another model"),
    "other prediction": (("FlowMatchEulerDiscrete", "--nfe", 5, "--model", "digits"), "reads its network as 'flow', but model 'digits'"),
    "model": (("DDIM", "--nfe", 5, "--model", "digit"), "did you mean 'digits'"),
}


@pytest.mark.parametrize("name", BAD_IMPORTS)
def test_bad_imports(name: str) -> None:
    pytest.importorskip("diffusers")
    arguments, message = BAD_IMPORTS[name]
    assert re.search(message, bad("import", *arguments, "--out", "plan.json"))
    assert not Path("plan.json").exists()


# list and the rest ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("what", "some"), [("models", "mixture"), ("solvers", "unipc_2"), ("grids", "karras")])
def test_lists(what: str, some: str) -> None:
    entries = json.loads(good("list", what, "--json"))
    assert some in [entry["name"] for entry in entries]
    assert all(value not in ("", None) for entry in entries for value in entry.values())
    assert some in good("list", what)


def test_unknown_lists_and_commands_get_the_nearest() -> None:
    assert bad("list", "solver").startswith("unknown list 'solver'; did you mean 'solvers'?")
    assert "optimize" in bad("optimise")
    assert "--plan" in bad("compare", "--model", "digits")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("optimize", "--help"), ("plan", "--help")])
def test_help_is_there(arguments: tuple[str, ...]) -> None:
    assert "Usage" in good(*arguments)


def test_help_needs_nothing_heavy() -> None:
    code = "import sys, solversearch.cli; print({'torch', 'optuna', 'scipy', 'matplotlib', 'diffusers', 'numpy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


# README --------------------------------------------------------------------------------------------------------


def _example(beginning: str) -> str:
    """The indented block of the README under the heading."""
    text = (Path(__file__).parents[1] / "README.md").read_text().partition(f"## {beginning}\n")[2].partition("\n## ")[0]
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
