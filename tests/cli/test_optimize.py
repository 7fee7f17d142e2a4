"""`solversearch optimize`: what it writes and prints, and every mistake in one line with exit code 2."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import solversearch.judging.baselines as peers
from solversearch.judging.compare import Comparison
from solversearch.outputs import LOCK, OWN_FILES
from solversearch.plan import Plan
from tests.cli.calling import ASSETS, COINS, bad, call, file_in_the_way, good


def test_optimize_writes_a_run_that_others_can_read(digits_run: tuple[Path, str]) -> None:
    folder, _ = digits_run
    of_others = {"evaluations.json", "earlier.json", "report.html"}  # of a search with a predictor, and of another command
    assert {each.name for each in folder.iterdir()} == {*OWN_FILES, LOCK} - of_others
    plan = Plan.read(folder / "plan.json")
    assert plan.nfe == 2 and plan.provenance.model == "digits" and plan.provenance.seed == 0
    assert plan.provenance.command.startswith("solversearch optimize --model digits --nfe 2 --trials 2")
    assert {row.kind for row in plan.scores} == {"plan", "baseline"}
    comparison = Comparison.model_validate_json((folder / "comparison.json").read_text())
    assert comparison.samples == 128 and comparison.rows[0].kind == "plan" and comparison.ratios[0].high < 1
    assert comparison.verdict == "better" and comparison.exported == "plan" and "baseline" not in plan.decisions
    assert [stage.name for stage in comparison.stages] == ["best baseline", "instant", "fit", "search"]
    for picture in ("samples.png", "comparison.png", "plan.png", "search.png"):
        assert (folder / picture).read_bytes().startswith(b"\x89PNG\r\n")


def test_optimize_says_what_it_found_and_how_to_use_it(digits_run: tuple[Path, str]) -> None:
    folder, printed = digits_run
    for wanted in ("What each stage brought", "128 held-out samples",
                   "Better at 2 evaluations: on ", "the plan's error is less than that of the best baseline, ",
                   "Over the least of all baselines: mean 0.", "The plan against the best baseline of each measure",
                   "The teacher's own error",
                   f"solversearch plan show {folder / 'plan.json'}", "solversearch sample --plan", "Plan.read("):  # fmt: skip
        assert wanted in printed, wanted


def test_the_files_have_what_was_promised(digits_run: tuple[Path, str]) -> None:
    stored = json.loads((digits_run[0] / "comparison.json").read_text())
    assert {"model", "nfe", "guidance", "samples", "seed", "verdict",
            "exported", "share", "ratios", "left_out", "best_baseline", "baseline_nfe_for_plan_error",
            "timing", "stages", "rows"} <= set(stored)  # fmt: skip
    assert set(stored["timing"]) >= {"wall_s", "network_s"}
    for row in stored["rows"]:
        assert {"name", "kind", "solver", "grid", "nfe", "network_calls", "geometric_mean", "quantile_90", "quantile_99", "worst_hundredth",
                "lower_bound"} <= set(row)  # fmt: skip
        assert {"mean", "low", "high", "median"} <= set(row["endpoint_mse"])
        assert all({"mean", "low", "high"} <= set(row[name]) for name in ("frechet_teacher", "frechet_data"))


def test_json_is_all_that_stdout_gets(coins_run: tuple[Path, str]) -> None:
    folder, printed = coins_run
    assert json.loads(printed) == json.loads((folder / "comparison.json").read_text())
    assert json.loads(printed)["seed"] == 5 and json.loads(printed)["guidance"] == 2
    assert Plan.read(folder / "plan.json").network_calls == 6


def test_a_plan_that_is_the_baseline_is_called_that(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the default folder, and with a cache that cannot be written, which is a warning and no more."""
    file_in_the_way()
    monkeypatch.setenv("SOLVERSEARCH_CACHE", "taken/cache")
    for name, kept in (("SOLVERS", "unipc_2"), ("GRIDS", "logsnr")):  # what is best on validation noise is best on held-out noise
        monkeypatch.setattr(peers, name, {kept: getattr(peers, name)[kept]})
    nothing = ("--no-instant", "--no-fit", "--no-search", "--no-polish")
    result = call("optimize", "--model", f"{COINS}:factory", "--nfe", 3, "--samples", 128, *nothing)
    assert result.code == 0 and "is the best baseline itself" in result.out
    warned = [line for line in result.err.splitlines() if line.startswith("warning: ")]
    assert warned and "could not be cached" in warned[0] and "Traceback" not in result.err
    (folder,) = Path("runs").iterdir()
    assert re.fullmatch(r"python-.*coins\.py-factory-nfe3-g1", folder.name)
    plan = Plan.read(folder / "plan.json")
    assert plan.decisions["solver"] == "unipc_2" and plan.scores[0].endpoint_mse == plan.scores[1].endpoint_mse


