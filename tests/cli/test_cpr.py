"""`solversearch cpr`: from the runs of a few configurations to a plan for one that was never searched."""

import json
import re
from functools import partial
from pathlib import Path

import pytest

import solversearch.judging.baselines as peers
from solversearch.cpr import Cpr
from solversearch.plan import Plan
from solversearch.search.fitting.compensation import greedy_ratios
from solversearch.search.stages import search
from tests.cli.calling import COINS, bad, good

MODEL = ("--model", f"{COINS}:factory")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Plans of DC-Solver, too small to be good; the first in a run folder."""
    folder = tmp_path_factory.mktemp("dc")
    with pytest.MonkeyPatch.context() as patch:
        for name, kept in (("SOLVERS", "ddim"), ("GRIDS", "logsnr")):  # a rival that does not win
            patch.setattr(peers, name, {kept: getattr(peers, name)[kept]})
        patch.setattr(search, "greedy_ratios", partial(greedy_ratios, iterations=2))
        cells = ("--nfe", "3,5", "--guidance", "1,2", "--evaluations", 3000, "--samples", 128)
        good("study", *MODEL, *cells, "--methods", "dc", "--out", folder)
    found = [folder / f"dc-nfe{nfe}-g{guidance}.json" for nfe in (3, 5) for guidance in (1, 2)]
    Plan.read(found[0]).write(folder / "run" / "plan.json")
    return [folder / "run", *found[1:]]


@pytest.fixture
def regression(runs: list[Path]) -> str:
    good("cpr", "fit", *runs, *MODEL, "--no-tune", "--out", "cpr.json")
    return "cpr.json"


def test_runs_are_regressed_and_a_plan_is_predicted_between_them(runs: list[Path], regression: str) -> None:
    fitted = Cpr.read(regression)
    assert (fitted.model, fitted.nfe, fitted.guidance, fitted.kind) == ("coins", (3, 5), (1.0, 2.0), "decisions")
    assert "compensation" in fitted.cascades
    assert [cell.plan for cell in fitted.cells] == [Plan.read(run / "plan.json" if run.is_dir() else run).digest for run in runs]
    assert good("cpr", "predict", regression, "--nfe", 4, "--guidance", 1.5, *MODEL, "--out", "new/plan.json") == "wrote new/plan.json\n"
    plan = Plan.read("new/plan.json")
    assert (plan.nfe, plan.guidance, plan.network_calls) == (4, 1.5, 8) and plan.decisions["cpr"] == fitted.digest
    assert plan.provenance.command.startswith("solversearch cpr predict cpr.json --nfe 4")
    assert "valid" in good("plan", "validate", "new/plan.json")
    told = json.loads(good("cpr", "predict", regression, "--nfe", 4, "--guidance", 1.5, *MODEL, "--out", "plan.json", "--json"))
    assert told == {"written": ["plan.json"], "nfe": 4, "digest": Plan.read("plan.json").digest}
    good("cpr", "predict", regression, "--nfe", 4, *MODEL, "--out", "own.json")
    assert Plan.read("own.json").guidance == 1  # the model's own
    compared = json.loads(good("compare", "--plan", "new/plan.json", *MODEL, "--samples", 128, "--json"))
    assert compared["nfe"] == 4 and compared["guidance"] == 1.5 and compared["ratios"][1]["value"] < 100  # of the mean


def test_the_left_out_error_is_said(regression: str) -> None:
    fitted = Cpr.read(regression)
    worst = max(fitted.cells, key=lambda cell: cell.left_out_times)
    assert f"the worst is NFE {worst.nfe}, guidance {worst.guidance:g}" in fitted.left_out
    rms = (sum(cell.left_out_times**2 for cell in fitted.cells) / 4) ** 0.5
    assert f"miss its times by {rms:.2g} (as positions)" in fitted.left_out
    poor = fitted.cells[0].model_copy(update={"ratio": 5.4})
    assert fitted.replaced(fitted.cascades, (poor, *fitted.cells[1:])).left_out.endswith(
        f"; at NFE {poor.nfe}, guidance {poor.guidance:g} its plan has 5.4 times the error of the one given"
    )


def test_the_fit_is_shown(runs: list[Path]) -> None:
    printed = good("cpr", "fit", *runs, *MODEL, "--no-tune")
    assert "coins: NFE 3 .. 5, guidance 1 .. 2" in printed and printed.endswith("wrote cpr.json\n")
    assert "\nEach of 4 configurations left out, the others miss its times by " in printed
    rows = [re.findall(r"[^│ ]+", line)[:2] for line in printed.splitlines() if re.match(r"│ .*[35]\b", line)]
    assert len(rows) == 4, printed
    written = json.loads(good("cpr", "fit", *runs, *MODEL, "--no-tune", "--json"))
    assert written == json.loads(Path("cpr.json").read_text()) and written["format"] == "solversearch-cpr"


@pytest.mark.parametrize(
    ("nfe", "guidance", "message"),
    [
        (6, 1.5, r"--nfe 6 is outside the fitted range 3 \.\. 5; the regression does not extrapolate"),
        (2, 1.5, r"--nfe 2 is outside the fitted range 3 \.\. 5"),
        (4, 2.5, r"--guidance 2\.5 is outside the fitted range 1 \.\. 2"),
        (4, "nan", "--guidance nan is outside"),
        (0, 1, "--nfe"),
    ],
)
def test_it_does_not_extrapolate(regression: str, nfe: int, guidance: object, message: str) -> None:
    assert re.search(message, bad("cpr", "predict", regression, "--nfe", nfe, "--guidance", guidance, *MODEL))
    assert not Path("plan.json").exists()


def test_what_cannot_be_regressed_is_one_line(runs: list[Path]) -> None:
    assert "at least 3 configurations" in bad("cpr", "fit", runs[0], *MODEL)
    assert "through two goes a line" in bad("cpr", "fit", *runs[:2], *MODEL)
    assert "two plans are for NFE 3 and guidance 1" in bad("cpr", "fit", runs[0], runs[0] / "plan.json", *MODEL)
    assert "other weights" in bad("cpr", "fit", *runs, "--model", f"{COINS}:other_weights")
    assert "the file is of model 'coins', which is none of the package's" in bad("cpr", "fit", *runs)
    assert "nowhere: cannot read the plan" in bad("cpr", "fit", "nowhere", runs[0], *MODEL)
    assert "it is a folder" in bad("cpr", "fit", *runs, *MODEL, "--out", ".")
    assert not Path("cpr.json").exists()


def test_what_cannot_be_predicted_is_one_line(regression: str) -> None:
    arguments = ("--nfe", 4, "--guidance", 2)
    assert "other weights" in bad("cpr", "predict", regression, *arguments, "--model", f"{COINS}:other_weights")
    assert "that is the regression itself" in bad("cpr", "predict", regression, *arguments, *MODEL, "--out", regression)
    assert "cannot read the regression" in bad("cpr", "predict", "nowhere.json", *arguments, *MODEL)
    text = Path(regression).read_text()
    Path(regression).write_text(text.replace('"coins"', '"coin"'))
    assert "the digest does not match" in bad("cpr", "predict", regression, *arguments, *MODEL)