def test_what_is_undecided_is_exported_as_the_person_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan is the only baseline there is: no sample can tell which of the two is better."""
    for name, kept in (("SOLVERS", "unipc_2"), ("GRIDS", "logsnr")):
        monkeypatch.setattr(peers, name, {kept: getattr(peers, name)[kept]})
    nothing = ("--no-instant", "--no-fit", "--no-search", "--no-polish", "--samples", 64, "--out", "run", "--overwrite")
    for undecided in ("baseline", "plan"):
        good("optimize", "--model", f"{COINS}:factory", "--nfe", 3, *nothing, "--undecided", undecided)
        comparison = Comparison.model_validate_json(Path("run/comparison.json").read_text())
        assert (comparison.verdict, comparison.exported) == ("undecided", undecided)
        assert ("baseline" in Plan.read("run/plan.json").decisions) == (undecided == "baseline")
        assert json.loads(Path("run/run.json").read_text())["settings"]["undecided"] == undecided
    assert "--undecided" in bad("optimize", "--model", "digits", "--nfe", 5, "--undecided", "best")


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
    "evaluations": (("--model", "digits", "--nfe", 5, "--evaluations", 0), "--evaluations: .*greater than or equal to 1, got 0"),
    "space": (("--model", "digits", "--nfe", 5, "--space", "s4"), r"unknown search space 's4'; did you mean 's4s'\?.*path of a YAML file"),
    "no such space": (("--model", "digits", "--nfe", 5, "--space", "my.yaml"), "my.yaml: cannot read the search space: No such file"),
    "objective": (("--model", "digits", "--nfe", 5, "--objective", "endpont"), "unknown objective 'endpont'; did you mean 'endpoint'"),
    "sum": (("--model", "digits", "--nfe", 5, "--objective", "endpoint - kid"), "cannot read the objective 'endpoint - kid'"),
    "features": (("--model", f"{COINS}:other_weights", "--nfe", 5, "--objective", "frechet"),
                 "'frechet' needs a feature network; model 'other' has none: add `features` to its factory, or choose another objective"),
    "several": (("--model", "digits", "--nfe", 5, "--space", "s3", "--objective", "endpoint,network_calls"),
                "strategy 's3' minimises one objective, got 2; for several there are: .*nsga2"),
    "own strategy": (("--model", "digits", "--nfe", 5, "--strategy", "nowhere:Mine"), "'nowhere:Mine': there is no module 'nowhere'"),
    "warm start": (("--model", f"{COINS}:factory", "--nfe", 5, "--space", "full", "--warm-start", "nowhere"),
                   "nowhere/evaluations.json: cannot read the evaluations of an earlier run"),
    "nothing to warm": (("--model", f"{COINS}:factory", "--nfe", 5, "--warm-start", "nowhere"),
                        "--warm-start: strategy 'tpe' has no predictor that could learn from it; choose --strategy s3"),
    "batch size": (("--model", "digits", "--nfe", 5, "--batch-size", 0), "--batch-size"),
    "seed": (("--model", "digits", "--nfe", 5, "--seed", -1), "--seed"),
    "too many whole timesteps": (("--model", "digits", "--nfe", 1001, "--integer"), "--nfe"),
    "start at nothing": (("--model", "digits", "--nfe", 5, "--start", 0), r"^--start: .*greater than 0, got 0\.0$"),
    "start before noise": (("--model", "digits", "--nfe", 5, "--start", 1.2), "--start: .*less than or equal to 1, got 1.2"),
    "hardly a start": (("--model", "digits", "--nfe", 5, "--start", 0.0005), "--start 0.0005 leaves nothing of the model's times"),
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


PLACES: dict[str, tuple[Callable[[], Path], str]] = {
    "a file": (file_in_the_way, "taken: a file is in the way"),
    "under a file": (lambda: file_in_the_way() / "run", "cannot (look|write) there"),
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
    assert last.startswith("error: interrupted after ") and "plan.json" in last and "--resume run" in last
    plan = Plan.read("run/plan.json")
    assert plan.nfe == 4 and "interrupted" in plan.decisions
    assert Path("run/journal.log").stat().st_size > 0
    assert "4 evaluations" in good("compare", "--plan", "run/plan.json", "--model", f"{COINS}:factory", "--samples", 128)
